//! System calls for tests: ending and stopping processes, handles of other kinds.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use super::process::{Cause, code_of, family, open_thread, threads_in};
use super::{memory, nt, stream};
use crate::testing::Stream;
use crate::{AsHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle, RawHandle};
use std::io;
use std::ops::Deref;
use std::os::windows::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use windows_sys::Win32::Foundation::{HANDLE, HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE, LocalFree};
use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_DELETE_ON_CLOSE;
use windows_sys::Win32::System::Memory::{
    CreateFileMappingW, FILE_MAP_READ, FILE_MAP_WRITE, MEMORY_MAPPED_VIEW_ADDRESS, MapViewOfFile, PAGE_READWRITE,
    UnmapViewOfFile,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessHandleCount, GetThreadDescription, PROCESS_QUERY_INFORMATION,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SUSPEND_RESUME, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
    TerminateProcess,
};

/// What a process can be made to do from outside, by the names of Unix's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// As `kill` ends it.
    pub const KILL: Signal = Signal(9);
    /// As `terminate` ends it.
    pub const TERM: Signal = Signal(15);
    /// An access violation; only of this process.
    pub const SEGV: Signal = Signal(11);
    /// All its threads stop, until `CONT`.
    pub const STOP: Signal = Signal(19);
    pub const CONT: Signal = Signal(18);

    /// Its number on Unix.
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

#[link(name = "ntdll")]
unsafe extern "system" {
    fn NtSuspendProcess(process: HANDLE) -> i32;
    fn NtResumeProcess(process: HANDLE) -> i32;
}

pub fn kill(pid: u32, signal: Signal) -> io::Result<()> {
    let all = PROCESS_TERMINATE | PROCESS_SYNCHRONIZE | PROCESS_SUSPEND_RESUME | PROCESS_QUERY_LIMITED_INFORMATION;
    let process = nt::process(pid, all)?;
    let number = nt::raw(process.as_raw());
    match signal {
        // SAFETY: numbers only.
        Signal::STOP => drop(unsafe { NtSuspendProcess(number) }),
        // SAFETY: numbers only.
        Signal::CONT => drop(unsafe { NtResumeProcess(number) }),
        signal => {
            // SAFETY: numbers only.
            let done = nt::check(unsafe { TerminateProcess(number, code_of(Cause::from_number(signal.0))) });
            if !nt::wait_one(process.as_raw(), Some(Duration::ZERO)).unwrap_or(false) {
                done?;
            }
        }
    }
    Ok(())
}

pub fn kill_self(signal: Signal) {
    if signal == Signal::SEGV {
        // SAFETY: none: the write ends this process, which is what the tests want to see.
        unsafe { std::hint::black_box(8 as *mut u8).write_volatile(1) };
    }
    kill(std::process::id(), signal).unwrap();
}

/// Returns the process that started this one.
pub fn parent() -> u32 {
    let own = std::process::id();
    family::all().unwrap().into_iter().find(|(pid, _)| *pid == own).map_or(0, |(_, parent)| parent)
}

/// Prepares the start of a program that the tests end as a whole; nothing is needed here.
pub fn in_own_group(_program: &mut std::process::Command) {}

/// Does nothing: a process has no limit of its own to its memory.
pub fn bound(_program: &mut std::process::Command, _most: u64) {}

/// Returns whether a process of this number runs.
pub fn exists(pid: u32) -> bool {
    !super::holder::is_gone(pid, 0)
}

/// Returns whether a process of this number runs: nothing else is left of one.
pub fn is_listed(pid: u32) -> bool {
    exists(pid)
}

/// Returns the number of this process's handles.
pub fn handles() -> usize {
    let mut count = 0;
    // SAFETY: writes to `count`.
    nt::check(unsafe { GetProcessHandleCount(GetCurrentProcess(), &mut count) }).unwrap();
    count as usize
}

/// Returns whether a number is an open handle.
pub fn is_open(number: RawHandle) -> bool {
    nt::flags(number).is_ok()
}

/// Returns whether programs that this process starts may inherit the handle.
pub fn is_inherited(handle: impl AsHandle) -> bool {
    nt::flags(handle.as_handle().as_raw()).unwrap() & HANDLE_FLAG_INHERIT != 0
}

pub fn set_inherited(handle: impl AsHandle, is_inherited: bool) {
    nt::set_inherit(handle.as_handle().as_raw(), is_inherited).unwrap();
}

/// Creates shared memory that is not this package's, as a malicious process may send it.
pub fn unsealed_memory(len: u64) -> OwnedHandle {
    let (high, low, none) = ((len >> 32) as u32, len.max(1) as u32, std::ptr::null());
    // SAFETY: no name, and the attributes are the system's defaults.
    let made = unsafe { CreateFileMappingW(INVALID_HANDLE_VALUE, none, PAGE_READWRITE, high, low, std::ptr::null()) };
    nt::opened(made).unwrap()
}

