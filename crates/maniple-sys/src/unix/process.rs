//! Processes by POSIX calls: the start of a program, standard streams, signals, the environment.
#![allow(unsafe_code)]

use crate::exit::{Cause, Exit};
use crate::start::{Start, Stdio};
use crate::{BorrowedHandle, IntoHandle, OwnedHandle, RawHandle};
use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::null_mut;

/// Returns the name of a cause.
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

/// Converts the result of a call that returns its error instead of setting `errno`.
fn check(error: i32) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The C library's list of actions in a child before it runs its program.
struct Plan(libc::posix_spawn_file_actions_t);

impl Plan {
    fn new() -> io::Result<Plan> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises the value, or returns an error.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the successful call above initialised it.
        Ok(Plan(unsafe { actions.assume_init() }))
    }

    /// Passes `from` to the child as its `to`. If both are the same number, the C library clears close-on-exec (glibc
    /// since 2.29, musl since 1.1.24; POSIX 2024 requires it).
    fn give(&mut self, from: RawHandle, to: RawHandle) -> io::Result<()> {
        #[cfg(target_os = "macos")]
        if from == to {
            return self.keep(to);
        }
        // SAFETY: `new` initialised the list; only the child uses the numbers.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from, to) })
    }

    /// Passes a descriptor to the child under its number. XNU closes all others (`POSIX_SPAWN_CLOEXEC_DEFAULT`, spawn.h;
    /// bsd/kern/kern_exec.c: `exec_handle_file_actions`).
    #[cfg(target_os = "macos")]
    fn keep(&mut self, number: RawHandle) -> io::Result<()> {
        unsafe extern "C" {
            // spawn.h of macOS.
            fn posix_spawn_file_actions_addinherit_np(
                actions: *mut libc::posix_spawn_file_actions_t,
                number: libc::c_int,
            ) -> libc::c_int;
        }
        // SAFETY: `new` initialised the list; only the child uses the number.
        check(unsafe { posix_spawn_file_actions_addinherit_np(&mut self.0, number) })
    }

    fn give_nothing(&mut self, to: RawHandle) -> io::Result<()> {
        // SAFETY: `new` initialised the list; the path is a C string, which the call copies.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&mut self.0, to, c"/dev/null".as_ptr(), libc::O_RDWR, 0)
        })
    }
}

impl Plan {
    /// Sets the child's working directory. (glibc since 2.29, musl since 1.1.24.)
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    fn enter(&mut self, folder: PathBuf) -> io::Result<()> {
        let folder = c_string(folder.into_os_string())?;
        // SAFETY: `new` initialised the list; the path is a C string, which the call copies.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut self.0, folder.as_ptr()) })
    }

