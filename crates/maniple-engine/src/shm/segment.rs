//! A piece of shared memory: its handle, to pass to other processes, and its mapping, or the mapping alone if no handle
//! is needed any more.

use crate::error::{Doing, Result};
use maniple_sys::AsHandle;
use maniple_sys::memory::Mapping;
use maniple_sys::own::Own;
use maniple_sys::{OwnedHandle, memory};
use std::ptr::NonNull;

/// `len` zeroed bytes of shared memory, mapped here, and the handle by which another process maps them. Neither needs the other.
pub fn create_mapped(label: &str, len: usize) -> Result<(Mapping, OwnedHandle)> {
    let Segment { handle, mapping } = Segment::create(label, len)?;
    Ok((mapping, handle.into_handle()))
}

/// Maps the memory behind a handle that another process made. The handle is no longer needed then.
pub fn open_mapped(handle: &OwnedHandle) -> Result<Mapping> {
    let len = memory::len(handle).doing("measure shared memory")?;
    Mapping::new(handle.as_handle(), len, memory::Share::All).doing("map shared memory")
}

/// Shared memory that is mapped here and can be passed to another process.
#[derive(Debug)]
pub struct Segment {
    handle: Own,
    mapping: Mapping,
}

impl Segment {
    /// `len` zeroed bytes.
    pub fn create(label: &str, len: usize) -> Result<Segment> {
        let handle = memory::create(label, len).doing("make shared memory (memfd_create, Linux 3.17 and newer)")?;
        let mapping = Mapping::new(handle.as_handle(), len, memory::Share::All).doing("map shared memory")?;
        Ok(Segment { handle: Own::new(handle), mapping })
    }

    /// The memory behind a handle that another process made.
    pub fn open(handle: OwnedHandle) -> Result<Segment> {
        let len = memory::len(&handle).doing("measure shared memory")?;
        let mapping = Mapping::new(handle.as_handle(), len, memory::Share::All).doing("map shared memory")?;
        Ok(Segment { handle: Own::new(handle), mapping })
    }

    /// Whether it can be passed to another process, because the program has not closed its handle.
    pub fn is_there(&self) -> bool {
        self.handle.is_there()
    }

    /// Gives up the mapping and keeps the handle.
    pub fn into_handle(self) -> OwnedHandle {
        self.handle.into_handle()
    }

    /// A second handle on it, for another process.
    pub fn share(&self) -> Result<OwnedHandle> {
        self.handle.found().doing("pass on shared memory, whose descriptor the program has closed")?;
        memory::duplicate(&self.handle).doing("duplicate a handle on shared memory")
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether it has no bytes (never).
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }
}

maniple_sys::as_handle!(impl[] for Segment, |this| this.handle.as_handle());
