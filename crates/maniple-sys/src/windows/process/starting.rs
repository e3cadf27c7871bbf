//! The start of a process.
//!
//! The process is created suspended, put into this process's *job*, and resumed. The job ends its processes when its
//! last handle is closed: when this process ends, also by a crash. Processes that they start are not in the job.
#![allow(unsafe_code)]

use super::super::{line, nt, unsupported};
use super::{Start, Stdio, nothing};
use crate::{AsHandle, OwnedHandle};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::sync::{Mutex, OnceLock, PoisonError};
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
    SetInformationJobObject,
};
use windows_sys::Win32::System::Threading::{
    CREATE_SUSPENDED, CREATE_UNICODE_ENVIRONMENT, CreateProcessW, DeleteProcThreadAttributeList,
    EXTENDED_STARTUPINFO_PRESENT, InitializeProcThreadAttributeList, LPPROC_THREAD_ATTRIBUTE_LIST,
    PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROCESS_INFORMATION, ResumeThread, STARTF_USESTDHANDLES, STARTUPINFOEXW,
    UpdateProcThreadAttribute,
};

/// While a process is created, its handles can be inherited: no other start may run then.
static STARTS: Mutex<()> = Mutex::new(());

/// The job of all processes that this process starts; `None` if the system refuses it.
fn job() -> Option<isize> {
    static JOB: OnceLock<Option<isize>> = OnceLock::new();
    *JOB.get_or_init(|| {
        // SAFETY: no name, and the attributes are the system's defaults.
        let job = nt::opened(unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) }).ok()?;
        // SAFETY: all zeros is a valid value of the type: no limits.
        let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { std::mem::zeroed() };
        limits.BasicLimitInformation.LimitFlags =
            JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
        let len = size_of_val(&limits) as u32;
        // SAFETY: reads `len` bytes of `limits`.
        nt::check(unsafe {
            let from = (&raw const limits).cast();
            SetInformationJobObject(nt::raw(job.as_raw()), JobObjectExtendedLimitInformation, from, len)
        })
        .ok()?;
        // It is closed when this process ends.
        Some(job.into_raw())
    })
}

/// Writes an argument in the form in which the C library's `argv` has it again: quotes around it if it needs them, a
/// backslash before each quote, and backslashes doubled before a quote.
fn quote(line: &mut Vec<u16>, argument: &OsStr) {
    let units: Vec<u16> = argument.encode_wide().collect();
    let is = |unit: u16, character: u8| unit == u16::from(character);
    if !units.is_empty() && !units.iter().any(|&unit| b" \t\n\x0b\"".iter().any(|&character| is(unit, character))) {
        line.extend(units);
        return;
    }
    let mut backslashes = 0;
    line.push(u16::from(b'"'));
    for unit in units {
        if is(unit, b'\\') {
            backslashes += 1;
        } else {
            if is(unit, b'"') {
                line.extend(std::iter::repeat_n(u16::from(b'\\'), backslashes + 1));
            }
            backslashes = 0;
        }
        line.push(unit);
    }
    line.extend(std::iter::repeat_n(u16::from(b'\\'), backslashes));
    line.push(u16::from(b'"'));
}

