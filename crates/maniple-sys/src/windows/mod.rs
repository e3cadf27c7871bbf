//! Windows (10 and newer). `docs/design/windows.md` explains the choices.

mod errors;
pub mod futex;
pub mod holder;
mod interrupt;
mod line;
pub mod memory;
pub mod named;
mod network;
mod nt;
pub mod own;
mod pipe;
pub mod plain;
pub mod process;
pub mod quiet;
pub mod ready;
pub mod socket;
pub mod socket_dir;
pub mod standoff;
pub mod stream;
pub mod tap;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
mod times;
pub mod wire;

use crate::BorrowedHandle;
pub use crate::lacking::{atfork, epoch};
pub use crate::portable::mutex;
pub use errors::error_number;
use std::io;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessAffinityMask, SetProcessAffinityMask};

/// Returns the error for what this system does not have.
pub(crate) fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("not supported on Windows: {what}"))
}

/// Monotonic time.
pub mod clock {
    use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

    /// Returns the nanoseconds since an arbitrary start that is the same in every process of the machine.
    #[allow(unsafe_code)]
    pub fn now() -> u64 {
        static FREQUENCY: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        let frequency = *FREQUENCY.get_or_init(|| {
            let mut frequency = 0;
            // SAFETY: writes to `frequency`.
            unsafe { QueryPerformanceFrequency(&mut frequency) };
            frequency.max(1) as u64
        });
        let mut ticks = 0;
        // SAFETY: writes to `ticks`.
        unsafe { QueryPerformanceCounter(&mut ticks) };
        let ticks = ticks as u64;
        ticks / frequency * 1_000_000_000 + ticks % frequency * 1_000_000_000 / frequency
    }
}

/// Not supported: threads share one table of handles.
pub fn aside<R: Send>(_keep: &[BorrowedHandle<'_>], _work: impl FnOnce() -> R + Send) -> io::Result<R> {
    Err(unsupported("threads with their own handles"))
}

const TOO_MANY_OPEN_FILES: i32 = 4;

/// Returns false: no error distinguishes this limit.
pub fn is_limit_of_processes(_error: &io::Error) -> bool {
    false
}

/// Returns whether the system lacked a resource that may be available again later: handles, memory, room.
pub fn is_shortage(error: &io::Error) -> bool {
    const DISK_FULL: i32 = 112;
    memory::is_scarce(error)
        || memory::is_too_long(error)
        || error.raw_os_error().is_some_and(|number| [TOO_MANY_OPEN_FILES, DISK_FULL].contains(&number))
}

/// Returns what to do about an error that reports a shortage, as a text to append to the error; empty for other errors.
pub fn advice(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) {
        "; this process has reached its limit of handles: close some"
    } else if memory::is_scarce(error) {
        "; there is no memory left: shared memory counts against the limit that the page file sets, all of it at once"
    } else {
        ""
    }
}

/// Returns the masks of processors: of this process, and of the system.
#[allow(unsafe_code)]
fn masks() -> io::Result<(usize, usize)> {
    let (mut own, mut all) = (0, 0);
    // SAFETY: writes to both numbers.
    nt::check(unsafe { GetProcessAffinityMask(GetCurrentProcess(), &mut own, &mut all) })?;
    Ok((own, all))
}

/// Returns the number of processors that this process may run on.
pub fn cores() -> usize {
    masks().map_or(1, |(own, _)| own.count_ones() as usize).max(1)
}

/// Returns the numbers of the processors that this process may run on, in ascending order.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let (own, _) = masks()?;
    Ok((0..usize::BITS as usize).filter(|&core| own >> core & 1 != 0).collect())
}

/// Limits this process to these processors: threads do not inherit a limit of the thread that starts them, so the
/// limit of one thread and its threads does not exist here.
#[allow(unsafe_code)]
pub fn keep_to_cores(cores: &[usize]) -> io::Result<()> {
    let bits = cores.iter().filter(|&&core| core < usize::BITS as usize).fold(0, |bits, &core| bits | 1 << core);
    let (_, all) = masks()?;
    if bits & all == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "none of these processors exists"));
    }
    // SAFETY: numbers only.
    nt::check(unsafe { SetProcessAffinityMask(GetCurrentProcess(), bits & all) })
}

/// Returns the greatest number of handles that a process can have.
pub fn most_handles() -> usize {
    1 << 24
}

/// Returns this process's number.
#[inline]
pub fn process_id() -> u32 {
    std::process::id()
}

/// Returns whether the caller is the first thread of this process.
pub fn is_first_thread() -> bool {
    static FIRST: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *FIRST.get_or_init(process::first_thread) == Some(quiet::Number::own().number())
}
