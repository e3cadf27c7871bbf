//! Addresses of listeners.

use crate::error::{ChannelError, Error, Result};
use maniple_engine::channel::listener as engine;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of a [`Listener`](crate::Listener): the path of a local socket, or a host and a port.
///
/// Its text form is `/run/depot.socket` for a path (any text with a `/` in it), `@depot` for a name that is in no file
/// system (Linux), and `localhost:4000` for a host and a port. Python's `multiprocessing` writes the last as
/// `("localhost", 4000)`, and the name as `"\0depot"`. An address can be sent to another process.
///
/// ```
/// use maniple::Address;
///
/// # fn main() -> maniple::Result<()> {
/// let address: Address = "localhost:4000".parse()?;
/// assert_eq!((address.port(), address.path()), (Some(4000), None));
/// assert_eq!(address, ("localhost", 4000).into());
/// assert_eq!("/run/depot".parse::<Address>()?.to_string(), "/run/depot");
/// let error = "depot".parse::<Address>().unwrap_err();
/// assert!(error.to_string().contains("write host:port"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub(crate) engine::Address);

impl Address {
    /// Whether only processes of this machine can be at the other end.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.0, engine::Address::Local(_))
    }

    /// Returns the path, if it has one that is in the file system.
    ///
    /// ```
    /// use maniple::Address;
    /// use std::path::Path;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let address: Address = "/run/depot.socket".parse()?;
    /// assert_eq!(address.path(), Some(Path::new("/run/depot.socket")));
    /// assert_eq!("@depot".parse::<Address>()?.path(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            engine::Address::Local(path) if !path.as_os_str().as_encoded_bytes().starts_with(b"\0") => Some(path),
            _ => None,
        }
    }

    /// Returns the port, if it has one. A [`Listener`](crate::Listener)'s is never 0.
    ///
    /// ```
    /// use maniple::Address;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// assert_eq!("localhost:4000".parse::<Address>()?.port(), Some(4000));
    /// assert_eq!("/run/depot.socket".parse::<Address>()?.port(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.0 {
            engine::Address::Tcp(text) => text.rsplit_once(':')?.1.parse().ok(),
            engine::Address::Local(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address> {
        text.parse().map(Address).map_err(|e: engine::BadAddress| Error::Channel(ChannelError::Address(e.to_string())))
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Address> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Address> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Address> {
        text.parse()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Address {
        Address(engine::Address::Local(path))
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Address {
        path.to_owned().into()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address(engine::Address::Tcp(address.to_string()))
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Address {
        let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Address(engine::Address::Tcp(text))
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Address {
        address.clone()
    }
}

/// This conversion cannot fail. Generic code that takes all kinds of addresses needs an error type.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Error {
        match never {}
    }
}

/// The encoded form. Paths need not be text.
#[derive(Serialize, Deserialize)]
enum Form {
    Local(OsString),
    Tcp(String),
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match &self.0 {
            engine::Address::Local(path) => Form::Local(path.clone().into()),
            engine::Address::Tcp(text) => Form::Tcp(text.clone()),
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Address(match Form::deserialize(deserializer)? {
            Form::Local(path) => engine::Address::Local(path.into()),
            Form::Tcp(text) => engine::Address::Tcp(text),
        }))
    }
}
