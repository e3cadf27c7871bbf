//! How a call failed, as it goes back to its caller.

use crate::error::{CallError, Error};
use serde::Serialize;

/// How an item failed, on its way back.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) enum Failure {
    Panicked(crate::error::Panicked),
    /// With what [`CallError::Task`] holds.
    Task(Box<(String, String)>),
    /// With what [`CallError::Remote`] holds.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        match error {
            Error::Panicked(panicked) => Failure::Panicked((**panicked).clone()),
            Error::Call(CallError::Task(about)) => Failure::Task(about.clone()),
            Error::Call(CallError::Remote(text)) => Failure::Other(text.clone()),
            other => Failure::Other(other.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Panicked(panicked) => Error::Panicked(Box::new(panicked)),
            Failure::Task(about) => Error::Call(CallError::Task(about)),
            Failure::Other(text) => Error::Call(CallError::Remote(text)),
        }
    }
}
