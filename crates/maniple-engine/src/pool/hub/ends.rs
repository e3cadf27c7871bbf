//! The ends of jobs of one task, reported in batches.
//!
//! A front that hands out a future for each task has to complete it as soon as the task has ended, although no thread
//! waits for that future. One notice and one wake-up for each task would cost more than the task. So after
//! [`Hub::gather_ends`] the ends are gathered, and one thread takes all of them at once with [`Hub::take_ends`]:
//! * the *collector*, a thread that waits for a future. It drives the hub meanwhile, and there is at most one;
//! * the keeper, while no thread collects. It is woken once until the ends are taken, however many arrive.

use super::ticket::wait_on;
use super::{Hub, State};
use crate::error::{Error, Result};
use crate::pool::job::{Cell as Ready, Settled};
use crate::pool::scheduler::JobId;
use maniple_sys::clock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::ThreadId;
use std::time::Instant;

/// The ends that no thread has taken yet.
#[derive(Debug, Default)]
pub(in crate::pool) struct Ends {
    gathered: bool,
    list: VecDeque<JobId>,
    // Ready while the list is not empty. The collector sleeps on it.
    cell: Arc<Ready>,
    // The thread that collects, and how often: a signal handler that interrupts it may wait for a future as well.
    collector: Option<(ThreadId, usize)>,
    // The keeper was woken for the list, or polls, and has not taken it yet.
    told: bool,
}

impl Ends {
    /// Whether all ends were taken.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first end, if the keeper's front has to take the list.
    pub fn first(&self) -> Option<JobId> {
        if self.is_collected() { None } else { self.list.front().copied() }
    }

    fn is_collected(&self) -> bool {
        self.collector.is_some()
    }

    /// Makes the calling thread the collector. Returns false if another thread collects.
    fn collect(&mut self) -> bool {
        let me = std::thread::current().id();
        let (thread, times) = self.collector.get_or_insert((me, 0));
        if *thread != me {
            return false;
        }
        *times += 1;
        true
    }

    /// The calling thread stops. Returns whether the keeper has to be woken.
    fn stop_collecting(&mut self) -> bool {
        self.collector = self.collector.and_then(|(thread, times)| (times > 1).then(|| (thread, times - 1)));
        let untold = self.is_untold();
        self.told |= untold;
        untold
    }

    /// Whether the keeper has to be woken for the list.
    pub fn is_untold(&self) -> bool {
        !self.told && self.first().is_some()
    }
}

impl State {
    /// Records the end of a job that is reported to the front. Returns whether the keeper has to be woken.
    pub(super) fn report_end(&mut self, job: JobId) -> bool {
        if !self.ends.gathered {
            self.notices.push_back(job);
            return true;
        }
        let polled = self.burst.polled;
        let ends = &mut self.ends;
        ends.list.push_back(job);
        ends.cell.set_ready(true);
        if ends.is_collected() {
            // A thread sleeps there, not a future.
            let _ = ends.cell.call();
            return false;
        }
        !std::mem::replace(&mut ends.told, true) && !polled
    }
}

impl Hub {
    /// From now on, the ends of jobs with `notify` are gathered. Each of these jobs has one task, and no user of its
    /// ticket: [`Ticket::into_job`](super::Ticket::into_job).
    pub fn gather_ends(&self) {
        self.lock().ends.gathered = true;
    }

    /// Takes the gathered ends. The hub forgets these jobs.
    pub fn take_ends(&self) -> Vec<(JobId, Settled)> {
        let mut st = self.lock();
        st.ends.told = false;
        st.ends.cell.set_ready(false);
        let list = std::mem::take(&mut st.ends.list);
        let mut taken = Vec::with_capacity(list.len());
        for job in list {
            // Nothing of the front is left in an ended job without its outcome.
            let settled = st.jobs.remove(&job).and_then(|mut ended| ended.take(1).pop());
            taken.extend(settled.map(|settled| (job, settled)));
        }
        if st.has_chores(clock::now()) {
            // The pool may end now.
            self.shared().kick.kick();
        }
        taken
    }

