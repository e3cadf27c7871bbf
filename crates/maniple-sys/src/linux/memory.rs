//! Nameless shared memory: a memfd, so a container without `/dev/shm` works and a killed process leaves nothing.
//!
//! **Its size is sealed.** If another process makes memory shorter, a signal (SIGBUS) ends a process that maps it. So memory made here has its
//! size from the first and keeps it; memory from another process is mapped only where [`is_fixed`] says that its size stays.
//!
//! **It counts as a file** where file sizes are limited (RLIMIT_FSIZE): its size when it is made, and how far a `write`
//! goes, but not what is stored through a mapping. The system usually ends a program that exceeds the limit (SIGXFSZ);
//! here that is an error.
#![allow(unsafe_code)]

use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

pub use crate::terms::Share;

/// Makes `len` bytes of zeroed shared memory, whose size no process can change. Pages are allocated when they are first touched.
pub fn create(label: &str, len: usize) -> io::Result<OwnedHandle> {
    check_limit(len as u64)?;
    let fd = rustix::fs::memfd_create(label, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&fd, len as u64))?;
    // A system that knows no seals refuses them: then those that receive the memory do without a mapping.
    let _ = rustix::fs::fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL);
    crate::own::above_stdio(fd)
}

/// Whether no process can change the size of the memory.
pub fn is_fixed(handle: impl AsHandle) -> bool {
    rustix::fs::fcntl_get_seals(handle.as_handle()).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// How long memory may be that this process makes or writes to by handle (RLIMIT_FSIZE).
pub fn longest() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

/// Whether the addresses of this process are limited (RLIMIT_AS), so that mappings take them from the program.
pub fn is_narrow() -> bool {
    rustix::process::getrlimit(rustix::process::Resource::As).current.is_some()
}

fn check_limit(len: u64) -> io::Result<()> {
    if len > longest() { Err(rustix::io::Errno::FBIG.into()) } else { Ok(()) }
}

/// Whether an error says that memory would be longer than files may be.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::FBIG.raw_os_error())
}

/// Whether an error says that nothing more can be mapped: there are too many mappings, or too many bytes of them.
pub fn is_scarce(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [rustix::io::Errno::NOMEM, rustix::io::Errno::AGAIN].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// What is said where something does not fit into memory that could not be made longer.
pub fn too_long() -> io::Error {
    rustix::io::Errno::FBIG.into()
}

/// A multiple of the size of any system's pages: where parts of memory begin that are mapped or freed by themselves.
pub const PAGES: usize = 64 * 1024;

/// What is said where no memory is left.
pub fn out_of_memory() -> io::Error {
    rustix::io::Errno::NOMEM.into()
}

/// A second handle on the same memory.
pub fn duplicate(handle: impl AsHandle) -> io::Result<OwnedHandle> {
    Ok(rustix::io::fcntl_dupfd_cloexec(handle.as_handle(), 3)?.into())
}

/// Keeps a handle that came from another process from programs that this one starts.
pub fn close_on_exec(handle: impl AsHandle) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(handle.as_handle(), rustix::io::FdFlags::CLOEXEC)?)
}

/// How many bytes the memory behind `handle` has.
pub fn len(handle: impl AsHandle) -> io::Result<usize> {
    Ok(rustix::fs::fstat(handle.as_handle())?.st_size as usize)
}

