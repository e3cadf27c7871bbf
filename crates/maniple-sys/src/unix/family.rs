//! Ends a process together with the processes that it has started.

use super::process::signal_by_number;
use crate::process::{hung_up, kill, open, signal};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::collections::HashSet;
use std::io;

/// The greatest number of processes that are ended with their ancestor.
const MOST: usize = 4096;
/// How often the family is searched. Each search finds the children of a process that was stopped while it forked.
const SEARCHES: usize = 3;

/// The system's answers about the relations of processes.
#[derive(Clone, Copy)]
pub(crate) struct Tree {
    /// Returns the numbers of a process's children.
    pub children_of: fn(u32) -> Vec<u32>,
    /// Returns the number of a process's parent.
    pub parent_of: fn(u32) -> Option<u32>,
}

/// Ends a process at once, and all that descend from it. A process whose parent has ended is not found. The handle and
/// the number are as for [`kill`]; without a number, only the process itself is ended.
///
/// While the family is searched, its members are stopped: none of them starts or reaps a process, so each number that
/// is found belongs to a member.
pub(crate) fn kill_family(handle: BorrowedHandle<'_>, pid: u32, tree: Tree) -> io::Result<()> {
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
            for child in (tree.children_of)(parent) {
                if members.len() < MOST && known.insert(child) {
                    let handle = open(child).ok();
                    // The number may be another process's by now; the handle stays with the process that this call has
                    // found.
                    if (tree.parent_of)(child) == Some(parent) {
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
        None => signal_by_number(pid, number),
    };
}
