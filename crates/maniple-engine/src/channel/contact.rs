//! Why a listener or a client had no success, in words that say what to do.

use super::address::Address;
use super::auth::Refusal;
use crate::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Why there is no listener or no connection.
#[derive(Debug)]
pub struct ContactError {
    /// What was being done.
    pub step: Step,
    /// The listener's address.
    pub address: Address,
    /// What stood in the way.
    pub cause: Cause,
}

/// What was being done with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Making a listener.
    Listen,
    /// Taking clients, by a listener.
    Accept,
    /// Authentication, by a listener, of one client: its address or process.
    LetIn(String),
    /// Connecting, by a client.
    Connect,
    /// Authentication, by a client.
    GetIn,
}

/// What stood in the way of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The operating system.
    Os(io::Error),
    /// What the other end said.
    Refusal(Refusal),
    /// The other end went away.
    Gone,
    /// Time, as much as was allowed.
    Late(Duration),
    /// Too many other clients, which came later.
    Crowded,
    /// The listener took the client, and has said nothing for so long.
    Mute(Duration),
}

/// An error of the engine's.
pub(super) fn contact(step: Step, address: &Address, cause: Cause) -> Error {
    Error::Other(Box::new(ContactError { step, address: address.clone(), cause }))
}

impl ContactError {
    /// What an error of the engine's says, where it is of this kind.
    pub fn of(error: &Error) -> Option<&ContactError> {
        match error {
            Error::Other(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Whether there was a connection, and the two ends did not come to trust each other.
    pub fn is_authentication(&self) -> bool {
        matches!(self.step, Step::LetIn(_) | Step::GetIn)
    }

    /// Whether a listener that reports this can continue: only one client is concerned.
    pub fn is_one_client(&self) -> bool {
        matches!(self.step, Step::LetIn(_))
    }
}

impl fmt::Display for ContactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.step {
            Step::Listen => write!(f, "could not listen at {address}: ")?,
            Step::Accept => write!(f, "could not accept a connection at {address}: ")?,
            Step::LetIn(who) => write!(f, "a client of the listener at {address}, from {who}, was not let in: ")?,
            Step::Connect => write!(f, "could not connect to {address}: ")?,
            Step::GetIn => write!(f, "could not authenticate with the listener at {address}: ")?,
        }
        match &self.cause {
            Cause::Os(e) => write!(f, "{e}{}", advice(&self.step, address, e.kind())),
            Cause::Refusal(why) => why.fmt(f),
            Cause::Gone => {
                f.write_str("the other end closed the connection, or died, in the middle of the authentication")
            }
            Cause::Late(limit) if self.step == Step::Connect => {
                write!(f, "no answer within {limit:?}; is the listener's process busy or stopped?")
            }
            Cause::Late(limit) => write!(f, "it said too little within {limit:?}; has it been given a key, too?"),
            Cause::Mute(limit) => {
                write!(
                    f,
                    "the listener took the connection and said nothing for {limit:?}; has it been given a key, too?"
                )
            }
            Cause::Crowded => write!(f, "too many others came while its authentication was unfinished"),
        }
    }
}

fn advice(step: &Step, address: &Address, kind: ErrorKind) -> &'static str {
    match (step, kind) {
        (Step::Listen, ErrorKind::AddrInUse) if matches!(address, Address::Local(_)) => {
            "; remove the path if its listener is gone, or take another"
        }
        (Step::Listen, ErrorKind::AddrInUse) => "; take another port, or port 0 for a free one",
        (Step::Listen, ErrorKind::InvalidFilename) => "; a socket's path has room for 107 bytes",
        (Step::Connect, ErrorKind::ConnectionRefused) => "; nobody listens there, or no longer",
        (Step::Connect, ErrorKind::NotFound) => "; has the listener been made?",
        _ => "",
    }
}

impl std::error::Error for ContactError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Os(e) => Some(e),
            Cause::Refusal(why) => Some(why),
            _ => None,
        }
    }
}
