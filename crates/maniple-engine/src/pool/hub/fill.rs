//! Calling the sources of jobs. A source runs code of the program, so it may take any time.
//!
//! The thread that drives the hub calls them. It steps away from its seat meanwhile: after [`RELIEF`] another thread may
//! relieve it, so that no source delays the answers, deaths and time limits of other calls. When no caller drives, the
//! *filler* calls them, a thread that the front starts for that ([`Chore::Fill`](super::Chore::Fill)). The keeper calls
//! none, because no thread would do its work meanwhile.

use super::helper;
use super::{Hub, Inner, Locked, State};
use crate::pool::job::{Feed, Gone, Outcome, Settled};
use crate::pool::policy::FILL_TIME;
use crate::pool::scheduler::JobId;
use crate::pool::seats::Turn;
use crate::pool::spec::{Filling, NewTask};
use maniple_sys::clock;
use std::cell::Cell as Local;
use std::time::Duration;

/// How long (ns) a driver may be away from its seat before another thread relieves it.
pub(super) const RELIEF: u64 = 20_000_000;

/// A source that has to be called: for how many tasks, of how many items each.
pub(super) type Due = (JobId, usize, usize);

/// Code of the program that this thread runs for a hub, and the turn for which the thread has that hub's seat.
#[derive(Clone, Copy)]
struct Calling {
    hub: *const Inner,
    turn: Option<Turn>,
    is_source: bool,
}

thread_local! {
    static CALLING: Local<Option<Calling>> = const { Local::new(None) };
}

/// Whether this thread is in the middle of a source's code.
pub(super) fn is_in_source() -> bool {
    CALLING.get().is_some_and(|calling| calling.is_source)
}

/// A source that is being called. If it panics, its job is cancelled and the thread leaves the seat: the panic concerns
/// one call.
struct Asked<'a> {
    within: Within<'a>,
    job: JobId,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Within { inner, turn, .. } = self.within;
            let mut st = inner.lock();
            st.sched.cancel(self.job);
            st.sched.filled(self.job, true);
            inner.advance(&mut st);
            match turn {
                Some(turn) => inner.leave_seat(st, turn),
                None => inner.follow_up(&mut st),
            }
        }
    }
}

/// The time in which this thread runs code of the program for a hub.
struct Within<'a> {
    inner: &'a Inner,
    turn: Option<Turn>,
    outer: Option<Calling>,
}

impl<'a> Within<'a> {
    fn new(inner: &'a Inner, turn: Option<Turn>, is_source: bool) -> Within<'a> {
        let outer = CALLING.get();
        let is_source = is_source || outer.is_some_and(|outer| outer.is_source);
        CALLING.set(Some(Calling { hub: inner, turn, is_source }));
        Within { inner, turn, outer }
    }
}

impl Drop for Within<'_> {
    fn drop(&mut self) {
        CALLING.set(self.outer);
    }
}

/// Resets the filler's duty if a source panics.
struct OnDuty<'a>(&'a Inner);

impl Drop for OnDuty<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().filler.leave();
            self.0.kick.kick();
        }
    }
}

