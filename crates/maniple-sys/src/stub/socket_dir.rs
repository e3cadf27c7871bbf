//! Folders for sockets.

use super::unsupported;
use std::io;
use std::path::PathBuf;

/// A folder that only this user can enter.
#[derive(Debug)]
pub struct SocketDir(PathBuf);

impl SocketDir {
    /// Returns the error "not supported".
    pub fn new(_random: [u8; 8]) -> io::Result<SocketDir> {
        Err(unsupported())
    }

    /// Returns the path for the socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("listener")
    }

    /// Does nothing: no folder exists.
    pub fn remove(&self) {}
}
