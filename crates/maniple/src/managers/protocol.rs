//! The messages of client and server, over authenticated connections (`maniple_engine::channel::framed_stream`).
//!
//! ```text
//! client                          server
//!   Hello  ──────────────────────▶          the first message of a connection; says what it is for
//!          ◀────────────────────── Welcome
//!
//! a control connection, one for each client process
//!   Note   ──────────────────────▶          which objects it refers to; `Release` and `Shutdown` have no answer
//!          ◀────────────────────── Result<u64, Trouble>
//!
//! a line, one for each thread of it
//!   Ask · what belongs to it ────▶
//!          ◀────────────────────── Result<value, Trouble>
//! ```
//! `Call` is followed by the identity of an `Invoke` (see `rpc`) and its encoded argument; `Make` by the identity of a
//! maker and its argument. Identities are valid within one build of the program. A function called by name between
//! different builds would be another `Ask`.

use super::ManagerError;
use crate::error::{CallError, Error};
use crate::failure::Failure;
use serde::{Deserialize, Serialize};

/// A number that changes with every change to this file.
pub(super) const PROTOCOL: u32 = 1;

/// The purpose of a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// The control connection of a new client process.
    Control,
    /// The line of a thread of the client with this session.
    Line(u64),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub protocol: u32,
    pub purpose: Purpose,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub protocol: u32,
    /// The token that identifies this server among all servers.
    pub token: u64,
    /// The build of the server's program.
    pub build: u64,
    /// The client's number.
    pub session: u64,
}

/// A message about references, in the order in which they are made and dropped; or the last message.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// One reference was released.
    Release(u64),
    /// A proxy for the object is being sent. The answer is the number of its passage.
    Pass(u64),
    /// A proxy for `object` has arrived with that passage.
    Claim { object: u64, passage: u64 },
    /// The server must end.
    Shutdown,
}

/// A request of a line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Calls a function with an object.
    Call(u64),
    /// Makes an object.
    Make,
}

/// The reason why there is no value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Trouble {
    /// The called function failed, or could not be called.
    Failed(Failure),
    /// The object, or the server, is gone.
    Refused(ManagerError),
    /// The caller is gone, so there is no answer.
    CallerGone,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        match error {
            Error::Manager(why) => Trouble::Refused(why),
            other => Trouble::Failed(Failure::from(other)),
        }
    }
}

impl From<ManagerError> for Trouble {
    fn from(why: ManagerError) -> Trouble {
        Trouble::Refused(why)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        match trouble {
            Trouble::Failed(failure) => failure.into(),
            Trouble::Refused(why) => Error::Manager(why),
            Trouble::CallerGone => Error::Call(CallError::Remote("the caller was gone".into())),
        }
    }
}
