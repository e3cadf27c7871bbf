//! Which threads receive from an end, as far as this process can determine. A sender that has to wait asks before it takes the
//! unlimited wait.
//!
//! Only Rust's senders use it: `Connection.send` of Python's standard package waits without a limit.

use super::room::Receivers;
use crate::error::Error;
use maniple_sys::{BorrowedHandle, standoff};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What is known of one end.
#[derive(Debug, Default)]
pub struct Attendance {
    // None, the only thread that has received, or several of them.
    thread: AtomicUsize,
    given: AtomicBool,
    // Whether an error has left the announcement that this end waits.
    announced: AtomicBool,
}

const NONE: usize = 0;
const SEVERAL: usize = 1;

/// Returns a number that no other living thread has.
fn this_thread() -> usize {
    thread_local! {
        static PLACE: u64 = const { 0 };
    }
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

impl Attendance {
    /// Notes that this thread receives.
    #[inline]
    pub fn receives(&self) {
        let (before, me) = (self.thread.load(Ordering::Relaxed), this_thread());
        if before != me && before != SEVERAL {
            self.thread.store(if before == NONE { me } else { SEVERAL }, Ordering::Relaxed);
        }
    }

    /// Notes that a future receives: while this thread sends, another future may have received a message and not be
    /// done with it.
    pub fn receives_in_turns(&self) {
        self.thread.store(SEVERAL, Ordering::Relaxed);
    }

    /// Notes that a copy of the end is sent to another process.
    pub fn give_away(&self) {
        self.given.store(true, Ordering::Relaxed);
    }

    /// Notes how a wait for room has failed.
    pub fn failed(&self, error: &Error) {
        if matches!(error, Error::BothSend) {
            self.announced.store(true, Ordering::Relaxed);
        }
    }

    /// Withdraws an announcement that a failed wait left: this end sends or receives again.
    #[inline]
    pub fn resume(&self, end: BorrowedHandle<'_>) {
        if self.announced.load(Ordering::Relaxed) && self.announced.swap(false, Ordering::Relaxed) {
            standoff::unsay(end);
        }
    }

    /// Returns the receivers of an end, as this thread sees them.
    pub fn receivers(&self) -> Receivers {
        let thread = self.thread.load(Ordering::Relaxed);
        if thread != NONE && thread != this_thread() {
            Receivers::Others
        } else if self.given.load(Ordering::Relaxed) {
            Receivers::Unknown
        } else {
            Receivers::Myself
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_knows_of_other_threads_and_processes_that_receive() {
        let end = Attendance::default();
        assert_eq!(end.receivers(), Receivers::Myself);
        end.receives();
        assert_eq!(end.receivers(), Receivers::Myself);
        end.give_away();
        assert_eq!(end.receivers(), Receivers::Unknown);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                assert_eq!(end.receivers(), Receivers::Others);
                end.receives();
            });
            other.join().unwrap();
        });
        end.receives();
        assert_eq!(end.receivers(), Receivers::Others);
    }
}
