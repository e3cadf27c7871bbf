//! A worker's standard error: reads and writes of the pipe that carries it.

use super::again::patiently;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io;
use std::time::Duration;

/// Returns the hub's end (which never blocks) and the worker's end.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (hub, worker) = crate::stream::pipe()?;
    rustix::io::ioctl_fionbio(&hub, true)?;
    Ok((hub, worker))
}

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

/// Writes to this process's standard error as much as can be written without waiting, as far as the system tells.
/// Returns the number of bytes that are done with; they include those that [`forward`] would lose.
pub fn forward_at_once(bytes: &[u8]) -> usize {
    /// A pipe that has room has room for so much.
    const PIECE: usize = 4096;
    let stderr = rustix::stdio::stderr();
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        let mut room = [crate::ready::Interest::room(stderr.into())];
        match crate::ready::wait(&mut room, Some(Duration::ZERO)) {
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
            Ok(Some(0)) => drop(crate::ready::wait_for(crate::ready::Interest::new(handle))),
            Ok(Some(n)) => forward(&buffer[..n]),
            Ok(None) | Err(_) => return,
        }
    }
}
