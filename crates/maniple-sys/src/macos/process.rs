//! Children, and handles on processes.
//!
//! A handle on a process is the read end of a pipe, into which this process writes when the system reports the end of
//! the other one ([`watch`]). It can be copied, inherited and sent like any descriptor; but it belongs to one process:
//! a process that receives it waits for the same end only as long as the first runs.
#![allow(unsafe_code)]

use super::system::{Process, processes};
use crate::unix::again::pauses;
use crate::unix::process::{reap_by_number, signal_by_number, spawn};
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::path::PathBuf;

pub mod family;
pub mod image;
pub mod limits;
pub mod maker;
pub mod packet;
pub mod usage;
mod watch;

pub use crate::exit::{Cause, Exit};
pub use crate::lacking::memory_group;
pub use crate::start::{Forked, Start, Stdio, set_variable};
pub use crate::unix::process::{
    cause_name, claim, close_number, crash_at_once, die, end_by_number, hung_up, ignore_broken_pipes, is_same_variable,
    leave, lifeline, nothing, program_signals, put_in_place, terminate_itself, until_hung_up, worker_signals,
};

/// Returns the file of this program.
fn this_program() -> PathBuf {
    std::env::current_exe().unwrap_or_default()
}

/// Returns true: [`open`] makes handles on processes.
pub fn has_handles() -> bool {
    true
}

/// Starts the process that `start` describes, and returns its number and a handle that becomes readable when it ends:
/// `watch`, if the caller has such a handle.
pub fn start(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    let reserved = watch.is_none().then(reserve_handle).transpose()?;
    let pid = spawn(start, this_program)?;
    watch.map_or_else(|| watched(pid, reserved), |watch| Ok((pid, watch)))
}

/// As [`start`]: the system ends no process with the one that started it.
pub fn start_free(start: &Start, watch: Option<OwnedHandle>) -> io::Result<(u32, OwnedHandle)> {
    self::start(start, watch)
}

/// Reserves what the handle on a child that is about to start needs.
pub fn reserve_handle() -> io::Result<OwnedHandle> {
    watch::reserve()
}

/// Opens a handle on a child that is not reaped, with what `reserved` has reserved. Without that, this waits up to a
/// second for free numbers.
pub fn open_child(pid: u32, reserved: Option<OwnedHandle>) -> io::Result<OwnedHandle> {
    if let Some(reserved) = reserved {
        match watch::begin(pid, reserved) {
            Ok(handle) => return Ok(handle),
            // The pipe was not made by this process, or the system lacks memory.
            Err(error) if error.kind() != io::ErrorKind::InvalidInput && !super::is_shortage(&error) => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
    for pause in pauses() {
        match open(pid) {
            Err(error) if super::is_shortage(&error) => std::thread::sleep(pause),
            other => return other,
        }
    }
    open(pid)
}

/// Returns the new child with a handle on it. No other process has its number yet: the child is reaped later.
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
    if i32::try_from(pid).is_ok_and(|pid| pid > 0) {
        watch::begin(pid, watch::reserve()?)
    } else {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

/// Ends a process at once; a process that has ended is not affected. The number (0: unknown) belongs to a child that is
/// not reaped, or to the process of a handle that this process has made.
pub fn kill(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGKILL)
}

/// Requests the end of a process. The handle and the number are as for [`kill`].
pub fn terminate(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, libc::SIGTERM)
}

/// The system has no signals by handle, so the number has to be that of the process. It is, as long as the handle does
/// not report the end.
pub(crate) fn signal(handle: BorrowedHandle<'_>, pid: u32, number: i32) -> io::Result<()> {
    if hung_up(handle)? {
        return Ok(());
    }
    let pid = if pid == 0 { watch::process_of(handle) } else { Some(pid) };
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, "this handle does not tell the number of its process");
    signal_by_number(pid.ok_or_else(unknown)?, number)
}

/// Returns how a child of this process ended, or `None` while it runs. Only the parent learns how: another process,
/// such as a forked child of the parent, gets [`Exit::Unknown`] after the end.
pub fn reap(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<Option<Exit>> {
    let exit = reap_by_number(handle, pid)?;
    if exit.is_some() {
        watch::has_ended(pid);
    }
    Ok(exit)
}

/// Kills the child of this number, which is not reaped, and reaps it.
pub fn discard(pid: u32) {
    crate::unix::process::discard(pid);
    watch::has_ended(pid);
}

/// Returns `None`: the system keeps no status of a process that was reaped.
pub fn exit_told(_handle: BorrowedHandle<'_>) -> Option<Exit> {
    None
}

/// Forks.
///
/// # Safety
/// No other thread runs, or the child calls only async-signal-safe functions: a lock that another thread holds, such as
/// the memory allocator's, stays locked in the child forever.
pub unsafe fn fork() -> io::Result<Forked> {
    let reserved = reserve_handle()?;
    // SAFETY: the caller ensures the contract above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => watched(pid as u32, Some(reserved)).map(|(pid, handle)| Forked::Parent(pid, handle)),
    }
}

/// Returns whether this program runs with more rights than the process that started it.
pub fn privileged() -> bool {
    processes::privileged()
}

/// Does nothing: tools of this system show the name of the program's file.
pub fn take_name() {}

/// Makes a thread kill this process by SIGKILL when the other end of the pipe closes. The thread runs no code of the
/// program, so it does so while the process computes, too. This holds while the returned handle is open.
pub fn die_when_hung_up(pipe: BorrowedHandle<'_>) -> io::Result<OwnedHandle> {
    let own = super::memory::duplicate(pipe)?;
    maker::when_hung_up(&own, || die())?;
    Ok(own)
}

/// Returns whether a process has not ended.
fn is_running(pid: u32) -> bool {
    matches!(processes::look(pid), Process::Runs(_) | Process::Unknown)
}
