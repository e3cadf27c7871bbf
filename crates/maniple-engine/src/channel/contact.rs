//! Why a listener or a client failed, in messages that say what to do.

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

/// What was done with an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// The listener was being made.
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
    /// The other end's authentication failed.
    Refusal(Refusal),
    /// The other end closed the connection.
    Gone,
    /// The time limit expired.
    Late(Duration),
    /// Too many other clients connected later.
    Crowded,
    /// The listener has accepted the client, and has sent nothing for so long.
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

    /// Whether there was a connection, and the two ends did not authenticate.
    pub fn is_authentication(&self) -> bool {
        matches!(self.step, Step::LetIn(_) | Step::GetIn)
    }

    /// Whether a listener that reports this can continue, because it concerns only one client.
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
            Step::LetIn(who) => write!(f, "the listener at {address} rejected a client from {who}: ")?,
            Step::Connect => write!(f, "could not connect to {address}: ")?,
            Step::GetIn => write!(f, "could not authenticate with the listener at {address}: ")?,
        }
        match &self.cause {
            Cause::Os(e) => {
                write!(f, "{e}{}{}", advice(&self.step, address, e.kind()), maniple_sys::advice(e))
            }
            Cause::Refusal(why) => why.fmt(f),
            Cause::Gone => {
                f.write_str("the other end closed the connection, or died, in the middle of the authentication")?;
                if self.step == Step::GetIn {
                    f.write_str("; its process may have no free descriptor or memory (ulimit -n, -v)")?;
                }
                Ok(())
            }
            Cause::Late(limit) if self.step == Step::Connect => {
                write!(f, "no answer within {limit:?}; is the listener's process busy or stopped?")
            }
            Cause::Late(limit) => {
                write!(f, "the peer did not complete the authentication within {limit:?}; does it have a key?")
            }
            Cause::Mute(limit) => {
                write!(f, "the listener accepted the connection and sent nothing for {limit:?}; does it have a key?")
            }
            Cause::Crowded => write!(f, "too many other clients connected before its authentication was complete"),
        }
    }
}

fn advice(step: &Step, address: &Address, kind: ErrorKind) -> &'static str {
    match (step, kind) {
        (Step::Listen, ErrorKind::AddrInUse) if matches!(address, Address::Local(_)) => {
            "; remove the path if its listener has ended, or use another path"
        }
        (Step::Listen, ErrorKind::AddrInUse) => "; use another port, or port 0 for a free port",
        (Step::Listen, ErrorKind::InvalidFilename) => "; a socket's path has room for 107 bytes",
        (Step::Connect, ErrorKind::ConnectionRefused) => "; no process listens at this address",
        (Step::Connect, ErrorKind::NotFound) => "; does the listener exist?",
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
