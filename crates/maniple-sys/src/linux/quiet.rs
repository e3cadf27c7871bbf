//! This package's internal threads.
#![allow(unsafe_code)]

pub use crate::unix::threads::spawn;

/// The system's number of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(i32);

impl Number {
    /// Returns the number of the calling thread.
    pub fn own() -> Number {
        Number(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// Returns whether the system still counts the thread: it does so for a moment after a join.
    pub fn is_there(self) -> bool {
        // SAFETY: signal 0 only checks whether the thread exists.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, 0) == 0 }
    }
}
