//! Events of jobs: submission, tasks, consumption, cancellation, close, termination.

use super::*;

impl<P> Scheduler<P> {
    /// Adds a job. `None`: the pool is closed for new jobs.
    pub fn submit(&mut self, shape: JobShape) -> Option<JobId> {
        if self.state != State::Running {
            return None;
        }
        let job = self.insert(shape);
        self.enqueue(job);
        Some(job)
    }

    /// Puts a job behind the others, unless it is among them.
    fn enqueue(&mut self, job: JobId) {
        if let Some(j) = self.jobs.get_mut(job)
            && !j.queued
        {
            self.queue.put(job, j, false);
        }
    }

    /// No worker can be started for lack of a resource, and none is ready. Open jobs end as if the pool had failed,
    /// which it has not.
    pub fn drop_open_jobs(&mut self) {
        let none_is_ready = self.workers.values().all(|w| w.phase == Phase::Starting);
        if none_is_ready && matches!(self.state, State::Running | State::Closing) {
            self.drop_all(Dropped::Broken);
        }
    }

    /// No caller will submit this function again.
    pub fn forget_cost(&mut self, func: u32) {
        self.cost.remove(&func);
    }

    fn insert(&mut self, shape: JobShape) -> JobId {
        let items = shape.items;
        let job = Job {
            shape,
            // A single call's job is as small as possible: there may be a million of them.
            pending: VecDeque::with_capacity(usize::from(items == Some(1))),
            filling: false,
            input_open: true,
            next_index: 0,
            unfinished: 0,
            items_left: items,
            in_window: 0,
            cancelled: false,
            queued: false,
            account: queue::Account::default(),
            passed: 0,
            order: 0,
        };
        self.limited += usize::from(job.is_limited());
        self.unmade += items.unwrap_or(0);
        self.jobs.insert(job)
    }

    /// A job for a pool that could not start any worker: it is dropped at once.
    pub fn submit_broken(&mut self, shape: JobShape) -> JobId {
        let job = self.insert(shape);
        self.drop_job(job, Dropped::Broken);
        job
    }

    /// Adds a task to a job whose input is still open. Returns its number; `None` if the job has ended or was
    /// cancelled.
    pub fn add(&mut self, job: JobId, items: usize, payload: P, now: u64) -> Option<u64> {
        let broken = self.state == State::Broken;
        let j = self.jobs.get_mut(job)?;
        if j.cancelled {
            return None;
        }
        self.unmade -= items.min(j.items_left.unwrap_or(0));
        let index = j.take_number(items);
        j.unfinished += 1;
        self.tally.received += 1;
        if broken {
            self.drop_task(job, index, items, Dropped::Broken);
            return Some(index);
        }
        if j.queued && j.pending.is_empty() {
            self.queue.resume(j);
        }
        j.pending.push_back(Pending { index, items, deaths: 0, tries: 0, since: now, payload });
        self.enqueue(job);
        Some(index)
    }

    /// Counts a task that ended before it could be sent (its payload could not be made). Returns its number.
    pub fn add_settled(&mut self, job: JobId, items: usize) -> Option<u64> {
        let j = self.jobs.get_mut(job)?;
        self.unmade -= items.min(j.items_left.unwrap_or(0));
        let index = j.take_number(items);
        self.tally.received += 1;
        self.tally.end(items, Answered::Failed);
        Some(index)
    }

    /// Reports the end of a fill; `ended`: there will be no more tasks.
    pub fn filled(&mut self, job: JobId, ended: bool) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.filling = false;
            j.input_open &= !ended;
            if ended {
                self.unmade -= j.items_left.take().unwrap_or(0);
            }
            if j.input_open {
                self.enqueue(job);
            }
        }
        self.end_if_done(job);
    }

    /// Reports that the caller took so many items' results out of the window.
    pub fn consumed(&mut self, job: JobId, items: usize) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.in_window = j.in_window.saturating_sub(items);
            if j.input_open {
                self.enqueue(job);
            }
        }
    }

    /// Removes the window: no caller takes the job's results, so no task has to wait for that.
    pub fn unbound(&mut self, job: JobId) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.shape.window = None;
            if j.input_open {
                self.enqueue(job);
            }
        }
    }

    /// Limits a job of large items: at most so many more items are under way than one for each worker.
    pub fn narrow(&mut self, job: JobId, window: usize) {
        let least = self.config.processes * 2;
        if let Some(w) = self.jobs.get_mut(job).and_then(|j| j.shape.window.as_mut()) {
            *w = (*w).min(window.max(least));
        }
    }

    /// Cancels a job: tasks that have not begun do not begin.
    pub fn cancel(&mut self, job: JobId) {
        self.drop_job(job, Dropped::Cancelled);
        for (worker, w) in self.workers.iter_mut() {
            if let Some(first) = w.assigned.iter().position(|t| t.job == job) {
                w.recalled = true;
                self.commands.push(Command::Revoke { worker, count: w.assigned.len() - first });
            }
        }
        self.end_if_done(job);
    }

    /// Closes the pool for new jobs; workers end when all jobs are done.
    pub fn close(&mut self) {
        self.closed = true;
        if self.state == State::Running {
            self.state = State::Closing;
            for job in self.jobs.keys().collect::<Vec<_>>() {
                self.jobs[job].shape.window = None;
                if self.jobs[job].input_open {
                    self.enqueue(job);
                }
            }
        }
    }

    /// Drops all jobs that have not ended. The caller kills the workers.
    pub fn terminate(&mut self) {
        self.closed = true;
        self.state = State::Terminated;
        // Requested starts that were not begun are cancelled; the pool does not wait for them.
        self.asked = 0;
        self.hold = None;
        self.drop_all(Dropped::Terminated);
        for w in self.workers.values_mut() {
            w.phase = Phase::Retiring;
        }
    }
}
