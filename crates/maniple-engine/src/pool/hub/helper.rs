//! Threads of the front that do work for the hub that may take any time, because it runs code of the program. The keeper
//! does none of it, because no thread would hold time limits and detect deaths meanwhile.

use super::State;
use crate::pool::job::Cell;
use std::sync::Arc;
use std::time::Duration;

/// One kind of such work, and the thread for it. The hub calls the thread when there is work; the front starts it if there
/// is none.
#[derive(Debug, Default)]
pub(super) struct Helper {
    duty: Duty,
    cell: Arc<Cell>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Duty {
    /// There is no such thread.
    #[default]
    Absent,
    /// It was called, and has not done all of its work since then.
    Called,
    /// It waits.
    Idle,
}

impl Helper {
    /// Calls the thread. Returns true if the front has to start it.
    pub(super) fn call(&mut self) -> bool {
        let before = std::mem::replace(&mut self.duty, Duty::Called);
        if before == Duty::Idle {
            self.wake();
        }
        before == Duty::Absent
    }

    /// Whether it was called, and has not done all of its work since then.
    pub(super) fn is_called(&self) -> bool {
        self.duty == Duty::Called
    }

    /// The thread returns to the front.
    pub(super) fn leave(&mut self) {
        self.duty = Duty::Absent;
    }

    /// The pool has ended: a thread that waits returns.
    pub(super) fn wake(&self) {
        // A thread sleeps there, not a future.
        let _ = self.cell.call();
    }
}

/// Waits in the thread of a helper until it is called again, at most for `linger`. `lock` locks the hub; `which` finds the
/// helper. Returns false if the thread has to return to the front.
pub(super) fn wait<S>(
    mut st: S,
    lock: impl FnOnce() -> S,
    which: impl Fn(&mut State) -> &mut Helper,
    linger: Duration,
) -> bool
where
    S: std::ops::DerefMut<Target = State>,
{
    let is_over = st.is_over();
    let helper = which(&mut st);
    if linger.is_zero() || is_over {
        helper.leave();
        return false;
    }
    helper.duty = Duty::Idle;
    let (cell, ticks) = (helper.cell.clone(), helper.cell.ticks());
    drop(st);
    cell.sleep(ticks, Some(linger));
    let mut st = lock();
    let helper = which(&mut st);
    if helper.duty == Duty::Idle {
        helper.leave();
        return false;
    }
    true
}
