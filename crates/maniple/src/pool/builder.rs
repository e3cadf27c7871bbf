//! The options of a pool.

mod debug;
mod process;
mod size;

use self::size::Size;
pub(super) use self::size::check_size;
use super::{Affinity, CallOptions, Pool, Retries, Shared, Workers, keeper};
use crate::call::{self, Call, Plain};
use crate::chunk::Output;
use crate::error::{Error, Result, SystemError};
use crate::payload::Payload;
use crate::process::cpu_count;
use crate::startup::{self, StartMethod};
use crate::surroundings::Surroundings;
use crate::worker;
use crate::worker_setup;
use maniple_engine::pool::{Hub, HubConfig, WorkerLimits};
use maniple_sys::process as system;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Builds a [`Pool`]; see [`Pool::builder`].
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let builder = maniple::Pool::builder().processes(2).max_tasks_per_child(100);
/// let pool = builder.build()?;
/// assert_eq!(pool.map(i32::abs, [-1, 1])?, [1, 1]);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct PoolBuilder {
    processes: Option<usize>,
    max_tasks: Option<u64>,
    pub(super) method: StartMethod,
    initializer: OwnCall,
    finalizer: OwnCall,
    program: Option<PathBuf>,
    calls: CallOptions,
    limits: WorkerLimits,
    size: Size,
    around: Surroundings,
    threads: Option<usize>,
    affinity: Option<Affinity>,
}

/// Writes a call that each worker makes for itself, once it is known whether it is for another program.
#[derive(Default)]
struct OwnCall(Option<Box<dyn FnOnce(bool) -> Result<worker_setup::OwnCall> + Send>>);

impl OwnCall {
    fn new<A: Payload>(function: fn(A), arguments: A) -> OwnCall {
        OwnCall(Some(Box::new(move |elsewhere| {
            let mut output = Output::with_handles();
            match elsewhere {
                false => call::send(&Plain(function), &mut output)?,
                true => Plain(function).send_name(&mut output)?,
            }
            output.begin_chunk();
            output.part(&arguments)?;
            Ok(worker_setup::OwnCall { bytes: output.bytes().to_vec(), handles: output.take_handles() })
        })))
    }

    fn write(self, elsewhere: bool) -> Result<worker_setup::OwnCall> {
        self.0.map_or_else(|| Ok(worker_setup::OwnCall::default()), |write| write(elsewhere))
    }
}

impl PoolBuilder {
    pub(super) fn new() -> PoolBuilder {
        PoolBuilder {
            processes: None,
            max_tasks: None,
            method: StartMethod::default(),
            initializer: OwnCall::default(),
            finalizer: OwnCall::default(),
            program: None,
            calls: CallOptions::new(),
            limits: WorkerLimits { start: None, memory: None, recycle: None },
            size: Size::default(),
            around: Surroundings::default(),
            threads: None,
            affinity: None,
        }
    }

