//! Time limits: of running tasks, and of workers that do not become ready.
//!
//! A limit counts from when the task began, which its worker reports in shared memory. The caller passes that report to
//! [`Scheduler::runs`] before it calls `plan`. A task that is not known to have begun cannot exceed its limit before it
//! would do so if it began now, so the next check is due then.

use super::*;

/// In place of a task's number: the worker was not ready in time, and its end was requested.
const UNREADY: u64 = u64::MAX;

impl<P> Scheduler<P> {
    /// Whether any task may have a limit, so that [`runs`](Self::runs) has to be called.
    pub fn has_limits(&self) -> bool {
        self.limited > 0
    }

    /// The worker reports that it runs the task with this number since `began`.
    pub fn runs(&mut self, worker: WorkerId, number: u64, began: u64, now: u64) {
        let Some(w) = self.workers.get_mut(worker) else { return };
        if w.assigned.front().is_some_and(|task| task.number == number) && w.running.0 != number {
            w.running = (number, began.min(now));
        }
    }

    /// The terms of a task that a worker has, if there are any.
    pub fn terms_of(&self, worker: WorkerId, number: u64) -> Option<Terms> {
        let w = self.workers.get(worker)?;
        self.jobs.get(w.assigned[w.place(number)?].job)?.shape.terms.as_deref().copied()
    }

    /// How long (ns) a worker has run its task, if that is known.
    pub fn ran_for(&self, worker: WorkerId, now: u64) -> Option<u64> {
        let w = self.workers.get(worker)?;
        let task = w.assigned.front()?;
        (w.running.0 == task.number).then(|| now.saturating_sub(w.running.1))
    }

    /// Replaces a worker after its present tasks.
    pub fn recycle(&mut self, worker: WorkerId) {
        if let Some(w) = self.workers.get_mut(worker).filter(|w| w.phase == Phase::Up) {
            w.phase = Phase::Retiring;
            self.commands.push(Command::Retire(worker));
        }
    }

    /// The caller ends this worker, and has revoked all of its tasks but the oldest.
    pub fn doomed(&mut self, worker: WorkerId) {
        if let Some(w) = self.workers.get_mut(worker) {
            w.doomed = true;
            if w.phase == Phase::Up {
                w.phase = Phase::Retiring;
            }
        }
    }

    /// Requests the ends and interruptions that are due.
    pub(super) fn enforce_limits(&mut self, now: u64) {
        if let Some(limit) = self.config.start_limit {
            for (id, w) in self.workers.iter_mut().filter(|(_, w)| w.is_awaited()) {
                if w.adopted.is_some_and(|at| now >= at.saturating_add(limit)) {
                    w.overdue = UNREADY;
                    self.commands.push(Command::Unready(id));
                }
            }
        }
        if self.limited == 0 {
            return;
        }
        for (worker, w) in self.workers.iter_mut().filter(|(_, w)| !w.doomed) {
            let Some((number, began, terms)) = w.runs_under(&self.jobs) else { continue };
            let Some(began) = began else { continue };
            let exceeds = |limit: Option<u64>| limit.is_some_and(|limit| now >= began.saturating_add(limit));
            if exceeds(terms.limit) {
                if w.overdue != number {
                    w.overdue = number;
                    self.commands.push(Command::Overdue { worker, number });
                }
            } else if exceeds(terms.soft_limit) && w.interrupted != number {
                w.interrupted = number;
                self.commands.push(Command::Interrupt { worker, number });
            }
        }
    }

    /// When the next limit may expire.
    pub fn next_deadline(&self, now: u64) -> Option<u64> {
        let start = self.config.start_limit.and_then(|limit| {
            let starting = self.workers.values().filter(|w| w.is_awaited());
            starting.filter_map(|w| Some(w.adopted?.saturating_add(limit))).min()
        });
        if self.limited == 0 {
            return start;
        }
        let ends = self.workers.values().filter(|w| !w.doomed).filter_map(|w| {
            let (number, began, terms) = w.runs_under(&self.jobs)?;
            let hard = terms.limit.filter(|_| w.overdue != number);
            let soft = terms.soft_limit.filter(|_| w.interrupted != number);
            Some(began.unwrap_or(now).saturating_add(hard.into_iter().chain(soft).min()?))
        });
        ends.chain(start).min()
    }
}

impl<P> Worker<P> {
    /// Whether it may still become ready in time.
    fn is_awaited(&self) -> bool {
        !self.greeted && self.overdue != UNREADY
    }

    /// The number of the oldest task, when it began if that is known, and its terms, if there are any.
    fn runs_under<'j>(&self, jobs: &'j SlotMap<JobId, Job<P>>) -> Option<(u64, Option<u64>, &'j Terms)> {
        let task = self.assigned.front()?;
        let terms = jobs.get(task.job)?.shape.terms.as_deref()?;
        let began = (self.running.0 == task.number).then_some(self.running.1);
        Some((task.number, began, terms))
    }
}

impl<P> Job<P> {
    pub(super) fn is_limited(&self) -> bool {
        self.shape.terms.as_ref().is_some_and(|terms| terms.limit.is_some() || terms.soft_limit.is_some())
    }
}
