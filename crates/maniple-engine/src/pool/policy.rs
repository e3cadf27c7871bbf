//! The numbers by which every pool works, whichever front it belongs to.
//!
//! A front decides how a worker is started, how it is ended, and how a payload is encoded. How much, how often and how long is
//! decided here and in the state machines [`starts`](super::starts) and [`ending`](super::ending), and how work is divided in the
//! [`scheduler`](super::scheduler).

use super::packet::INLINE;
use std::time::Duration;

/// How many items, and how many bytes of payload, of an `imap` may be under way or wait to be taken, if the caller does not say.
pub const WINDOW: (usize, usize) = (1000, 64 << 20);

/// How many functions workers keep between calls. The one that was defined first is forgotten first.
pub const FUNCTIONS: usize = 64;

/// From how many bytes on a buffer travels beside the frame that refers to it.
pub const LARGE: usize = INLINE;

/// How many bytes, and how many large buffers or descriptors, make a task large enough, whatever number of items was asked for. For fronts
/// that can end a task before it has all items.
pub const CHUNK: (usize, usize) = (1 << 20, 64);

/// After how many bytes of payload a source has made enough tasks for now.
pub(super) const FILL_BYTES: usize = 8 << 20;
/// After how long. Whoever makes tasks has answers to take in, and may have to stop.
pub(super) const FILL_TIME: Duration = Duration::from_millis(5);
/// After how many small tasks a source looks at the clock.
pub(super) const FILL_LOOK: usize = 8;

/// After how many items taken a caller of `imap` makes room for others, of a window of so many, while it has more at hand.
pub fn report_after(window: usize) -> usize {
    (window / 8).clamp(1, 64)
}

/// How many tasks' outcomes a caller of `imap` takes at once, of a window of so many items.
pub fn take_at_once(window: usize) -> usize {
    4 * report_after(window)
}

/// Pauses before a start is tried again for which something is short: the first one and the longest. They double.
pub const START_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the calls of a pool without any worker wait for what is short.
pub const START_PATIENCE: Duration = Duration::from_secs(10);

/// How many starts may fail in a row, in a pool of so many workers, before it is given up where no worker lives.
pub fn failures_at_most(processes: usize) -> usize {
    processes.max(2)
}

/// How long a worker that was asked to end may take for its own clean-up before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// The same for a worker that does not hear a signal, because it ignores it or because a handler that is not its own would run: it
/// learns of the end from its link.
pub const NOTICE: Duration = Duration::from_millis(300);

/// How long the end of a pool waits for workers that were killed. The system may hold a process.
pub const FAREWELL: Duration = Duration::from_secs(10);

/// How long before something else is tried again that a keeper lacked memory, a descriptor or a thread for.
pub const AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_fits_into_any_window() {
        for window in 1..5000 {
            assert!((1..=window.min(64)).contains(&report_after(window)));
            assert!(take_at_once(window) >= report_after(window));
        }
    }
}
