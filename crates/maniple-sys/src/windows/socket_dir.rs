//! Folders for this user's listeners, which are removed after their processes.
//!
//! A folder's name has the process and its birth in it. The next process that makes a folder removes those of processes
//! that have ended. A folder for temporary files belongs to its user alone on this system.

use super::holder;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "maniple-socket-";
const SOCKET: &str = "listener";

/// A folder that only this user can enter. A drop does not remove it; see [`SocketDir::remove`].
#[derive(Debug)]
pub struct SocketDir(PathBuf);

impl SocketDir {
    /// Creates a folder for temporary files.
    pub fn new(random: [u8; 8]) -> io::Result<SocketDir> {
        let place = std::env::temp_dir();
        sweep(&place);
        let me = holder::identity();
        let path = place.join(format!("{PREFIX}{:x}-{:x}-{:016x}", me.pid, me.born, u64::from_ne_bytes(random)));
        std::fs::create_dir(&path)?;
        Ok(SocketDir(path))
    }

    /// Returns the path for the listener.
    pub fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Removes the folder and the listener's file.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Removes the folders of processes that have ended.
fn sweep(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(mut numbers) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(|rest| rest.split('-'))
        else {
            continue;
        };
        let mut number = || numbers.next().and_then(|text| u32::from_str_radix(text, 16).ok());
        if let (Some(pid), Some(born)) = (number(), number())
            && holder::is_gone(pid, born)
        {
            SocketDir(entry.path()).remove();
        }
    }
}