    /// Sets the number of workers. The default is the number of processors that this process may use; with a
    /// [`memory_limit`](PoolBuilder::memory_limit) at most as many as the memory of the control group allows.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(2).build()?;
    /// assert_eq!(pool.pids().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn processes(mut self, processes: usize) -> PoolBuilder {
        self.processes = Some(processes);
        self
    }

    /// Sets a function that each worker calls once, before its first task. By default there is none. If the function panics, the worker cannot be
    /// used. If it panics in every worker, every call returns
    /// [`CallError::Initializer`](crate::CallError::Initializer). Descriptors in its argument stay open in this
    /// process, for later workers, as long as the pool exists.
    ///
    /// ```
    /// use std::sync::OnceLock;
    ///
    /// static GREETING: OnceLock<String> = OnceLock::new();
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder()
    ///     .processes(2)
    ///     .initializer(|greeting| GREETING.set(greeting).unwrap(), "hello".to_string())
    ///     .build()?;
    /// let told = pool.map(|name: String| format!("{} {name}", GREETING.get().unwrap()), ["you".into()])?;
    /// assert_eq!(told, ["hello you"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn initializer<A: Payload>(mut self, function: fn(A), arguments: A) -> PoolBuilder {
        self.initializer = OwnCall::new(function, arguments);
        self
    }

    /// Sets the number of tasks (chunks of items) after which a worker ends and a new worker replaces it. By default a
    /// worker lives as long as the pool.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).max_tasks_per_child(1).build()?;
    /// let pid = || pool.apply(|()| std::process::id(), ());
    /// assert_ne!(pid()?, pid()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_tasks_per_child(mut self, tasks: u64) -> PoolBuilder {
        self.max_tasks = Some(tasks);
        self
    }

    /// Sets the program that workers run. The default is this program. Another program must be an executable that links
    /// this crate, and that calls [`init`](crate::init()) first in `main` if it is built without the feature `auto-init`.
    /// Functions are then called by the names under which they are registered in that program. So they must be
    /// [tasks](macro@crate::task) of this program as well, or be called by name ([`Pool::apply_named`],
    /// [`Pool::map_named`]).
    ///
    /// ```
    /// #[maniple::task(name = "twice")]
    /// fn twice(text: String) -> String {
    ///     text.repeat(2)
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let other_program = std::env::current_exe()?;
    /// let pool = maniple::Pool::builder().processes(1).program(other_program).build()?;
    /// assert_eq!(pool.apply(twice, "ab".into())?, "abab");
    /// # Ok(())
    /// # }
    /// ```
    pub fn program(mut self, path: impl Into<PathBuf>) -> PoolBuilder {
        self.program = Some(path.into());
        self
    }

    /// Sets how workers are started. The default is [`StartMethod::Spawn`].
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(2).start_method(maniple::StartMethod::ForkServer).build()?;
    /// assert_eq!(pool.map(i32::abs, [-1, 1])?, [1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> PoolBuilder {
        self.method = method;
        self
    }

    /// Sets how long a task may run, for all calls that do not set [`CallOptions::task_timeout`]. By default there is no
    /// limit.
    ///
    /// ```
    /// use maniple::{CallOptions, Error, Pool};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::builder().processes(1).task_timeout(Duration::from_millis(100)).build()?;
    /// let nap = |ms| std::thread::sleep(Duration::from_millis(ms));
    /// assert!(matches!(pool.apply(nap, 60_000), Err(Error::TaskTimeout(_))));
    /// pool.with(CallOptions::new().task_timeout(Duration::MAX)).apply(nap, 200)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn task_timeout(mut self, limit: Duration) -> PoolBuilder {
        self.calls = self.calls.task_timeout(limit);
        self
    }

    /// Sets how often failed tasks are tried again, for all calls that do not set [`CallOptions::retries`]. By default
    /// no task is run twice.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).retries(2).build()?;
    /// assert_eq!(pool.map(i32::abs, [-1, 1])?, [1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retries(mut self, retries: impl Into<Retries>) -> PoolBuilder {
        self.calls = self.calls.retries(retries);
        self
    }

    /// Sets the priority of all calls that do not set [`CallOptions::priority`]. Tasks with a lower number go first. The
    /// default is 0.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::builder().processes(1).priority(5).build()?;
    /// let many = pool.map_async(i32::abs, 0..1000)?;
    /// assert_eq!(pool.with(CallOptions::new().priority(0)).apply(i32::abs, -1)?, 1);
    /// # assert_eq!(many.get()?.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn priority(mut self, priority: i32) -> PoolBuilder {
        self.calls = self.calls.priority(priority);
        self
    }

    /// Sets how long a worker may take from its start until it is ready, its initializer included. A worker that takes
    /// longer is ended, and another worker takes its place. If worker after worker takes too long, every call returns
    /// [`ProcessError::Start`](crate::ProcessError::Start). By default there is no limit.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder()
    ///     .processes(1)
    ///     .initializer(|()| loop { std::thread::park() }, ())
    ///     .worker_init_timeout(Duration::from_millis(50))
    ///     .build()?;
    /// let error = pool.apply(i32::abs, -1).unwrap_err();
    /// assert!(error.to_string().contains("worker_init_timeout of 50ms"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn worker_init_timeout(mut self, limit: Duration) -> PoolBuilder {
        self.limits.start = Some(limit);
        self
    }

    /// Sets how many bytes of memory each worker may use. A worker that uses more is ended with its task, which fails
    /// with [`Error::MemoryLimit`]; a new worker takes its place. By default there is no limit. The least
    /// limit is 1,000,000.
    ///
    /// The pool looks at the resident memory of busy workers every 20 milliseconds, so a worker may use more for a short
    /// time. Where the system lets the pool make control groups, a group stops a worker at 64 MiB beyond the limit, and
    /// the processes that a task starts count as well. Files and shared memory do not count.
    ///
    /// ```
    /// use maniple::{Error, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::builder().processes(1).memory_limit(50_000_000).build()?;
    /// let large = pool.apply(|bytes| { let _held = vec![1u8; bytes]; std::thread::park() }, 100_000_000);
    /// assert!(matches!(large, Err(Error::MemoryLimit(_))));
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> PoolBuilder {
        self.limits.memory = Some(bytes);
        self
    }

    /// Sets how many bytes of memory a worker may use before a new worker replaces it after its task. No task fails. By
    /// default there is no such limit.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).max_rss_per_worker(500_000_000).build()?;
    /// assert_eq!(pool.map(i32::abs, [-1, 1])?, [1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_rss_per_worker(mut self, bytes: u64) -> PoolBuilder {
        self.limits.recycle = Some(bytes);
        self
    }

    /// Checks the limits of workers.
    fn limits(&self) -> Result<WorkerLimits> {
        let WorkerLimits { start, memory, recycle } = self.limits;
        for (is_zero, why) in [
            (start == Some(Duration::ZERO), "a worker_init_timeout of 0; use a longer time, or leave the option out"),
            (
                memory.is_some_and(|bytes| bytes < LEAST_MEMORY),
                "a memory_limit below 1 MB, with which no task would end; use more, or leave the option out",
            ),
            (recycle == Some(0), "a max_rss_per_worker of 0 bytes; use 1 or more, or leave the option out"),
        ] {
            if is_zero {
                return Err(Error::InvalidArgument(why));
            }
        }
        if (memory.is_some() || recycle.is_some()) && system::usage::memory_of(std::process::id()).is_none() {
            return Err(Error::System(SystemError::doing(
                "watch the memory of workers, which the system does not tell (is /proc mounted?)",
                std::io::ErrorKind::Unsupported.into(),
            )));
        }
        Ok(self.limits)
    }

    /// Starts the workers.
    ///
    /// ```
    /// use maniple::{Error, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// assert_eq!(Pool::builder().processes(1).build()?.apply(i32::abs, -1)?, 1);
    /// assert!(matches!(Pool::builder().processes(0).build(), Err(Error::InvalidArgument(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 workers or 0 tasks, for limits of 0, and for what each option refuses;
    /// [`Error::System`] for a limit of memory if the system does not tell how much a process uses, and for a working
    /// directory that is none; [`ProcessError::Start`](crate::ProcessError::Start) when a worker cannot be started, or for more
    /// workers than a limit of the system allows; and the errors of sending the initializer and the finalizer.
    pub fn build(mut self) -> Result<Pool> {
        let processes = match self.processes {
            Some(processes) => processes,
            None => default_processes(self.limits.memory),
        };
        let none = Error::InvalidArgument(
            "workers that end after 0 tasks; set max_tasks_per_child to 1 or more, or leave it out",
        );
        let max_tasks_per_child = match self.max_tasks {
            Some(tasks) => Some(NonZeroU64::new(tasks).ok_or(none)?),
            None => None,
        };
        let limits = self.limits()?;
        self.calls.resolve()?;
        let size = self.size.resolve(self.calls.has_time_limit(), self.affinity.is_some())?;
        check_size(processes, size, None)?;
        let (around, affinity) = (self.surroundings()?, self.processors()?);
        startup::check(self.program.as_deref())?;
        let elsewhere = self.program.is_some();
        let (initializer, finalizer) = (self.initializer.write(elsewhere)?, self.finalizer.write(elsewhere)?);
        let hub = Hub::new(HubConfig { processes, max_tasks_per_child, tap_stderr: worker::TAPPED, limits, size })?;
        let workers = Workers { initializer, finalizer, around, affinity, size };
        let shared = Arc::new(Shared::new(hub, self.method, workers, self.program));
        let pool = Pool { shared: shared.clone(), options: self.calls, owner: true };
        shared.start_all()?;
        keeper::start(&shared)?;
        Ok(pool)
    }
}

/// The least `memory_limit`: no process runs a task with less.
const LEAST_MEMORY: u64 = 1_000_000;

/// The number of processors, and with a limit of memory at most as many workers as the control group has memory for.
fn default_processes(memory_limit: Option<u64>) -> usize {
    let processors = cpu_count();
    let fitting = memory_limit.zip(system::limits::most_memory()).and_then(|(each, all)| all.checked_div(each));
    fitting.map_or(processors, |most| processors.min(usize::try_from(most).unwrap_or(usize::MAX)).max(1))
}
