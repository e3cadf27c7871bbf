//! Processes.
#![allow(unsafe_code)]

use super::{line, nt, pipe, ready, stream, times, unsupported};
use crate::handle::known;
use crate::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use windows_sys::Win32::Foundation::{GENERIC_READ, GENERIC_WRITE, STILL_ACTIVE};
use windows_sys::Win32::Storage::FileSystem::{CreateFileW, FILE_SHARE_READ, FILE_SHARE_WRITE, OPEN_EXISTING};
use windows_sys::Win32::System::Console::{STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle};
use windows_sys::Win32::System::Diagnostics::Debug::{
    EXCEPTION_POINTERS, SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode, SetUnhandledExceptionFilter,
};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThreadId, GetExitCodeProcess, GetExitCodeThread, OpenThread, PROCESS_DUP_HANDLE,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE, SetThreadStackGuarantee,
    THREAD_QUERY_LIMITED_INFORMATION, THREAD_SYNCHRONIZE, TerminateProcess,
};

pub mod family;
pub mod image;
pub mod maker;
pub mod packet;
mod starting;
pub mod usage;

pub use crate::exit::{Cause, Exit};
pub use crate::lacking::signals::{ignore_broken_pipes, program_signals};
pub use crate::lacking::{limits, memory_group};
pub use crate::start::{Forked, Start, Stdio, set_variable};
pub use starting::{start, start_free};

/// The exit codes of processes that are ended: this number and the cause's. CPython ends processes with this one and
/// has it mean SIGTERM.
const ENDED: u32 = 0x10000;

/// The exit code of a process that is ended for a cause.
pub(super) fn code_of(cause: Cause) -> u32 {
    if cause == Cause::TERMINATE { ENDED } else { ENDED + cause.number() as u32 }
}

/// What the system's own exit codes mean.
const STATUSES: [(u32, Cause, &str); 9] = [
    (0xC000_0005, Cause::BAD_ACCESS, "access violation"),
    (0xC000_013A, Cause::INTERRUPT, "Ctrl-C"),
    (0xC000_0409, Cause::ABORT, "abort (fast fail)"),
    (0xC000_00FD, status(0xC000_00FD), "stack overflow"),
    (0xC000_0017, status(0xC000_0017), "no memory"),
    (0xC000_012D, status(0xC000_012D), "no memory (commitment limit)"),
    (0xC000_001D, status(0xC000_001D), "illegal instruction"),
    (0xC000_0094, status(0xC000_0094), "division by zero"),
    (0xC000_0374, status(0xC000_0374), "heap corruption"),
];

/// The cause that is an exit code of the system: Python's exit code is the same number.
const fn status(code: u32) -> Cause {
    Cause::from_number((code as i32).wrapping_neg())
}

fn exit_of(code: u32) -> Exit {
    /// As many numbers as Unix has signals.
    const CAUSES: u32 = 64;
    if let Some((_, cause, _)) = STATUSES.iter().find(|(status, ..)| *status == code) {
        return Exit::Killed(*cause);
    }
    match code {
        ENDED => Exit::Killed(Cause::TERMINATE),
        code if code > ENDED && code <= ENDED + CAUSES => Exit::Killed(Cause::from_number((code - ENDED) as i32)),
        // An error of the system's: the highest two bits.
        code if (0xC000_0000..0xF000_0000).contains(&code) => Exit::Killed(status(code)),
        code => Exit::Code(code as i32),
    }
}

/// Returns the name of a cause.
pub fn cause_name(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::KILL => Some("ended at once"),
        Cause::TERMINATE => Some("asked to end"),
        cause => STATUSES.iter().find(|(_, other, _)| *other == cause).map(|(_, _, name)| *name),
    }
}

/// Returns true.
pub fn has_handles() -> bool {
    true
}

/// Opens a handle on a process.
pub fn open(pid: u32) -> io::Result<OwnedHandle> {
    const ALL: u32 = PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_TERMINATE | PROCESS_DUP_HANDLE;
    nt::process(pid, ALL).or_else(|_| nt::process(pid, PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION))
}