fn command_line(arguments: &[OsString]) -> io::Result<Vec<u16>> {
    const LONGEST: usize = 32_766;
    let mut line = Vec::new();
    for (number, argument) in arguments.iter().enumerate() {
        if argument.encode_wide().any(|unit| unit == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an argument of the program contains NUL"));
        }
        if number > 0 {
            line.push(u16::from(b' '));
        }
        quote(&mut line, argument);
    }
    if line.len() > LONGEST {
        let text = format!("the arguments of the program have {} characters; {LONGEST} at most on Windows", line.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    line.push(0);
    Ok(line)
}

/// Names and values, sorted by name without case, each with NUL, and NUL behind all.
fn block(environment: &[(OsString, OsString)]) -> io::Result<Vec<u16>> {
    let mut sorted: Vec<_> = environment.iter().collect();
    sorted.sort_by_key(|(name, _)| name.to_string_lossy().to_uppercase());
    let mut block = Vec::new();
    for (name, value) in sorted {
        if name.is_empty() || name.encode_wide().chain(value.encode_wide()).any(|unit| unit == 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a variable has no name, or contains NUL"));
        }
        block.extend(name.encode_wide().chain([u16::from(b'=')]).chain(value.encode_wide()).chain([0]));
    }
    if block.is_empty() {
        block.push(0);
    }
    block.push(0);
    Ok(block)
}

/// A list of attributes of a new process: the handles that it inherits.
struct Attributes {
    room: Vec<u64>,
    _handles: Vec<isize>,
}

impl Attributes {
    fn new(handles: Vec<isize>) -> io::Result<Attributes> {
        let mut len = 0;
        // SAFETY: without a list, the call writes the length that it needs to `len`, and returns an error.
        unsafe { InitializeProcThreadAttributeList(std::ptr::null_mut(), 1, 0, &mut len) };
        let mut room = vec![0u64; len.div_ceil(8)];
        let list: LPPROC_THREAD_ATTRIBUTE_LIST = room.as_mut_ptr().cast();
        // SAFETY: `list` has `len` bytes. The handles are behind a pointer that stays valid in the value.
        unsafe {
            nt::check(InitializeProcThreadAttributeList(list, 1, 0, &mut len))?;
            let attributes = Attributes { room, _handles: handles };
            nt::check(UpdateProcThreadAttribute(
                list,
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                attributes._handles.as_ptr().cast(),
                size_of_val(&attributes._handles[..]),
                std::ptr::null_mut(),
                std::ptr::null(),
            ))?;
            Ok(attributes)
        }
    }

    fn list(&mut self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.room.as_mut_ptr().cast()
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` has made the list.
        unsafe { DeleteProcThreadAttributeList(self.list()) };
    }
}

/// Handles that can be inherited as long as this exists.
struct Inheritable(Vec<isize>);

impl Drop for Inheritable {
    fn drop(&mut self) {
        self.0.iter().for_each(|&number| drop(nt::set_inherit(number, false)));
    }
}

/// A handle of this process for a standard stream of the child; the child inherits a copy.
fn stream(stdio: &Stdio, number: u32) -> io::Result<Option<OwnedHandle>> {
    let from = match stdio {
        Stdio::Null => return nothing().map(Some),
        Stdio::Handle(handle) => handle.as_raw(),
        Stdio::Inherit => {
            // SAFETY: numbers only.
            let own = unsafe { GetStdHandle(number) } as isize;
            if own == 0 || own == -1 {
                return Ok(None);
            }
            own
        }
    };
    nt::duplicate(from).map(|copy| Some(nt::adopt(copy)))
}

/// Starts a program. Returns its number, and a handle that becomes readable when it ends.
pub fn start(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    drop(watch);
    begin(start, job())
}

/// As [`start`], outside of this process's job.
pub fn start_free(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    drop(watch);
    begin(start, None)
}

fn begin(start: &Start, job: Option<isize>) -> io::Result<(u32, OwnedHandle)> {
    let program = match &start.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?,
    };
    if program.as_os_str().is_empty() {
        return Err(unsupported("a program without a name"));
    }
    let program = nt::wide(&program);
    let mut command = command_line(&start.arguments)?;
    let environment = block(&start.environment)?;
    let folder = start.folder.as_ref().map(nt::wide);
    let numbers = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE];
    let mut streams = Vec::new();
    for (stdio, number) in start.stdio.iter().zip(numbers) {
        streams.push(stream(stdio, number)?);
    }
    // What the child needs to use the end of a line even if this process ends before it does.
    let sections: Vec<OwnedHandle> =
        start.handles.iter().filter_map(|handle| line::section_of(handle.as_handle())).collect();
    let mut handles: Vec<isize> =
        start.handles.iter().chain(streams.iter().flatten()).chain(&sections).map(OwnedHandle::as_raw).collect();
    handles.sort_unstable();
    handles.dedup();
    if handles.is_empty() {
        // The system refuses an empty list.
        let nothing = nothing()?;
        handles.push(nothing.as_raw());
        streams.push(Some(nothing));
    }

    // SAFETY: all zeros is a valid value of both types.
    let (mut startup, mut made): (STARTUPINFOEXW, PROCESS_INFORMATION) = unsafe { std::mem::zeroed() };
    startup.StartupInfo.cb = size_of::<STARTUPINFOEXW>() as u32;
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    let number = |at: usize| streams[at].as_ref().map_or(std::ptr::null_mut(), |handle| nt::raw(handle.as_raw()));
    (startup.StartupInfo.hStdInput, startup.StartupInfo.hStdOutput, startup.StartupInfo.hStdError) =
        (number(0), number(1), number(2));
    let mut attributes = Attributes::new(handles.clone())?;
    startup.lpAttributeList = attributes.list();
    let flags = CREATE_SUSPENDED | CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT;

    let starting = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut inheritable = Inheritable(Vec::new());
    for number in handles {
        nt::set_inherit(number, true)?;
        inheritable.0.push(number);
    }
    let mut create = || {
        // SAFETY: all texts end with NUL, the block with two; the structures are valid, and outlive the call.
        nt::check(unsafe {
            CreateProcessW(
                program.as_ptr(),
                command.as_mut_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                1,
                flags,
                environment.as_ptr().cast(),
                folder.as_ref().map_or(std::ptr::null(), |folder| folder.as_ptr()),
                (&raw const startup).cast(),
                &mut made,
            )
        })
    };
    // Wine returns this error now and then while many processes start.
    const INTERNAL_ERROR: i32 = 1359;
    match create() {
        Err(error) if error.raw_os_error() == Some(INTERNAL_ERROR) => create()?,
        done => done?,
    }
    drop(inheritable);
    drop(starting);
    let (process, thread) = (nt::opened(made.hProcess)?, nt::opened(made.hThread)?);
    // A process that another job of the system's keeps for itself runs without ours: the lifelines of workers remain.
    if let Some(job) = job {
        // SAFETY: numbers only.
        unsafe { AssignProcessToJobObject(nt::raw(job), nt::raw(process.as_raw())) };
    }
    // SAFETY: the thread was created suspended, and only this code resumes it.
    if unsafe { ResumeThread(nt::raw(thread.as_raw())) } == u32::MAX {
        let error = io::Error::last_os_error();
        let _ = super::kill(process.as_handle(), made.dwProcessId);
        return Err(error);
    }
    Ok((made.dwProcessId, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(argument: &str) -> String {
        let mut line = Vec::new();
        quote(&mut line, OsStr::new(argument));
        String::from_utf16_lossy(&line)
    }

    #[test]
    fn arguments_are_quoted_as_the_c_library_reads_them() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("two words"), "\"two words\"");
        assert_eq!(quoted("a\"b"), "\"a\\\"b\"");
        assert_eq!(quoted("c:\\a b\\"), "\"c:\\a b\\\\\"");
        assert_eq!(quoted("\\\\server\\x"), "\\\\server\\x");
        assert_eq!(quoted("end\\\" x"), "\"end\\\\\\\" x\"");
    }
}