    /// Makes the calling thread the collector. `None`: another thread collects.
    pub fn collect(&self) -> Option<Collector<'_>> {
        self.lock().ends.collect().then(|| Collector { hub: self, collects: AtomicBool::new(true) })
    }

    /// Withdraws jobs whose tasks no worker has begun. Returns those that are withdrawn: their ends are not reported.
    pub fn withdraw(&self, jobs: &[JobId]) -> Vec<JobId> {
        if self.is_foreign() {
            return Vec::new();
        }
        let mut st = self.lock();
        let open: Vec<JobId> = jobs.iter().copied().filter(|job| st.is_open(*job)).collect();
        self.withdraw_open(&mut st, open)
    }

    /// Withdraws the jobs of a list, oldest first, as `withdraw` does, but keeps the oldest of those that no worker has
    /// begun, until `running` workers have a task to run.
    pub fn withdraw_but(&self, jobs: &[JobId], running: usize) -> Vec<JobId> {
        if self.is_foreign() {
            return Vec::new();
        }
        self.poll();
        let mut st = self.lock();
        let (begun, busy) = st.begun();
        let waiting = jobs.iter().copied().filter(|job| st.is_open(*job) && !begun.contains(job));
        let withdrawn = waiting.skip(running.saturating_sub(busy)).collect();
        self.withdraw_open(&mut st, withdrawn)
    }

    /// Withdraws jobs that have not ended.
    fn withdraw_open(&self, st: &mut State, open: Vec<JobId>) -> Vec<JobId> {
        let inner = self.shared();
        for &job in &open {
            st.sched.cancel(job);
        }
        inner.advance(st);
        // Without listening, a job can have ended in no other way.
        let withdrawn: Vec<JobId> =
            open.into_iter().filter(|job| st.jobs.get(job).is_some_and(|job| job.ended)).collect();
        for job in &withdrawn {
            st.jobs.remove(job);
        }
        let State { ends, jobs, .. } = st;
        ends.list.retain(|job| jobs.contains_key(job));
        let some = !ends.list.is_empty();
        ends.cell.set_ready(some);
        inner.stir(st);
        let driven = st.seats.is_taken();
        inner.settle_down(st, driven);
        withdrawn
    }

    /// Makes the collector return: another thread may have completed the future for which it waits.
    pub fn call_collector(&self) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        if !st.ends.is_collected() {
            return;
        }
        st.ends.cell.set_ready(true);
        // A thread sleeps there, not a future.
        let _ = st.ends.cell.call();
        st.called = true;
        self.shared().stir(&mut st);
    }

    /// Returns whether a worker has begun the task of a job, as far as is known without its end.
    pub fn has_begun(&self, job: JobId) -> bool {
        !self.is_foreign() && self.lock().begun().0.contains(&job)
    }
}

impl State {
    fn is_open(&self, job: JobId) -> bool {
        self.jobs.get(&job).is_some_and(|job| !job.ended)
    }

    /// Returns the jobs whose task a worker has begun, as far as is known without its end, and the number of workers
    /// that run one. A worker whose answers were not received yet may have begun several tasks.
    fn begun(&self) -> (Vec<JobId>, usize) {
        let (mut jobs, mut workers) = (Vec::new(), 0);
        for (worker, slot) in &self.slots {
            let before = jobs.len();
            let claimed = self.sched.assigned(worker).filter(|task| slot.link.claimed(task.payload.position));
            jobs.extend(claimed.map(|task| task.job));
            workers += usize::from(jobs.len() > before);
        }
        (jobs, workers)
    }
}

/// The right to take the gathered ends, and the duty of it.
#[derive(Debug)]
pub struct Collector<'h> {
    hub: &'h Hub,
    collects: AtomicBool,
}

