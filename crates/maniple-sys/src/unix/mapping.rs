//! Memory in the address space of this process, and the errors of shared memory.
#![allow(unsafe_code)]

use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::ptr::NonNull;

/// Returns whether an error reports that memory would exceed the limit on file sizes.
pub fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::FBIG.raw_os_error())
}

/// Returns whether an error reports that the process cannot map more: it has too many mappings, or too many mapped
/// bytes.
pub fn is_scarce(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    [rustix::io::Errno::NOMEM, rustix::io::Errno::AGAIN].iter().any(|errno| number == Some(errno.raw_os_error()))
}

/// Returns the error for data that does not fit into memory that could not be made longer.
pub fn too_long() -> io::Error {
    rustix::io::Errno::FBIG.into()
}

/// Returns the error for a lack of memory.
pub fn out_of_memory() -> io::Error {
    rustix::io::Errno::NOMEM.into()
}

/// Returns a second handle on the same memory.
pub fn duplicate(handle: impl AsHandle) -> io::Result<OwnedHandle> {
    Ok(crate::own::duplicate_above_stdio(handle.as_handle())?)
}

/// Prevents programs that this process starts from inheriting a handle that came from another process.
pub fn close_on_exec(handle: impl AsHandle) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(handle.as_handle(), rustix::io::FdFlags::CLOEXEC)?)
}

/// Copies `bytes` to `offset` of a file.
pub(crate) fn write_file_at(handle: BorrowedHandle<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
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

/// Fills `bytes` from `offset` of a file on.
pub(crate) fn read_file_at(handle: BorrowedHandle<'_>, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
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

/// A piece of shared memory in this process's address space, which is unmapped when it is dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is memory of the process, not of a thread, and this type only returns its address. The code that
// dereferences the address (ring, blocks) states which thread may access which byte.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub(crate) fn of(handle: BorrowedHandle<'_>, offset: u64, len: usize, flags: MapFlags) -> io::Result<Mapping> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses unused addresses, so the mapping overlaps no other memory of this process.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, flags, handle, offset)? };
        Ok(Mapping { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// Replaces `len` bytes from `at` on (whole pages) by bytes of `handle`.
    ///
    /// # Panics
    /// The mapping does not have these bytes.
    pub(crate) fn replace(
        &mut self,
        at: usize,
        handle: BorrowedHandle<'_>,
        len: usize,
        flags: MapFlags,
    ) -> io::Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len));
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: it replaces a part of this mapping, by the assertion above; the exclusive reference excludes other
        // users of this value, and the caller has passed its address to no other code yet.
        unsafe {
            let place = self.start.as_ptr().add(at).cast();
            rustix::mm::mmap(place, len, access, flags | MapFlags::FIXED, handle, 0)?;
        }
        Ok(())
    }

    /// Maps `len` bytes of memory that no file backs.
    pub(crate) fn anonymous(len: usize, access: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
        // SAFETY: the kernel chooses unused addresses, so the mapping overlaps no other memory of this process.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags)? };
        Ok(Mapping { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// Unmaps all bytes except the `len` bytes from `offset` on (whole pages).
    ///
    /// # Panics
    /// The mapping does not have these bytes.
    #[cfg(all(target_os = "linux", not(maniple_posix)))]
    pub(crate) fn cut(self, offset: usize, len: usize) -> Mapping {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        let whole = std::mem::ManuallyDrop::new(self);
        let part = |offset: usize, len: usize| Mapping {
            // SAFETY: the assertion above keeps the offset inside the mapping, or at its end.
            start: unsafe { whole.start.add(offset) },
            len,
        };
        // The three parts are the whole mapping.
        let (before, behind) = (part(0, offset), part(offset + len, whole.len - offset - len));
        for rest in [before, behind] {
            if rest.is_empty() {
                std::mem::forget(rest);
            }
        }
        part(offset, len)
    }

    /// Returns the address of the first byte.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of mapped bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether no byte is mapped (never: the kernel refuses empty mappings).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are a mapping, or a part that `cut` made of a mapping, and this value owns it;
        // the users of its address keep the value alive.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
