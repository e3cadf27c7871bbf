//! The system's calls, with errors and lengths checked: the lowest layer of this backend.
#![allow(unsafe_code)]

use crate::OwnedHandle;
use crate::handle::known;
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::time::Duration;
use windows_sys::Wdk::Foundation::NtQueryObject;
use windows_sys::Wdk::Storage::FileSystem::NtQueryInformationFile;
use windows_sys::Win32::Foundation::{
    CloseHandle, DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DuplicateHandle, GetHandleInformation, HANDLE,
    HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE, SetHandleInformation, WAIT_FAILED, WAIT_OBJECT_0,
};
use windows_sys::Win32::Security::Authentication::Identity::RtlGenRandom;
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use windows_sys::Win32::System::Memory::{CreateFileMappingW, FILE_MAP_ALL_ACCESS, OpenFileMappingW, PAGE_READWRITE};
use windows_sys::Win32::System::Threading::{
    CreateEventW, GetCurrentProcess, INFINITE, OpenProcess, ResetEvent, SetEvent, WaitForMultipleObjects,
    WaitForSingleObject,
};

/// Returns a number as the system's type.
pub fn raw(number: isize) -> HANDLE {
    number as HANDLE
}

/// Returns a text with a NUL behind it.
pub fn wide(text: impl AsRef<std::ffi::OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}

/// Returns a nonzero result, or the last error.
pub fn check(result: i32) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes over a handle that a call has just returned, or returns the last error.
pub fn opened(handle: HANDLE) -> io::Result<OwnedHandle> {
    if handle.is_null() || handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    Ok(adopt(handle as isize))
}

/// Takes over a handle that a call has just returned.
pub fn adopt(number: isize) -> OwnedHandle {
    drop(known::forget(number));
    // SAFETY: the callers pass a handle that the system has just opened for them alone.
    unsafe { OwnedHandle::from_raw(number) }
}

/// A handle of this backend's own, of which `known` has no entry.
#[derive(Debug)]
pub struct Closing(pub isize);

impl Closing {
    /// Takes over a handle.
    pub fn new(handle: OwnedHandle) -> Closing {
        Closing(handle.into_raw())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        close(self.0);
    }
}

/// Closes a number.
pub fn close(number: isize) {
    // SAFETY: the callers own the number.
    unsafe { CloseHandle(raw(number)) };
}

/// Duplicates a handle within this process.
pub fn duplicate(number: isize) -> io::Result<isize> {
    let mut copy: HANDLE = std::ptr::null_mut();
    // SAFETY: the call reads no memory, and writes a number to `copy`.
    check(unsafe {
        let me = GetCurrentProcess();
        DuplicateHandle(me, raw(number), me, &mut copy, 0, 0, DUPLICATE_SAME_ACCESS)
    })?;
    Ok(copy as isize)
}

/// Duplicates a handle of this process into another process, and returns its number there.
pub fn push(process: &OwnedHandle, number: isize) -> io::Result<isize> {
    let mut copy: HANDLE = std::ptr::null_mut();
    // SAFETY: the call reads no memory, and writes a number to `copy`.
    check(unsafe {
        let me = GetCurrentProcess();
        DuplicateHandle(me, raw(number), raw(process.as_raw()), &mut copy, 0, 0, DUPLICATE_SAME_ACCESS)
    })?;
    Ok(copy as isize)
}

/// Moves a handle of another process into this one.
pub fn pull(process: &OwnedHandle, number: isize) -> io::Result<isize> {
    let mut copy: HANDLE = std::ptr::null_mut();
    let options = DUPLICATE_SAME_ACCESS | DUPLICATE_CLOSE_SOURCE;
    // SAFETY: the call reads no memory, and writes a number to `copy`.
    check(unsafe {
        DuplicateHandle(raw(process.as_raw()), raw(number), GetCurrentProcess(), &mut copy, 0, 0, options)
    })?;
    Ok(copy as isize)
}

