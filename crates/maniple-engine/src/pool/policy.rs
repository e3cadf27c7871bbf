//! The numbers of every pool, of both fronts.
//!
//! A front decides how a worker is started, how it is ended, and how a payload is encoded. How much, how often and how long is
//! decided here and in the state machines [`starts`](super::starts) and [`ending`](super::ending), and how work is divided in the
//! [`scheduler`](super::scheduler).

use super::packet::INLINE;
use std::time::Duration;

/// How many items, and how many bytes of payload, of an `imap` may be under way or wait to be taken by default.
pub const WINDOW: (usize, usize) = (1000, 64 << 20);

/// The variables by which numerical libraries learn how many threads they may start.
pub const THREAD_VARIABLES: [&str; 8] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// How many descriptors a pool's process has for each worker whose standard error it reads.
pub const DESCRIPTORS: usize = 3;

/// How many functions workers keep between calls. The one that was defined first is forgotten first.
pub const FUNCTIONS: usize = 64;

/// The number of bytes from which on a buffer of a payload becomes a blob, which travels beside its frame. The bytes of
/// a payload become a blob above the same number, so a frame stays short.
pub const BLOB_FROM: usize = INLINE;

/// The number of bytes, and of large buffers or descriptors, that make a task large enough, regardless of the requested
/// number of items. For fronts that can end a task before it has all items.
pub const CHUNK: (usize, usize) = (1 << 20, 64);

/// The number of bytes of payload after which a source has made enough tasks for now.
pub(super) const FILL_BYTES: usize = 8 << 20;
/// After how long. The thread that makes tasks also receives answers, and may have to stop.
pub(super) const FILL_TIME: Duration = Duration::from_millis(5);
/// After how many small tasks a source reads the clock.
pub(super) const FILL_LOOK: usize = 8;

/// After how many taken items a caller of `imap` makes room for others, for a window of this size, while it has further
/// results.
pub fn report_after(window: usize) -> usize {
    (window / 8).clamp(1, 64)
}

/// How many tasks' outcomes a caller of `imap` takes at once, for a window of so many items.
pub fn take_at_once(window: usize) -> usize {
    4 * report_after(window)
}

/// The pauses before a start is retried after a shortage: the first pause and the longest. They double.
pub const START_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long the calls of a pool without any worker wait for the end of a shortage.
pub const START_PATIENCE: Duration = Duration::from_secs(10);

/// How many starts may fail in a row, in a pool of so many workers without a living worker, before the pool fails.
pub fn failures_at_most(processes: usize) -> usize {
    processes.max(2)
}

/// After how long without work a worker ends by default, in a pool whose size follows the work.
pub const IDLE_WORKER: Duration = Duration::from_secs(10);

/// How long a worker that was asked to end may take for its own clean-up before it is killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// The same time for a worker that does not react to a signal, because it ignores the signal or because a handler of
/// the program would run. It reads of the end in its link.
pub const NOTICE: Duration = Duration::from_millis(300);

/// How long the end of a pool waits for killed workers. The system may delay a process.
pub const FAREWELL: Duration = Duration::from_secs(10);

/// The pause before a keeper retries another step that failed for lack of memory, a descriptor or a thread.
pub const AGAIN: Duration = Duration::from_millis(50);

/// How long the thread that calls sources waits for further ones before it ends.
pub const LINGER: Duration = Duration::from_secs(1);

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
