//! Whether jobs are submitted, or fed, in quick succession by threads that do not wait for them.
//!
//! Such a thread drives the hub itself at every call, so no thread has to be woken for the messages of workers
//! meanwhile. Waking the keeper for them costs more than the task: two context switches, and in some fronts an
//! interpreter's lock. So in a *burst* of calls the bell stays silent, and the keeper *polls*: it checks at intervals,
//! and when it finds that the burst is over, it arms the bell again.

use std::time::Duration;

/// Calls that are no further apart than this (ns) are a burst.
const NEAR: u64 = 60_000;
/// A burst begins after so many of them in a row.
const MANY: u32 = 8;
/// In a burst the hub receives messages at every so many calls: receiving many costs little more than receiving one
/// answer.
const EVERY: u32 = 4;
/// How often the keeper polls: a worker gets about so much work in advance.
pub(super) const POLLING: Duration = Duration::from_millis(1);

/// The state of it.
#[derive(Debug, Default)]
pub(super) struct Burst {
    last: u64,
    near: u32,
    unheard: u32,
    calls: u64,
    seen: u64,
    /// The keeper polls.
    pub polled: bool,
}

/// What a caller should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    /// Listen to the workers.
    pub listen: bool,
    /// Make the keeper poll: a burst begins.
    pub begin: bool,
}

impl Burst {
    /// A job or task came from a thread that does not drive.
    pub fn call(&mut self, now: u64) -> Advice {
        self.near = if now.saturating_sub(self.last) < NEAR { self.near.saturating_add(1) } else { 0 };
        self.last = now;
        self.calls += 1;
        let begin = self.near == MANY && !self.polled;
        self.polled |= begin;
        self.unheard += 1;
        let listen = self.near < MANY || self.unheard >= EVERY;
        if listen {
            self.unheard = 0;
        }
        Advice { listen, begin }
    }

    /// The keeper no longer polls.
    pub fn end(&mut self) {
        self.polled = false;
        self.near = 0;
    }

    /// The keeper checks, while no thread drives: whether it should poll again rather than arm the bell.
    pub fn poll(&mut self) -> bool {
        if self.polled && self.calls == self.seen {
            self.end();
        }
        self.seen = self.calls;
        self.polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_begins_once_is_heard_now_and_then_and_ends_without_calls() {
        let mut burst = Burst::default();
        let advice: Vec<Advice> = (1..=40).map(|i| burst.call(i * 10_000)).collect();
        assert_eq!(advice.iter().filter(|a| a.begin).count(), 1);
        assert!(advice[..7].iter().all(|a| a.listen));
        assert_eq!(advice[20..].iter().filter(|a| a.listen).count(), 5);
        assert!(burst.poll());
        assert!(!burst.poll());
        assert!(!burst.polled);
        assert!(burst.call(10_000_000).listen);
    }

    #[test]
    fn calls_far_apart_are_no_burst() {
        let mut burst = Burst::default();
        assert!((1..100).all(|i| burst.call(i * NEAR) == Advice { listen: true, begin: false }));
    }
}
