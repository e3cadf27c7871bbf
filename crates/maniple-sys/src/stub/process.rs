//! Processes.
#![allow(unsafe_code)]

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io;

pub use crate::exit::{Cause, Exit};
pub use crate::lacking::signals::{crash_at_once, ignore_broken_pipes, program_signals, worker_signals};
pub use crate::lacking::{limits, memory_group};
pub use crate::start::{Forked, Start, Stdio, set_variable};

/// The running program in memory.
pub mod image {
    use std::sync::OnceLock;

    pub use crate::terms::Image;

    /// Returns an image without addresses.
    pub fn image() -> &'static Image {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Image { base: 0, text: Vec::new(), build: 0 })
    }

    /// Returns `None`: unknown.
    pub fn symbol(_address: usize) -> Option<String> {
        None
    }
}

/// Ends a process whose maker is gone.
pub mod maker {
    use super::super::unsupported;
    use crate::BorrowedHandle;
    use std::io;
    use std::time::Duration;

    /// Returns the error "not supported".
    pub fn end_after(_pipe: BorrowedHandle<'_>, _maker: i32, _grace: Duration) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns true: an end is unknown.
    pub fn runs(_process: i32) -> bool {
        true
    }
}

/// A local socket that carries whole packets with handles.
pub mod packet {
    use super::super::unsupported;
    use crate::{BorrowedHandle, OwnedHandle};
    use std::io;

    /// The greatest number of handles of a packet.
    pub const MOST_HANDLES: usize = 253;

    /// Returns the error "not supported".
    pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn send(_socket: BorrowedHandle<'_>, _bytes: &[u8], _handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn receive(
        _socket: BorrowedHandle<'_>,
        _bytes: &mut [u8],
        _handles: &mut Vec<OwnedHandle>,
    ) -> io::Result<(usize, bool)> {
        Err(unsupported())
    }
}

/// Returns `None`: no cause has a name.
pub fn cause_name(_cause: Cause) -> Option<&'static str> {
    None
}

/// Returns false.
pub fn has_handles() -> bool {
    false
}

/// Returns the error "not supported".
pub fn start(_start: &Start, _watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn start_free(_start: &Start, _watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn open(_pid: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn reserve_handle() -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn open_child(_pid: u32, _reserved: Option<OwnedHandle>) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn kill(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn terminate(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn reap(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<Option<Exit>> {
    Err(unsupported())
}

/// Returns `None`: unknown.
pub fn exit_told(_handle: BorrowedHandle<'_>) -> Option<Exit> {
    None
}

/// Returns the error "not supported".
///
/// # Safety
/// No other thread runs.
pub unsafe fn fork() -> io::Result<Forked> {
    Err(unsupported())
}

/// Does nothing: no handle is open.
///
/// # Safety
/// The number is the caller's.
pub unsafe fn close_number(_number: RawHandle) {}

/// Returns `None`: no handle is inherited.
///
/// # Safety
/// The process that started this one opened the number for it, and no other code here takes it.
pub unsafe fn claim(_number: RawHandle) -> Option<OwnedHandle> {
    None
}

/// Returns false: unknown.
pub fn privileged() -> bool {
    false
}

/// Returns the error "not supported".
pub fn nothing() -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
///
/// # Safety
/// No holder of the number relies on the file that it refers to now.
pub unsafe fn put_in_place(_handle: OwnedHandle, _number: RawHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Ends this process.
pub fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// Returns whether two names are those of one variable of the environment.
pub fn is_same_variable(one: &std::ffi::OsStr, other: &std::ffi::OsStr) -> bool {
    one == other
}

/// Does nothing: no tool shows the name.
pub fn take_name() {}

/// Returns the error "not supported".
pub fn lifeline() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn die_when_hung_up(_pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn hung_up(_pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    Err(unsupported())
}

/// Returns at once: the pipe has no other end.
pub fn until_hung_up(_pipe: BorrowedHandle<'_>) {}

/// Ends this process.
pub fn terminate_itself() {
    std::process::exit(Cause::TERMINATE.number())
}

/// Does nothing: no process was started.
pub fn end_by_number(_pid: u32) {}

/// Does nothing: no process was started.
pub fn discard(_pid: u32) {}

/// Ends this process at once.
pub fn die() -> ! {
    std::process::abort()
}

/// A process and the processes that it has started.
pub mod family {
    use crate::BorrowedHandle;
    use crate::stub::unsupported;
    use std::io;

    /// Returns the error "not supported".
    pub fn kill_family(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn interrupt(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns 0: there is no such signal.
    pub fn interrupt_number() -> i32 {
        0
    }
}

/// The memory that processes use.
pub mod usage {
    /// Returns `None`: unknown.
    pub fn memory_of(_pid: u32) -> Option<u64> {
        None
    }

    /// Returns `None`: unknown.
    pub fn peak_memory_of(_pid: u32) -> Option<u64> {
        None
    }

    /// Returns `None`: unknown.
    pub fn memory_kills() -> Option<u64> {
        None
    }
}
