//! What tests of other crates need of the system: not part of the contract. What is the same everywhere is here; forks,
//! limits, signals and the like are in the backends.
#![allow(missing_docs, clippy::unwrap_used)]

use crate::socket::{Dial, Place};
use crate::{AsHandle, BorrowedHandle, OwnedHandle, stream};
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;

#[cfg(target_os = "linux")]
#[path = "linux/testing.rs"]
mod on_linux;
#[cfg(windows)]
pub use crate::windows::testing::*;
#[cfg(target_os = "linux")]
pub use on_linux::*;

/// An end of a connection of this machine, as a program has it that knows nothing of this package.
#[derive(Debug)]
pub struct Stream(OwnedHandle);

impl Stream {
    /// Creates a connection and returns its two ends.
    pub fn pair() -> io::Result<(Stream, Stream)> {
        let (one, other) = stream::pair()?;
        Ok((Stream(one), Stream(other)))
    }

    /// Connects to a listener.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Stream> {
        let dial = Dial::new(Place::Local(path.as_ref()))?;
        uninterrupted(|| dial.connect(None))?;
        Ok(Stream(dial.into_handle()))
    }

    pub fn from_owned(end: OwnedHandle) -> Stream {
        Stream(end)
    }

    pub fn into_owned(self) -> OwnedHandle {
        self.0
    }
}

crate::as_handle!(impl[] for Stream, |this| this.0.as_handle());

/// Repeats a call that something has interrupted.
fn uninterrupted<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| stream::read_into(self.0.as_handle(), bytes))
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| stream::write_socket(self.0.as_handle(), &[IoSlice::new(bytes)]))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reports to the other end of a pipe; the other end detects a failure.
pub fn tell(pipe: BorrowedHandle<'_>) {
    let _ = stream::write_all(pipe, b"!");
}

/// Waits for reports and returns their number; 0: all reporters have ended.
pub fn told(pipe: BorrowedHandle<'_>) -> usize {
    uninterrupted(|| stream::read_into(pipe, &mut [0; 16])).unwrap()
}
