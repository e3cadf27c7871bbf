//! What client and server say to each other, over authenticated connections (`maniple_engine::channel::framed_stream`).
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
//! To `Call` belong the identity of an `Invoke` (see `rpc`) and its encoded argument, to `Make` the identity of a
//! maker and its argument. Identities hold within one build of the program; a function called by name between different
//! ones would be another `Ask`.

use super::ManagerError;
use crate::error::{CallError, Error};
use crate::failure::Failure;
use serde::{Deserialize, Serialize};

/// Changes with every change to this file.
pub(super) const PROTOCOL: u32 = 1;

/// What a connection is for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// A new client process.
    Control,
    /// A thread of the client with this session.
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
    /// Which server it is, of all that there ever were.
    pub token: u64,
    /// Which build of which program it is.
    pub build: u64,
    /// The client's number.
    pub session: u64,
}

/// About references, in the order in which they are made and dropped; and the last word.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// One reference less.
    Release(u64),
    /// A proxy for the object sets out to somewhere. The answer is its passage's number.
    Pass(u64),
    /// A proxy for `object` has arrived here with that passage.
    Claim { object: u64, passage: u64 },
    /// The server is to end.
    Shutdown,
}

/// What a line asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// To call something with an object.
    Call(u64),
    /// To make an object.
    Make,
}

/// Why there is no value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Trouble {
    /// What the called function did, or what stood in its way.
    Failed(Failure),
    /// The object, or the server.
    Refused(ManagerError),
    /// There is no caller to answer.
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
