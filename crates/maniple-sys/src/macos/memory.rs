//! Nameless shared memory: a POSIX object whose name is removed at once (`shm_open(2)`).
//!
//! **Its size is fixed.** The system refuses every change of the size of an object that has one. (A temporary file that
//! is removed could be truncated by every process that has it, and a signal would end the others; and the system writes
//! its pages to the disk from time to time, even those of a lock.) So memory of this kind from another process is
//! mapped.
//!
//! **It can only be mapped**, and only for all: a read or write through a handle maps the bytes and copies them, and a
//! mapping with [`Share::CopyOnWrite`] is a copy. Files of other kinds are read, written and mapped as such.
#![allow(unsafe_code)]

use super::system::{Object, name, objects};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;

pub use crate::terms::Share;
pub use crate::unix::mapping::{Mapping, close_on_exec, duplicate, is_scarce, is_too_long, out_of_memory, too_long};
use crate::unix::mapping::{read_file_at, write_file_at};

/// Creates `len` bytes of zeroed shared memory, whose size no process can change. The system allocates pages at the
/// first access. (The label is not visible: the name has to be unique, and is short.)
pub fn create(label: &str, len: usize) -> io::Result<OwnedHandle> {
    if len as u64 > longest() {
        return Err(too_long());
    }
    let mut random = [0; 8];
    super::socket::random(&mut random)?;
    let name = name::of(len as u64, u64::from_ne_bytes(random)).ok_or_else(too_long)?;
    objects::create(&name, label, len as u64)
}

/// Returns the object behind a handle, for handles that check their file.
pub(crate) fn object(handle: BorrowedHandle<'_>) -> Option<(u64, u64)> {
    objects::of(handle).map(|object| (object.id, object.len))
}

/// Returns whether no process can change the size of the memory.
pub fn is_fixed(handle: impl AsHandle) -> bool {
    objects::of(handle.as_handle()).is_some_and(|object| object.is_fixed)
}

/// Returns the greatest length of memory.
pub fn longest() -> u64 {
    objects::LONGEST
}

/// Returns whether the address space of this process is limited (RLIMIT_AS), so that mappings take addresses from the
/// program.
pub fn is_narrow() -> bool {
    super::rlimit::soft(rustix::process::Resource::As).is_some()
}

/// A multiple of every system's page size: parts of memory that are mapped or freed separately begin at multiples of
/// it.
pub const PAGES: usize = 64 * 1024;

/// Returns the number of bytes of the memory behind `handle`.
pub fn len(handle: impl AsHandle) -> io::Result<usize> {
    let handle = handle.as_handle();
    match objects::of(handle) {
        Some(object) => Ok(object.len as usize),
        None => Ok(rustix::fs::fstat(handle)?.st_size as usize),
    }
}

/// Maps the pages of an object that contain `len` bytes from `offset` on, and returns the mapping with the place of the
/// first byte in it. `None`: the object does not have these bytes.
fn part(handle: BorrowedHandle<'_>, object: Object, len: usize, offset: u64) -> io::Result<Option<(Mapping, usize)>> {
    if offset.checked_add(len as u64).is_none_or(|end| end > object.len) {
        return Ok(None);
    }
    let before = (offset % PAGES as u64) as usize;
    let mapping = Mapping::of(handle, offset - before as u64, before + len, MapFlags::SHARED)?;
    Ok(Some((mapping, before)))
}

