//! Private memory of this process, directly from the system, in huge pages if it has them.
//!
//! A fresh page costs a fault and the clearing of its 4 KiB, which takes longer than the copy that fills it; a page of 2 MiB costs
//! little more than a page of 4 KiB. If the system has no huge pages (they are disabled, or memory is fragmented), this is
//! ordinary memory.
#![allow(unsafe_code)]

use super::memory::Mapping;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// From so many bytes on, the rest at the end is a huge page as well.
const WORTH_ONE: usize = HUGE / 4 * 3;

/// A piece of zeroed memory, which is returned to the system when it is dropped.
#[derive(Debug)]
pub struct Plain(Mapping);

impl Plain {
    /// Allocates at least `len` bytes.
    ///
    /// # Errors
    /// No memory, or no address space.
    pub fn new(len: usize) -> io::Result<Plain> {
        let rest = len % HUGE;
        let step = if rest >= WORTH_ONE { HUGE } else { rustix::param::page_size() };
        // A length of 32 bits that another process names may be close to the end of the address space.
        let len = len.checked_next_multiple_of(step).ok_or(io::ErrorKind::OutOfMemory)?.max(1);
        let huge = len >= HUGE;
        // Huge pages begin at multiples of their size: the memory before the first page is returned.
        let whole = len.checked_add(if huge { HUGE } else { 0 }).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Mapping::anonymous(whole, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        if !huge {
            return Ok(Plain(mapping));
        }
        let before = mapping.start().as_ptr().align_offset(HUGE).min(whole - len);
        let mapping = mapping.cut(before, len);
        // SAFETY: it changes no byte of the mapping.
        let _ = unsafe { rustix::mm::madvise(mapping.start().as_ptr().cast(), len, Advice::LinuxHugepage) };
        Ok(Plain(mapping))
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
        let pages = whole_pages(offset, len, rustix::param::page_size());
        if !pages.is_empty() && pages.end <= self.len() {
            let start = self.start().as_ptr().wrapping_add(pages.start);
            // SAFETY: the range is inside the mapping; the bytes become zeros, and their user is the caller, which does
            // not use them (above).
            let _ = unsafe { rustix::mm::madvise(start.cast(), pages.len(), Advice::LinuxDontNeed) };
        }
    }
}

/// Returns the range of the pages that lie completely among the `len` bytes from `offset` on. The kernel would round
/// the end up, to a page that may contain other data.
fn whole_pages(offset: usize, len: usize, page: usize) -> std::ops::Range<usize> {
    let end = offset.saturating_add(len) / page * page;
    offset.checked_next_multiple_of(page).unwrap_or(end)..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_at_the_end_of_the_address_space_is_an_error() {
        for len in [usize::MAX, usize::MAX - HUGE + 1, isize::MAX as usize] {
            assert!(Plain::new(len).is_err(), "{len}");
        }
    }

    #[test]
    fn only_whole_pages_of_any_size_are_forgotten() {
        assert_eq!(whole_pages(4096, 8192, 4096), 4096..12288);
        assert_eq!(whole_pages(0, 100_000, 65536), 0..65536);
        assert_eq!(whole_pages(4096, 2 * 65536, 65536), 65536..131_072);
        assert!(whole_pages(65536, 4096, 65536).is_empty());
        assert!(whole_pages(4096, 65536, 65536).is_empty());

        let page = rustix::param::page_size();
        let memory = Plain::new(4 * page).unwrap();
        // SAFETY: only this test accesses the memory.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), 4 * page) };
        bytes.fill(7);
        memory.forget(page, page + 1);
        let zeros: Vec<_> = bytes.iter().step_by(page).map(|&byte| byte == 0).collect();
        assert_eq!((zeros, bytes[2 * page - 1]), (vec![false, true, false, false], 0));
    }

    #[test]
    fn all_bytes_can_be_written_and_forgotten() {
        for len in [1, 5000, HUGE - 1, HUGE, 2 * HUGE + 5000, 2 * HUGE + WORTH_ONE] {
            let memory = Plain::new(len).unwrap();
            assert!(memory.len() >= len);
            // SAFETY: only this test accesses the memory.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.len()) };
            assert!(bytes.iter().step_by(999).all(|&byte| byte == 0));
            bytes.fill(7);
            memory.forget(0, memory.len());
            assert!(bytes.iter().step_by(999).all(|&byte| byte == 0));
        }
    }
}
