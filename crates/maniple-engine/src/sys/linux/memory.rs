//! Nameless shared memory: a memfd, so a container without `/dev/shm` works and a killed process leaves nothing.
#![allow(unsafe_code)]

use super::Handle;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

/// Makes `len` bytes of zeroed shared memory. Pages are taken when they are first touched.
pub fn create(label: &str, len: usize) -> io::Result<Handle> {
    let fd = rustix::fs::memfd_create(label, MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, len as u64)?;
    Ok(fd)
}

/// A second handle on the same memory.
pub fn duplicate(handle: impl AsFd) -> io::Result<Handle> {
    Ok(rustix::io::fcntl_dupfd_cloexec(handle, 3)?)
}

/// How many bytes the memory behind `handle` has.
pub fn len(handle: impl AsFd) -> io::Result<usize> {
    Ok(rustix::fs::fstat(handle)?.st_size as usize)
}

/// Copies `bytes` to `offset`. Cheaper than mapping for a writer that never reads: the kernel copies straight into fresh
/// pages, without zeroing them first and without a page fault for each.
pub fn write_at(handle: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(handle, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Fills `bytes` from `offset` on.
pub fn read_at(handle: BorrowedFd<'_>, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(handle, &mut bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Appends `len` bytes from `offset` on to `bytes`. Cheaper than mapping for a reader that wants a copy anyway.
pub fn append_at(handle: BorrowedFd<'_>, bytes: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
    bytes.reserve_exact(len);
    let start = bytes.len();
    while bytes.len() - start < len {
        let done = bytes.len() - start;
        let room = &mut bytes.spare_capacity_mut()[..len - done];
        match rustix::io::pread(handle, room, offset + done as u64) {
            Ok(([], _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((read, _)) => {
                let end = start + done + read.len();
                // SAFETY: the kernel has filled them.
                unsafe { bytes.set_len(end) };
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Makes the memory `len` bytes long: new ones are zero, and what lies behind the new end is freed.
pub fn resize(handle: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(handle, len)?)
}

/// Frees the pages between two offsets (whole pages); they read as zeros afterwards.
pub fn release(handle: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    Ok(rustix::fs::fallocate(handle, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
}

/// Who sees what is written to a mapping.
///
/// A copy-on-write mapping shows the memory as it is, page by page, until this process writes to a page or the memory
/// changes underneath: whoever hands memory out must leave it alone until the mapping is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Everyone who maps the same memory.
    All,
    /// Only this mapping: a page is copied when it is first written to.
    CopyOnWrite,
}

/// A piece of shared memory in this process's address space; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that belongs to the process, not to a thread; who may read or write which byte is
// argued where it is used (ring, blocks).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `handle`, readable and writable.
    pub fn new(handle: impl AsFd, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::at(handle, 0, len, share)
    }

    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub fn at(handle: impl AsFd, offset: u64, len: usize, share: Share) -> io::Result<Mapping> {
        let flags = match share {
            Share::All => MapFlags::SHARED,
            Share::CopyOnWrite => MapFlags::PRIVATE | MapFlags::NORESERVE,
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, handle, offset)?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped (never: the kernel refuses empty mappings).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are what mmap gave; nothing borrows from a mapping that is being dropped.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
