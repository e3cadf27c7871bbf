//! Private memory of this process.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, MEM_RESET, PAGE_READWRITE, VirtualAlloc, VirtualFree,
};

const GRAIN: usize = 4096;

/// A piece of zeroed memory, which is returned to the system when it is dropped.
#[derive(Debug)]
pub struct Plain {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value, which only returns its address. The code that dereferences the address
// (buffers) states which thread may access which byte.
unsafe impl Send for Plain {}
// SAFETY: as above.
unsafe impl Sync for Plain {}

impl Plain {
    /// Allocates at least `len` bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> io::Result<Plain> {
        let len = len.max(1).checked_next_multiple_of(GRAIN).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the system chooses unused addresses.
        let start = unsafe { VirtualAlloc(std::ptr::null(), len, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) };
        NonNull::new(start.cast()).map(|start| Plain { start, len }).ok_or_else(io::Error::last_os_error)
    }

    /// Returns the address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether it has no bytes (never).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells the system that the content of some whole pages is not needed any more. They stay usable.
    pub fn forget(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len) && offset.is_multiple_of(GRAIN) && len > 0 {
            // SAFETY: the range is this value's, and its user gives up the content.
            unsafe { VirtualAlloc(self.start.as_ptr().wrapping_add(offset).cast(), len, MEM_RESET, PAGE_READWRITE) };
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it; the users of its address keep this value alive.
        unsafe { VirtualFree(self.start.as_ptr().cast(), 0, MEM_RELEASE) };
    }
}
