//! The failure of a call, in the form in which it returns to the caller.

use crate::error::{CallError, Error};
use serde::Serialize;

/// The failure of an item.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) enum Failure {
    Panicked(crate::error::Panicked),
    /// With the fields of [`CallError::Task`].
    Task {
        name: String,
        why: String,
    },
    /// With the text of [`CallError::Remote`].
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
            Error::Call(CallError::Task { name, why }) => Failure::Task { name: name.clone(), why: why.clone() },
            Error::Call(CallError::Remote(text)) => Failure::Other(text.clone()),
            other => Failure::Other(other.to_string()),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Panicked(panicked) => Error::Panicked(Box::new(panicked)),
            Failure::Task { name, why } => Error::Call(CallError::Task { name, why }),
            Failure::Other(text) => Error::Call(CallError::Remote(text)),
        }
    }
}
