//! A pipe that carries a worker's standard error to the hub, which forwards it to its own.

use super::stream;
use crate::OwnedHandle;
use std::io;

pub use crate::unix::tap::{drain, forward, forward_at_once, forward_until_closed, pair, record, redirect};

/// Returns the two ends of a pipe for records. Neither blocks, and a write of at most [`RECORD`] bytes stays in one
/// piece.
pub fn records() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (reader, writer) = stream::pipe()?;
    for end in [&reader, &writer] {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    Ok((reader, writer))
}

/// The greatest length of a write that [`records`] keep in one piece (`PIPE_BUF` of macOS, sys/syslimits.h).
pub const RECORD: usize = 512;
