//! The identity of a holder: its process number, and the time at which the process began.

use super::nt;
use super::times;
use crate::OwnedHandle;
use std::time::Duration;
use windows_sys::Win32::System::Threading::{PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE};

pub use crate::terms::Identity;

/// All processes of the machine have numbers and times of one space.
const SPACE: u64 = 1;

/// Returns the identity of this process.
pub fn identity() -> Identity {
    Identity { pid: std::process::id(), born: times::of_this_process().map_or(0, birth), space: SPACE }
}

/// Returns the birth of a time in units of 100 ns: never 0.
fn birth(time: u64) -> u32 {
    ((time >> 32) as u32 ^ time as u32).max(1)
}

/// Returns the birth of a process.
pub(super) fn birth_of(process: &OwnedHandle) -> Option<u32> {
    times::of(process.as_raw()).map(birth)
}

/// Returns whether the process with this number and birth has certainly ended.
pub fn is_gone(pid: u32, born_at: u32) -> bool {
    const INVALID_PARAMETER: i32 = 87;
    let process = match nt::process(pid, PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION) {
        Ok(process) => process,
        // No process has the number. Another error (access denied) means that there is one.
        Err(error) => return error.raw_os_error() == Some(INVALID_PARAMETER),
    };
    if nt::wait_one(process.as_raw(), Some(Duration::ZERO)).unwrap_or(false) {
        return true;
    }
    born_at != 0 && birth_of(&process).is_some_and(|born| born != born_at)
}