impl Collector<'_> {
    /// Waits until there are ends to take, and drives the hub meanwhile. It calls `interrupted` when a signal handler
    /// may have run. Meanwhile others collect, because the handler may wait for a future, or for a thread that waits for one. So
    /// the wait ends then, with an error if `interrupted` returns false; the caller looks at its future, and whether it still
    /// [`collects`](Self::collects). Returns false if the deadline has passed.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or [`Error::Foreign`] in a forked child.
    pub fn wait(&self, deadline: Option<Instant>, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
        self.hub.check()?;
        let cell = self.hub.lock().ends.cell.clone();
        let mut is_interrupted = false;
        let waited = wait_on(self.hub, &cell, deadline, &mut || {
            self.stop();
            is_interrupted = !interrupted();
            if !is_interrupted && !self.hub.is_foreign() {
                self.collects.store(self.hub.lock().ends.collect(), Relaxed);
            }
            // Others may have taken the ends meanwhile.
            false
        });
        match waited {
            Err(Error::Interrupted) if !is_interrupted => Ok(true),
            waited => waited,
        }
    }

    /// Whether the calling thread still collects.
    pub fn collects(&self) -> bool {
        self.collects.load(Relaxed)
    }

    fn stop(&self) {
        if !self.collects.swap(false, Relaxed) || self.hub.is_foreign() {
            return;
        }
        let untold = self.hub.lock().ends.stop_collecting();
        if untold {
            self.hub.shared().kick.kick();
        }
    }
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chore;
    use super::*;
    use crate::pool::packet::Packet;
    use crate::pool::spec::{Collect, JobSpec, SourceKind};
    use crate::pool::{Chunk, EndTerms, HubConfig, Outcome};
    use std::time::Duration;

    fn hub() -> Hub {
        let hub = Hub::new(HubConfig {
            processes: 1,
            max_tasks_per_child: None,
            tap_stderr: false,
            limits: crate::pool::WorkerLimits::default(),
            size: crate::pool::Size::default(),
        })
        .unwrap();
        hub.gather_ends();
        hub
    }

    fn submit(hub: &Hub) -> JobId {
        let func = hub.define(Packet::default());
        let (collect, chunk) = (Collect::All, Chunk::Fixed(1));
        let spec = JobSpec { func, collect, chunk, items: Some(1), window: None, notify: true, terms: None };
        hub.submit(spec, SourceKind::Ready(vec![(1, Packet::default())])).unwrap().into_job()
    }

    #[test]
    fn a_withdrawn_job_is_not_reported_and_is_withdrawn_once() {
        let hub = hub();
        let jobs: Vec<JobId> = (0..5).map(|_| submit(&hub)).collect();
        assert_eq!(hub.withdraw(&jobs[..2]), jobs[..2]);
        assert_eq!(hub.withdraw(&jobs[1..3]), jobs[2..3]);
        assert!(!hub.has_begun(jobs[3]));
        assert!(hub.take_ends().is_empty());
        assert_eq!(hub.withdraw_but(&jobs, 1), jobs[4..]);
        assert_eq!(hub.withdraw(&jobs), jobs[3..4]);
    }

    #[test]
    fn the_ends_of_a_terminated_pool_are_taken_at_once() {
        let hub = hub();
        let jobs: Vec<JobId> = (0..3).map(|_| submit(&hub)).collect();
        hub.terminate(EndTerms::asking(false, false));
        assert!(matches!(hub.keep(Duration::ZERO), Chore::Completed(first) if jobs.contains(&first)));
        let mut taken: Vec<JobId> = Vec::new();
        for (job, settled) in hub.take_ends() {
            assert!(matches!(settled.outcome, Outcome::Terminated));
            taken.push(job);
        }
        taken.sort();
        assert_eq!(taken, jobs);
        assert!(matches!(hub.keep(Duration::ZERO), Chore::Done));
    }

    #[test]
    fn one_thread_collects_and_the_keeper_takes_over_after_it() {
        let hub = hub();
        submit(&hub);
        let collector = hub.collect().unwrap();
        std::thread::scope(|scope| assert!(scope.spawn(|| hub.collect().is_none()).join().unwrap()));
        hub.terminate(EndTerms::asking(false, false));
        assert!(collector.wait(None, &mut || true).unwrap());
        assert!(!matches!(hub.keep(Duration::ZERO), Chore::Completed(_) | Chore::Done));
        drop(collector);
        assert!(matches!(hub.keep(Duration::ZERO), Chore::Completed(_)));
        assert_eq!(hub.take_ends().len(), 1);
        assert!(hub.collect().is_some());
    }

    #[test]
    fn a_signal_handler_that_interrupts_the_collector_collects_as_well() {
        let hub = hub();
        submit(&hub);
        let collector = hub.collect().unwrap();
        drop(hub.collect().unwrap());
        assert!(collector.collects() && hub.lock().ends.is_collected());
        // While the handler runs, another thread may collect, and keeps the right.
        let (taken, release) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        let (hub, taken, release) = (&hub, &taken, &release);
        std::thread::scope(|scope| {
            let mut hook = || {
                assert!(!hub.lock().ends.is_collected());
                scope.spawn(move || {
                    let other = hub.collect().unwrap();
                    taken.wait();
                    release.wait();
                    drop(other);
                });
                taken.wait();
                true
            };
            assert!(collector.wait(None, &mut hook).unwrap());
            assert!(!collector.collects());
            drop(collector);
            assert!(hub.lock().ends.is_collected());
            release.wait();
        });
        assert!(!hub.lock().ends.is_collected());
    }

    #[test]
    fn the_collector_returns_when_another_thread_calls_it() {
        let hub = hub();
        submit(&hub);
        let collector = hub.collect().unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| collector.wait(None, &mut || true).unwrap());
            hub.call_collector();
            assert!(waiter.join().unwrap());
        });
    }
}
