//! Tasks that are tried again after a failure.

use super::*;

impl<P> Scheduler<P> {
    /// The worker's task with this number failed with an error for which its caller wants another try. Returns its job,
    /// number in the job and items, and whether it is tried again; otherwise it counts as `how`. `None` as for [`finished`](Self::finished). `whole`
    /// tells whether it can be sent again.
    pub fn failed(
        &mut self,
        worker: WorkerId,
        number: u64,
        took: Took,
        how: Answered,
        now: u64,
        whole: impl FnOnce(&P) -> bool,
    ) -> Option<((JobId, u64, usize), bool)> {
        let task = self.take_finished(worker, number, took, now)?;
        let whose = (task.job, task.index, task.items);
        let pause = self.retries_of(task.job).and_then(|retries| retries.pause(u32::from(task.tries) + 1));
        match pause.filter(|_| whole(&task.payload)) {
            Some(pause) => {
                self.tally.retried += 1;
                self.try_again(task, now.saturating_add(pause));
            }
            None => {
                self.tally.end(task.items, how);
                self.settle(task.job);
                return Some((whose, false));
            }
        }
        Some((whose, true))
    }

    /// The retries of a job that may still begin tasks. A pool that gets no further worker tries nothing again.
    fn retries_of(&self, job: JobId) -> Option<Retries> {
        let j = self.jobs.get(job).filter(|j| !j.cancelled)?;
        let runs = matches!(self.state, State::Running | State::Closing) && self.config.processes > 0;
        j.shape.terms.as_ref().map(|terms| terms.retries).filter(|_| runs)
    }

    /// How long to wait before a task that has ended with its worker is tried again; `None`: it is lost.
    pub(super) fn pause_after(&self, task: &Assigned<P>, death: Death) -> Option<u64> {
        let retries = self.retries_of(task.job)?;
        let counts = match death {
            Death::Unasked | Death::TooLarge => retries.of_lost,
            Death::Overdue => retries.of_overdue,
            Death::Cancelled => false,
        };
        retries.pause(u32::from(task.tries) + 1).filter(|_| counts)
    }

    pub(super) fn try_again(&mut self, task: Assigned<P>, at: u64) {
        let Assigned { job, index, items, tries, payload, .. } = task;
        let tries = tries.saturating_add(1);
        self.delayed.push((at, job, Pending { index, items, deaths: 0, tries, since: at, payload }));
    }

    /// Returns tasks whose pause is over to their jobs.
    pub(super) fn resume(&mut self, now: u64) {
        if self.delayed.is_empty() {
            return;
        }
        let due: Vec<_> = self.delayed.extract_if(.., |(at, _, _)| *at <= now).collect();
        for (_, id, task) in due {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.put_back(task);
            if !job.queued {
                self.queue.put(id, job, true);
            }
        }
    }

    pub(super) fn next_retry(&self) -> Option<u64> {
        self.delayed.iter().map(|&(at, _, _)| at).min()
    }
}

impl<P> Job<P> {
    /// Returns a task to the job. Older tasks go first, also if several workers return tasks in turn.
    pub(super) fn put_back(&mut self, task: Pending<P>) {
        let at = self.pending.partition_point(|p| p.index < task.index);
        self.pending.insert(at, task);
    }
}
