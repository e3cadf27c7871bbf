//! Sleeps on a word in shared memory: by the system's call, or, without one, by looking at the word again and again.

use super::system;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use crate::terms::Woken;

/// Sleeps while `word` holds `expected`, at most for `timeout`. May return early.
#[inline]
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    system::word::wait(word, expected, timeout).unwrap_or_else(|| look_again(word, expected, timeout))
}

/// Wakes up to `count` sleepers of `word`, in any process. Returns 0 only if there were none.
#[inline]
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    // Whether there are sleepers that look again and again is not known.
    system::word::wake(word, count).unwrap_or(1)
}

/// Looks at the word after pauses that grow to a millisecond. A wake is not noticed unless the word has changed, so a
/// sleep without a limit ends by itself after some time. (A sleep with a limit does not: callers have work to do at its
/// end.)
fn look_again(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    const FIRST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_millis(1);
    const ENOUGH: Duration = Duration::from_millis(20);
    let begun = Instant::now();
    let mut pause = FIRST;
    // Acquire: the caller reads what the waker has written before it changed the word.
    while word.load(Ordering::Acquire) == expected {
        let slept = begun.elapsed();
        let left = timeout.map_or(LONGEST, |timeout| timeout.saturating_sub(slept));
        if left.is_zero() {
            return Woken::TimedOut;
        }
        if timeout.is_none() && slept >= ENOUGH {
            return Woken::Rung;
        }
        if !nap(pause.min(left)) {
            return Woken::Signal;
        }
        pause = (pause * 2).min(LONGEST);
    }
    Woken::Rung
}

/// Sleeps. False: a signal handler has run.
#[allow(unsafe_code)]
fn nap(time: Duration) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    // SAFETY: the pointer is to a value that outlives the call; the rest of an interrupted sleep is not wanted.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_ends_with_a_change_or_with_its_time() {
        const LIMIT: Duration = Duration::from_millis(30);
        let word = AtomicU32::new(0);
        assert_eq!(look_again(&word, 1, None), Woken::Rung);
        assert_eq!(look_again(&word, 0, Some(Duration::ZERO)), Woken::TimedOut);
        let begun = Instant::now();
        assert_eq!((look_again(&word, 0, Some(LIMIT)), begun.elapsed() >= LIMIT), (Woken::TimedOut, true));
        // A wake that changes nothing is not noticed.
        assert_eq!(look_again(&word, 0, None), Woken::Rung);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(LIMIT);
                word.store(1, Ordering::Release);
            });
            while word.load(Ordering::Acquire) == 0 {
                look_again(&word, 0, Some(Duration::from_secs(30)));
            }
        });
    }
}
