//! The address of a listener: its text, and its meaning for the operating system.
//!
//! Only Rust's listeners use it; Python's addresses are those of its `socket` module.

use maniple_sys::socket::Place;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a listener is.
///
/// ```
/// use maniple_engine::channel::address::Address;
///
/// assert_eq!("localhost:4000".parse(), Ok(Address::Tcp("localhost:4000".into())));
/// assert_eq!("/run/depot".parse(), Ok(Address::Local("/run/depot".into())));
/// assert_eq!("@depot".parse::<Address>().unwrap().to_string(), "@depot");
/// assert!("depot".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// The path of a local socket. With a leading NUL, which is written `@`, a name that is in no file system, on
    /// systems that have such names.
    Local(PathBuf),
    /// `host:port`. At port 0 a listener takes a free port.
    Tcp(String),
}

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address: write host:port, a path with a '/' in it, or @name")]
pub struct BadAddress(pub String);

/// Whether a text is a path: it has a separator in it.
fn is_path(text: &str) -> bool {
    text.contains(std::path::is_separator)
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Address, BadAddress> {
        if let Some(name) = text.strip_prefix(['@', '\0']) {
            return Ok(Address::Local(format!("\0{name}").into()));
        }
        if is_path(text) {
            return Ok(Address::Local(text.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Address::Tcp(text.into())),
            _ => Err(BadAddress(text.into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(text) => f.write_str(text),
            Address::Local(path) => {
                let text = path.to_string_lossy();
                match text.strip_prefix('\0') {
                    Some(name) => write!(f, "@{name}"),
                    None if is_path(&text) => f.write_str(&text),
                    None => write!(f, "./{text}"),
                }
            }
        }
    }
}

impl Address {
    /// Calls the function with each place that the address may mean, until it succeeds.
    pub(super) fn each<T>(&self, mut act: impl FnMut(Place<'_>) -> io::Result<T>) -> io::Result<T> {
        match self {
            Address::Local(path) => act(Place::Local(path)),
            Address::Tcp(text) => {
                let mut places: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
                // The standard package knows only the older protocol: a name that has addresses of both protocols must
                // mean the same to all.
                places.sort_by_key(SocketAddr::is_ipv6);
                let mut last = io::Error::new(ErrorKind::NotFound, "the host's name has no address");
                for place in places {
                    match act(Place::Tcp(place)) {
                        Err(e) if e.kind() != ErrorKind::Interrupted => last = e,
                        other => return other,
                    }
                }
                Err(last)
            }
        }
    }
}
