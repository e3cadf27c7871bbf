//! Queries of the scheduler. They change nothing, except that commands are removed when they are taken.

use super::decisions::SILENT;
use super::{Assigned, Command, Phase, Scheduler, State, Worker, WorkerId};

/// The shortest time (ns) after which another check is useful.
const TICK: u64 = 400_000;

impl<P> Scheduler<P> {
    /// Takes the commands since the last call.
    pub fn commands(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.commands);
    }

    /// Returns a task that a worker has and has not finished.
    pub fn task(&mut self, worker: WorkerId, number: u64) -> Option<&mut Assigned<P>> {
        let w = self.workers.get_mut(worker)?;
        let at = w.place(number)?;
        w.assigned.get_mut(at)
    }

    /// Returns the tasks that a worker has not finished, oldest first.
    pub fn assigned(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Assigned<P>> {
        self.workers.get(worker).into_iter().flat_map(|w| &w.assigned)
    }

    /// How many workers have something to do.
    pub fn busy(&self) -> usize {
        self.workers.values().filter(|w| !w.assigned.is_empty()).count()
    }

    /// How many workers there are, in any phase of life.
    pub fn alive(&self) -> usize {
        self.workers.len()
    }

    /// Whether a worker is known and has reported that it is ready.
    pub fn is_up(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|w| w.greeted)
    }

    /// Whether a worker that is ready lives, as far as is known.
    pub fn is_served(&self) -> bool {
        self.workers.values().any(|w| w.greeted)
    }

    /// How many workers have become ready since the pool began.
    pub fn greeted(&self) -> u64 {
        self.greeted
    }

    /// How many jobs have not ended.
    pub fn open_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Returns how many jobs have not ended of which no worker has got a task yet.
    pub fn untouched_jobs(&self) -> usize {
        self.jobs.values().filter(|j| j.next_index as usize == j.pending.len()).count()
    }

    /// Returns how many tasks wait behind others at their worker.
    pub fn queued_tasks(&self) -> usize {
        self.workers.values().map(|w| w.assigned.len().saturating_sub(1)).sum()
    }

    /// Whether the pool still accepts jobs.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whether starts have failed so often that the pool is broken.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether all jobs are done (or dropped), no more can be submitted, and all workers have ended. A broken pool that
    /// is not closed still accepts jobs: each ends at once, and its caller still has to be notified.
    pub fn is_drained(&self) -> bool {
        self.closed
            && self.state != State::Running
            && self.workers.is_empty()
            && self.asked == 0
            && self.jobs.is_empty()
    }

    /// Whether [`plan`](Self::plan) should be called a little later, although nothing happens: idle workers might then
    /// take over waiting tasks, or a full worker might have room.
    pub fn wants_tick(&self) -> bool {
        let mut up = self.workers.values().filter(|w| w.phase == Phase::Up);
        if !self.queue.is_empty() && up.clone().any(|w| w.retry_at.is_some()) {
            return true;
        }
        up.any(Worker::is_idle) && self.workers.values().any(|w| w.assigned.len() > 1)
    }

    /// After how long (ns) [`plan`](Self::plan) should be called, although nothing happens; `None`: it need not be
    /// called.
    pub fn next_look(&self, now: u64) -> Option<u64> {
        if self.wants_tick() {
            return Some(TICK);
        }
        let silent = (!self.queue.is_empty() && self.silent().next().is_some()).then_some(now + SILENT);
        let idle = self.workers.values().any(Worker::is_idle);
        let late = self.workers.values().filter(|_| idle).filter_map(Worker::begins_at).min();
        let next = [silent, late, self.hold, self.next_limit(now)].into_iter().flatten().min()?;
        Some(next.saturating_sub(now).max(TICK))
    }

    /// How many calls of a single task wait: for a worker, or behind another task of a worker.
    pub fn backlog(&self) -> usize {
        let first = self.workers.values().filter_map(|w| self.jobs.get(w.assigned.front()?.job));
        self.queue.singles(first.filter(|job| job.is_single()).count())
    }

    /// When the next time limit may expire, the next pause before a retry ends, a worker may have been idle for too long, or
    /// a task has to be overtaken.
    pub fn next_limit(&self, now: u64) -> Option<u64> {
        [self.next_deadline(now), self.next_retry(), self.next_idle_end(), self.overtake_at].into_iter().flatten().min()
    }

    /// The workers that do not begin their tasks.
    pub fn silent(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.iter().filter(|(_, w)| w.silent).map(|(worker, _)| worker)
    }

    /// Whether workers are missing, and will be requested after a pause.
    pub fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether a task waits: to be assigned, to be requested from its source, or behind another task.
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.workers.values().any(|w| w.assigned.len() > 1)
    }

    /// The number of the task after which half of the worker's tasks are done, if it has several short tasks.
    pub fn halfway(&self, worker: WorkerId) -> Option<u64> {
        let w = self.workers.get(worker)?;
        if w.assigned.len() < 4 {
            return None;
        }
        Some(w.assigned[w.assigned.len() / 2].number)
    }

    /// Describes the state for users: a line for the pool, a line for each worker, a line for each job.
    pub fn describe(&self) -> String {
        let mut text = format!(
            "{:?}, {} workers asked for, {} jobs queued, {} tasks to be tried again",
            self.state,
            self.asked,
            self.queue.len(),
            self.delayed.len()
        );
        for (id, w) in &self.workers {
            let (load, full) = (w.assigned.len(), if w.full { ", link full" } else { "" });
            text += &format!("\nworker {id:?}: {:?}, {load} tasks assigned, {} given so far{full}", w.phase, w.given);
        }
        for (id, j) in &self.jobs {
            text += &format!(
                "\njob {id:?}: {} pending, {} unfinished, {} made, input {}{}{}, window {:?} of {:?}",
                j.pending.len(),
                j.unfinished,
                j.next_index,
                if j.input_open { "open" } else { "closed" },
                if j.filling { ", being filled" } else { "" },
                if j.queued { ", queued" } else { "" },
                j.in_window,
                j.shape.window,
            );
        }
        text
    }
}
