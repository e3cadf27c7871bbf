//! Children, identified by pidfds: a pidfd always refers to the same process, while the system uses process numbers
//! again.
#![allow(unsafe_code)]

use crate::atfork;
use crate::own::above_stdio;
use crate::unix::again::{is_refused, pauses};
use crate::unix::process::{killed, reap_by_number, signal_by_number, spawn};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub mod family;
pub mod image;
pub mod limits;
pub mod maker;
pub mod memory_group;
pub mod packet;
pub mod usage;

pub use crate::exit::{Cause, Exit};
pub use crate::start::{Forked, Start, Stdio, set_variable};
pub use crate::unix::process::{
    cause_name, claim, close_number, crash_at_once, die, discard, end_by_number, hung_up, ignore_broken_pipes,
    is_same_variable, leave, lifeline, nothing, program_signals, put_in_place, terminate_itself, until_hung_up,
    worker_signals,
};

/// Returns the file of this program: the link in `/proc`, which leads to this file even after it was replaced or
/// deleted, or, without a `/proc`, the name that the kernel received.
fn this_program() -> PathBuf {
    let exact = Path::new("/proc/self/exe");
    if exact.exists() { exact.into() } else { OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()).into() }
}

/// Returns whether the kernel provides handles on processes. Linux does so since 5.3; sandboxes may refuse it.
pub fn has_handles() -> bool {
    static HAS: atfork::OnceLock<bool> = atfork::OnceLock::new();
    *HAS.get_or_init(|| {
        let refused = matches!(
            rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()),
            Err(error) if is_refused(error) || error == rustix::io::Errno::INVAL
        );
        !refused
    })
}

/// Starts the process that `start` describes, and returns its number and a handle that becomes readable when it ends:
/// `watch`, if the caller has such a handle.
pub fn start(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    let reserved = watch.is_none().then(reserve_handle).transpose()?;
    let pid = spawn(start, this_program)?;
    watch.map_or_else(|| watched(pid, reserved), |watch| Ok((pid, watch)))
}

/// As [`start`]: the kernel ends no process with the one that started it.
pub fn start_free(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    self::start(start, watch)
}

/// Reserves a number for the handle on a child that is about to start. A handle on a child can only be made after the
/// child has begun to run: without a free number, the child would have to be killed. A listener reserves such a number
/// for clients that it refuses.
pub fn reserve_handle() -> io::Result<OwnedHandle> {
    above_stdio(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?)
}

/// Opens a handle on a child that is not reaped, under the number that `reserved` releases. If another thread takes
/// that number, or the limit was lowered, this waits up to a second for another number.
pub fn open_child(pid: u32, reserved: Option<OwnedHandle>) -> io::Result<OwnedHandle> {
    drop(reserved);
    let is_short = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM));
    for pause in pauses() {
        match open(pid) {
            Err(error) if is_short(&error) => std::thread::sleep(pause),
            other => return other,
        }
    }
    open(pid)
}

/// Returns the new child with a handle on it. No other process has its number yet: the child is reaped later, or, if
/// this process ignores SIGCHLD, the kernel first assigns all other numbers.
fn watched(pid: u32, reserved: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    match open_child(pid, reserved) {
        Ok(handle) => Ok((pid, handle)),
        Err(error) => {
            // Without a handle, no code could wait for the child.
            discard(pid);
            Err(error)
        }
    }
}

/// Opens a handle on process `pid`, which becomes readable when the process ends.
pub fn open(pid: u32) -> io::Result<OwnedHandle> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // It has ended and was reaped (by the kernel, if SIGCHLD is ignored). A pipe without a writer is readable as
        // well.
        Err(rustix::io::Errno::SRCH) => Ok(lifeline()?.0),
        other => above_stdio(other?),
    }
}

/// Ends a process at once; a process that has ended is not affected. If the handle is not a handle on a process, or the
/// system refuses signals through handles, this uses the number (0: unknown), which belongs to a child that is not
/// reaped.
pub fn kill(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGKILL)
}

/// Requests the end of a process. The handle and the number are as for [`kill`].
pub fn terminate(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGTERM)
}

