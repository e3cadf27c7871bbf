//! The client's part of an authentication.

use super::guest::{Guest, Standing};
use super::{SILENCE, left};
use crate::channel::auth::Role;
use crate::channel::contact::Cause;
use crate::channel::frame::Interrupted;
use maniple_sys::ready::{self, Interest};
use maniple_sys::{BorrowedHandle, socket};
use std::time::{Duration, Instant};

/// How often a client checks whether the listener has accepted it, and calls the caller's hook.
const LOOK: Duration = Duration::from_secs(2);

/// Why a client was not admitted.
#[derive(Debug)]
pub enum Unwelcome {
    /// What the other end, or the operating system, did.
    Because(Cause),
    /// The deadline has passed.
    Late,
    /// The caller's hook ended the wait.
    Interrupted,
}

/// Performs the client's part of the authentication over a connected socket in blocking mode.
///
/// A busy listener may accept a client late, so the wait has no limit of its own. But a listener that has accepted the
/// client and has a key sends its challenge at once. If the system reports that the client was accepted
/// ([`socket::is_taken`]), a listener that then sends nothing for [`SILENCE`] has no key: [`Cause::Mute`].
///
/// # Errors
/// [`Unwelcome`]; the connection is then unusable.
pub fn get_in(
    socket: BorrowedHandle<'_>,
    key: &[u8],
    deadline: Option<Instant>,
    interrupted: Interrupted<'_, '_>,
) -> Result<(), Unwelcome> {
    let mut guest = Guest::new(socket, key, Role::Client, Duration::MAX).map_err(Unwelcome::Because)?;
    let mut taken: Option<Instant> = None;
    loop {
        let wait = left(deadline).map_or(LOOK, |left| left.min(LOOK));
        let (begun, silent) = (Instant::now(), guest.has_heard_nothing());
        let found =
            ready::wait(&mut [Interest::new(socket)], Some(wait)).map_err(|e| Unwelcome::Because(Cause::Os(e)))?;
        if found > 0 && guest.hear().map_err(Unwelcome::Because)? == Standing::IsIn {
            return Ok(());
        }
        // A signal that arrives while the guest is served does not end the next wait, so each turn calls the hook.
        if interrupted() {
            return Err(Unwelcome::Interrupted);
        }
        if found > 0 {
            continue;
        }
        if left(deadline) == Some(Duration::ZERO) {
            return Err(Unwelcome::Late);
        }
        if silent && begun.elapsed() >= LOOK {
            match taken {
                Some(since) if since.elapsed() >= SILENCE => return Err(Unwelcome::Because(Cause::Mute(SILENCE))),
                Some(_) => {}
                None => taken = (socket::is_taken(socket) == Some(true)).then(Instant::now),
            }
        }
    }
}
