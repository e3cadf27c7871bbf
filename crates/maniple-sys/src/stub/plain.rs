//! Private memory of this process, from the allocator.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

const ALIGNMENT: usize = 4096;

/// A piece of zeroed memory, which is returned to the allocator when it is dropped.
#[derive(Debug)]
pub struct Plain {
    start: NonNull<u8>,
    layout: Layout,
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
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Plain { start, layout })
    }

    /// Returns the address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Returns whether it has no bytes (never).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does nothing: the allocator only takes back a whole allocation.
    pub fn forget(&self, _offset: usize, _len: usize) {}
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout; the users of its address keep this value alive.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
