//! Memory of this process's own, from the allocator.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;

const ALIGNMENT: usize = 4096;

/// A piece of memory, all zeros at first; returned to the system when dropped.
#[derive(Debug)]
pub struct Plain {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it is plain memory that belongs to its holder; what may be done with it through a shared reference is argued where
// that is done (buffers).
unsafe impl Send for Plain {}
// SAFETY: as above.
unsafe impl Sync for Plain {}

impl Plain {
    /// At least `len` bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn new(len: usize) -> io::Result<Plain> {
        let layout = Layout::from_size_align(len.max(1), ALIGNMENT).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Plain { start, layout })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }

    /// Whether there are none (never).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Does nothing: the allocator takes memory back as a whole only.
    pub fn forget(&self, _offset: usize, _len: usize) {}
}

impl Drop for Plain {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; nothing borrows from memory that is being dropped.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
