//! Waits for any of several handles, and for a kick by another thread.

use crate::own::{Own, above_stdio};
use crate::{AsHandle, OwnedHandle};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

pub use crate::unix::ready::{Interest, wait, wait_for};

/// Wakes a thread of this process out of [`wait`].
///
/// It is a named pipe that is open in both directions, and whose name is removed: one descriptor, which other processes
/// can use as well. (A pipe without a name has two.)
#[derive(Debug)]
pub struct Kick(Own);

impl Kick {
    /// Creates a kick that is not ready.
    pub fn new() -> io::Result<Kick> {
        Ok(Kick(Own::new(above_stdio(open_pipe()?)?)))
    }

    /// Takes over a kick of another process: it wakes that process's threads, too.
    pub fn from_handle(handle: OwnedHandle) -> Kick {
        Kick(Own::new(handle))
    }

    /// Makes it ready, until the next [`Kick::clear`].
    pub fn kick(&self) {
        // The program may have closed the number, and opened another file under it. A full pipe is ready.
        if self.0.is_there() {
            let _ = rustix::io::write(self.0.as_handle(), b"!");
        }
    }

    /// Makes it not ready again.
    pub fn clear(&self) {
        let mut bytes = [0; 512];
        while self.0.is_there() {
            match rustix::io::read(self.0.as_handle(), &mut bytes) {
                Ok(got) if got == bytes.len() => {}
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

crate::as_handle!(impl[] for Kick, |this| this.0.as_handle());

/// Opens a named pipe in both directions, and removes its name. XNU opens it at once, as a reader first
/// (bsd/miscfs/fifofs/fifo_vnops.c: `fifo_open`).
#[allow(unsafe_code)]
fn open_pipe() -> io::Result<OwnedHandle> {
    use rustix::fs::{Mode, OFlags};
    let mut random = [0; 8];
    super::socket::random(&mut random)?;
    let path = std::env::temp_dir().join(format!("maniple-kick-{:016x}", u64::from_ne_bytes(random)));
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    if unsafe { libc::mkfifo(path.as_ptr(), 0o600) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::io::retry_on_intr(|| rustix::fs::open(&path, flags, Mode::empty()));
    let removed = rustix::fs::unlink(&path);
    let opened = opened?;
    removed?;
    Ok(opened.into())
}
