//! This package's internal threads.
#![allow(unsafe_code)]

use super::nt;
use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use windows_sys::Win32::System::Threading::{GetCurrentThreadId, OpenThread, THREAD_SYNCHRONIZE};

/// The system's number of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u32);

impl Number {
    /// Returns the number of the calling thread.
    pub fn own() -> Number {
        // SAFETY: no arguments.
        Number(unsafe { GetCurrentThreadId() })
    }

    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Returns whether the thread exists.
    pub fn is_there(self) -> bool {
        // SAFETY: numbers only.
        let Ok(thread) = nt::opened(unsafe { OpenThread(THREAD_SYNCHRONIZE, 0, self.0) }) else { return false };
        !nt::wait_one(thread.as_raw(), Some(Duration::ZERO)).unwrap_or(true)
    }
}

/// Starts a thread that has a small stack. There are no signals that it could receive.
///
/// # Errors
/// No memory, or no more threads.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(256 * 1024).spawn(run)
}