/// Copies `bytes` to `offset`. Cheaper than mapping for a writer that never reads: the kernel copies straight into fresh
/// pages, without zeroing them first and without a page fault for each.
pub fn write_at(handle: BorrowedHandle<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    check_limit(offset.saturating_add(bytes.len() as u64))?;
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
pub fn read_at(handle: BorrowedHandle<'_>, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
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

/// All bytes of the memory behind `handle`.
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

/// A piece of shared memory in this process's address space; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory that belongs to the process, not to a thread; which thread may read or write which byte is
// argued where it is used (ring, blocks).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `handle`, readable and writable.
    pub fn new(handle: impl AsHandle, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::at(handle, 0, len, share)
    }

    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub fn at(handle: impl AsHandle, offset: u64, len: usize, share: Share) -> io::Result<Mapping> {
        let flags = match share {
            Share::All => MapFlags::SHARED,
            Share::CopyOnWrite => MapFlags::PRIVATE | MapFlags::NORESERVE,
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                handle.as_handle(),
                offset,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len })
    }

    /// Maps `len` bytes of memory that no file backs.
    pub(super) fn anonymous(len: usize, access: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        Ok(Mapping { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// Unmaps all but `len` bytes from `offset` on (whole pages).
    ///
    /// # Panics
    /// The mapping does not have these bytes.
    pub(super) fn cut(self, offset: usize, len: usize) -> Mapping {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        let whole = std::mem::ManuallyDrop::new(self);
        let part = |offset: usize, len: usize| Mapping {
            // SAFETY: inside the mapping, or at its end where there is nothing.
            start: unsafe { whole.start.add(offset) },
            len,
        };
        // The three parts make up the mapping.
        let (before, behind) = (part(0, offset), part(offset + len, whole.len - offset - len));
        for rest in [before, behind] {
            if rest.is_empty() {
                std::mem::forget(rest);
            }
        }
        part(offset, len)
    }

    /// Keeps the mapping from children that this process forks: they do not have it. False: the system cannot do that.
    pub fn keep_from_children(&self) -> bool {
        // SAFETY: it changes nothing in this process.
        unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.len, rustix::mm::Advice::LinuxDontFork).is_ok() }
    }

    /// Maps several pieces of memory one behind the other: all of each, but of the last what is left of `len` bytes. All pieces but the
    /// last consist of whole pages.
    pub fn joined(pieces: &[(&OwnedHandle, usize)], len: usize, share: Share) -> io::Result<Mapping> {
        if let [(handle, whole)] = pieces
            && len <= *whole
        {
            return Mapping::new(handle, len, share);
        }
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let whole = Mapping::anonymous(len, ProtFlags::empty(), flags)?;
        let kind = match share {
            Share::All => MapFlags::SHARED,
            Share::CopyOnWrite => MapFlags::PRIVATE | MapFlags::NORESERVE,
        };
        let mut at = 0;
        for (handle, piece) in pieces {
            let piece = (*piece).min(len - at);
            if piece == 0 {
                break;
            }
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: it replaces a part of the mapping made above, to which no other code has a pointer.
            unsafe {
                let place = whole.start.as_ptr().add(at).cast();
                rustix::mm::mmap(place, piece, access, kind | MapFlags::FIXED, handle, 0)?;
            }
            at += piece;
        }
        if at == len { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Frees the pages of `len` bytes from `offset` on (whole pages) in all processes that map them; they read as zeros afterwards.
    pub fn release(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len) {
            // SAFETY: inside the mapping; that its bytes turn into zeros is what the caller asks for.
            let _ = unsafe {
                rustix::mm::madvise(self.start.as_ptr().add(offset).cast(), len, rustix::mm::Advice::LinuxRemove)
            };
        }
    }

    /// Has the system make the pages of `len` bytes from `offset` on ready to be written to: one by one, at first touch, is slower, and
    /// where there is no memory for one, the process is ended. A system that cannot do it does nothing.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn prepare(&self, offset: usize, len: usize) -> io::Result<()> {
        use rustix::io::Errno;
        let start = offset.min(self.len) & !(PAGES - 1);
        let end = offset.saturating_add(len).min(self.len);
        loop {
            // SAFETY: inside the mapping; it changes no byte of it.
            let made = unsafe {
                let place = self.start.as_ptr().add(start).cast();
                rustix::mm::madvise(place, end.saturating_sub(start), rustix::mm::Advice::LinuxPopulateWrite)
            };
            return match made {
                Err(Errno::INTR | Errno::AGAIN) => continue,
                // What the kernel says where the first touch would have ended the process.
                Err(Errno::FAULT | Errno::NOMEM | Errno::HWPOISON) => Err(out_of_memory()),
                _ => Ok(()),
            };
        }
    }

    /// Has the system map the pages there are among the first `len` bytes, where it can: each fault at a first touch costs more.
    pub fn map_in(&self, len: usize) {
        // SAFETY: it changes no byte of the mapping.
        let _ = unsafe {
            rustix::mm::madvise(self.start.as_ptr().cast(), len.min(self.len), rustix::mm::Advice::LinuxPopulateRead)
        };
    }

    /// The first byte.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes mapped.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped (never: the kernel refuses empty mappings).
    #[inline]
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
