//! Linux.

mod aside;
mod diag;
pub mod futex;
pub mod holder;
pub mod memory;
pub mod mutex;
pub mod plain;
pub mod process;
pub mod quiet;
pub mod ready;
mod rlimit;
pub mod socket;
pub mod standoff;
pub mod stream;
pub mod tap;
pub mod wire;

pub use crate::unix::errors::{error_number, is_limit_of_processes, is_shortage};
pub use crate::unix::{named, own, socket_dir};
pub use aside::aside;
use rustix::thread::CpuSet;

/// Monotonic time.
pub mod clock {
    /// Returns the nanoseconds since an arbitrary start that is the same in every process of the machine.
    #[inline]
    pub fn now() -> u64 {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
    }
}

/// Returns what to do about an error that reports a shortage, as a text to append to the error; empty for other errors.
pub fn advice(error: &std::io::Error) -> &'static str {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::MFILE) {
        "; this process has reached its limit of descriptors: close some, or raise the limit (ulimit -n)"
    } else if is(Errno::NFILE) {
        "; the system has reached its limit of open files: close some, or raise fs.file-max"
    } else if is(Errno::FBIG) {
        "; shared memory counts as a file: raise the limit on file sizes (ulimit -f), or send less at once"
    } else if is(Errno::NOMEM) {
        "; there is no memory left, or a limit on mappings is reached (ulimit -v, vm.max_map_count)"
    } else if is(Errno::TOOMANYREFS) {
        "; too many descriptors of this user are in messages under way: receive some, or raise the limit on open \
            files (ulimit -n)"
    } else {
        ""
    }
}

/// Returns the number of processors that this process may run on.
pub fn cores() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize).max(1)
}

/// Returns the numbers of the processors that this process may run on, in ascending order.
pub fn allowed_cores() -> std::io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Limits the calling thread, and the threads that it starts from now on, to these processors.
pub fn keep_to_cores(cores: &[usize]) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    // The system refuses a set without a processor that exists.
    cores.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Returns this process's limit of descriptors.
pub fn most_handles() -> usize {
    rlimit::soft(libc::RLIMIT_NOFILE).map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Returns this process's number.
#[inline]
pub fn process_id() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get() as u32
}

/// Returns whether the caller is the first thread of this process (or the thread that forked it).
pub fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}
