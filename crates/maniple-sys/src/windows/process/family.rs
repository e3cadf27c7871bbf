//! A process and the processes that it has started.
#![allow(unsafe_code)]

use super::super::{nt, times, unsupported};
use super::{Cause, end};
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::Threading::{
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, PROCESS_TERMINATE,
};

/// The numbers of all processes, with those of their parents.
pub(in crate::windows) fn all() -> io::Result<Vec<(u32, u32)>> {
    // SAFETY: numbers only.
    let list = nt::opened(unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) })?;
    // SAFETY: all zeros is a valid entry.
    let mut entry: PROCESSENTRY32W = unsafe { std::mem::zeroed() };
    entry.dwSize = size_of::<PROCESSENTRY32W>() as u32;
    let mut found = Vec::new();
    // SAFETY: the list is open, and the entry has its size.
    let mut more = unsafe { Process32FirstW(nt::raw(list.as_raw()), &mut entry) };
    while more != 0 {
        found.push((entry.th32ProcessID, entry.th32ParentProcessID));
        // SAFETY: as above.
        more = unsafe { Process32NextW(nt::raw(list.as_raw()), &mut entry) };
    }
    Ok(found)
}

fn open(pid: u32) -> Option<(OwnedHandle, u64)> {
    let process = nt::process(pid, PROCESS_TERMINATE | PROCESS_SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION).ok()?;
    let begun = times::of(process.as_raw())?;
    Some((process, begun))
}

/// Ends a process and all that descend from it, at once; a process whose parent has ended is not found.
pub fn kill_family(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    // The handles keep the numbers from being used again meanwhile.
    let mut family = Vec::from_iter(open(pid).map(|(process, begun)| (pid, process, begun)));
    let ended = end(handle.as_raw(), Cause::KILL);
    let mut at = 0;
    while at < family.len() {
        let (parent, begun) = (family[at].0, family[at].2);
        // The parents end first, so that they start no more; a list made later has all their children.
        end(family[at].1.as_raw(), Cause::KILL)?;
        for (child, _) in all()?.into_iter().filter(|&(child, of)| of == parent && child != parent) {
            // A process that began before its parent is the child of an earlier process with that number.
            if let Some((process, born)) = open(child)
                && born >= begun
                && family.iter().all(|(pid, ..)| *pid != child)
            {
                family.push((child, process, born));
            }
        }
        at += 1;
    }
    ended
}

/// Not supported: the system has no signals.
pub fn interrupt(_handle: BorrowedHandle<'_>, _pid: u32) -> io::Result<()> {
    Err(unsupported("interrupting the task of a worker"))
}

/// Returns 0: there is no such signal.
pub fn interrupt_number() -> i32 {
    0
}
