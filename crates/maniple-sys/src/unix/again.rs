//! Calls for which the kernel has no memory just now. They have done nothing, and are made again after pauses that grow.
//!
//! To return such an error at once would cost more than the call: a partly sent message, an exit status that is never fetched,
//! a thread that others count on.

use rustix::io::{Errno, Result};
use std::thread::sleep;
use std::time::Duration;

/// Pauses that grow from 2 ms, and come to a second in all.
pub fn pauses() -> impl Iterator<Item = Duration> {
    (0..9).map(|doubled| Duration::from_millis(2 << doubled))
}

/// Whether the kernel lacked memory.
pub fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::NOMEM | Errno::NOBUFS)
}

/// Makes a call, and makes it again for a second where the kernel has no memory for it.
pub fn patiently<R>(mut call: impl FnMut() -> Result<R>) -> Result<R> {
    for pause in pauses() {
        match call() {
            Err(error) if is_passing(error) => sleep(pause),
            other => return other,
        }
    }
    call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_lacks_memory_is_made_again_and_its_error_told_in_the_end() {
        let mut calls = 0;
        let second = patiently(|| {
            calls += 1;
            if calls == 2 { Ok(calls) } else { Err(Errno::NOMEM) }
        });
        assert_eq!(second, Ok(2));
        let mut calls = 0;
        let never = patiently(|| -> Result<()> {
            calls += 1;
            Err(Errno::NOBUFS)
        });
        assert_eq!((never, calls), (Err(Errno::NOBUFS), pauses().count() + 1));
        let mut calls = 0;
        let other = patiently(|| -> Result<()> {
            calls += 1;
            Err(Errno::PIPE)
        });
        assert_eq!((other, calls), (Err(Errno::PIPE), 1));
    }
}
