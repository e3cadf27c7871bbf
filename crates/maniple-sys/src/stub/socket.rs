//! Listeners and connections.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::terms::Place;

/// The greatest length of a socket's path, in bytes.
pub const LONGEST_PATH: usize = 103;

/// Returns the error "not supported".
pub fn listen(_place: Place<'_>, _backlog: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns `None`: the system has no such names.
pub fn own_name(_label: &str, _random: [u8; 8]) -> Option<PathBuf> {
    None
}

/// Returns the error "not supported".
pub fn address(_socket: BorrowedHandle<'_>) -> io::Result<SocketAddr> {
    Err(unsupported())
}

/// Returns a text without an address.
pub fn peer(_socket: BorrowedHandle<'_>) -> String {
    "an unknown process".into()
}

/// Returns the error "not supported".
pub fn accept(_listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
    Err(unsupported())
}

/// Returns `None`: unknown.
pub fn is_taken(_client: BorrowedHandle<'_>) -> Option<bool> {
    None
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dial(OwnedHandle);

impl Dial {
    /// Returns the error "not supported".
    pub fn new(_place: Place<'_>) -> io::Result<Dial> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn connect(&self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the socket.
    pub fn into_handle(self) -> OwnedHandle {
        self.0
    }
}

/// Returns the error "not supported".
pub fn send_at_once(_socket: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn keep_alive(_socket: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn send_now(_socket: BorrowedHandle<'_>, _bytes: &[u8]) -> io::Result<usize> {
    Err(unsupported())
}

/// The file at the path of a local socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(());

/// Returns the error "not supported".
pub fn file(_path: &Path) -> io::Result<Option<File>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn random(_bytes: &mut [u8]) -> io::Result<()> {
    Err(unsupported())
}
