//! Shared memory without a name: a memfd with the properties of an object of macOS. Its size is rounded up and sealed,
//! and its name leads to its exact length.

use super::super::{Object, name};
use crate::{BorrowedHandle, OwnedHandle};
use rustix::fs::{MemfdFlags, SealFlags};
use std::io;
use std::mem::MaybeUninit;

/// A page of macOS on aarch64.
const PAGE: u64 = 16 * 1024;

/// The greatest length of an object.
pub const LONGEST: u64 = 1 << 47;

/// Creates an object under a name. Tests find it by its label.
pub fn create(name: &str, label: &str, len: u64) -> io::Result<OwnedHandle> {
    let made = rustix::fs::memfd_create(format!("{name} {label}"), MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&made, len.next_multiple_of(PAGE))?;
    rustix::fs::fcntl_add_seals(&made, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    crate::own::above_stdio(made)
}

/// Returns the object behind a handle. `None`: it is another kind of file.
pub fn of(handle: BorrowedHandle<'_>) -> Option<Object> {
    let seals = rustix::fs::fcntl_get_seals(handle).ok()?;
    let size = u64::try_from(rustix::fs::fstat(handle).ok()?.st_size).ok()?;
    let mut path = [0u8; 128];
    let path = path_of(handle, &mut path)?;
    let name = path.strip_prefix(b"/memfd:")?.get(..name::LEN)?;
    let (len, id) = name::read(name)?;
    Some(Object { id, len: len.min(size), is_fixed: seals.contains(SealFlags::SHRINK) })
}

/// Returns the target of a descriptor's link in `/proc`.
fn path_of<'a>(handle: BorrowedHandle<'_>, room: &'a mut [u8; 128]) -> Option<&'a [u8]> {
    let mut link = *b"/proc/self/fd/0000000000\0";
    let mut number = u32::try_from(handle.as_raw()).ok()?;
    for place in link[14..24].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    // The system knows no leading zeros.
    let digits = link[14..24].iter().position(|&digit| digit != b'0').unwrap_or(9);
    link.copy_within(14 + digits.., 14);
    let link = std::ffi::CStr::from_bytes_until_nul(&link).ok()?;
    let mut target = [MaybeUninit::uninit(); 128];
    let (found, _) = rustix::fs::readlinkat_raw(rustix::fs::CWD, link, &mut target).ok()?;
    let place = room.get_mut(..found.len())?;
    place.copy_from_slice(found);
    Some(place)
}

/// Makes forked children not have a mapping.
pub fn keep_from_children(start: *mut u8, len: usize) -> bool {
    // SAFETY: the caller passes a mapping of its own; the advice changes nothing in this process.
    unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxDontFork).is_ok() }
}

/// Frees the pages of a range of an object.
///
/// # Safety
/// The range is mapped, and its users expect zeros at any time.
pub unsafe fn discard(start: *mut u8, len: usize) -> io::Result<()> {
    // SAFETY: the caller ensures that the range is mapped.
    unsafe { rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxRemove) }?;
    Ok(())
}