/// Returns how many mappings of shared memory this process has, and how many handles on such memory: all of
/// it, because memory has no labels here.
pub fn shared_memory(_label: &str) -> (usize, usize) {
    // Numbers are multiples of 4, and the system uses low ones first.
    let numbers = (4..40_000).step_by(4);
    // SAFETY: a number that is not open leads nowhere.
    let is_memory = |&number: &isize| memory::is_fixed(unsafe { BorrowedHandle::borrow_raw(number) });
    (memory::mappings(), numbers.filter(is_memory).count())
}

/// Returns the names of this process's threads.
pub fn threads() -> Vec<String> {
    let name = |thread: &OwnedHandle| {
        let mut text = std::ptr::null_mut();
        // SAFETY: writes a pointer to a text that ends with NUL, which this code frees.
        unsafe {
            if GetThreadDescription(nt::raw(thread.as_raw()), &mut text) < 0 || text.is_null() {
                return None;
            }
            let len = (0..).take_while(|&at| *text.add(at) != 0).count();
            let name = String::from_utf16_lossy(std::slice::from_raw_parts(text, len));
            LocalFree(text.cast());
            Some(name)
        }
    };
    threads_in(std::process::id()).unwrap().into_iter().filter_map(|number| name(&open_thread(number).ok()?)).collect()
}

/// Returns an open file of `len` bytes, which the system removes when it is closed.
pub fn temporary_file(len: u64) -> std::fs::File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("maniple-file-{}-{number}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let file = options.create_new(true).read(true).write(true).custom_flags(FILE_FLAG_DELETE_ON_CLOSE).open(path);
    let file = file.unwrap();
    file.set_len(len).unwrap();
    file
}

/// Returns the number of a process's handles.
pub fn handles_of(pid: u32) -> usize {
    let process = nt::process(pid, PROCESS_QUERY_INFORMATION).unwrap();
    let mut count = 0;
    // SAFETY: writes to `count`.
    nt::check(unsafe { GetProcessHandleCount(nt::raw(process.as_raw()), &mut count) }).unwrap();
    count as usize
}

/// Returns the number of a process's threads.
pub fn threads_of(pid: u32) -> usize {
    threads_in(pid).unwrap().len()
}

/// Returns the number of this process's handles: the system does not name them.
pub fn handle_names() -> Vec<String> {
    vec![format!("{} handles", handles())]
}

/// Returns the children of this process that run.
pub fn children() -> Vec<u32> {
    let own = std::process::id();
    let all = family::all().unwrap().into_iter();
    all.filter(|&(pid, parent)| parent == own && exists(pid)).map(|(pid, _)| pid).collect()
}

/// Returns true: the system stops a process at once.
pub fn is_stopped(_pid: u32) -> bool {
    true
}

/// Stops this process.
pub fn stop_self() {
    kill(std::process::id(), Signal::STOP).unwrap();
}

/// Sends bytes over a line of any kind.
pub fn send(line: impl AsHandle, bytes: &[u8]) {
    assert!(stream::send_packet(line.as_handle(), bytes, &[]).unwrap());
}

impl IntoHandle for Stream {
    fn into_handle(self) -> OwnedHandle {
        self.into_owned()
    }
}

impl FromHandle for Stream {
    fn from_handle(handle: OwnedHandle) -> Stream {
        Stream::from_owned(handle)
    }
}

/// The system's numbers of the errors that shortages and deaths cause.
pub const SHORTAGES: [i32; 11] = [4, 8, 14, 109, 112, 232, 233, 1450, 1455, 10_054, 10_061];

/// A mapping of a file.
pub struct MappedFile {
    start: *mut u8,
    len: usize,
}

// SAFETY: the mapping belongs to this value, and `deref` shows its bytes only as atomics.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    pub fn open(path: &Path, len: usize) -> io::Result<MappedFile> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
        let (number, none) = (nt::raw(file.as_handle().as_raw()), std::ptr::null());
        // SAFETY: the file is open, and the attributes are the system's defaults; it has no name.
        let section =
            nt::opened(unsafe { CreateFileMappingW(number, none, PAGE_READWRITE, 0, len as u32, std::ptr::null()) })?;
        // SAFETY: a fresh view, at an address of the system's choice.
        let view = unsafe { MapViewOfFile(nt::raw(section.as_raw()), FILE_MAP_READ | FILE_MAP_WRITE, 0, 0, len) }.Value;
        if view.is_null() { Err(io::Error::last_os_error()) } else { Ok(MappedFile { start: view.cast(), len }) }
    }
}

impl Deref for MappedFile {
    type Target = [AtomicU8];

    fn deref(&self) -> &Self::Target {
        // SAFETY: `open` mapped `len` bytes, and this process accesses them only as atomic bytes.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: no reference outlives the value that is dropped here.
        unsafe { UnmapViewOfFile(MEMORY_MAPPED_VIEW_ADDRESS { Value: self.start.cast() }) };
    }
}
