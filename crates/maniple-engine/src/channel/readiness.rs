//! Waiting until an end can be read or written.

use super::frame::Interrupted;
use crate::error::{Doing, Error, Result};
use crate::wait::Until;
use maniple_sys::BorrowedHandle;
use maniple_sys::ready::{self, Interest};

/// Waits for any of `interests`; `what` names the operation. Returns false if the time limit expired.
///
/// # Errors
/// The system's, and [`Error::Interrupted`].
pub fn any(
    interests: &mut [Interest<'_>],
    until: Until,
    what: &'static str,
    interrupted: Interrupted<'_, '_>,
) -> Result<bool> {
    loop {
        let left = until.left();
        if ready::wait(interests, left).doing(what)? > 0 {
            return Ok(true);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        if interrupted() {
            return Err(Error::Interrupted);
        }
    }
}

/// Waits until a message, or the end of the stream, can be received.
///
/// # Errors
/// As [`any`].
pub fn message(end: BorrowedHandle<'_>, until: Until, interrupted: Interrupted<'_, '_>) -> Result<bool> {
    any(&mut [Interest::new(end)], until, "wait for a message", interrupted)
}

/// Waits until something can be sent.
///
/// # Errors
/// As [`any`].
pub fn room(end: BorrowedHandle<'_>, until: Until, interrupted: Interrupted<'_, '_>) -> Result<bool> {
    any(&mut [Interest::room(end)], until, "wait for a pipe's room", interrupted)
}
