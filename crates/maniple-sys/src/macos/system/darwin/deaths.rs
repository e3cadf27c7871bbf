//! The ends of processes: a kernel queue with `EVFILT_PROC` and `NOTE_EXIT` (`kqueue(2)`).
//!
//! An event belongs to a process that runs when it is requested (bsd/kern/kern_event.c: `filt_procattach`); for a
//! process that has ended, reaped or not, the request returns ESRCH. A forked child does not have its parent's queues
//! (`kqueue(2)`).

use crate::atfork::{HubOnly, making};
use crate::{AsHandle, OwnedHandle};
use std::io;
use std::ptr::{null, null_mut};

/// The processes that this process waits for.
#[derive(Debug)]
pub struct Deaths(HubOnly);

impl Deaths {
    /// Creates a list without processes.
    pub fn new() -> io::Result<Deaths> {
        making(|| {
            // SAFETY: no pointers; the result is checked below.
            let queue = unsafe { libc::kqueue() };
            if queue < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call above returned this descriptor, and no other code owns it.
            let queue = crate::own::above_stdio(unsafe { OwnedHandle::from_raw(queue) })?;
            rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
            Ok(Deaths(HubOnly::new(queue)?))
        })
    }

    /// Makes [`Deaths::next`] return `id` when the process ends. False: it has ended.
    pub fn watch(&self, pid: u32, id: u64) -> io::Result<bool> {
        let event = libc::kevent {
            ident: pid as usize,
            filter: libc::EVFILT_PROC,
            flags: libc::EV_ADD | libc::EV_ONESHOT,
            fflags: libc::NOTE_EXIT,
            data: 0,
            udata: std::ptr::without_provenance_mut(id as usize),
        };
        loop {
            // SAFETY: the list has one event, which outlives the call; there is no room for answers.
            if unsafe { libc::kevent(self.0.as_handle().as_raw(), &raw const event, 1, null_mut(), 0, null()) } >= 0 {
                return Ok(true);
            }
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            }
        }
    }

    /// Waits for the next end, and returns its process's `id`.
    pub fn next(&self) -> io::Result<u64> {
        let mut event = libc::kevent { ident: 0, filter: 0, flags: 0, fflags: 0, data: 0, udata: null_mut() };
        loop {
            // SAFETY: there is room for one event, which outlives the call.
            match unsafe { libc::kevent(self.0.as_handle().as_raw(), null(), 0, &raw mut event, 1, null()) } {
                0 => {}
                1.. => return Ok(event.udata.addr() as u64),
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}
