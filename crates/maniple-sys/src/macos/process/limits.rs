//! The limits on the number of processes.

use super::super::rlimit::soft;
use super::super::system::processes;
use rustix::process::{Resource, getrlimit};

/// Returns the limits on the number of processes and threads, each with the name of what sets it.
pub fn most_processes() -> Vec<(String, u64)> {
    let of_user = soft(Resource::Nproc).map(|most| ("RLIMIT_NPROC of this user (ulimit -u)", most));
    let limits = of_user.into_iter().chain(processes::most_processes());
    limits.map(|(name, most)| (name.to_owned(), most)).collect()
}

/// Returns `None`: the system has no groups of processes with such a limit.
pub fn most_memory() -> Option<u64> {
    None
}

/// The limits that a shortage is about: descriptors, processes, memory, and the size of files.
const RESOURCES: [Resource; 5] = [Resource::Nofile, Resource::Nproc, Resource::As, Resource::Data, Resource::Fsize];

/// The soft limits of a process, as its children inherit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soft([u64; RESOURCES.len()]);

/// Returns the soft limits of this process.
pub fn own() -> Soft {
    Soft(RESOURCES.map(|resource| getrlimit(resource).current.unwrap_or(u64::MAX)))
}

/// Returns `before`: a process cannot change the limits of another one.
pub fn lend(_pid: u32, before: Soft) -> Soft {
    before
}