/// Copies `bytes` to `offset`.
pub fn write_at(handle: BorrowedHandle<'_>, bytes: &[u8], offset: u64) -> io::Result<()> {
    let Some(object) = objects::of(handle) else { return write_file_at(handle, bytes, offset) };
    if bytes.is_empty() {
        return Ok(());
    }
    let (mapping, at) = part(handle, object, bytes.len(), offset)?.ok_or(io::ErrorKind::WriteZero)?;
    // SAFETY: `part` has mapped so many bytes behind `at`, and the object keeps its size. Other processes may access
    // the bytes meanwhile, as they may during a write by the system.
    unsafe { mapping.start().as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

/// Fills `bytes` from `offset` on.
pub fn read_at(handle: BorrowedHandle<'_>, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let Some(object) = objects::of(handle) else { return read_file_at(handle, bytes, offset) };
    if bytes.is_empty() {
        return Ok(());
    }
    let (mapping, at) = part(handle, object, bytes.len(), offset)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: as in `write_at`.
    unsafe { mapping.start().as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    Ok(())
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
    /// So much is mapped at once.
    const PIECE: u64 = 64 << 20;
    let object = objects::of(handle).ok_or(io::ErrorKind::Unsupported)?;
    let end = offset.saturating_add(len).min(object.len);
    for start in (offset..end).step_by(PIECE as usize) {
        let len = PIECE.min(end - start) as usize;
        let mapping = Mapping::of(handle, start, len, MapFlags::SHARED)?;
        // SAFETY: the bytes are those of the mapping. They become zeros, like by a write of another process, which
        // every reader of shared memory expects.
        unsafe { objects::discard(mapping.start().as_ptr(), len)? };
    }
    Ok(())
}

impl Mapping {
    /// Maps the first `len` bytes of `handle`, readable and writable.
    pub fn new(handle: impl AsHandle, len: usize, share: Share) -> io::Result<Mapping> {
        Mapping::at(handle, 0, len, share)
    }

    /// Maps `len` bytes of `handle` from `offset` on (whole pages), readable and writable.
    pub fn at(handle: impl AsHandle, offset: u64, len: usize, share: Share) -> io::Result<Mapping> {
        let handle = handle.as_handle();
        if share == Share::All {
            return Mapping::of(handle, offset, len, MapFlags::SHARED);
        }
        let Some(object) = objects::of(handle) else {
            return Mapping::of(handle, offset, len, MapFlags::PRIVATE | MapFlags::NORESERVE);
        };
        let mut copy = Mapping::anonymous(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        copy.fill(0, handle, object, offset, len)?;
        Ok(copy)
    }

    /// Copies `len` bytes of an object to the place `at` of a private mapping.
    fn fill(
        &mut self,
        at: usize,
        handle: BorrowedHandle<'_>,
        object: Object,
        offset: u64,
        len: usize,
    ) -> io::Result<()> {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len()));
        let (source, from) = part(handle, object, len, offset)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        // SAFETY: by the assertion above and by `part`, both mappings have so many bytes there; the exclusive reference
        // excludes other users of this one, and the sender does not change the other (`Share`).
        unsafe {
            let from = source.start().as_ptr().add(from);
            self.start().as_ptr().add(at).copy_from_nonoverlapping(from, len);
        }
        Ok(())
    }

    /// Makes forked children not have the mapping. False: the system cannot do that.
    pub fn keep_from_children(&self) -> bool {
        objects::keep_from_children(self.start().as_ptr(), self.len())
    }

    /// Maps several pieces of memory in sequence, `len` bytes in total: every piece as a whole, except that the last
    /// may be cut. All pieces except the last consist of whole pages.
    pub fn joined(pieces: &[(&OwnedHandle, usize)], len: usize, share: Share) -> io::Result<Mapping> {
        if let [(handle, whole)] = pieces
            && len <= *whole
        {
            return Mapping::new(handle, len, share);
        }
        let access = if share == Share::All { ProtFlags::empty() } else { ProtFlags::READ | ProtFlags::WRITE };
        let mut whole = Mapping::anonymous(len, access, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        let mut at = 0;
        for (handle, piece) in pieces {
            let piece = (*piece).min(len - at);
            if piece == 0 {
                break;
            }
            let handle = handle.as_handle();
            match objects::of(handle) {
                Some(object) if share == Share::CopyOnWrite => whole.fill(at, handle, object, 0, piece)?,
                _ => {
                    let kind = match share {
                        Share::All => MapFlags::SHARED,
                        Share::CopyOnWrite => MapFlags::PRIVATE | MapFlags::NORESERVE,
                    };
                    whole.replace(at, handle, piece, kind)?;
                }
            }
            at += piece;
        }
        if at == len { Ok(whole) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Frees the pages of `len` bytes from `offset` on (whole pages) in all processes that map them; they read as zeros
    /// afterwards.
    pub fn release(&self, offset: usize, len: usize) {
        if offset.checked_add(len).is_some_and(|end| end <= self.len()) {
            // SAFETY: the check above keeps the range inside the mapping; as in `release`.
            let _ = unsafe { objects::discard(self.start().as_ptr().add(offset), len) };
        }
    }

    /// Does nothing: the system has no call that allocates pages in advance.
    ///
    /// # Errors
    /// None.
    pub fn prepare(&self, _offset: usize, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing: the system has no call that maps existing pages.
    pub fn map_in(&self, _len: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own::File;

    #[test]
    fn each_object_has_a_file_of_its_own_and_its_exact_length() {
        let (one, two) = (create("one", 5000).unwrap(), create("two", 5000).unwrap());
        let (file, length) = File::and_len(one.as_handle()).unwrap();
        assert_eq!(
            (length, File::at(one.as_raw()), File::of(two.as_handle()) == Some(file)),
            (5000, Some(file), false)
        );
        assert_eq!(File::of(duplicate(&one).unwrap().as_handle()), Some(file));
        assert!(create("long", usize::MAX).is_err_and(|error| is_too_long(&error)));
    }

    #[test]
    fn a_part_of_an_object_is_written_and_read_at_any_offset() {
        let memory = create("part", 2 * PAGES + 100).unwrap();
        for offset in [0, 1, PAGES - 1, PAGES, 2 * PAGES + 97] {
            write_at(memory.as_handle(), b"abc", offset as u64).unwrap();
            let mut bytes = [0; 3];
            read_at(memory.as_handle(), &mut bytes, offset as u64).unwrap();
            assert_eq!(&bytes, b"abc");
        }
        for offset in [2 * PAGES as u64 + 98, u64::MAX] {
            assert_eq!(write_at(memory.as_handle(), b"abc", offset).unwrap_err().kind(), io::ErrorKind::WriteZero);
        }
    }
}