impl Inner {
    /// Calls the sources that are due, until they have taken some time, or one sends this thread back, or another thread
    /// has relieved this one. A thread that has the seat passes its turn. Returns true if any was called. The caller then
    /// lets the scheduler decide: once for all, because that may take longer than a short call.
    pub(super) fn call_sources<'a>(&'a self, mut st: Locked<'a>, turn: Option<Turn>) -> (Locked<'a>, bool) {
        if st.fills.is_empty() {
            return (st, false);
        }
        let end = clock::now().saturating_add(FILL_TIME.as_nanos() as u64);
        let mut over = Vec::new();
        while let Some(due) = st.fills.pop_front() {
            let now;
            (st, now) = self.call_source(st, due, turn, &mut over);
            if st.interrupted || turn.is_some_and(|turn| !st.seats.holds(turn)) || now >= end {
                break;
            }
        }
        if !over.is_empty() {
            // Their ends may run code of the program, which may wait for the tasks.
            self.advance(&mut st);
            st.gone.extend(over);
            st = self.let_go(st, turn);
        }
        (st, true)
    }

    /// Wakes futures and drops values, which may run code of the program: a driver steps away meanwhile, and may have been
    /// relieved afterwards.
    pub(super) fn let_go<'a>(&'a self, mut st: Locked<'a>, turn: Option<Turn>) -> Locked<'a> {
        if st.gone.is_empty() {
            return st;
        }
        self.step_away(&mut st, turn, 0);
        let calling = Within::new(self, turn, false);
        drop(st);
        drop(calling);
        self.come_back(turn)
    }

    /// The driver steps away, for the work of so many of the open jobs. Those have nothing that another thread could do for
    /// them.
    fn step_away(&self, st: &mut State, turn: Option<Turn>, own: usize) {
        if let Some(turn) = turn {
            st.seats.step_away(turn, clock::now());
            if st.sched.open_jobs() > own || self.watches_memory() || st.sched.has_limits() {
                self.ensure_relief(st);
            }
        }
    }

    fn come_back(&self, turn: Option<Turn>) -> Locked<'_> {
        let mut st = self.lock();
        if let Some(turn) = turn {
            st.seats.come_back(turn);
        }
        st
    }

    /// Calls a source, and takes in its tasks. Returns the time at its end.
    fn call_source<'a>(
        &'a self,
        mut st: Locked<'a>,
        (job, tasks, items): Due,
        turn: Option<Turn>,
        over: &mut Vec<Gone>,
    ) -> (Locked<'a>, u64) {
        let source = match st.jobs.get_mut(&job).map(|j| &mut j.feed) {
            Some(Feed::Inline(source)) => source.take(),
            _ => None,
        };
        let Some(mut source) = source else { return (st, clock::now()) };
        self.step_away(&mut st, turn, 1);
        let asked = Asked { within: Within::new(self, turn, true), job };
        drop(st);
        let mut filling = Filling::new(&self.packer);
        let ended = source.fill(tasks, items, &mut filling);
        drop(asked);
        let (tasks, interrupted) = (filling.tasks, filling.interrupted);
        st = self.come_back(turn);
        match st.jobs.get_mut(&job).map(|j| &mut j.feed) {
            Some(Feed::Inline(place)) if !ended => *place = Some(source),
            _ => over.push(Gone::Feed(Feed::Inline(Some(source)))),
        }
        let now = clock::now();
        self.take_in(&mut st, job, tasks, now);
        st.sched.filled(job, ended);
        st.interrupted |= interrupted;
        (st, now)
    }

    pub(super) fn take_in(&self, st: &mut State, job: JobId, tasks: Vec<NewTask>, now: u64) {
        for (items, task) in tasks {
            match task {
                Ok(packet) => {
                    st.weigh(job, items, packet.size());
                    st.sched.add(job, items, packet, now);
                }
                Err(why) => match st.sched.add_settled(job, items) {
                    Some(index) => {
                        st.settle(job, Settled::unanswered(index, items, Outcome::Unsent(why)));
                    }
                    None => st.gone.push(Gone::Value(why)),
                },
            }
        }
    }

    /// The driver is away, or about to step away, and others need the hub: ensures that the keeper relieves it in time.
    pub(super) fn ensure_relief(&self, st: &State) {
        if st.keeper_comes_after(clock::now().saturating_add(2 * RELIEF)) {
            self.kick.kick();
        }
    }

    /// This thread is in the middle of code of the program that this hub has called, and has stepped away from the seat: it
    /// takes the seat back, to wait for another call.
    pub(super) fn resume_turn(&self, st: &mut State) -> Option<Turn> {
        let calling = CALLING.get().filter(|calling| std::ptr::eq(calling.hub, self))?;
        calling.turn.filter(|&turn| st.seats.come_back(turn))
    }

    /// No caller drives: has the filler call the sources that are due. Returns true if the front has to start it.
    pub(super) fn call_filler(&self, st: &mut State) -> bool {
        if !st.fills_due() {
            return false;
        }
        st.filler.call()
    }
}

impl State {
    /// Whether sources have to be called, and no thread was called for that.
    pub(super) fn fills_due(&self) -> bool {
        !self.fills.is_empty() && !self.filler.is_called()
    }
}

impl Hub {
    /// Calls the sources that are due, until there have been none for `linger`. The front calls it in a thread of its own
    /// when the keeper gets [`Chore::Fill`](super::Chore::Fill), or in the keeper, with no time to linger, if it has no
    /// thread for that.
    pub fn fill(&self, linger: Duration) {
        if self.is_foreign() {
            return;
        }
        let inner = self.shared();
        let _on_duty = OnDuty(inner);
        loop {
            let mut st = self.lock();
            loop {
                let any;
                (st, any) = inner.call_sources(st, None);
                if !any {
                    break;
                }
                inner.follow_up(&mut st);
            }
            if !helper::wait(st, || inner.lock(), |st| &mut st.filler, linger) {
                return;
            }
        }
    }
}
