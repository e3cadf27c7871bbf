//! When processes and threads began, in units of 100 ns since 1601.
#![allow(unsafe_code)]

use super::nt;
use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessTimes, GetThreadTimes};

const NONE: FILETIME = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };

fn number(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// Returns when a process began.
pub fn of(process: isize) -> Option<u64> {
    let [mut begun, mut ended, mut kernel, mut user] = [NONE; 4];
    // SAFETY: writes to the four times.
    let done = unsafe { GetProcessTimes(nt::raw(process), &mut begun, &mut ended, &mut kernel, &mut user) };
    (done != 0).then(|| number(begun))
}

/// Returns when this process began.
pub fn of_this_process() -> Option<u64> {
    // SAFETY: no arguments.
    of(unsafe { GetCurrentProcess() } as isize)
}

/// Returns when a thread began.
pub fn of_thread(thread: isize) -> Option<u64> {
    let [mut begun, mut ended, mut kernel, mut user] = [NONE; 4];
    // SAFETY: writes to the four times.
    let done = unsafe { GetThreadTimes(nt::raw(thread), &mut begun, &mut ended, &mut kernel, &mut user) };
    (done != 0).then(|| number(begun))
}
