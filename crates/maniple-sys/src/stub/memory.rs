//! Shared memory.
#![allow(unsafe_code)]

use super::unsupported;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io;
use std::ptr::NonNull;

pub use crate::terms::Share;

/// A multiple of every system's page size: parts of memory that are mapped or freed separately begin at multiples of
/// it.
pub const PAGES: usize = 64 * 1024;

/// Returns the error "not supported".
pub fn create(_label: &str, _len: usize) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns false: the size may change.
pub fn is_fixed(_handle: impl AsHandle) -> bool {
    false
}

/// Returns the greatest number: no limit is known.
pub fn longest() -> u64 {
    u64::MAX
}

/// No limit is known.
pub fn is_narrow() -> bool {
    false
}

/// Returns false.
pub fn is_too_long(_error: &io::Error) -> bool {
    false
}

/// Returns false.
pub fn is_scarce(_error: &io::Error) -> bool {
    false
}

/// Returns the error for data that does not fit into memory that could not be made longer.
pub fn too_long() -> io::Error {
    io::ErrorKind::FileTooLarge.into()
}

/// Returns the error for a lack of memory.
pub fn out_of_memory() -> io::Error {
    io::ErrorKind::OutOfMemory.into()
}

/// Returns the error "not supported".
pub fn duplicate(_handle: impl AsHandle) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn close_on_exec(_handle: impl AsHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn len(_handle: impl AsHandle) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write_at(_handle: BorrowedHandle<'_>, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_at(_handle: BorrowedHandle<'_>, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_all(_handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn release(_handle: BorrowedHandle<'_>, _offset: u64, _len: u64) -> io::Result<()> {
    Err(unsupported())
}

/// A piece of shared memory. No call makes a value of this type.
#[derive(Debug)]
pub struct Mapping(NonNull<u8>);

// SAFETY: no value of this type exists.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Returns the error "not supported".
    pub fn new(_handle: impl AsHandle, _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn at(_handle: impl AsHandle, _offset: u64, _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn joined(_pieces: &[(&OwnedHandle, usize)], _len: usize, _share: Share) -> io::Result<Mapping> {
        Err(unsupported())
    }

    /// Returns false: not supported.
    pub fn keep_from_children(&self) -> bool {
        false
    }

    /// Does nothing.
    pub fn release(&self, _offset: usize, _len: usize) {}

    /// Returns the error "not supported".
    pub fn prepare(&self, _offset: usize, _len: usize) -> io::Result<()> {
        Err(unsupported())
    }

    /// Does nothing.
    pub fn map_in(&self, _len: usize) {}

    /// Returns the address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.0
    }

    /// Returns the number of mapped bytes.
    pub fn len(&self) -> usize {
        0
    }

    /// Returns whether no byte is mapped.
    pub fn is_empty(&self) -> bool {
        true
    }
}
