//! Retries calls for which the kernel has no memory, after growing pauses. Such a call has had no effect.
//!
//! An immediate error would lose more than the call: a partly sent message, an exit status that is never fetched, a
//! thread on which others depend.

use rustix::io::{Errno, Result};
use std::thread::sleep;
use std::time::Duration;

/// Returns pauses that grow from 2 ms, and last a second in total.
pub fn pauses() -> impl Iterator<Item = Duration> {
    (0..9).map(|doubled| Duration::from_millis(2 << doubled))
}

/// Returns whether the kernel lacked memory.
pub fn is_passing(error: Errno) -> bool {
    matches!(error, Errno::NOMEM | Errno::NOBUFS)
}

/// Returns whether the kernel does not know a call, or a sandbox refuses it.
pub fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM | Errno::ACCESS)
}

/// Makes a call, and retries it for a second while the kernel has no memory for it.
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
    fn a_call_without_memory_is_retried_and_then_fails() {
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
