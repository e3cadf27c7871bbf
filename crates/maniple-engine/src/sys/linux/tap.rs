//! A worker's standard error, seen by the hub on its way to the hub's own: what a dying worker said last belongs in the
//! error that tells of its death, and native code writes it to descriptor 2 without asking anybody.

use super::Handle;
use rustix::pipe::PipeFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The hub's end (never blocks) and the worker's end.
pub fn pair() -> io::Result<(Handle, Handle)> {
    let (hub, worker) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&hub, true)?;
    Ok((hub, worker))
}

/// Makes `handle` this process's standard error.
pub fn redirect(handle: Handle) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(&handle)?)
}

/// Takes what is there, without waiting, into `buffer`: bytes read, or `None` when the worker's end is closed.
pub fn drain(handle: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::io::read(handle, buffer) {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Some(0)),
        Err(e) => Err(e.into()),
    }
}

/// Writes to this process's own standard error; a closed one is nobody's fault.
pub fn forward(mut bytes: &[u8]) {
    let stderr = rustix::stdio::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}