pub(crate) fn signal(handle: BorrowedHandle<'_>, pid: u32, number: i32) -> io::Result<()> {
    // SAFETY: the pointer is null, which the kernel allows.
    let sent = unsafe {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw(), number, nothing, 0)
    };
    if sent == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) {
        return Ok(());
    }
    if pid == 0 || hung_up(handle)? {
        return if pid == 0 { Err(error) } else { Ok(()) };
    }
    signal_by_number(pid, number)
}

/// Returns how a child of this process ended, or `None` while it runs. Only the parent learns how: another process, such as
/// a forked child of the parent, gets [`Exit::Unknown`] after the end.
pub fn reap(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<Option<Exit>> {
    use rustix::io::Errno;
    loop {
        match rustix::process::waitid(WaitId::PidFd(handle.into()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(None) => return Ok(None),
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(killed);
                return Ok(Some(status.exit_status().map(Exit::Code).or(signal).unwrap_or(Exit::Unknown)));
            }
            // Another part of the program has reaped it, or it is another process's child, and may run.
            Err(Errno::CHILD) if !hung_up(handle)? => return Ok(None),
            Err(Errno::CHILD) => return Ok(Some(exit_told(handle).unwrap_or(Exit::Unknown))),
            Err(Errno::INTR) => {}
            // The handle is not a pidfd, the kernel is older than 5.4, or a sandbox refuses the call.
            Err(e) if is_refused(e) || matches!(e, Errno::BADF | Errno::INVAL) => return reap_by_number(handle, pid),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Returns how a process ended that another part of the program has reaped, if the kernel still has the status (6.15
/// and later).
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
    // SAFETY: the kernel reads and writes as many bytes as the request's number contains: the structure's size.
    let failed = unsafe { libc::ioctl(handle.as_raw(), GET_INFO as _, &mut info) } != 0;
    if failed || info.mask & EXIT == 0 {
        return None;
    }
    // It has the form of `waitpid`'s status.
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) { killed(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) })
}

/// Forks.
///
/// # Safety
/// No other thread runs, or the child calls only async-signal-safe functions: a lock that another thread holds, such as
/// the memory allocator's, stays locked in the child forever.
pub unsafe fn fork() -> io::Result<Forked> {
    // The child holds the other end until it ends, and its own children do not have it.
    let mut ends = if has_handles() { None } else { Some(lifeline()?) };
    let reserved = ends.is_none().then(reserve_handle).transpose()?;
    // SAFETY: the caller ensures the contract above. (Without handles on processes, the child also registers a
    // descriptor, which may allocate memory.)
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
            None => watched(pid as u32, reserved).map(|(pid, handle)| Forked::Parent(pid, handle)),
        },
    }
}

/// Returns whether this program runs with more rights than the process that started it.
pub fn privileged() -> bool {
    // SAFETY: reads a number from the list that the kernel passed to this program.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Names this process by the last part of its first argument, as if it had been started under that name and not by a
/// path in `/proc`.
pub fn take_name() {
    let argument = std::env::args_os().next().unwrap_or_default();
    // The call truncates the name to 15 bytes.
    if let Some(Ok(name)) = Path::new(&argument).file_name().map(|n| CString::new(n.as_bytes())) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Makes the kernel kill this process by SIGKILL, which no process can block, when the other end of the pipe closes.
/// This holds while the returned handle is open.
pub fn die_when_hung_up(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let own = opened_anew(pipe)?;
    signal_when_hung_up(own.as_handle(), libc::SIGKILL)?;
    Ok(own)
}

/// Opens the read end of a pipe again, as an open file of this process's own. Processes that have the same descriptor,
/// by a fork or over a socket, share one open file, and the kernel signals only one owner of an open file.
fn opened_anew(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    use rustix::fs::{Mode, OFlags};
    let path = format!("/proc/self/fd/{}", pipe.as_raw());
    above_stdio(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes the kernel send this process a signal when the other end of the pipe closes (or is written to): signal-driven
/// I/O (`fcntl(2)`: `F_SETOWN`, `F_SETSIG`, `O_ASYNC`).
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
