//! Processes by what POSIX has: starting a program, standard streams, signals, the environment.
#![allow(unsafe_code)]

use crate::exit::Cause;
use crate::start::{Start, Stdio};
use crate::{IntoHandle, OwnedHandle, RawHandle};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::null_mut;

/// What the cause of an end is called.
pub fn cause_name(cause: Cause) -> Option<&'static str> {
    Some(match cause.number() {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGIO => "SIGIO",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an argument or variable contains a zero byte"))
}

/// The result of a call that returns its error instead of setting `errno`.
fn check(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The C library's list of what to do in a child before it runs its program.
struct Plan(libc::posix_spawn_file_actions_t);

impl Plan {
    fn new() -> io::Result<Plan> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given, or says that it has not.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        Ok(Plan(unsafe { actions.assume_init() }))
    }

    /// Passes `from` to the child as its `to`. Where both are the same number, the child keeps it: the C library then takes
    /// close-on-exec off (glibc since 2.29, musl since 1.1.24; POSIX 2024 asks for it).
    fn give(&mut self, from: RawHandle, to: RawHandle) -> io::Result<()> {
        // SAFETY: the list is initialised; the numbers are only looked at in the child.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from, to) })
    }

    fn give_nothing(&mut self, to: RawHandle) -> io::Result<()> {
        // SAFETY: the list is initialised, the path is a C string (which the call copies).
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, to, c"/dev/null".as_ptr(), libc::O_RDWR, 0)
        })
    }
}

impl Plan {
    /// Has the child work in `folder`. (glibc since 2.29, musl since 1.1.24.)
    fn enter(&mut self, folder: PathBuf) -> io::Result<()> {
        let folder = c_string(folder.into_os_string())?;
        // SAFETY: the list is initialised, the path is a C string (which the call copies).
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, folder.as_ptr()) })
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed only here.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// The C library's attributes of a child: signals as a fresh program expects them.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given, or says that it has not.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above.
        let mut this = Attributes(unsafe { attributes.assume_init() });
        // SAFETY: a signal set is plain data; `sigemptyset` and `sigaddset` fill it; all pointers are to live values.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            check(libc::posix_spawnattr_setsigmask(&mut this.0, &set))?;
            // The Rust runtime ignores SIGPIPE, and what is ignored stays so in programs started.
            libc::sigaddset(&mut set, libc::SIGPIPE);
            check(libc::posix_spawnattr_setsigdefault(&mut this.0, &set))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags as libc::c_short))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`, destroyed only here.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

/// Whether a descriptor is open and is not closed in programs that are started.
fn goes_along(number: RawHandle) -> bool {
    // SAFETY: asks for flags of a number; changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
}

/// Closes a handle by its number. Async-signal-safe.
///
/// # Safety
/// The number is the caller's: no other code closes it or uses it later.
pub unsafe fn close_number(fd: RawHandle) {
    // SAFETY: as the caller promises.
    unsafe { libc::close(fd) };
}

/// Makes a number that this process was given at its start an owned handle, which programs that it starts do not get. `None`: there is none
/// such.
///
/// # Safety
/// The process that started this one opened the number for it, and no other code here takes it.
pub unsafe fn claim(number: RawHandle) -> Option<OwnedHandle> {
    // SAFETY: asks for flags of a number; changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What the parent handed over is not close-on-exec, what this program itself opened since is.
    if flags == -1 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: as above; sets the flag of a descriptor that is there.
    unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) };
    // SAFETY: it is open, and has no other owner, as the caller promises.
    Some(unsafe { OwnedHandle::from_raw(number) })
}

/// Signals as a worker wants them: Ctrl-C, which a terminal sends to the whole group, is the hub's to act on (a worker dies
/// with its hub anyway), and writing to a closed pipe is an error instead of death, as in every Rust program. For Ctrl-C a
/// handler that does nothing, since programs that a task starts would inherit an ignored one.
pub fn worker_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: the action is plain data, filled in before use; the handler touches nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGINT, &action, null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Signals as a program finds them at its start, for a child of a process that had [`worker_signals`]: Ctrl-C ends it.
pub fn program_signals() {
    // SAFETY: sets the default action; nothing is called.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// As in every Rust program: writing without a reader is an error, not the end of the process.
pub fn ignore_broken_pipes() {
    // SAFETY: sets no action; nothing is called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A handle that reads as empty and discards writes.
pub fn nothing() -> io::Result<OwnedHandle> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(IntoHandle::into_handle)
}

/// Makes `handle` this process's handle `number`, which programs that it starts inherit: a standard stream, 0 to 2.
///
/// # Safety
/// No holder of the number relies on the file that it refers to now. No code relies on a standard stream's file.
pub unsafe fn put_in_place(handle: OwnedHandle, number: RawHandle) -> io::Result<()> {
    // SAFETY: `handle` is open; the caller's promise covers the replacement of `number`.
    let done = unsafe { libc::dup2(handle.as_raw(), number) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// Ends this process at once: no destructors, no handlers.
pub fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Asks this process to end.
pub fn terminate_itself() {
    // SAFETY: no pointers.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

/// Ends the process of this number, which has to be one that is not reaped.
pub fn end_by_number(pid: u32) {
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        // SAFETY: no pointers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Ends this process as a lost lifeline does.
pub fn die() -> ! {
    loop {
        // SAFETY: no pointers. SIGKILL to oneself takes effect before the call returns; the loop is for the type.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Starts what `start` says, `this_program` if it names no program, and returns the child's number.
pub fn spawn(start: &Start, this_program: impl FnOnce() -> PathBuf) -> io::Result<u32> {
    let program = c_string(start.program.clone().unwrap_or_else(this_program).into_os_string())?;
    let arguments = start.arguments.iter().cloned().map(c_string).collect::<io::Result<Vec<_>>>()?;
    let environment = start.environment.iter().map(|(name, value)| {
        let mut name = name.clone();
        name.push("=");
        name.push(value);
        c_string(name)
    });
    let environment = environment.collect::<io::Result<Vec<_>>>()?;
    let pointers = |strings: &[CString]| -> Vec<*mut libc::c_char> {
        strings.iter().map(|s| s.as_ptr().cast_mut()).chain([null_mut()]).collect()
    };

    let mut plan = Plan::new()?;
    for (to, stdio) in (0..).zip(&start.stdio) {
        match stdio {
            // If there is none, or if it is not inherited, the child's first open file must not take its place.
            Stdio::Inherit if !goes_along(to) => plan.give_nothing(to)?,
            Stdio::Inherit => {}
            Stdio::Null => plan.give_nothing(to)?,
            Stdio::Handle(handle) => plan.give(handle.as_raw(), to)?,
        }
    }
    for handle in &start.handles {
        plan.give(handle.as_raw(), handle.as_raw())?;
    }
    if let Some(folder) = &start.folder {
        plan.enter(folder.clone())?;
    }
    let attributes = Attributes::new()?;
    let mut pid = 0;
    // SAFETY: all pointers are to live values: C strings, arrays of them that end in null, and the two lists above.
    check(unsafe {
        libc::posix_spawn(
            &mut pid,
            program.as_ptr(),
            &plan.0,
            &attributes.0,
            pointers(&arguments).as_ptr(),
            pointers(&environment).as_ptr(),
        )
    })?;
    Ok(pid as u32)
}