/// Returns a handle that reserves a place among this process's handles.
pub fn reserve_handle() -> io::Result<OwnedHandle> {
    nt::event(None)
}

/// Opens a handle on a child.
pub fn open_child(pid: u32, reserved: Option<OwnedHandle>) -> io::Result<OwnedHandle> {
    drop(reserved);
    open(pid)
}

/// Ends a process. A process that has ended is not affected.
fn end(handle: RawHandle, cause: Cause) -> io::Result<()> {
    // SAFETY: numbers only.
    let done = nt::check(unsafe { TerminateProcess(nt::raw(handle), code_of(cause)) });
    match done {
        Err(_) if nt::wait_one(handle, Some(Duration::ZERO)).unwrap_or(false) => Ok(()),
        other => other,
    }
}

/// Ends a process at once.
pub fn kill(handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    end(handle.as_raw(), Cause::KILL)
}

/// Ends a process. The system has no requests to end that a process could answer: it ends at once.
pub fn terminate(handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    end(handle.as_raw(), Cause::TERMINATE)
}

/// Returns how a process ended, or `None` while it runs.
pub fn reap(handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<Option<Exit>> {
    if !nt::wait_one(handle.as_raw(), Some(Duration::ZERO))? {
        return Ok(None);
    }
    let mut code = STILL_ACTIVE as u32;
    // SAFETY: writes to `code`.
    nt::check(unsafe { GetExitCodeProcess(nt::raw(handle.as_raw()), &mut code) })?;
    Ok(Some(exit_of(code)))
}

/// Returns how a process ended, also of another process's child.
pub fn exit_told(handle: BorrowedHandle<'_>) -> Option<Exit> {
    reap(handle, 0).ok().flatten()
}

/// Not supported.
///
/// # Safety
/// There is nothing to ensure.
pub unsafe fn fork() -> io::Result<Forked> {
    Err(unsupported("fork and forkserver; use spawn"))
}

/// Closes a handle.
///
/// # Safety
/// The number is the caller's.
pub unsafe fn close_number(number: RawHandle) {
    nt::close(number);
}

/// Takes over a handle that this process inherited at its start. `None`: the number is not open, or is claimed already.
///
/// # Safety
/// The process that started this one opened the number for it, and no other code here takes it.
pub unsafe fn claim(number: RawHandle) -> Option<OwnedHandle> {
    use windows_sys::Win32::Foundation::HANDLE_FLAG_INHERIT;
    // A handle that was inherited can be inherited again, until it is claimed.
    if nt::flags(number).ok()? & HANDLE_FLAG_INHERIT == 0 {
        return None;
    }
    nt::set_inherit(number, false).ok()?;
    let handle = nt::adopt(number);
    // The end of a line is this process's from now on.
    let end = line::of(handle.as_handle());
    if end.is_none() && super::network::is_network(number) {
        known::note(number, known::Known::Socket);
    }
    Some(handle)
}

/// Returns false: the system starts no program with an environment that it does not trust.
pub fn privileged() -> bool {
    false
}

/// Returns a handle that reads as empty and discards writes.
pub fn nothing() -> io::Result<OwnedHandle> {
    let name = nt::wide("NUL");
    let (access, share) = (GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE);
    // SAFETY: the name ends with NUL.
    nt::opened(unsafe {
        CreateFileW(name.as_ptr(), access, share, std::ptr::null(), OPEN_EXISTING, 0, std::ptr::null_mut())
    })
}

/// Makes a handle a standard stream: 0 is the input, 1 the output, 2 the errors.
///
/// # Safety
/// No holder of the number relies on the object that it refers to now.
pub unsafe fn put_in_place(handle: OwnedHandle, number: RawHandle) -> io::Result<()> {
    let stream = match number {
        0 => STD_INPUT_HANDLE,
        1 => STD_OUTPUT_HANDLE,
        2 => STD_ERROR_HANDLE,
        _ => return Err(unsupported("putting a handle under a chosen number")),
    };
    // SAFETY: the handle stays open until this process ends.
    nt::check(unsafe { SetStdHandle(stream, nt::raw(handle.into_raw())) })
}

/// Ends this process without destructors.
pub fn leave(code: i32) -> ! {
    end_self(code as u32)
}

/// Does what [`crash_at_once`] does. There are no signals to set.
pub fn worker_signals() {
    crash_at_once();
}

/// Makes a crash end this process at once, with the number of the exception as its exit code: the system neither shows a
/// dialog nor starts a debugger, for which the hub would have to wait. After a stack overflow there may be no room for
/// either, nor for the call of a handler: Wine then ends the thread alone, and the process continues without it. So the
/// calling thread keeps some room for that. The standard library does the same for its threads, but for the first one
/// only before `main`, which a worker does not reach.
pub fn crash_at_once() {
    /// Enough for the system's search for a handler, with the frames of an unoptimized build.
    const ROOM: u32 = 64 * 1024;
    let mut room = ROOM;
    // SAFETY: writes to `room`; numbers otherwise. The function stays loaded with this image, which no worker unloads.
    unsafe {
        SetThreadStackGuarantee(&mut room);
        SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
        let before = SetUnhandledExceptionFilter(Some(end_by_exception));
        if let Some(before) = before.filter(|&before| before as usize != end_by_exception as *const () as usize) {
            FILTER_BEFORE.store(before as usize, Ordering::Release);
        }
    }
}

/// The function that the program had set for exceptions that no code handles; 0: none.
static FILTER_BEFORE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "system" fn end_by_exception(about: *const EXCEPTION_POINTERS) -> i32 {
    const CONTINUE_SEARCH: i32 = 0;
    // Acquire: of the store in `crash_at_once`.
    let before = FILTER_BEFORE.load(Ordering::Acquire);
    if before != 0 {
        // SAFETY: the system returned it as a function of this type.
        let before = unsafe { std::mem::transmute::<usize, unsafe extern "system" fn(_) -> i32>(before) };
        // SAFETY: the pointer is the system's, which the function expects.
        let answer = unsafe { before(about) };
        if answer != CONTINUE_SEARCH {
            return answer;
        }
    }
    // SAFETY: the system passes valid pointers; both are read only.
    end_self(unsafe { (*(*about).ExceptionRecord).ExceptionCode } as u32)
}

/// Returns whether two names are those of one variable of the environment: letters of both cases are the same.
pub fn is_same_variable(one: &std::ffi::OsStr, other: &std::ffi::OsStr) -> bool {
    one.eq_ignore_ascii_case(other) || one.to_string_lossy().to_uppercase() == other.to_string_lossy().to_uppercase()
}

/// Does nothing: a process has the name of its file.
pub fn take_name() {}

/// Returns a pipe for a lifeline: the worker's end and the hub's.
pub fn lifeline() -> io::Result<(OwnedHandle, OwnedHandle)> {
    stream::pipe()
}

/// Ends this process with an exit code.
fn end_self(code: u32) -> ! {
    loop {
        // SAFETY: numbers only.
        unsafe { TerminateProcess(GetCurrentProcess(), code) };
    }
}

/// A handle on the calling thread, which is ready when the thread has ended.
fn watched_thread() -> io::Result<OwnedHandle> {
    let rights = THREAD_SYNCHRONIZE | THREAD_QUERY_LIMITED_INFORMATION;
    // SAFETY: numbers only.
    nt::opened(unsafe { OpenThread(rights, 0, GetCurrentThreadId()) })
}

/// Makes a thread of this crate kill this process when the other end of the pipe closes, as long as the returned handle
/// is open. The thread runs no code of the program, so it also does so while the program is busy. If the caller is the
/// first thread, this process ends with it as well: the system may end that thread alone, as Wine does after a stack
/// overflow, and the hub would wait for an answer of a process without it.
pub fn die_when_hung_up(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let pipe = pipe.try_clone_to_owned()?;
    let (released, held) = stream::pipe()?;
    let first = super::is_first_thread().then(watched_thread).transpose()?;
    super::quiet::spawn("maniple-lifeline", move || {
        loop {
            let watched = [Some(&released), Some(&pipe), first.as_ref()].into_iter().flatten();
            let mut ends: Vec<_> = watched.map(|handle| ready::Interest::new(handle.as_handle())).collect();
            if ready::wait(&mut ends, None).is_ok_and(|found| found > 0) {
                if ends[0].ready() {
                    return;
                }
                if let (false, Some(thread)) = (ends[1].ready(), &first) {
                    let mut code = 0;
                    // SAFETY: writes to `code`.
                    unsafe { GetExitCodeThread(nt::raw(thread.as_raw()), &mut code) };
                    end_self(code);
                }
                end_self(code_of(Cause::KILL));
            }
        }
    })?;
    Ok(held)
}

/// Returns whether the other end of a pipe, or a process, is gone.
pub fn hung_up(handle: BorrowedHandle<'_>) -> io::Result<bool> {
    match ready::object(handle) {
        ready::Object::Other => nt::wait_one(handle.as_raw(), Some(Duration::ZERO)),
        _ => Ok(pipe::is_closed(handle.as_raw())),
    }
}

/// Waits until the other end of a pipe is closed.
pub fn until_hung_up(pipe: BorrowedHandle<'_>) {
    while !hung_up(pipe).unwrap_or(true) {
        let _ = ready::wait(&mut [ready::Interest::new(pipe)], None);
    }
}

/// Ends this process as [`terminate`] does.
pub fn terminate_itself() {
    end_self(code_of(Cause::TERMINATE))
}

/// Ends a process at once, by its number.
pub fn end_by_number(pid: u32) {
    if let Ok(process) = nt::process(pid, PROCESS_TERMINATE | PROCESS_SYNCHRONIZE) {
        let _ = end(process.as_raw(), Cause::KILL);
    }
}

/// Ends a child at once, and waits until it has ended.
pub fn discard(pid: u32) {
    /// A process that the system cannot end (a debugger, a driver) is left.
    const LIMIT: Duration = Duration::from_secs(10);
    if let Ok(process) = nt::process(pid, PROCESS_TERMINATE | PROCESS_SYNCHRONIZE) {
        let _ = end(process.as_raw(), Cause::KILL);
        let _ = nt::wait_one(process.as_raw(), Some(LIMIT));
    }
}

/// Ends this process at once.
pub fn die() -> ! {
    end_self(code_of(Cause::KILL))
}

/// The numbers of a process's threads.
pub(super) fn threads_in(process: u32) -> io::Result<Vec<u32>> {
    // SAFETY: numbers only.
    let list = nt::opened(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) })?;
    // SAFETY: all zeros is a valid entry.
    let mut entry: THREADENTRY32 = unsafe { std::mem::zeroed() };
    entry.dwSize = size_of::<THREADENTRY32>() as u32;
    let mut found = Vec::new();
    // SAFETY: the list is open, and the entry has its size.
    let mut more = unsafe { Thread32First(nt::raw(list.as_raw()), &mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == process {
            found.push(entry.th32ThreadID);
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(nt::raw(list.as_raw()), &mut entry) };
    }
    Ok(found)
}

