//! A pipe that carries a worker's standard error to the hub, which forwards it to its own. The error that reports a
//! worker's death contains the worker's last lines, and native code writes directly to descriptor 2.

use crate::OwnedHandle;
use crate::own::both_above_stdio;
use rustix::pipe::PipeFlags;
use std::io;

pub use crate::unix::tap::{drain, forward, forward_at_once, forward_until_closed, pair, record, redirect};

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
