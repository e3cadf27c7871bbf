//! Private memory of this process, directly from the system. (The system has no huge pages for programs on aarch64.)
#![allow(unsafe_code)]

use super::memory::Mapping;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

/// A piece of zeroed memory, which is returned to the system when it is dropped.
#[derive(Debug)]
pub struct Plain(Mapping);

impl Plain {
    /// Allocates at least `len` bytes.
    ///
    /// # Errors
    /// No memory, or no address space.
    pub fn new(len: usize) -> io::Result<Plain> {
        let len = len.max(1).checked_next_multiple_of(rustix::param::page_size()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Plain(Mapping::anonymous(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?))
    }

    /// Returns the address of the first byte.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.0.start()
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether it has no bytes (never).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns to the system the pages that lie completely among the `len` bytes from `offset` on. The caller does not
    /// use these bytes; they are zeros afterwards.
    pub fn forget(&self, offset: usize, len: usize) {
        let page = rustix::param::page_size();
        let end = offset.saturating_add(len).min(self.len()) / page * page;
        let start = offset.checked_next_multiple_of(page).unwrap_or(end);
        if start < end {
            let place = self.start().as_ptr().wrapping_add(start);
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: fresh pages replace pages inside the mapping, whose user is the caller, which does not use them
            // (above). If the call fails, it has changed nothing.
            let _ = unsafe {
                rustix::mm::mmap_anonymous(place.cast(), end - start, access, MapFlags::PRIVATE | MapFlags::FIXED)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages_are_forgotten() {
        let page = rustix::param::page_size();
        let memory = Plain::new(4 * page).unwrap();
        // SAFETY: only this test accesses the memory.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), 4 * page) };
        bytes.fill(7);
        memory.forget(page, page + 1);
        memory.forget(2 * page + 1, page);
        let zeros: Vec<_> = bytes.iter().step_by(page).map(|&byte| byte == 0).collect();
        assert_eq!((zeros, bytes[2 * page - 1]), (vec![false, true, false, false], 0));
    }
}
