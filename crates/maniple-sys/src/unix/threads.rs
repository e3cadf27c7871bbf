//! This package's internal threads.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that receives no signals and has a small stack.
///
/// # Errors
/// No memory, or no more threads.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    without_signals(|| Builder::new().name(name.into()).stack_size(64 * 1024).spawn(run))
}

/// Starts a thread by `start`, with all signals blocked.
pub(crate) fn without_signals<R>(start: impl FnOnce() -> R) -> R {
    let (mut all, mut old) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: these calls fill in the sets before they are used. The new thread inherits the mask, which the last call
    // restores for this thread.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut());
        started
    }
}
