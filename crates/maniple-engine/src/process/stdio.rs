//! Standard streams of a running process.

use crate::error::{Doing, Result};
use maniple_sys::{OwnedHandle, RawHandle, process};

/// A handle that reads as empty and discards writes.
///
/// # Errors
/// No descriptor left.
pub fn nothing() -> Result<OwnedHandle> {
    process::nothing().doing("open the empty device")
}

/// Makes `handle` this process's standard stream of this number, 0 to 2, which programs that it starts inherit.
///
/// # Safety
/// As [`process::put_in_place`].
///
/// # Errors
/// The operating system's.
#[allow(unsafe_code)]
pub unsafe fn put_in_place(handle: OwnedHandle, number: RawHandle) -> Result<()> {
    // SAFETY: as the caller promises.
    unsafe { process::put_in_place(handle, number) }.doing("put a standard stream in place")
}
