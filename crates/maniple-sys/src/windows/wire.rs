//! A line between hub and worker that carries handles, and reports that the other end is gone. Neither end ever waits on
//! it.

use super::line::{self, Done, End};
use super::pipe;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

pub use crate::terms::Note;

/// The greatest number of handles of a note.
pub const MOST: usize = line::MOST;

/// One end of the line.
#[derive(Debug)]
pub struct Wire(OwnedHandle);

impl Wire {
    /// Creates a line and returns its two ends.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        let (a, b) = line::pair(true)?;
        Ok((Wire(a), Wire(b)))
    }

    /// Takes over an end that came from another process.
    pub fn from_handle(handle: OwnedHandle) -> Wire {
        Wire(handle)
    }

    /// Creates a line and returns its two ends: the hub's, and an end for a worker.
    pub fn for_worker() -> io::Result<(Wire, OwnedHandle)> {
        let (hub, worker) = line::pair(true)?;
        Ok((Wire(hub), worker))
    }

    fn end(&self) -> io::Result<Arc<End>> {
        line::of(self.as_handle()).ok_or_else(crate::own::not_there)
    }

    /// Returns whether the other end is gone. Notes that it has sent may still be unread.
    pub fn is_hung_up(&self) -> bool {
        pipe::is_closed(self.0.as_raw())
    }

    /// Sends a number, and up to [`MOST`] handles: all of them or nothing. `WouldBlock`: the line is full.
    pub fn send(&self, tag: u64, handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        match self.end()?.write(self.0.as_raw(), &[IoSlice::new(&tag.to_ne_bytes())], handles, true)? {
            Done::Bytes(_) => Ok(()),
            Done::Nothing => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Receives the next note, without waiting.
    pub fn receive(&self) -> io::Result<Note> {
        // One byte more than a note has: a longer one has another length.
        let (mut bytes, mut handles) = ([0; 9], Vec::new());
        let (done, is_whole) = self.end()?.read(self.0.as_raw(), &mut bytes, Some(&mut handles), false)?;
        let number = |bytes: &[u8; 9]| bytes.first_chunk().map_or(0, |&first| u64::from_ne_bytes(first));
        Ok(match done {
            Done::Nothing => Note::Nothing,
            Done::Bytes(8) if is_whole => Note::Tag(number(&bytes), handles),
            Done::Bytes(8) => Note::Cut(number(&bytes), handles),
            Done::Bytes(0) => Note::Closed,
            Done::Bytes(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "received a note that is not 8 bytes long"));
            }
        })
    }

    /// Calls `take`: there is no low limit of handles.
    pub fn take<R: Send>(&self, _is_passing: impl Fn(u64) -> bool, take: impl Fn(&Wire) -> R + Sync) -> R {
        take(self)
    }

    /// Waits until a note can be received (or the other end is gone).
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        super::ready::wait(&mut [super::ready::Interest::new(self.as_handle())], timeout).map(|_| ())
    }
}

crate::as_handle!(impl[] for Wire, |this| this.0.as_handle());

/// Returns the error of a receive that has no handle left.
pub fn out_of_handles() -> io::Error {
    io::Error::from_raw_os_error(super::TOO_MANY_OPEN_FILES)
}

/// Returns whether an error is [`out_of_handles`].
pub fn is_out_of_handles(error: &io::Error) -> bool {
    error.raw_os_error() == Some(super::TOO_MANY_OPEN_FILES)
}

/// Returns false: the number of handles in transit is not limited.
pub fn is_crowded(_error: &io::Error) -> bool {
    false
}
