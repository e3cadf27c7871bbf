//! A process and the processes that it has started: ending them together, and interrupting a worker's task.

use super::{hung_up, kill, open, signal};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::collections::HashSet;
use std::io;

/// The greatest number of processes that are ended with their ancestor.
const MOST: usize = 4096;
/// How often the family is searched. Each search finds the children of a process that was stopped while it forked.
const SEARCHES: usize = 3;

/// Ends a process at once, and all that descend from it. A process whose parent has ended is not found. The handle and
/// the number are as for [`kill`]; without a number, only the process itself is ended.
///
/// While the family is searched, its members are stopped: none of them starts or reaps a process, so each number that
/// is found belongs to a member.
pub fn kill_family(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    if pid == 0 || hung_up(handle).unwrap_or(false) {
        return kill(handle, pid);
    }
    // If the system refuses to stop it, its family is found as well, but less reliably.
    let _ = signal(handle, pid, libc::SIGSTOP);
    let mut known = HashSet::from([pid]);
    let mut members: Vec<(u32, Option<OwnedHandle>)> = Vec::new();
    for _ in 0..SEARCHES {
        let before = members.len();
        let mut parents: Vec<u32> = known.iter().copied().collect();
        while let Some(parent) = parents.pop() {
            for child in children_of(parent) {
                if members.len() < MOST && known.insert(child) {
                    let handle = open(child).ok();
                    // The number may be another process's by now; the handle stays with the process that this call has found.
                    if parent_of(child) == Some(parent) {
                        send(handle.as_ref(), child, libc::SIGSTOP);
                        members.push((child, handle));
                        parents.push(child);
                    }
                }
            }
        }
        if members.len() == before {
            break;
        }
    }
    let killed = kill(handle, pid);
    for (child, handle) in &members {
        send(handle.as_ref(), *child, libc::SIGKILL);
    }
    killed
}

fn send(handle: Option<&OwnedHandle>, pid: u32, number: i32) {
    // A refusal leaves a process that this user may not end.
    let _ = match handle {
        Some(handle) => signal(handle.as_handle(), pid, number),
        None => super::signal_by_number(pid, number),
    };
}

/// The number of the signal that interrupts a worker's task.
pub fn interrupt_number() -> i32 {
    libc::SIGRTMIN() + 7
}

/// Interrupts the task of a worker, which handles the signal. The handle and the number are as for [`kill`].
pub fn interrupt(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, interrupt_number())
}

/// The children of a process, by the kernel's list or, where it has none, by a look at all processes.
fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    let mut listed = false;
    for thread in numbers_in(&format!("/proc/{pid}/task")) {
        if let Ok(list) = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")) {
            listed = true;
            children.extend(list.split_ascii_whitespace().filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    if !listed {
        children.extend(numbers_in("/proc").into_iter().filter(|&one| parent_of(one) == Some(pid)));
    }
    children
}

fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The parent of a process. Its name, in parentheses, may contain anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}
