//! Children, seen through pidfds: a descriptor that means one process for ever, where a number is used again.
#![allow(unsafe_code)]

use super::own::{above_stdio, both_above_stdio};
use crate::atfork;
pub use crate::exit::{Cause, Exit};
pub use crate::start::{Start, Stdio};
use crate::{AsHandle, BorrowedHandle, IntoHandle, OwnedHandle, RawHandle};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;

pub mod image;
pub mod maker;
pub mod packet;

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

/// The file of this program. By `/proc`, which leads to the very file even when it was replaced or deleted; where that is
/// not mounted, by the name that the kernel was given.
fn this_program() -> PathBuf {
    let exact = Path::new("/proc/self/exe");
    if exact.exists() { exact.into() } else { OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()).into() }
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

    /// Gives the child `from` as its `to`. Where both are one, the child keeps it: the C library then takes
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

/// Whether the kernel gives handles on processes. Linux does so since 5.3; sandboxes may refuse it.
pub fn has_handles() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let refused = matches!(
            rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()),
            Err(rustix::io::Errno::NOSYS
                | rustix::io::Errno::PERM
                | rustix::io::Errno::ACCESS
                | rustix::io::Errno::INVAL)
        );
        !refused
    })
}

/// Starts what `start` says: the child's number and a handle on it, which is `watch` where there is one: something that is readable
/// from the child's end on.
pub fn start(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
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
            // Where there is none, or one that does not go along, what the child opens first must not take its place.
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
    watch.map_or_else(|| watched(pid as u32), |watch| Ok((pid as u32, watch)))
}

/// Whether a descriptor is open and is not closed in programs that are started.
fn goes_along(number: RawHandle) -> bool {
    // SAFETY: asks for flags of a number; changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
}

/// Our new child with a handle on it. Its number has not passed to another process yet: that takes a wait for it, which comes later, or
/// that this process ignores SIGCHLD, and then all numbers would have to be given out once.
fn watched(pid: u32) -> io::Result<(u32, OwnedHandle)> {
    match open(pid) {
        Ok(handle) => Ok((pid, handle)),
        Err(error) => {
            // Nobody could ever wait for it.
            // SAFETY: no pointers but that to the status, which lives. The child is not reaped, so the number is its own.
            unsafe {
                libc::kill(pid as i32, libc::SIGKILL);
                libc::waitpid(pid as i32, &mut 0, 0);
            }
            Err(error)
        }
    }
}

/// A handle on process `pid`: readable from its end on.
pub fn open(pid: u32) -> io::Result<OwnedHandle> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // It has ended and was reaped, by the kernel where SIGCHLD is ignored. A pipe without a writer says as much.
        Err(rustix::io::Errno::SRCH) => Ok(lifeline()?.0),
        other => above_stdio(other?),
    }
}

/// Ends a process at once; one that has ended is left in peace. Where the handle is no handle on a process, or the system refuses to
/// signal by such, it goes by the number (0: not known), which has to be that of a child that is not reaped.
pub fn kill(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGKILL)
}

/// Asks a process to end, in the same way.
pub fn terminate(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGTERM)
}

fn signal(handle: BorrowedHandle<'_>, pid: u32, number: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(number).ok_or(io::ErrorKind::InvalidInput)?;
    let error = match rustix::process::pidfd_send_signal(handle, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => error,
    };
    if pid == 0 || hung_up(handle)? {
        return if pid == 0 { Err(error.into()) } else { Ok(()) };
    }
    // SAFETY: no pointers.
    match unsafe { libc::kill(pid as i32, number) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            refused => Err(refused),
        },
    }
}

