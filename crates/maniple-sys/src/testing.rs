//! What tests need of the system: forks, limits, signals.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use crate::process::{Exit, Forked, leave, reap};
use crate::{Handle, ready};
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

/// A forked child, which is reaped by its parent's `wait`.
pub struct Child {
    pub pid: u32,
    pub handle: Handle,
}

impl Child {
    /// Whether it ends within the time.
    pub fn ends_within(&self, limit: Duration) -> bool {
        ready::wait(&mut [ready::Interest::new(self.handle.as_fd())], Some(limit)).unwrap() > 0
    }

    pub fn wait(&self) -> Exit {
        loop {
            self.ends_within(Duration::from_secs(60));
            if let Some(exit) = reap(self.handle.as_fd(), self.pid).unwrap() {
                return exit;
            }
        }
    }
}

/// Forks: `None` in the child.
pub fn fork() -> Option<Child> {
    match crate::process::fork().unwrap() {
        Forked::Child => None,
        Forked::Parent(pid, handle) => Some(Child { pid, handle }),
    }
}

/// From here on this process ignores SIGTERM.
pub fn ignore_terminate() {
    // SAFETY: no handler, and no pointers.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Whether a number is one of an open descriptor.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: asks for flags of a number; changes nothing.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
}

/// Runs `f` in a forked child and gives the exit code that it returned.
pub fn in_forked_child(f: impl FnOnce() -> i32) -> i32 {
    match fork() {
        None => leave(f()),
        Some(child) => match child.wait() {
            Exit::Code(code) => code,
            other => panic!("the forked child {other}"),
        },
    }
}
