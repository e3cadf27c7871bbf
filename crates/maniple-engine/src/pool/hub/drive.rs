//! Driving the hub: passing the seat on, sleeping.
//!
//! Everything here runs with the hub's lock held, except sleeping and code of the program.

use super::{Inner, Locked, State};
use crate::pool::job::{Cell, Gone};
use crate::pool::link::hub_page::level;
use crate::pool::seats::Turn;
use crate::wait::word::Woken;
use maniple_sys::clock;
use std::cell::Cell as Counter;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// The longest sleep of a driver that requested a late wake-up, or whose waiting tasks might need another worker.
const NAP: Duration = Duration::from_micros(400);

/// The right to drive, and the duty to pass it on.
pub(crate) struct Seat<'a> {
    pub(super) inner: &'a Inner,
    pub(super) state: Option<Locked<'a>>,
    pub(super) right: Right,
}

/// The right by which a thread drives.
#[derive(Clone, Copy)]
pub(super) enum Right {
    /// It has the seat for this turn.
    Turn(Turn),
    /// It has the seat, and waits in the middle of code of the program that the hub has called, as in a signal handler
    /// while an item is pickled. Afterwards it is away again.
    Resumed(Turn),
    /// It waits in code of the program that this hub's driver may be running.
    Within,
}

impl Right {
    fn turn(self) -> Option<Turn> {
        match self {
            Right::Turn(turn) | Right::Resumed(turn) => Some(turn),
            Right::Within => None,
        }
    }
}

thread_local! {
    static LETTING_GO: Counter<u32> = const { Counter::new(0) };
}

/// Whether this thread wakes futures or drops values for a hub: then it may have the seat already.
pub(super) fn is_letting_go() -> bool {
    LETTING_GO.get() > 0
}

/// Wakes futures and drops values that had to wait for the hub's lock to be free. That may run code of the program.
pub(super) fn let_go(gone: Vec<Gone>) {
    if gone.is_empty() {
        return;
    }
    struct Within;
    impl Drop for Within {
        fn drop(&mut self) {
            LETTING_GO.set(LETTING_GO.get() - 1);
        }
    }
    LETTING_GO.set(LETTING_GO.get() + 1);
    let _within = Within;
    for one in gone {
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(|| one.go())) {
            // The program's own. Its hook has reported it, and the thread has more to do than this future's. Its drop may panic.
            std::mem::forget(panic);
        }
    }
}

impl Seat<'_> {
    /// Drives until `cell` is ready, `until`, or a signal.
    pub fn drive(mut self, cell: &Cell, until: Instant) -> Woken {
        let (inner, turn) = (self.inner, self.right.turn());
        let Some(mut st) = self.state.take() else { return Woken::Rung };
        let outcome = loop {
            st = inner.drive_once(st, turn);
            if std::mem::take(&mut st.interrupted) {
                break Woken::Signal;
            }
            // Before this thread sleeps, and not with the seat.
            st = inner.let_go(st, turn);
            if cell.is_ready() || turn.is_some_and(|turn| !st.seats.holds(turn)) {
                break Woken::Rung;
            }
            let now = Instant::now();
            if now >= until {
                break Woken::TimedOut;
            }
            let alone = st.sched.busy() < inner.cores;
            let mut spin = std::mem::take(&mut st.spin);
            drop(st);
            let news = spin.until(alone, || inner.may_have_news() || cell.is_ready());
            st = inner.lock();
            st.spin = spin;
            if news || inner.has_news(&mut st) || cell.is_ready() {
                continue;
            }
            let brisk = st.is_brisk();
            let level = if brisk { level::CALLER_HALF } else { level::CALLER };
            let bell = &inner.page;
            bell.arm(level);
            if inner.has_news(&mut st) || cell.is_ready() || !st.fills.is_empty() {
                bell.disarm();
                continue;
            }
            let mut limit = until.saturating_duration_since(now);
            if brisk {
                limit = limit.min(NAP);
            }
            let now = clock::now();
            if let Some(nanos) = inner.next_look(&st, now) {
                limit = limit.min(Duration::from_nanos(nanos).max(NAP));
            }
            st.driver_until = now.saturating_add(limit.as_nanos() as u64);
            drop(st);
            let woken = bell.sleep(level, limit);
            st = inner.lock();
            bell.disarm();
            if woken == Woken::Signal {
                break Woken::Signal;
            }
        };
        match self.right {
            Right::Turn(turn) => inner.leave_seat(st, turn),
            Right::Resumed(turn) => {
                st.seats.step_away(turn, clock::now());
                inner.ensure_relief(&st);
            }
            Right::Within => {
                drop(st);
                // If another thread has the seat, it may sleep although news for it was read here.
                inner.page.wake();
            }
        }
        outcome
    }
}

impl Inner {
    /// Receives all messages, and acts on them.
    pub(super) fn receive(&self, st: &mut State) {
        self.listen(st);
        self.advance(st);
        st.called = false;
    }

    /// Receives all messages, acts on them, and requests tasks from sources, unless a source sends this thread back, or
    /// another thread has relieved it. A thread that has the seat passes its turn.
    pub(super) fn drive_once<'a>(&'a self, mut st: Locked<'a>, turn: Option<Turn>) -> Locked<'a> {
        st.interrupted = false;
        loop {
            self.receive(&mut st);
            let any;
            (st, any) = self.call_sources(st, turn);
            if !any {
                return st;
            }
            if st.interrupted || turn.is_some_and(|turn| !st.seats.holds(turn)) {
                self.advance(&mut st);
                return st;
            }
        }
    }

    /// After an event from a thread that does not drive: distributes tasks, and ensures that some thread does the
    /// resulting work.
    pub(super) fn follow_up(&self, st: &mut State) {
        self.follow_up_at(st, clock::now());
    }

