//! Named pipes: the system's own, whose ends are handles.
#![allow(unsafe_code)]

use super::nt;
use crate::OwnedHandle;
use std::io;
use windows_sys::Win32::Foundation::{GENERIC_READ, GENERIC_WRITE};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, PIPE_ACCESS_DUPLEX,
    PIPE_ACCESS_INBOUND,
};
use windows_sys::Win32::System::Pipes::{CreateNamedPipeW, PIPE_REJECT_REMOTE_CLIENTS, PIPE_TYPE_BYTE, PeekNamedPipe};

/// The two ends of a new pipe; the first is the server's. `both`: for both directions, otherwise from the second to
/// the first.
pub fn ends(name: &str, both: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    const BUFFER: u32 = 64 * 1024;
    let name = nt::wide(format!("\\\\.\\pipe\\{name}"));
    let access = if both { PIPE_ACCESS_DUPLEX } else { PIPE_ACCESS_INBOUND };
    let flags = FILE_FLAG_FIRST_PIPE_INSTANCE | FILE_FLAG_OVERLAPPED;
    let kind = PIPE_TYPE_BYTE | PIPE_REJECT_REMOTE_CLIENTS;
    // SAFETY: the name ends with NUL, and the attributes are the system's defaults.
    let server = nt::opened(unsafe {
        CreateNamedPipeW(name.as_ptr(), access | flags, kind, 1, BUFFER, BUFFER, 0, std::ptr::null())
    })?;
    let access = if both { GENERIC_READ | GENERIC_WRITE } else { GENERIC_WRITE };
    // SAFETY: as above. The name is unpredictable, and the pipe takes one client.
    let client = nt::opened(unsafe {
        let none = std::ptr::null();
        CreateFileW(name.as_ptr(), access, 0, none, OPEN_EXISTING, FILE_FLAG_OVERLAPPED, std::ptr::null_mut())
    })?;
    Ok((server, client))
}

/// Returns whether the other end of a pipe is closed. False for a handle that leads to no pipe.
pub fn is_closed(number: isize) -> bool {
    match peek(number) {
        Ok(_) => false,
        Err(error) if is_write_only(&error) => nt::is_pipe_closing(number),
        Err(error) => is_end(&error),
    }
}

/// Returns whether the error of a look into a pipe says that the handle is for writes alone.
pub fn is_write_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Returns how many bytes a pipe has.
pub fn peek(number: isize) -> io::Result<usize> {
    let mut available = 0;
    let none = std::ptr::null_mut();
    // SAFETY: writes to `available` alone.
    nt::check(unsafe {
        PeekNamedPipe(nt::raw(number), none, 0, std::ptr::null_mut(), &mut available, std::ptr::null_mut())
    })?;
    Ok(available as usize)
}

/// Returns whether an error says that the other end of a pipe is closed.
pub fn is_end(error: &io::Error) -> bool {
    const BROKEN_PIPE: i32 = 109;
    const NO_DATA: i32 = 232;
    const PIPE_NOT_CONNECTED: i32 = 233;
    error.raw_os_error().is_some_and(|number| [BROKEN_PIPE, NO_DATA, PIPE_NOT_CONNECTED].contains(&number))
}
