//! Starts of workers: the front starts a process; the hub decides when, and what a failure means.

use super::helper;
use super::{Hub, Inner, State};
use crate::error::Result;
use crate::pool::job::Loss;
use crate::pool::link::HubLink;
use crate::pool::link::shm::{Made, ShmLink};
use crate::pool::scheduler::{Death, WorkerId};
use maniple_sys::atfork::HubOnly;
use maniple_sys::{OwnedHandle, clock};
use std::sync::Arc;
use std::time::Duration;

/// Reports that a starter whose start has panicked returns to its front.
struct OnDuty<'a>(&'a Hub);

impl Drop for OnDuty<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.leave_starts();
        }
    }
}

impl Hub {
    /// Waits until starts are due, at most for `linger`. The front calls this in a thread of its own, the *starter*, when the
    /// keeper gets [`Chore::Start`](super::Chore::Start); or in the keeper, with no time to linger, if it has no thread for
    /// that. As long as it returns true, the thread starts workers until [`begin_start`](Hub::begin_start) returns `None` or
    /// a start fails, and calls it again. A thread that does not do so calls [`leave_starts`](Hub::leave_starts).
    pub fn next_starts(&self, linger: Duration) -> bool {
        if self.is_foreign() {
            return false;
        }
        let inner = self.shared();
        loop {
            let st = inner.lock();
            if st.starts.is_due(clock::now()) {
                return true;
            }
            if !helper::wait(st, || inner.lock(), |st| &mut st.starter, linger) {
                // The keeper remembers starts that are due later.
                inner.kick.kick();
                return false;
            }
        }
    }

    /// The starter returns to its front although `next_starts` has returned true.
    pub fn leave_starts(&self) {
        if !self.is_foreign() {
            self.shared().lock().starter.leave();
            self.kick();
        }
    }

    /// The starter's work, where it cannot fail but by a panic: calls `start` when starts are due.
    pub fn serve_starts(&self, linger: Duration, mut start: impl FnMut()) {
        let _on_duty = OnDuty(self);
        while self.next_starts(linger) {
            start();
        }
    }

    /// Begins a start, if a start is due. Returns its worker, and the handles for the worker, in this order. The front
    /// starts a process with them and calls [`Hub::adopt`]. If the start fails, or if this call returns an error, the
    /// front calls [`Hub::start_failed`].
    ///
    /// # Errors
    /// No shared memory or no descriptor left.
    pub fn begin_start(&self) -> Result<Option<(WorkerId, Vec<OwnedHandle>)>> {
        let inner = self.shared();
        self.begin_start_by(|| {
            let Made { link, handles, stderr } = ShmLink::create(&inner.page, &inner.lifelines, inner.tapped)?;
            Ok((HubLink::Shm(link), stderr, handles.into_vec()))
        })
    }

    /// As `begin_start`, with a link that `make` makes, and a value that the front needs for the start.
    pub(crate) fn begin_start_by<T>(
        &self,
        make: impl FnOnce() -> Result<(HubLink, Option<Arc<HubOnly>>, T)>,
    ) -> Result<Option<(WorkerId, T)>> {
        self.check()?;
        let mut st = self.lock();
        self.shared().advance(&mut st);
        let greeted = st.sched.greeted();
        if !st.starts.begin(greeted, clock::now()) {
            return Ok(None);
        }
        drop(st);
        let (link, stderr, given) = make()?;
        Ok(Some((self.take_in_link(link, stderr), given)))
    }

    /// Reports that a start has failed, and `why`. Its link is dropped, if there is one. `is_short`: the system lacks a
    /// resource that may be available again. Then the start is retried later as long as the pool needs it; otherwise it
    /// counts as failed. If no worker is ready for long, open jobs end with an error that says `why`; later jobs get
    /// their answers once a worker was started.
    pub fn start_failed(&self, worker: Option<WorkerId>, why: String, is_short: bool) {
        if self.check().is_err() {
            return;
        }
        let inner = self.shared();
        let mut st = self.lock();
        let thrown_away = worker.and_then(|worker| st.slots.remove(worker));
        let needed = (st.sched.is_running() || st.sched.open_jobs() > 0) && !st.terminated;
        if is_short && needed {
            if let Some(worker) = worker {
                st.sched.worker_postponed(worker);
            }
            let (greeted, is_served) = (st.sched.greeted(), st.sched.is_served());
            // Starting workers may still become ready.
            if st.starts.put_off(greeted, is_served, clock::now()) && !st.slots.values().any(|slot| slot.pid != 0) {
                inner.give_up_jobs(&mut st, why);
            }
        } else if st.starts.end() || worker.is_some() {
            st.broken = Some(Arc::new(Loss::unstarted(why)));
            match worker {
                Some(worker) => st.sched.worker_gone(worker, Death::Unasked, clock::now(), |_| false, |_| true),
                None => st.sched.start_failed(),
            }
        }
        inner.advance(&mut st);
        inner.stir(&mut st);
        drop(st);
        drop(thrown_away);
        inner.kick.kick();
    }
}

impl Inner {
    /// The pool was terminated some time ago: a worker without a process, whose start is not over, does not belong to the pool
    /// any more. Its front ends the process once it has started.
    pub(super) fn give_up_starts(&self, st: &mut State) {
        let now = clock::now();
        if st.ending.as_ref().is_none_or(|ending| ending.wait_for_starts(now) > 0) {
            return;
        }
        let unstarted: Vec<WorkerId> =
            st.slots.iter().filter(|(_, slot)| slot.pid == 0).map(|(worker, _)| worker).collect();
        if unstarted.is_empty() {
            return;
        }
        for worker in unstarted {
            let slot = st.slots.remove(worker);
            st.starts.end();
            st.sched.worker_gone(worker, Death::Unasked, now, |_| false, |_| true);
            drop(slot);
        }
        self.advance(st);
    }

    /// Reports that a worker lacked a resource before it was ready. The hub does not count that as a failed start:
    /// another start is due later.
    pub(super) fn worker_lacked(&self, st: &mut State, worker: WorkerId, said: &str) {
        st.sched.worker_postponed(worker);
        let (greeted, is_served) = (st.sched.greeted(), st.sched.is_served());
        // Other starting workers lack it as well.
        if st.starts.lacked(greeted, is_served, clock::now()) {
            let mut why = "workers lack descriptors, memory or processes before they are ready".to_owned();
            if !said.is_empty() {
                why = format!("{why}; the last worker wrote to its standard error:\n{said}");
            }
            self.give_up_jobs(st, why);
        }
    }

    /// Ends open jobs with an error that says `why`, because no worker can be started for lack of a resource and none
    /// is ready. The pool itself does not fail.
    fn give_up_jobs(&self, st: &mut State, why: String) {
        let before = st.broken.replace(Arc::new(Loss::unstarted(why)));
        st.sched.drop_open_jobs();
        self.advance(st);
        st.broken = before;
    }
}
