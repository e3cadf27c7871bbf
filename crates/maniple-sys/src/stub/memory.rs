//! Shared memory.
#![allow(unsafe_code)]

use super::unsupported;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io;
use std::ptr::NonNull;

pub use crate::terms::Share;

/// A multiple of the size of any system's pages: where parts of memory begin that are mapped or freed by themselves.
pub const PAGES: usize = 64 * 1024;

/// Not supported.
pub fn create(_label: &str, _len: usize) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not known.
pub fn is_fixed(_handle: impl AsHandle) -> bool {
    false
}

/// No limit is known.
pub fn longest() -> u64 {
    u64::MAX
}

/// No limit is known.
pub fn is_narrow() -> bool {
    false
}

/// No error says so.
pub fn is_too_long(_error: &io::Error) -> bool {
    false
}

/// No error says so.
pub fn is_scarce(_error: &io::Error) -> bool {
    false
}

/// What is said where something does not fit into memory that could not be made longer.
pub fn too_long() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

/// What is said where no memory is left.
pub fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

/// Not supported.
pub fn duplicate(_handle: impl AsHandle) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn close_on_exec(_handle: impl AsHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn len(_handle: impl AsHandle) -> io::Result<usize> {
    Err(unsupported())
}

/// Not supported.
pub fn write_at(_handle: BorrowedHandle<'_>, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn read_at(_handle: BorrowedHandle<'_>, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn read_all(_handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    Err(unsupported())
}

/// Not supported.
pub fn release(_handle: BorrowedHandle<'_>, _offset: u64, _len: u64) -> io::Result<()> {
    Err(unsupported())
}

/// A piece of shared memory: none is ever made.
#[derive(Debug)]
pub struct Mapping(NonNull<u8>);

// SAFETY: there is none.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Not supported.
    pub fn new(_handle: impl AsHandle, _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn at(_handle: impl AsHandle, _offset: u64, _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn joined(_pieces: &[(&OwnedHandle, usize)], _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// False.
    pub fn keep_from_children(&self) -> bool {
        false
    }

    /// Does nothing.
    pub fn release(&self, _offset: usize, _len: usize) {}

    /// Not supported.
    pub fn prepare(&self, _offset: usize, _len: usize) -> io::Result<()> {
        Err(unsupported())
    }

    /// Does nothing.
    pub fn map_in(&self, _len: usize) {}

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.0
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        0
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        true
    }
}
