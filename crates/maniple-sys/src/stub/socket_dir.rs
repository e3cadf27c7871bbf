//! Folders for sockets.

use super::unsupported;
use std::io;
use std::path::PathBuf;

/// A folder that only this user can enter.
#[derive(Debug)]
pub struct SocketDir(PathBuf);

impl SocketDir {
    /// Not supported.
    pub fn new(_random: [u8; 8]) -> io::Result<SocketDir> {
        Err(unsupported())
    }

    /// Where the socket is to be.
    pub fn socket(&self) -> PathBuf {
        self.0.join("listener")
    }

    /// Nothing is there.
    pub fn remove(&self) {}
}
