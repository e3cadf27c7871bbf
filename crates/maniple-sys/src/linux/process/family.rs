//! A process and the processes that it has started: ending them together, and interrupting a worker's task.

use super::signal;
use crate::BorrowedHandle;
use crate::unix::family::{Tree, kill_family as kill_tree};
use std::io;

/// Ends a process at once, and all that descend from it. A process whose parent has ended is not found. The handle and
/// the number are as for [`kill`](super::kill); without a number, only the process itself is ended.
pub fn kill_family(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    kill_tree(handle, pid, Tree { children_of, parent_of })
}

/// The number of the signal that interrupts a worker's task.
pub fn interrupt_number() -> i32 {
    libc::SIGRTMIN() + 7
}

/// Interrupts the task of a worker, which handles the signal. The handle and the number are as for [`kill`](super::kill).
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
