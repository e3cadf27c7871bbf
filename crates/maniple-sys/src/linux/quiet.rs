//! Threads of this package's own that a program need not know of.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// A thread's number, to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(i32);

impl Number {
    /// That of the calling thread.
    pub fn own() -> Number {
        Number(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// Whether the system still counts it: a thread that was joined is there for a moment yet.
    pub fn is_there(self) -> bool {
        // SAFETY: signal 0 only asks.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, 0) == 0 }
    }
}

/// Starts a thread that is given no signals and has a small stack.
///
/// # Errors
/// No memory, or no more threads.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    without_signals(|| Builder::new().name(name.into()).stack_size(64 * 1024).spawn(run))
}

/// The same within a scope.
pub(super) fn spawn_scoped<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, R>> {
    without_signals(|| Builder::new().name(name.into()).stack_size(256 * 1024).spawn_scoped(scope, run))
}

fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let (mut all, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the sets are filled in by these calls before they are used. The thread inherits the mask, which is put back here.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut());
        started
    }
}
