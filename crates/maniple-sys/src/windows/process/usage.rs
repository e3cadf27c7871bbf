//! The memory that processes use.
#![allow(unsafe_code)]

use super::super::nt;
use windows_sys::Win32::System::ProcessStatus::{
    GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS, PROCESS_MEMORY_COUNTERS_EX,
};
use windows_sys::Win32::System::Threading::PROCESS_QUERY_LIMITED_INFORMATION;

fn counters(pid: u32) -> Option<PROCESS_MEMORY_COUNTERS_EX> {
    let process = nt::process(pid, PROCESS_QUERY_LIMITED_INFORMATION).ok()?;
    // SAFETY: all zeros is a valid value of the type.
    let mut counters: PROCESS_MEMORY_COUNTERS_EX = unsafe { std::mem::zeroed() };
    let len = size_of::<PROCESS_MEMORY_COUNTERS_EX>() as u32;
    let to = (&raw mut counters).cast::<PROCESS_MEMORY_COUNTERS>();
    // SAFETY: writes at most `len` bytes, the size of the longer type.
    let done = unsafe { GetProcessMemoryInfo(nt::raw(process.as_raw()), to, len) };
    (done != 0).then_some(counters)
}

/// Returns the private memory that a process has committed, in bytes.
pub fn memory_of(pid: u32) -> Option<u64> {
    // Both are the same number; Wine knows only the second.
    counters(pid).map(|counters| counters.PrivateUsage.max(counters.PagefileUsage) as u64)
}

/// Returns the most private memory that a process has had, in bytes.
pub fn peak_memory_of(pid: u32) -> Option<u64> {
    counters(pid).map(|counters| counters.PeakPagefileUsage as u64)
}

/// Returns `None`: the system ends no process to get memory.
pub fn memory_kills() -> Option<u64> {
    None
}