/// How our child ended, if it has.
pub fn reap(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<Option<Exit>> {
    use rustix::io::Errno;
    loop {
        match rustix::process::waitid(WaitId::PidFd(handle.into()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(killed);
                return Ok(Some(status.exit_status().map(Exit::Code).or(signal).unwrap_or(Exit::Unknown)));
            }
            Err(Errno::CHILD) => return Ok(Some(exit_told(handle).unwrap_or(Exit::Unknown))),
            Err(Errno::INTR) => {}
            // The handle is no pidfd; the kernel is older than 5.4; a sandbox refuses the call.
            Err(Errno::BADF | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS) => {
                return reap_by_number(handle, pid);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn killed(signal: i32) -> Exit {
    Exit::Killed(Cause::from_number(signal))
}

fn reap_by_number(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<Option<Exit>> {
    /// A process closes its descriptors a moment before it can be waited for.
    const MOMENT: std::time::Duration = std::time::Duration::from_millis(200);
    let mut status = 0;
    let mut since = None;
    loop {
        // SAFETY: the pointer is to a live value.
        match unsafe { libc::waitpid(pid as i32, &mut status, libc::WNOHANG) } {
            0 => {
                let since = *since.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > MOMENT || !hung_up(handle)? {
                    return Ok(None);
                }
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(Some(Exit::Unknown)),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
            _ if libc::WIFSIGNALED(status) => return Ok(Some(killed(libc::WTERMSIG(status)))),
            _ => return Ok(Some(Exit::Code(libc::WEXITSTATUS(status)))),
        }
    }
}

/// How a process ended that somebody else has reaped, where the kernel still knows (6.15 and later).
pub fn exit_told(handle: BorrowedHandle<'_>) -> Option<Exit> {
    /// `struct pidfd_info` of `linux/pidfd.h`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        control_group: u64,
        numbers: [u32; 11],
        exit_code: i32,
    }
    /// `PIDFD_INFO_EXIT`.
    const EXIT: u64 = 1 << 3;
    /// `PIDFD_GET_INFO`: read and write, the size of the structure, number 11 of 0xFF.
    const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xFF << 8 | 11;
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the kernel reads and writes as many bytes as the request's number says, which is the structure's size.
    let failed = unsafe { libc::ioctl(handle.as_raw(), GET_INFO as _, &mut info) } != 0;
    if failed || info.mask & EXIT == 0 {
        return None;
    }
    // As `waitpid` gives it.
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) { killed(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) })
}

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The one that was there, with the new one's number and a handle on it.
    Parent(u32, OwnedHandle),
}

/// Forks.
///
/// # Safety
/// No other thread runs, or the child does nothing but what is async-signal-safe: what another thread has locked, the memory allocator's
/// locks among it, stays locked in the child for ever.
pub unsafe fn fork() -> io::Result<Forked> {
    // The child holds the other end for as long as it lives, and its own children do not.
    let mut ends = if has_handles() { None } else { Some(lifeline()?) };
    // SAFETY: the child goes on with a copy of everything; that no lock is held by another thread is the caller's care.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            if let Some((_, held)) = ends.take() {
                atfork::hold_until_the_end(held)?;
            }
            Ok(Forked::Child)
        }
        pid => match ends {
            Some((watch, _)) => Ok(Forked::Parent(pid as u32, watch)),
            None => watched(pid as u32).map(|(pid, handle)| Forked::Parent(pid, handle)),
        },
    }
}

/// Has the three called at every `fork()` of the C library: before, after in the parent, after in the child.
///
/// # Errors
/// The system's error number.
pub fn at_fork(before: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> Result<(), i32> {
    // SAFETY: the three are ordinary functions that live as long as the program.
    match unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) } {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Closes a handle by its number. Async-signal-safe.
///
/// # Safety
/// The number is the caller's: nobody else closes it or uses it later.
pub unsafe fn close_number(fd: RawHandle) {
    // SAFETY: as the caller promises.
    unsafe { libc::close(fd) };
}

/// Makes a number that this process was given at its start an owned handle, which programs that it starts do not get. `None`: there is none
/// such.
///
/// # Safety
/// The process that started this one opened the number for it, and nobody else here takes it.
pub unsafe fn claim(number: RawHandle) -> Option<OwnedHandle> {
    // SAFETY: asks for flags of a number; changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What the parent handed over is not close-on-exec, what this program itself opened since is.
    if flags == -1 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: as above; sets the flag of a descriptor that is there.
    unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) };
    // SAFETY: it is open, and nobody else's, as the caller promises.
    Some(unsafe { OwnedHandle::from_raw(number) })
}

