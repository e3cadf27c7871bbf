//! The options of a builder that are set, as text for people.

use super::PoolBuilder;
use crate::pool::CallOptions;
use maniple_engine::pool::WorkerLimits;
use std::fmt;

/// Shows the options that are set, and of environment variables only the names.
impl fmt::Debug for PoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn set<T: fmt::Debug>(option: Option<&T>) -> Option<&dyn fmt::Debug> {
            option.map(|set| set as _)
        }
        let WorkerLimits { start, memory, recycle } = &self.limits;
        let calls = Some(&self.calls).filter(|calls| **calls != CallOptions::new());
        let names: Vec<_> = self.around.environment.iter().map(|(name, _)| name).collect();
        let (least, idle, spares) = self.size.given();
        let mut shown = f.debug_struct("PoolBuilder");
        for (name, value) in [
            ("processes", set(self.processes.as_ref())),
            ("max_tasks_per_child", set(self.max_tasks.as_ref())),
            ("program", set(self.program.as_ref())),
            ("calls", set(calls)),
            ("worker_init_timeout", set(start.as_ref())),
            ("memory_limit", set(memory.as_ref())),
            ("max_rss_per_worker", set(recycle.as_ref())),
            ("min_processes", set(least.as_ref())),
            ("idle_timeout", set(idle.as_ref())),
            ("spare_workers", set(spares.as_ref())),
            ("env", set(Some(&names).filter(|names| !names.is_empty()))),
            ("current_dir", set(self.around.folder.as_ref())),
            ("threads_per_worker", set(self.threads.as_ref())),
            ("affinity", set(self.affinity.as_ref())),
        ] {
            if let Some(value) = value {
                shown.field(name, value);
            }
        }
        shown.finish_non_exhaustive()
    }
}
