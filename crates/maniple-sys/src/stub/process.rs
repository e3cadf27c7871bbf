//! Processes.
#![allow(unsafe_code)]

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::ffi::OsStr;
use std::io;

pub use crate::exit::{Cause, Exit};
pub use crate::start::{Forked, Start, Stdio};

/// The running program as it lies in memory.
pub mod image {
    use std::sync::OnceLock;

    pub use crate::terms::Image;

    /// Nothing is known of it.
    pub fn image() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Image { base: 0, text: Vec::new(), build: 0 })
    }

    /// Not known.
    pub fn symbol(_address: usize) -> Option<String> {
        None
    }
}

/// The end of a process whose maker is gone.
pub mod maker {
    use super::super::unsupported;
    use crate::BorrowedHandle;
    use std::io;
    use std::time::Duration;

    /// Not supported.
    pub fn end_after(_pipe: BorrowedHandle<'_>, _maker: i32, _grace: Duration) -> io::Result<()> {
        Err(unsupported())
    }

    /// As far as is known.
    pub fn runs(_process: i32) -> bool {
        true
    }
}

/// A local line that carries whole packets with handles beside them.
pub mod packet {
    use super::super::unsupported;
    use crate::{BorrowedHandle, OwnedHandle};
    use std::io;

    /// Handles that one packet can carry.
    pub const MOST_HANDLES: usize = 253;

    /// Not supported.
    pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn send(_socket: BorrowedHandle<'_>, _bytes: &[u8], _handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn receive(
        _socket: BorrowedHandle<'_>,
        _bytes: &mut [u8],
        _handles: &mut Vec<OwnedHandle>,
    ) -> io::Result<(usize, bool)> {
        Err(unsupported())
    }
}

/// None has a name.
pub fn cause_name(_cause: Cause) -> Option<&'static str> {
    None
}

/// There are none.
pub fn has_handles() -> bool {
    false
}

/// Not supported.
pub fn start(_start: &Start, _watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    Err(unsupported())
}

/// Not supported.
pub fn open(_pid: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn reserve_handle() -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn open_child(_pid: u32, _reserved: Option<OwnedHandle>) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn kill(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn terminate(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn reap(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<Option<Exit>> {
    Err(unsupported())
}

/// Not known.
pub fn exit_told(_handle: BorrowedHandle<'_>) -> Option<Exit> {
    None
}

/// Not supported.
///
/// # Safety
/// No other thread runs.
pub unsafe fn fork() -> io::Result<Forked> {
    Err(unsupported())
}

/// Nothing was opened.
///
/// # Safety
/// The number is the caller's.
pub unsafe fn close_number(_number: RawHandle) {}

/// Nothing was given.
///
/// # Safety
/// The process that started this one opened the number for it, and no other code here takes it.
pub unsafe fn claim(_number: RawHandle) -> Option<OwnedHandle> {
    None
}

/// As far as is known.
pub fn privileged() -> bool {
    false
}

/// There are no signals.
pub fn worker_signals() {}

/// There are no signals.
pub fn program_signals() {}

/// There are no signals.
pub fn ignore_broken_pipes() {}

/// Not supported.
pub fn nothing() -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
///
/// # Safety
/// No holder of the number relies on the file that it refers to now.
pub unsafe fn put_in_place(_handle: OwnedHandle, _number: RawHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Sets a variable of the environment, or takes it out.
///
/// # Safety
/// No other thread of this process reads or changes the environment meanwhile.
pub unsafe fn set_variable(name: &OsStr, value: Option<&OsStr>) {
    // SAFETY: as the caller promises.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}

/// Ends this process.
pub fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// Nothing shows it.
pub fn take_name() {}

/// Not supported.
pub fn lifeline() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Not supported.
pub fn die_when_hung_up(_pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn hung_up(_pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    Err(unsupported())
}

/// There is no other end.
pub fn until_hung_up(_pipe: BorrowedHandle<'_>) {}

/// Ends this process.
pub fn terminate_itself() {
    std::process::exit(Cause::TERMINATE.number())
}

/// Nothing was started.
pub fn end_by_number(_pid: u32) {}

/// Ends this process at once.
pub fn die() -> ! {
    std::process::abort()
}
