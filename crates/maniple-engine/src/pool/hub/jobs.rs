//! Jobs: submission, input, cancellation.

use super::ticket::Ticket;
use super::{Hub, Name, Room};
use crate::error::{Error, Result};
use crate::pool::job::{Feed, Job, Settled};
use crate::pool::packet::Packet;
use crate::pool::scheduler::{JobId, JobShape, Supply};
use crate::pool::spec::{Filling, Func, JobSpec, SourceKind};
use maniple_sys::clock;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Hub {
    /// Registers a function: `packet` reaches each worker once, before its first task of the function.
    pub fn define(&self, packet: Packet) -> Func {
        self.define_as(packet, None)
    }

    /// As `define`. The pool's statistics show the name.
    pub fn define_as(&self, packet: Packet, name: Option<Name>) -> Func {
        let mut st = self.lock();
        st.next_function += 1;
        let number = st.next_function;
        st.names.extend(name.map(|name| (number, name)));
        st.holding += usize::from(packet.holds_handles());
        st.functions.insert(number, packet);
        Func::new(number, &self.inner.unused)
    }

    /// Submits a job.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Foreign`].
    pub fn submit(&self, spec: JobSpec, source: SourceKind) -> Result<Ticket> {
        self.submit_in(None, spec, source)
    }

    /// Submits a job of a single task in the room that was kept for it.
    ///
    /// # Errors
    /// As [`Hub::submit`].
    pub fn submit_in(&self, room: Option<Room>, spec: JobSpec, source: SourceKind) -> Result<Ticket> {
        self.check()?;
        let shape = JobShape {
            func: spec.func.number(),
            supply: if matches!(source, SourceKind::Ready(_)) { Supply::Complete } else { Supply::OnDemand },
            chunk: spec.chunk,
            items: spec.items,
            window: spec.window.map(|(items, _)| items),
            terms: spec.terms,
        };
        let mut st = self.lock();
        let now = clock::now();
        if let Some(room) = &room {
            st.take_room(room);
        }
        // A broken pool accepts the job and fails it with the pool's error.
        let broken = st.sched.is_broken();
        let id = if broken { Some(st.sched.submit_broken(shape)) } else { st.sched.submit(shape) };
        let Some(id) = id else { return Err(Error::NotRunning) };
        let (feed, ready) = match source {
            SourceKind::Ready(tasks) => (Feed::None, Some(tasks)),
            SourceKind::Inline(source) => (Feed::Inline(Some(source)), None),
            SourceKind::External => (Feed::External { wanted: None, cell: Arc::default() }, None),
        };
        let mut job = Job::new(spec.collect, feed, spec.func, spec.notify, spec.items == Some(1));
        job.window_bytes = spec.window.map(|(_, bytes)| bytes);
        let cell = job.cell.clone();
        st.watched += usize::from(job.notify);
        st.keeper.calls += 1;
        st.jobs.insert(id, job);
        if let Some(tasks) = ready.filter(|_| !broken) {
            for (items, packet) in tasks {
                st.sched.add(id, items, packet, now);
            }
            st.sched.filled(id, true);
        }
        self.inner.follow_up_at(&mut st, now);
        self.inner.assure_deputy(&mut st);
        drop(st);
        Ok(Ticket::new(self.clone(), id, cell))
    }

    /// For the thread that makes the tasks of a job of [`SourceKind::External`]: waits until tasks are wanted, and
    /// returns how many, of how many items each. `None`: the job has ended.
    pub fn wanted(&self, job: JobId, timeout: Duration) -> Option<(usize, usize)> {
        if self.is_foreign() {
            return None;
        }
        let deadline = Instant::now() + timeout;
        loop {
            let mut st = self.lock();
            let Some(Feed::External { wanted, cell }) = st.jobs.get_mut(&job).map(|j| &mut j.feed) else { return None };
            if let Some(wanted) = wanted.take() {
                return Some(wanted);
            }
            let (cell, ticks) = (cell.clone(), cell.ticks());
            drop(st);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some((0, 0));
            }
            cell.sleep(ticks, Some(left));
        }
    }

    /// Submits one of the wanted tasks: it is sent before the thread reads the next item, which may take long.
    pub fn feed_one(&self, job: JobId, filling: Filling<'_>) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        let now = clock::now();
        self.inner.take_in(&mut st, job, filling.tasks, now);
        self.inner.follow_up_at(&mut st, now);
    }

    /// Submits the tasks that such a thread made. `ended`: there are no more.
    pub fn feed(&self, job: JobId, filling: Filling<'_>, ended: bool) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        let now = clock::now();
        self.inner.take_in(&mut st, job, filling.tasks, now);
        st.sched.filled(job, ended);
        self.inner.follow_up_at(&mut st, now);
    }

    pub(crate) fn take_outcomes(&self, job: JobId, most: usize) -> (Vec<Settled>, bool) {
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return (Vec::new(), true) };
        let taken = j.take(most);
        let over = j.ended && j.is_empty();
        if over && !j.notify {
            // The ticket knows it; the thread need not return for it.
            st.discard(job);
        }
        (taken, over)
    }

    pub(crate) fn consumed(&self, job: JobId, items: usize) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        st.sched.consumed(job, items);
        let Some(turn) = st.seats.take() else {
            // The driver acts on it at its next check; it may be asleep.
            self.inner.advance(&mut st);
            self.inner.stir(&mut st);
            return;
        };
        st = self.inner.drive_once(st, Some(turn));
        self.inner.leave_seat(st, turn);
    }

    /// Cancels a job. `end_running`: also ends the workers that run its tasks. Returns how many tasks that ends.
    pub fn cancel(&self, job: JobId, end_running: bool) -> usize {
        if self.is_foreign() {
            return 0;
        }
        let mut st = self.lock();
        st.sched.cancel(job);
        self.inner.advance(&mut st);
        let ended = if end_running { self.inner.end_tasks_of(&mut st, job) } else { 0 };
        if ended > 0 {
            self.inner.advance(&mut st);
        }
        self.inner.stir(&mut st);
        ended
    }

    /// Cancels all jobs, as [`Ticket::cancel`] cancels one.
    pub fn cancel_all(&self, end_running: bool) {
        if self.is_foreign() {
            return;
        }
        let open: Vec<JobId> = self.lock().jobs.iter().filter(|(_, job)| !job.ended).map(|(&id, _)| id).collect();
        for job in open {
            self.cancel(job, end_running);
        }
    }

    /// Whether a worker runs a task of this job.
    pub(crate) fn is_running_job(&self, job: JobId) -> bool {
        if self.is_foreign() {
            return false;
        }
        self.poll();
        let mut st = self.lock();
        !self.inner.running_tasks_of(&mut st, job).is_empty()
    }

    /// Reports that no caller collects the outcomes. `begun`: a caller had begun to take them one by one, and stops;
    /// tasks that have not begun do not begin. Otherwise all tasks run, to the end of the input, and without a window,
    /// which no caller would move.
    pub(crate) fn orphan(&self, job: JobId, begun: bool) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return };
        j.orphaned = true;
        if j.ended {
            if !j.notify {
                st.discard(job);
            }
            return;
        }
        if j.window_bytes.is_none() {
            return;
        }
        let mut gone = vec![j.drop_settled()];
        if begun {
            // Now, and not only with the last running task, whose end is reported to no caller.
            gone.push(j.drop_feed());
        }
        st.gone.append(&mut gone);
        if begun {
            st.sched.cancel(job);
        } else {
            st.sched.unbound(job);
        }
        self.inner.advance(&mut st);
        let driven = st.seats.is_taken();
        self.inner.settle_down(&mut st, driven);
    }
}
