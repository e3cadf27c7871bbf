//! A pipe that carries a worker's standard error to the hub, which forwards it to its own. The error that reports a
//! worker's death contains the worker's last lines, and native code writes directly to descriptor 2.

use crate::own::both_above_stdio;
use crate::unix::again::patiently;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::pipe::PipeFlags;
use std::io;
use std::time::Duration;

/// Returns the hub's end (which never blocks) and the worker's end.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (hub, worker) = both_above_stdio(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)?;
    rustix::io::ioctl_fionbio(&hub, true)?;
    Ok((hub, worker))
}

/// Returns the two ends of a pipe for records. Neither blocks, and a write of at most [`RECORD`] bytes stays in one
/// piece.
pub fn records() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (reader, writer) = both_above_stdio(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)?;
    // The system refuses more than the default size to a user with many pipes; then the default size stays.
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    Ok((reader, writer))
}

/// The greatest length of a write that [`records`] keep in one piece.
pub const RECORD: usize = 4096;

/// Writes one record. False: there is no room, or no reader.
pub fn record(handle: BorrowedHandle<'_>, bytes: &[u8]) -> bool {
    loop {
        match patiently(|| rustix::io::write(handle, bytes)) {
            Ok(n) => return n == bytes.len(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Makes `handle` this process's standard error.
pub fn redirect(handle: OwnedHandle) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(&handle)?)
}

/// Reads available bytes into `buffer` without waiting, and returns their number; `None` if the worker's end is closed.
pub fn drain(handle: BorrowedHandle<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match patiently(|| rustix::io::read(handle, &mut *buffer)) {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(Some(0)),
        Err(e) => Err(e.into()),
    }
}

/// Writes to this process's standard error; it ignores errors, such as a closed stream.
pub fn forward(mut bytes: &[u8]) {
    let stderr = rustix::stdio::stderr();
    while !bytes.is_empty() {
        match patiently(|| rustix::io::write(stderr.as_handle(), bytes)) {
            Ok(n) if n > 0 => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Writes to this process's standard error as much as can be written without waiting, as far as the system tells. Returns
/// the number of bytes that are done with; they include those that [`forward`] would lose.
pub fn forward_at_once(bytes: &[u8]) -> usize {
    /// A pipe that has room has room for so much.
    const PIECE: usize = 4096;
    let stderr = rustix::stdio::stderr();
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        let mut room = [super::ready::Interest::room(stderr.into())];
        match super::ready::wait(&mut room, Some(Duration::ZERO)) {
            Ok(0) => return number * PIECE,
            _ => forward(piece),
        }
    }
    bytes.len()
}

/// [`drain`]s and [`forward`]s until all writers have closed their end.
pub fn forward_until_closed(handle: BorrowedHandle<'_>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match drain(handle, &mut buffer) {
            Ok(Some(0)) => drop(super::ready::wait_for(super::ready::Interest::new(handle))),
            Ok(Some(n)) => forward(&buffer[..n]),
            Ok(None) | Err(_) => return,
        }
    }
}