    /// Returns the error "not supported": the system has no backend yet.
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    fn enter(&mut self, _folder: PathBuf) -> io::Result<()> {
        Err(crate::unsupported())
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and only this call destroys it.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// The C library's attributes of a child: the default signals of a program.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Attributes> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises the value, or returns an error.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the successful call above initialised it.
        let mut this = Attributes(unsafe { attributes.assume_init() });
        // SAFETY: a signal set is plain data, which `sigemptyset` and `sigaddset` fill; all pointers are to values that
        // outlive the calls.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            check(libc::posix_spawnattr_setsigmask(&mut this.0, &set))?;
            // The Rust runtime ignores SIGPIPE, and a started program inherits ignored signals.
            libc::sigaddset(&mut set, libc::SIGPIPE);
            check(libc::posix_spawnattr_setsigdefault(&mut this.0, &set))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            // A descriptor that another thread has just made may not end with an exec yet.
            #[cfg(target_os = "macos")]
            let flags = flags | libc::POSIX_SPAWN_CLOEXEC_DEFAULT;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags as libc::c_short))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` initialised it, and only this call destroys it.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

/// Returns whether a descriptor is open and started programs inherit it.
fn goes_along(number: RawHandle) -> bool {
    // SAFETY: reads the flags of a number; changes nothing.
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

/// Takes over a handle that this process inherited at its start, by its number. Programs that this process starts do
/// not inherit it. `None`: the number is not open, or this process opened it.
///
/// # Safety
/// The process that started this one opened the number for it, and no other code here takes it.
pub unsafe fn claim(number: RawHandle) -> Option<OwnedHandle> {
    // SAFETY: reads the flags of a number; changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // Inherited descriptors are not close-on-exec; descriptors that this program opened are.
    if flags == -1 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: sets a flag of an open descriptor; passes no pointers.
    unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) };
    // SAFETY: it is open, and has no other owner, as the caller promises.
    Some(unsafe { OwnedHandle::from_raw(number) })
}

/// Sets the signals of a worker. A terminal sends Ctrl-C to the whole group, and the hub acts on it (a worker dies with
/// its hub), so a worker has a handler that does nothing: programs that a task starts would inherit an ignored signal.
/// A write to a closed pipe is an error instead of death, as in every Rust program.
pub fn worker_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: the action is plain data, which is filled in before its use; the handler does nothing, so it is
    // async-signal-safe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGINT, &action, null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Does nothing: a crash ends a process at once.
#[inline]
pub fn crash_at_once() {}

/// Restores the signals of a program, in a child of a process with [`worker_signals`]: Ctrl-C ends it.
pub fn program_signals() {
    // SAFETY: sets the default action; installs no handler.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

/// Makes a write to a closed pipe an error instead of death, as in every Rust program.
pub fn ignore_broken_pipes() {
    // SAFETY: ignores a signal; installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Returns a handle that reads as empty and discards writes.
pub fn nothing() -> io::Result<OwnedHandle> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(IntoHandle::into_handle)
}

/// Makes `handle` this process's handle `number`, which programs that it starts inherit: a standard stream, 0 to 2.
///
/// # Safety
/// No code relies on the file that the number refers to now. (No code relies on the file of a standard stream.)
pub unsafe fn put_in_place(handle: OwnedHandle, number: RawHandle) -> io::Result<()> {
    // SAFETY: `handle` is open; the caller ensures that no code relies on the file of `number`.
    let done = unsafe { libc::dup2(handle.as_raw(), number) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Ends this process at once: no destructors, no handlers.
pub fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Requests the end of this process.
pub fn terminate_itself() {
    // SAFETY: no pointers.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

/// Kills the child of this number, which is not reaped.
pub fn end_by_number(pid: u32) {
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        // SAFETY: no pointers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Kills the child of this number, which is not reaped, and reaps it.
pub fn discard(pid: u32) {
    end_by_number(pid);
    let Ok(pid @ 1..) = i32::try_from(pid) else { return };
    // SAFETY: the only pointer is to the status, which outlives the call.
    let wait = || unsafe { libc::waitpid(pid, &mut 0, 0) };
    while wait() < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted {}
}

/// Kills this process, as a lost lifeline does.
pub fn die() -> ! {
    loop {
        // SAFETY: no pointers. SIGKILL to the calling process takes effect before the call returns; the loop satisfies
        // the return type.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

/// Starts the process that `start` describes, with `this_program` if it names no program, and returns its number.
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
            // If the stream is closed or not inherited, the child's first open file must not have its number.
            Stdio::Inherit if !goes_along(to) => plan.give_nothing(to)?,
            // Elsewhere a child inherits what does not end with an exec.
            #[cfg(target_os = "macos")]
            Stdio::Inherit => plan.keep(to)?,
            #[cfg(not(target_os = "macos"))]
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
    // SAFETY: all pointers are to values that outlive the call: C strings, arrays of them that end with null, and the
    // two lists above.
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

/// Sends a signal to the process of a number; a process that has ended is not affected.
pub(crate) fn signal_by_number(pid: u32, number: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    match unsafe { libc::kill(pid as i32, number) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            refused => Err(refused),
        },
    }
}

/// Returns the exit of a process that a signal has ended.
pub(crate) fn killed(signal: i32) -> Exit {
    Exit::Killed(Cause::from_number(signal))
}

/// As [`reap`](crate::process::reap), for the child of a number. The handle becomes readable when the child ends, or a moment before.
pub(crate) fn reap_by_number(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<Option<Exit>> {
    /// A process closes its descriptors a moment before it can be waited for.
    const MOMENT: std::time::Duration = std::time::Duration::from_millis(200);
    let mut status = 0;
    let mut since = None;
    loop {
        // SAFETY: the pointer is to the status, which outlives the call.
        match unsafe { libc::waitpid(pid as i32, &mut status, libc::WNOHANG) } {
            0 => {
                let since = *since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > MOMENT || !hung_up(handle)? {
                    return Ok(None);
                }
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(hung_up(handle)?.then_some(Exit::Unknown));
                }
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            _ if libc::WIFSIGNALED(status) => return Ok(Some(killed(libc::WTERMSIG(status)))),
            _ => return Ok(Some(Exit::Code(libc::WEXITSTATUS(status)))),
        }
    }
}

/// Returns a pipe for a lifeline: the worker's end and the hub's.
pub fn lifeline() -> io::Result<(OwnedHandle, OwnedHandle)> {
    crate::stream::pipe()
}

/// Returns whether the other end is closed.
pub fn hung_up(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    let mut interest = [crate::ready::Interest::new(pipe)];
    Ok(crate::ready::wait(&mut interest, Some(std::time::Duration::ZERO))? > 0)
}

/// Waits until the other end is closed (or returns at once if `pipe` is not a pipe).
pub fn until_hung_up(pipe: BorrowedHandle<'_>) {
    loop {
        match rustix::io::read(pipe, &mut [0u8; 64]) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// Returns whether two names are those of one variable of the environment.
pub fn is_same_variable(one: &std::ffi::OsStr, other: &std::ffi::OsStr) -> bool {
    one == other
}
