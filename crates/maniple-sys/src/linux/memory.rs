//! Nameless shared memory: a memfd, so a container without `/dev/shm` works and a killed process leaves nothing.
//!
//! **Its size is sealed.** If a process makes memory shorter, a signal (SIGBUS) ends the processes that map it. So
//! memory made here has a fixed size; memory from another process is mapped only if [`is_fixed`] says that its size
//! stays.
//!
//! **It counts as a file** for the limit on file sizes (RLIMIT_FSIZE): the limit applies to its size when it is made,
//! and to the end of a `write`, but not to stores through a mapping. The system usually ends a program that exceeds the
//! limit (SIGXFSZ); these functions return an error.
#![allow(unsafe_code)]

use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;

pub use crate::terms::Share;
pub use crate::unix::mapping::{Mapping, close_on_exec, duplicate, is_scarce, is_too_long, out_of_memory, too_long};
use crate::unix::mapping::{read_file_at, write_file_at};

/// Creates `len` bytes of zeroed shared memory, whose size no process can change. The system allocates pages at the
/// first access.
pub fn create(label: &str, len: usize) -> io::Result<OwnedHandle> {
    check_limit(len as u64)?;
    let fd = rustix::fs::memfd_create(label, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&fd, len as u64))?;
    // A system without seals refuses them: then receivers of the memory use no mapping.
    let _ = rustix::fs::fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL);
    crate::own::above_stdio(fd)
}

/// Returns whether no process can change the size of the memory.
pub fn is_fixed(handle: impl AsHandle) -> bool {
    rustix::fs::fcntl_get_seals(handle.as_handle()).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// Returns the greatest length of memory that this process makes or writes to by handle (RLIMIT_FSIZE). No length has
/// more bits than a word.
pub fn longest() -> u64 {
    super::rlimit::soft(libc::RLIMIT_FSIZE).unwrap_or(u64::MAX).min(usize::MAX as u64)
}

/// Returns whether the address space of this process is limited (by RLIMIT_AS, or by words of 32 bits), so that mappings
/// take addresses from the program.
pub fn is_narrow() -> bool {
    cfg!(target_pointer_width = "32") || super::rlimit::soft(libc::RLIMIT_AS).is_some()
}

fn check_limit(len: u64) -> io::Result<()> {
    if len > longest() { Err(rustix::io::Errno::FBIG.into()) } else { Ok(()) }
}

/// A multiple of every system's page size: parts of memory that are mapped or freed separately begin at multiples of
/// it.
pub const PAGES: usize = 64 * 1024;

/// Returns the number of bytes of the memory behind `handle`.
pub fn len(handle: impl AsHandle) -> io::Result<usize> {
    let len = rustix::fs::fstat(handle.as_handle())?.st_size;
    // Longer than an address space, and not to be mapped: not a short one.
    Ok(usize::try_from(len).unwrap_or(usize::MAX))
}

/// Copies `bytes` to `offset`. For a writer that never reads, this costs less than a mapping: the kernel copies
/// directly into fresh pages, without zeroing them first and without a page fault for each.
pub fn write_at(handle: BorrowedHandle<'_>, bytes: &[u8], offset: u64) -> io::Result<()> {
    check_limit(offset.saturating_add(bytes.len() as u64))?;
    write_file_at(handle, bytes, offset)
}

/// Fills `bytes` from `offset` on. The kernel copies, so it is not undefined behaviour if others write meanwhile.
pub fn read_at(handle: BorrowedHandle<'_>, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    read_file_at(handle, bytes, offset)
}

/// Returns all bytes of the memory behind `handle`.
pub fn read_all(handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    let len = len(handle)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| out_of_memory())?;
    bytes.resize(len, 0);
    read_at(handle, &mut bytes, 0)?;
    Ok(bytes)
}

/// Frees the pages between two offsets (whole pages); they read as zeros afterwards.
pub fn release(handle: BorrowedHandle<'_>, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(handle, flags, offset, len))?)
}

fn flags_of(share: Share) -> MapFlags {
    match share {
        Share::All => MapFlags::SHARED,
        Share::CopyOnWrite => MapFlags::PRIVATE | MapFlags::NORESERVE,
    }
}

impl Mapping {
    /// Maps the first `len` bytes of `handle`, readable and writable.
    pub fn new(handle: impl AsHandle, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::at(handle, 0, len, share)
    }

    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub fn at(handle: impl AsHandle, offset: u64, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::of(handle.as_handle(), offset, len, flags_of(share))
    }

    /// Makes forked children not have the mapping. False: the system cannot do that.
    pub fn keep_from_children(&self) -> bool {
        // SAFETY: the range is the mapping of this value, and the advice changes nothing in this process.
        unsafe {
            rustix::mm::madvise(self.start().as_ptr().cast(), self.len(), rustix::mm::Advice::LinuxDontFork).is_ok()
        }
    }

    /// Maps several pieces of memory in sequence, `len` bytes in total: every piece as a whole, except that the last
    /// may be cut. All pieces except the last consist of whole pages.
    pub fn joined(pieces: &[(&OwnedHandle, usize)], len: usize, share: Share) -> io::Result<Mapping> {
        if let [(handle, whole)] = pieces
            && len <= *whole
        {
            return Mapping::new(handle, len, share);
        }
        let mut whole = Mapping::anonymous(len, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        let mut at = 0;
        for (handle, piece) in pieces {
            let piece = (*piece).min(len - at);
            if piece == 0 {
                break;
            }
            whole.replace(at, handle.as_handle(), piece, flags_of(share))?;
            at += piece;
        }
        if at == len { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Frees the pages of `len` bytes from `offset` on (whole pages) in all processes that map them; they read as zeros afterwards.
    pub fn release(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len()) {
            // SAFETY: the check above keeps the range inside the mapping. The bytes become zeros, like by a write of
            // another process, which every reader of shared memory expects.
            let _ = unsafe {
                rustix::mm::madvise(self.start().as_ptr().add(offset).cast(), len, rustix::mm::Advice::LinuxRemove)
            };
        }
    }

    /// Makes the system allocate the pages of `len` bytes from `offset` on. Allocating them one by one, at the first
    /// access, is slower, and the system ends the process if there is no memory for a page. A system that cannot do it
    /// does nothing.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn prepare(&self, offset: usize, len: usize) -> io::Result<()> {
        use rustix::io::Errno;
        let start = offset.min(self.len()) & !(PAGES - 1);
        let end = offset.saturating_add(len).min(self.len());
        loop {
            // SAFETY: both ends are at most `self.len`, so the range is inside the mapping; the advice changes no byte
            // of it.
            let made = unsafe {
                let place = self.start().as_ptr().add(start).cast();
                rustix::mm::madvise(place, end.saturating_sub(start), rustix::mm::Advice::LinuxPopulateWrite)
            };
            return match made {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                // The kernel's error if the first access would have ended the process.
                Err(Errno::FAULT | Errno::NOMEM | Errno::HWPOISON) => Err(out_of_memory()),
                _ => Ok(()),
            };
        }
    }

    /// Makes the system map the existing pages among the first `len` bytes, if it can: each fault at a first access
    /// costs more.
    pub fn map_in(&self, len: usize) {
        // SAFETY: the range is inside the mapping; the advice changes no byte of it.
        let _ = unsafe {
            rustix::mm::madvise(
                self.start().as_ptr().cast(),
                len.min(self.len()),
                rustix::mm::Advice::LinuxPopulateRead,
            )
        };
    }
}
