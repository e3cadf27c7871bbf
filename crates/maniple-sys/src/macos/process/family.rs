//! A process and the processes that it has started: ending them together, and interrupting a worker's task.

use super::super::system::processes::{children_of, parent_of};
use super::signal;
use crate::BorrowedHandle;
use crate::unix::family::{Tree, kill_family as kill_tree};
use std::io;

/// Ends a process at once, and all that descend from it. A process whose parent has ended is not found. The handle and
/// the number are as for [`kill`](super::kill); without a number, only the process itself is ended.
pub fn kill_family(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    kill_tree(handle, pid, Tree { children_of, parent_of })
}

/// The number of the signal that interrupts a worker's task. The system has no real-time signals; a process without a
/// handler for this one ignores it, and the system sends it only to processes that request it (`signal(3)`).
pub fn interrupt_number() -> i32 {
    libc::SIGURG
}

/// Interrupts the task of a worker, which handles the signal. The handle and the number are as for
/// [`kill`](super::kill).
pub fn interrupt(handle: BorrowedHandle<'_>, pid: u32) -> io::Result<()> {
    signal(handle, pid, interrupt_number())
}
