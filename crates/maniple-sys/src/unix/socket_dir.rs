//! Folders for this user's sockets, which are removed after their processes.
//!
//! The process that makes a folder locks it (`flock`), and the system releases the lock when the process ends. If the
//! process is killed, the socket stays; the next process that makes a folder removes it:
//!
//! ```text
//! maker                                   sweeper
//! make the folder                         lock a folder, without waiting; continue with the next if that fails
//! lock it                                 if there is a socket in it, it has no owner: remove both
//! put the socket there                    unlock
//! ```
//! A maker acquires the lock before it makes the socket, so a folder with a socket and without a lock has no maker any
//! more. An empty folder may be about to be locked, so a sweeper does not remove it.

use crate::OwnedHandle;
use crate::socket::LONGEST_PATH;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "maniple-socket-";
const SOCKET: &str = "listener";

/// A folder that only this user can enter. A drop does not remove it; see [`SocketDir::remove`].
#[derive(Debug)]
pub struct SocketDir {
    path: PathBuf,
    // It keeps the folder locked.
    _lock: OwnedHandle,
}

impl SocketDir {
    /// Creates a folder for temporary files, with a path that is short enough for a socket in it.
    pub fn new(random: [u8; 8]) -> io::Result<SocketDir> {
        let name = format!("{PREFIX}{:016x}", u64::from_ne_bytes(random));
        let mut place = std::env::temp_dir();
        if place.join(&name).join(SOCKET).as_os_str().len() > LONGEST_PATH {
            place = "/tmp".into();
        }
        sweep(&place);
        let path = place.join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let locked = open(&path).and_then(|folder| {
            // A sweeper may hold the lock for a moment.
            rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, FlockOperation::LockExclusive))?;
            Ok(folder)
        });
        match locked {
            Ok(lock) => Ok(SocketDir { path, _lock: lock }),
            Err(e) => {
                let _ = std::fs::remove_dir(&path);
                Err(e)
            }
        }
    }

    /// Returns the path for the socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Removes the folder if it is empty.
    pub fn remove(&self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn open(path: &Path) -> io::Result<OwnedHandle> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    crate::own::above_stdio(rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))?)
}

/// Removes the folders of killed processes. A folder that it cannot remove is left to the next sweep.
fn sweep(place: &Path) {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let Ok(folder) = open(&entry.path()) else { continue };
        let ours = rustix::fs::fstat(&folder).is_ok_and(|it| it.st_uid == rustix::process::geteuid().as_raw());
        if ours
            && rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
            && rustix::fs::unlinkat(&folder, SOCKET, AtFlags::empty()).is_ok()
        {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> [u8; 8] {
        (number << 32 | u64::from(std::process::id())).to_ne_bytes()
    }

    #[test]
    fn unlocked_folders_are_removed_and_locked_folders_stay() {
        let held = SocketDir::new(number(1)).unwrap();
        std::fs::write(held.socket(), "").unwrap();
        let left = SocketDir::new(number(2)).unwrap();
        std::fs::write(left.socket(), "").unwrap();
        let path = left.path.clone();
        drop(left);
        let empty = SocketDir::new(number(3)).unwrap();
        // Another process may be about to remove the folder, or a child that another test has forked may still have it locked.
        for _ in 0..1000 {
            if !path.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            sweep(path.parent().unwrap());
        }
        assert!(held.socket().exists() && !path.exists() && empty.path.exists());
        std::fs::remove_file(held.socket()).unwrap();
        [held, empty].iter().for_each(SocketDir::remove);
    }
}