/// Opens a process.
pub fn process(pid: u32, access: u32) -> io::Result<OwnedHandle> {
    // SAFETY: numbers only.
    opened(unsafe { OpenProcess(access, 0, pid) })
}

/// Returns a handle's flags, or an error if the number is not open.
pub fn flags(number: isize) -> io::Result<u32> {
    let mut flags = 0;
    // SAFETY: writes to `flags`.
    check(unsafe { GetHandleInformation(raw(number), &mut flags) })?;
    Ok(flags)
}

/// Sets whether programs that this process starts inherit a handle.
pub fn set_inherit(number: isize, inherit: bool) -> io::Result<()> {
    let value = if inherit { HANDLE_FLAG_INHERIT } else { 0 };
    // SAFETY: numbers only.
    check(unsafe { SetHandleInformation(raw(number), HANDLE_FLAG_INHERIT, value) })
}

/// Returns the milliseconds of a wait, rounded up.
pub fn milliseconds(time: Option<Duration>) -> u32 {
    time.map_or(INFINITE, |time| {
        u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE - 1).min(INFINITE - 1)
    })
}

/// Waits for an object; returns whether it is signalled.
pub fn wait_one(number: isize, time: Option<Duration>) -> io::Result<bool> {
    // SAFETY: numbers only.
    match unsafe { WaitForSingleObject(raw(number), milliseconds(time)) } {
        WAIT_OBJECT_0 => Ok(true),
        WAIT_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(false),
    }
}

/// Waits for any of at most 64 objects; returns whether one is signalled.
pub fn wait_few(numbers: &[isize], time: Option<Duration>) -> io::Result<bool> {
    // SAFETY: the slice has as many numbers as the call reads; handles have the size of pointers.
    let woken = unsafe { WaitForMultipleObjects(numbers.len() as u32, numbers.as_ptr().cast(), 0, milliseconds(time)) };
    match woken {
        WAIT_FAILED => Err(io::Error::last_os_error()),
        woken => Ok((woken as usize) < numbers.len()),
    }
}

/// Creates an event that stays signalled until it is reset; with a name: creates or opens it.
pub fn event(name: Option<&str>) -> io::Result<OwnedHandle> {
    let name = name.map(wide);
    let name = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
    // SAFETY: the name is null or ends with NUL.
    opened(unsafe { CreateEventW(std::ptr::null(), 1, 0, name) })
}

/// Whether the call just before has found its name in use.
fn existed() -> bool {
    const ALREADY_EXISTS: i32 = 183;
    io::Error::last_os_error().raw_os_error() == Some(ALREADY_EXISTS)
}

/// Signals an event, or resets it.
pub fn set_event(number: isize, signalled: bool) {
    // SAFETY: numbers only.
    unsafe { if signalled { SetEvent(raw(number)) } else { ResetEvent(raw(number)) } };
}

/// Creates a section of `len` bytes under a name. The second value: whether it has existed.
pub fn create_section(name: &str, len: usize) -> io::Result<(OwnedHandle, bool)> {
    let name = wide(name);
    let (high, low) = ((len as u64 >> 32) as u32, len as u32);
    // SAFETY: the name ends with NUL, and the attributes are the system's defaults.
    let section = unsafe {
        windows_sys::Win32::Foundation::SetLastError(0);
        CreateFileMappingW(INVALID_HANDLE_VALUE, std::ptr::null(), PAGE_READWRITE, high, low, name.as_ptr())
    };
    let section = opened(section)?;
    let existed = existed();
    Ok((section, existed))
}

/// Opens the section of a name.
pub fn open_section(name: &str) -> io::Result<OwnedHandle> {
    let name = wide(name);
    // SAFETY: the name ends with NUL.
    opened(unsafe { OpenFileMappingW(FILE_MAP_ALL_ACCESS, 0, name.as_ptr()) })
}

