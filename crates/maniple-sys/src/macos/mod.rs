//! macOS.
//!
//! Everything but `system/` is POSIX, and is tested on Linux as well (`--cfg maniple_posix`).

pub mod futex;
pub mod holder;
mod in_flight;
mod macho;
pub mod memory;
mod packets;
pub mod plain;
pub mod process;
pub mod quiet;
pub mod ready;
mod rights;
mod rlimit;
pub mod socket;
pub mod standoff;
pub mod stream;
mod system;
pub mod tap;
pub mod wire;

pub use crate::portable::mutex;
pub use crate::unix::errors::{error_number, is_limit_of_processes, is_shortage};
pub use crate::unix::{named, own, socket_dir};
use crate::{BorrowedHandle, OwnedHandle};
use std::io;

/// Monotonic time.
pub mod clock {
    /// Returns the nanoseconds since an arbitrary start that is the same in every process of the machine.
    #[inline]
    pub fn now() -> u64 {
        super::system::now()
    }
}

/// Returns the error "not supported": the threads of this system have one table of descriptors.
pub fn aside<R: Send>(_keep: &[BorrowedHandle<'_>], _work: impl FnOnce() -> R + Send) -> io::Result<R> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns what to do about an error that reports a shortage, as a text to append to the error; empty for other errors.
pub fn advice(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::MFILE) {
        "; this process has reached its limit of descriptors: close some, or raise the limit (ulimit -n)"
    } else if is(Errno::NFILE) {
        "; the system has reached its limit of open files: close some, or raise kern.maxfiles"
    } else if is(Errno::FBIG) {
        "; shared memory of this size cannot be made: send less at once"
    } else if is(Errno::NOMEM) {
        "; there is no memory left"
    } else {
        ""
    }
}

/// Returns the number of processors that this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the numbers of the processors that this process may run on, in ascending order: all.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    Ok((0..cores()).collect())
}

/// Returns the error "not supported": the system decides which thread runs on which processor.
pub fn keep_to_cores(_cores: &[usize]) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "macOS cannot keep a thread to some processors"))
}

/// Returns this process's limit of descriptors.
pub fn most_handles() -> usize {
    rlimit::soft(rustix::process::Resource::Nofile).map_or(usize::MAX, |n| n as usize)
}

/// Returns this process's number.
#[inline]
pub fn process_id() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Returns whether the caller is the first thread of this process.
pub fn is_first_thread() -> bool {
    system::processes::is_first_thread()
}

/// Makes a descriptor, or two, in such a way that programs do not inherit it. The system's calls cannot do that at
/// once, so no fork happens in between. (Programs that this package starts inherit only what they are given.)
fn made<R>(make: impl FnOnce() -> io::Result<R>, of: impl Fn(&R) -> Vec<BorrowedHandle<'_>>) -> io::Result<R> {
    crate::atfork::hold_forks()?;
    crate::atfork::making(|| {
        let made = make()?;
        for handle in of(&made) {
            memory::close_on_exec(handle)?;
        }
        Ok(made)
    })
}

/// As [`made`], for the two ends of a connection.
fn both_made<T: Into<OwnedHandle>>(
    make: impl FnOnce() -> rustix::io::Result<(T, T)>,
) -> io::Result<(OwnedHandle, OwnedHandle)> {
    use crate::AsHandle;
    made(|| own::both_above_stdio(make()?), |(a, b)| vec![a.as_handle(), b.as_handle()])
}