    /// The same at the time `now`, read once for all: reading the clock costs as much as the rest of some of these steps.
    pub(super) fn follow_up_at(&self, st: &mut State, mut now: u64) {
        let driven = st.seats.is_taken();
        if !driven {
            let advice = st.burst.call(now);
            if advice.listen {
                // Answers that arrived meanwhile make room, and show which workers are idle.
                self.listen(st);
                now = clock::now();
            }
            if advice.begin {
                self.page.disarm();
                self.kick.kick();
            }
        }
        self.advance_at(st, now);
        self.settle_down_at(st, driven, now);
    }

    /// Passes the seat to a thread that waits for it, or leaves it free, unless this thread was relieved.
    pub(super) fn leave_seat(&self, mut st: Locked<'_>, turn: Turn) {
        if !st.call_next(turn) {
            self.settle_down(&mut st, false);
        }
    }

    /// No thread drives now: ensures that a thread drives when it is needed.
    pub(super) fn settle_down(&self, st: &mut State, driven: bool) {
        self.settle_down_at(st, driven, clock::now());
    }

    fn settle_down_at(&self, st: &mut State, driven: bool, now: u64) {
        let limit = st.sched.next_limit(now);
        if driven || st.seats.is_taken() {
            // The driver may sleep for longer than a new time limit.
            st.called |= limit.is_some_and(|at| at < st.driver_until);
            self.stir(st);
            if st.seats.away_since().is_some() {
                self.ensure_relief(st);
            }
            return;
        }
        let bell = &self.page;
        match st.unattended_level() {
            None => bell.disarm(),
            // The keeper polls, or is about to.
            Some(_) if st.burst.polled => bell.disarm(),
            // It is armed, and every worker that has sent a message since then has rung it.
            Some(level) if bell.level() == level && !st.fills_due() => {}
            Some(level) => {
                bell.arm(level);
                if self.has_stale_news(st, level) || st.fills_due() {
                    bell.disarm();
                    self.kick.kick();
                }
            }
        }
        let missed = !st.keeper.ticks && st.wants_tick() || !st.keeper.near && st.wants_look();
        if missed || st.has_chores(now) || limit.is_some_and(|at| at < st.keeper.until) {
            // The keeper was woken, and need not be woken again before it has checked.
            (st.keeper.ticks, st.keeper.near, st.keeper.until) = (true, true, 0);
            self.kick.kick();
        }
    }

    /// If a thread drives: wakes it if there is work for it, or an outcome that may be its own.
    pub(super) fn stir(&self, st: &mut State) {
        if st.seats.is_taken() && (std::mem::take(&mut st.called) || !st.fills.is_empty()) && self.page.stir() {
            self.kick.kick();
        }
    }

    /// Whether a worker sent a message before the bell was armed, and will not ring it again.
    pub(super) fn has_stale_news(&self, st: &mut State, level: u32) -> bool {
        st.slots
            .values_mut()
            .any(|p| p.is_heard() && p.link.has_news() && (level == level::KEEPER || p.link.is_asleep()))
    }

    fn may_have_news(&self) -> bool {
        // The lock is free for a moment at a time; a spinning thread that finds it taken checks again.
        self.try_lock().is_some_and(|mut st| self.has_news(&mut st))
    }

    pub(super) fn has_news(&self, st: &mut State) -> bool {
        st.slots.values_mut().any(|p| p.is_heard() && p.link.has_news())
    }
}

impl State {
    /// Leaves the seat, and wakes one of the threads that wait for it. Returns false if no thread waits.
    pub(super) fn call_next(&mut self, turn: Turn) -> bool {
        let next = self.seats.leave(turn, |cell| !cell.is_ready());
        if let Some(cell) = &next {
            self.gone.extend(cell.call().map(Gone::Awaited));
        }
        next.is_some()
    }

    /// Whether tasks are so short, and so many are under way, that a wake-up for each costs more than it gains.
    fn is_brisk(&self) -> bool {
        self.slots.keys().any(|w| self.sched.halfway(w).is_some())
    }

    /// Whether a thread must check again within about a millisecond, although nothing happens.
    fn wants_tick(&self) -> bool {
        self.sched.wants_tick() || self.slots.values().any(|p| p.stop_due && !p.damaged)
    }

    /// Whether a thread must check again from time to time.
    pub(super) fn wants_look(&self) -> bool {
        self.sched.open_jobs() > 0 || self.sched.is_holding()
    }

    pub(super) fn has_chores(&self, now: u64) -> bool {
        self.wait_for_start(now) == Some(0) || !self.notices.is_empty() || self.ends.is_untold() || self.is_over()
    }

    /// Whether all jobs and workers have ended, and all ends were taken that the front has to take. A start that has begun
    /// has no worker at first.
    pub(super) fn is_over(&self) -> bool {
        self.sched.is_drained() && self.slots.is_empty() && self.ends.is_empty() && !self.starts.is_starting()
    }

    /// The events for which the keeper has to be woken while no thread drives.
    pub(super) fn unattended_level(&self) -> Option<u32> {
        if self.sched.open_jobs() == 0 {
            return self.sched.awaits_workers().then_some(level::KEEPER);
        }
        // A pool that closes ends with its last job: a thread must see that.
        let watched = self.attended || self.watched > 0 || !self.sched.is_running();
        // The hub closes handles as soon as a worker has them, or no longer needs them: a reader may wait for a pipe's
        // end.
        let watched = watched || self.holding > 0 || self.slots.values().any(|p| !p.untaken.is_empty());
        Some(if watched {
            level::KEEPER
        } else if self.sched.has_waiting() {
            level::KEEPER_HALF
        } else {
            level::KEEPER_FULL
        })
    }
}