/// Returns the last part of an object's name in the system's name space.
pub fn object_name(number: isize) -> Option<String> {
    const NAME: i32 = 1;
    let mut room = [0u64; 128];
    let mut len = 0;
    // SAFETY: the call writes at most as many bytes as `room` has.
    let status =
        unsafe { NtQueryObject(raw(number), NAME, room.as_mut_ptr().cast(), size_of_val(&room) as u32, &mut len) };
    if status < 0 {
        return None;
    }
    // UNICODE_STRING: two lengths in bytes, a pointer, and the text behind it.
    let bytes = (room[0] & 0xFFFF) as usize;
    let start = size_of::<u64>() * 2;
    // SAFETY: any bytes of the array are numbers of two bytes.
    let text = unsafe { std::slice::from_raw_parts(room.as_ptr().cast::<u16>(), size_of_val(&room) / 2) };
    let text = text.get(start / 2..(start + bytes) / 2)?;
    last_part(text)
}

/// Returns the name of a named pipe, from either end.
pub fn pipe_name(number: isize) -> Option<String> {
    const FILE_NAME: i32 = 9;
    let mut room = [0u32; 256];
    // SAFETY: all zeros is a valid block, and the call writes at most as many bytes as `room` has.
    let status = unsafe {
        let mut block: IO_STATUS_BLOCK = std::mem::zeroed();
        NtQueryInformationFile(raw(number), &mut block, room.as_mut_ptr().cast(), size_of_val(&room) as u32, FILE_NAME)
    };
    if status < 0 {
        return None;
    }
    // FILE_NAME_INFORMATION: a length in bytes, and the text.
    // SAFETY: any bytes of the array are numbers of two bytes.
    let text = unsafe { std::slice::from_raw_parts(room.as_ptr().cast::<u16>(), size_of_val(&room) / 2) };
    last_part(text.get(2..2 + room[0] as usize / 2)?)
}

fn last_part(text: &[u16]) -> Option<String> {
    let from = text.iter().rposition(|&unit| unit == u16::from(b'\\')).map_or(0, |at| at + 1);
    String::from_utf16(&text[from..]).ok()
}

/// Fills `bytes` with unpredictable bytes.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    for piece in bytes.chunks_mut(1 << 20) {
        // SAFETY: the call writes as many bytes as `piece` has.
        if !unsafe { RtlGenRandom(piece.as_mut_ptr().cast(), piece.len() as u32) } {
            return Err(io::Error::other("the system has no random bytes"));
        }
    }
    Ok(())
}

/// Returns an unpredictable name of 32 digits.
pub fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Returns whether calls on a file or pipe wait, because it was opened without overlapped operations.
pub fn is_synchronous(number: isize) -> bool {
    const FILE_MODE: i32 = 16;
    const SYNCHRONOUS: u32 = 0x10 | 0x20;
    let mut mode = 0u32;
    // SAFETY: all zeros is a valid block, and the call writes at most four bytes to `mode`.
    let status = unsafe {
        let mut block: IO_STATUS_BLOCK = std::mem::zeroed();
        NtQueryInformationFile(raw(number), &mut block, (&raw mut mode).cast(), 4, FILE_MODE)
    };
    status >= 0 && mode & SYNCHRONOUS != 0
}

/// Returns whether the other end of a pipe is closed, for a handle that may only write.
pub fn is_pipe_closing(number: isize) -> bool {
    const PIPE_LOCAL: i32 = 24;
    const CLOSING: u32 = 4;
    const STATE: usize = 8;
    let mut parts = [0u32; 10];
    // SAFETY: all zeros is a valid block, and the call writes at most as many bytes as `parts` has.
    let status = unsafe {
        let mut block: IO_STATUS_BLOCK = std::mem::zeroed();
        let len = size_of_val(&parts) as u32;
        NtQueryInformationFile(raw(number), &mut block, parts.as_mut_ptr().cast(), len, PIPE_LOCAL)
    };
    status >= 0 && parts[STATE] == CLOSING
}
