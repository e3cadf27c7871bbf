//! The types of the contract that are the same for every backend.

use crate::OwnedHandle;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Another thread woke the sleeper, or the word no longer held the expected value.
    Rung,
    /// The timeout passed.
    TimedOut,
    /// A signal handler ran.
    Signal,
}

/// The identity of a process, which other processes can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number; below 2³⁰ (the kernel's own limit is 2²²).
    pub pid: u32,
    /// Its birth; 0 if it is unknown.
    pub born: u32,
    /// The space in which its number and birth are valid; 0 if it is unknown, and then other processes cannot detect
    /// its death.
    pub space: u64,
}

/// The visibility of writes to a mapping.
///
/// A copy-on-write mapping shows the current content of each page until this process writes to that page. So a process
/// that sends memory must not change it while the mapping exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All mappings of the same memory see a write.
    All,
    /// Only this mapping sees a write: the first write to a page copies it.
    CopyOnWrite,
}

/// The outcome of an attempt to acquire a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Another thread holds it.
    Taken,
    /// The caller holds it now.
    Ours,
    /// The caller holds it now; its last holder died without releasing it.
    Orphaned,
}

/// The address of a listening socket.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A path; with a leading NUL, a name outside the file system.
    Local(&'a Path),
    /// A network address.
    Tcp(SocketAddr),
}

/// The unreceived bytes of a connection whose ends have both sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The number at this end.
    pub here: u64,
    /// The number at the other end.
    pub there: u64,
    /// The known state of the other end.
    pub other: Other,
}

/// The known state of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It announces that it waits for room.
    Waits,
    /// It announces nothing, and has room.
    HasRoom,
    /// It has no room, and would announce a wait.
    Ours,
    /// It may have room, and may wait.
    Unknown,
}

/// The kind of file that a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket of this machine, over which handles can be sent.
    Local,
    /// Any other socket.
    Remote,
    /// A pipe or a file.
    Other,
}

/// The outcome of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The number of received bytes, at least 1.
    Bytes(usize),
    /// The other end sends no more.
    Closed,
    /// Nothing is available now.
    Nothing,
    /// A signal handler ran.
    Signal,
}

/// The outcome of a receive from a wire.
#[derive(Debug)]
pub enum Note {
    /// A number, and the handles that came with it.
    Tag(u64, Vec<OwnedHandle>),
    /// A number, and only the first of its handles, because this process had no descriptors left.
    Cut(u64, Vec<OwnedHandle>),
    /// The other end is gone.
    Closed,
    /// Nothing is available now.
    Nothing,
}

/// The running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The address at which the loader put it. An address minus this base is the same in every process of this program.
    pub base: usize,
    /// The addresses of its code.
    pub text: Vec<Range<usize>>,
    /// A number of the build: from the linker's build id, or otherwise from the code itself.
    pub build: u64,
}

/// The forks since an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// No fork.
    Nothing,
    /// This process has forked: a child may still use the memory and handles of that time.
    Forked,
    /// This process is a forked child: the memory and handles of that time belong to its parent.
    Born,
}