pub(super) fn open_thread(number: u32) -> io::Result<OwnedHandle> {
    // SAFETY: numbers only.
    nt::opened(unsafe { OpenThread(THREAD_QUERY_LIMITED_INFORMATION, 0, number) })
}

/// Returns the number of this process's oldest thread.
pub(super) fn first_thread() -> Option<u32> {
    let begun = |number| times::of_thread(open_thread(number).ok()?.as_raw());
    let all = threads_in(std::process::id()).ok()?;
    all.into_iter().filter_map(|number| Some((begun(number)?, number))).min().map(|(_, number)| number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_have_the_words_of_the_system() {
        assert_eq!(exit_of(3), Exit::Code(3));
        assert_eq!(exit_of(u32::MAX), Exit::Code(-1));
        assert_eq!(exit_of(0xC000_0005), Exit::Killed(Cause::BAD_ACCESS));
        assert_eq!(exit_of(ENDED), Exit::Killed(Cause::TERMINATE));
        assert_eq!(exit_of(code_of(Cause::KILL)), Exit::Killed(Cause::KILL));
        let overflow = exit_of(0xC000_00FD);
        assert_eq!(overflow.number(), Some(0xC000_00FD_u32 as i32));
        assert!(overflow.to_string().contains("stack overflow"));
    }
}
