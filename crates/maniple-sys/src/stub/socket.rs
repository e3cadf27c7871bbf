//! Sockets that listen, that connect, and that were connected to.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::terms::Place;

/// Bytes of the longest path that a socket can have.
pub const LONGEST_PATH: usize = 103;

/// Not supported.
pub fn listen(_place: Place<'_>, _backlog: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// There are no such names.
pub fn own_name(_label: &str, _random: [u8; 8]) -> Option<PathBuf> {
    None
}

/// Not supported.
pub fn address(_socket: BorrowedHandle<'_>) -> io::Result<SocketAddr> {
    Err(unsupported())
}

/// Not known.
pub fn peer(_socket: BorrowedHandle<'_>) -> String {
    "an unknown process".into()
}

/// Not supported.
pub fn accept(_listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
    Err(unsupported())
}

/// Not known.
pub fn is_taken(_client: BorrowedHandle<'_>) -> Option<bool> {
    None
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dial(OwnedHandle);

impl Dial {
    /// Not supported.
    pub fn new(_place: Place<'_>) -> io::Result<Dial> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn connect(&self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(unsupported())
    }

    /// The socket, once it is connected.
    pub fn into_handle(self) -> OwnedHandle {
        self.0
    }
}

/// Not supported.
pub fn send_at_once(_socket: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn keep_alive(_socket: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn send_now(_socket: BorrowedHandle<'_>, _bytes: &[u8]) -> io::Result<usize> {
    Err(unsupported())
}

/// The file at the path of a local socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(());

/// Not supported.
pub fn file(_path: &Path) -> io::Result<Option<File>> {
    Err(unsupported())
}

/// Not supported.
pub fn random(_bytes: &mut [u8]) -> io::Result<()> {
    Err(unsupported())
}