/// Whether this program runs with more rights than whoever started it.
pub fn privileged() -> bool {
    // SAFETY: looks a number up in the list that the kernel gave this program.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
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

/// As in every Rust program: writing what nobody reads is an error, not the end.
pub fn ignore_broken_pipes() {
    // SAFETY: sets no action; nothing is called.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// A handle that gives nothing and takes everything.
pub fn nothing() -> io::Result<OwnedHandle> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(IntoHandle::into_handle)
}

/// Makes `handle` this process's handle `number`, which programs that it starts inherit: a standard stream, 0 to 2.
///
/// # Safety
/// Nobody who has the number counts on what it leads to now. Of a standard stream nobody does.
pub unsafe fn put_in_place(handle: OwnedHandle, number: RawHandle) -> io::Result<()> {
    // SAFETY: `handle` is open; what becomes of `number` is as the caller promises.
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

/// Calls this process by the last part of its first argument, as if it had been started by that name and not by a path in
/// `/proc`.
pub fn take_name() {
    let argument = std::env::args_os().next().unwrap_or_default();
    // 15 bytes are shown; the call cuts off the rest.
    if let Some(Ok(name)) = Path::new(&argument).file_name().map(|n| CString::new(n.as_bytes())) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// A pipe for a lifeline: the worker's end and the hub's.
pub fn lifeline() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Asks the kernel to kill this process when the other end of the pipe closes, with the signal that nothing can hold up. That holds for as
/// long as the handle that this gives is open.
pub fn die_when_hung_up(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let own = opened_anew(pipe)?;
    signal_when_hung_up(own.as_handle(), libc::SIGKILL)?;
    Ok(own)
}

/// The read end of a pipe as an open file of this process's own. Others that have the same descriptor, by a fork or over a socket, share one,
/// and with it whom the kernel signals.
fn opened_anew(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/self/fd/{}", pipe.as_raw());
    above_stdio(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// Asks the kernel to send this process a signal when the other end of the pipe closes (or is written to): signal-driven I/O
/// (`fcntl(2)`: `F_SETOWN`, `F_SETSIG`, `O_ASYNC`).
fn signal_when_hung_up(pipe: BorrowedHandle<'_>, signal: i32) -> io::Result<()> {
    let fd = pipe.as_raw();
    // SAFETY: plain fcntl calls on a descriptor that is open; none of them takes a pointer.
    let set = |command, value: i32| match unsafe { libc::fcntl(fd, command, value) } {
        -1 => Err(io::Error::last_os_error()),
        got => Ok(got),
    };
    set(libc::F_SETOWN, super::process_id() as i32)?;
    set(F_SETSIG, signal)?;
    let flags = set(libc::F_GETFL, 0)?;
    set(libc::F_SETFL, flags | libc::O_ASYNC)?;
    Ok(())
}

/// `fcntl(2)`; the libc crate names it only for some C libraries.
const F_SETSIG: i32 = 10;

/// Whether the other end is closed.
pub fn hung_up(pipe: BorrowedHandle<'_>) -> io::Result<bool> {
    let mut interest = [super::ready::Interest::new(pipe)];
    Ok(super::ready::wait(&mut interest, Some(std::time::Duration::ZERO))? > 0)
}

/// Waits until the other end is closed (or this one is no pipe).
pub fn until_hung_up(pipe: BorrowedHandle<'_>) {
    loop {
        match rustix::io::read(pipe, &mut [0u8; 64]) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
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
