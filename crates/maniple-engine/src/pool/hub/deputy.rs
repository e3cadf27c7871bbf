//! The deputy: a thread of the engine that holds limits of time and memory while the threads that should hold them are away.
//!
//! The keeper returns to the front for each chore, and may be kept there: Python's keeper needs the interpreter, which a
//! thread of the program may hold for seconds, and the waker of a future may block. So a pool with limits has a deputy,
//! from its first limited task on until a while after the last one. It acts on a time limit only if that has been due for
//! [`GRACE`], and it runs no code of the front: values to be dropped and futures to be woken stay for the next thread.

use super::fill::RELIEF;
use super::{Inner, Locked, State};
use crate::pool::job::Cell;
use maniple_sys::clock;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How long (ns) a time limit may be due before the deputy acts on it.
const GRACE: u64 = 5_000_000;
/// The longest time between two checks: a worker begins a task without a message.
const ROUND: Duration = Duration::from_millis(20);
/// The time between two checks while a limit is due.
const TICK: Duration = Duration::from_millis(1);
/// How long (ns) the deputy stays without a limit.
const LINGER: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Deputy {
    is_there: bool,
    cell: Arc<Cell>,
}

impl Deputy {
    /// The pool has ended: the deputy ends, too.
    pub(super) fn wake(&self) {
        // A thread sleeps there, not a future.
        let _ = self.cell.call();
    }
}

impl Locked<'_> {
    /// Frees the lock. What has to be dropped or woken stays for the next thread that frees it.
    fn leave(self) {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the guard is not used after this, and `this` is never dropped.
        unsafe { ManuallyDrop::drop(&mut this.0) };
    }
}

impl Inner {
    /// Starts the deputy if there is a limit to hold, and no deputy. Without a thread for it the keeper alone holds limits,
    /// and the next call tries again.
    pub(super) fn assure_deputy(self: &Arc<Inner>, st: &mut State) {
        if st.deputy.is_there || !self.has_limits(st) {
            return;
        }
        let (hub, cell) = (Arc::downgrade(self), st.deputy.cell.clone());
        let thread = std::thread::Builder::new().name("maniple-pool-deputy".into());
        st.deputy.is_there = thread.spawn(move || serve(&hub, &cell)).is_ok();
    }

    fn has_limits(&self, st: &State) -> bool {
        st.sched.has_limits()
            || (self.watches_memory() && st.sched.busy() > 0)
            || (self.limits.start.is_some() && st.sched.next_deadline(clock::now()).is_some())
    }

    /// Acts on the limits that are due. Returns how long to sleep.
    fn stand_in(&self, st: &mut State, now: u64) -> Duration {
        self.look_at_limits(st);
        let Some(due) = st.sched.next_deadline(now).map(|at| at.saturating_add(GRACE)) else { return ROUND };
        if now < due {
            return Duration::from_nanos(due - now).min(ROUND);
        }
        match st.seats.take().or_else(|| st.seats.relieve(now.saturating_sub(RELIEF))) {
            Some(turn) => {
                self.receive(st);
                if !st.call_next(turn) {
                    self.settle_down(st, false);
                }
            }
            // The driver sleeps beyond the limit.
            None => self.settle_down(st, true),
        }
        TICK
    }
}

fn serve(hub: &Weak<Inner>, cell: &Cell) {
    let mut needed = clock::now();
    loop {
        let ticks = cell.ticks();
        let Some(inner) = hub.upgrade() else { return };
        let mut st = inner.lock();
        let now = clock::now();
        if inner.has_limits(&st) {
            needed = now;
        }
        if st.is_over() || now.saturating_sub(needed) > LINGER {
            st.deputy.is_there = false;
            st.leave();
            return;
        }
        let sleep = inner.stand_in(&mut st, now);
        st.leave();
        drop(inner);
        cell.sleep(ticks, Some(sleep));
    }
}
