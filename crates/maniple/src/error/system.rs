//! Refusals of the operating system.

use super::travel::Arrived;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io;

/// The operating system or the engine refused something: [`Error::System`](crate::Error::System).
///
/// The text says which operation failed. [`source`](std::error::Error::source) returns the operating system's error.
///
/// ```
/// use maniple::{Client, Error};
/// use std::error::Error as _;
///
/// let Err(Error::System(error)) = Client::connect::<u8>("/no/such/socket") else { panic!("it is not there") };
/// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
/// assert!(error.raw_os_error().is_some());
/// assert!(error.source().is_some_and(|source| source.is::<std::io::Error>()));
/// ```
pub struct SystemError(Box<maniple_engine::Error>);

impl SystemError {
    pub(super) fn of(error: maniple_engine::Error) -> SystemError {
        SystemError(Box::new(error))
    }

    pub(crate) fn doing(doing: &'static str, source: io::Error) -> SystemError {
        SystemError(Box::new(maniple_engine::Error::Os { doing, source }))
    }

    pub(crate) fn engine(&self) -> &maniple_engine::Error {
        &self.0
    }

    fn os(&self) -> Option<&io::Error> {
        let mut error: &(dyn std::error::Error + 'static) = &*self.0;
        loop {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            error = error.source()?;
        }
    }

    /// Returns the operating system's error number (`errno`), if the error comes from the operating system.
    ///
    /// ```
    /// use maniple::{Client, Error};
    ///
    /// let Err(Error::System(error)) = Client::connect::<u8>("/no/such/socket") else { panic!("it is not there") };
    /// assert_eq!(error.raw_os_error().map(std::io::Error::from_raw_os_error).unwrap().kind(), error.kind());
    /// ```
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        self.os()?.raw_os_error()
    }

    /// Returns the standard library's kind of the error.
    ///
    /// ```
    /// use maniple::{Client, Error};
    ///
    /// let Err(Error::System(error)) = Client::connect::<u8>("/no/such/socket") else { panic!("it is not there") };
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// ```
    pub fn kind(&self) -> io::ErrorKind {
        self.os().map_or(io::ErrorKind::Other, io::Error::kind)
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SystemError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.to_string(), self.raw_os_error()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SystemError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SystemError, D::Error> {
        let (text, number) = Deserialize::deserialize(deserializer)?;
        Ok(SystemError::of(maniple_engine::Error::Other(Box::new(Arrived::new(text, number)))))
    }
}

impl std::error::Error for SystemError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
