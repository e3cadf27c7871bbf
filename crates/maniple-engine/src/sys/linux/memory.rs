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
    resize(fd.as_fd(), len as u64)?;
    super::own::above_stdio(fd)
}

/// What is said where no memory is left.
pub fn out_of_memory() -> io::Error {
    rustix::io::Errno::NOMEM.into()
}

/// A second handle on the same memory.
pub fn duplicate(handle: impl AsFd) -> io::Result<Handle> {
    Ok(rustix::io::fcntl_dupfd_cloexec(handle, 3)?)
}

/// Keeps a handle that came from another process from programs that this one starts.
pub fn close_on_exec(handle: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(handle, rustix::io::FdFlags::CLOEXEC)?)
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

/// Fills `bytes` from `offset` on. The kernel copies, so no rule of this language is broken where others write meanwhile.
pub fn read_at(handle: BorrowedFd<'_>, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pread(handle, &mut *bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Makes the memory `len` bytes long: new ones are zero, and what lies behind the new end is freed.
pub fn resize(handle: BorrowedFd<'_>, len: u64) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(handle, len))?)
}

/// Frees the pages between two offsets (whole pages); they read as zeros afterwards.
pub fn release(handle: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(handle, flags, offset, len))?)
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

    /// Frees the pages of `len` bytes from `offset` on (whole pages), for all who map them; they read as zeros afterwards.
    pub fn release(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len) {
            // SAFETY: inside the mapping; that its bytes turn into zeros is what the caller asks for.
            let _ = unsafe {
                rustix::mm::madvise(self.start.as_ptr().add(offset).cast(), len, rustix::mm::Advice::LinuxRemove)
            };
        }
    }

    /// Has the system make all pages ready to be written to, where it can: one by one, at first touch, is slower.
    pub fn prepare(&self) {
        // SAFETY: it changes no byte of the mapping.
        let _ = unsafe {
            rustix::mm::madvise(self.start.as_ptr().cast(), self.len, rustix::mm::Advice::LinuxPopulateWrite)
        };
    }

    /// Has the system map the pages there are among the first `len` bytes, where it can: each fault at a first touch costs more.
    pub fn map_in(&self, len: usize) {
        // SAFETY: it changes no byte of the mapping.
        let _ = unsafe {
            rustix::mm::madvise(self.start.as_ptr().cast(), len.min(self.len), rustix::mm::Advice::LinuxPopulateRead)
        };
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
