//! The words in which the contract speaks: the same for every backend.

use crate::OwnedHandle;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Another thread woke the word, or it did not hold the expected value any more.
    Rung,
    /// The time was up.
    TimedOut,
    /// A signal handler ran.
    Signal,
}

/// A process, to be recognised by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number; below 2³⁰ (the kernel's own limit is 2²²).
    pub pid: u32,
    /// Its birth; 0 where that cannot be found out.
    pub born: u32,
    /// Where its number and birth are valid; 0 if that is unknown, and then no death can be detected from here.
    pub space: u64,
}

/// Which processes see what is written to a mapping.
///
/// A copy-on-write mapping shows the memory as it is, page by page, until this process writes to a page or the memory
/// changes underneath: a process that sends memory must not change it until the mapping is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// All processes that map the same memory.
    All,
    /// Only this mapping: a page is copied when it is first written to.
    CopyOnWrite,
}

/// How a lock was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Another holds it.
    Taken,
    /// It is ours now.
    Ours,
    /// It is ours now; its last holder died with it.
    Orphaned,
}

/// Where a socket listens.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A path; with a leading NUL a name that is in no file system.
    Local(&'a Path),
    /// A network address.
    Tcp(SocketAddr),
}

/// What lies unreceived in a connection whose ends have both sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread {
    /// At this end.
    pub here: u64,
    /// At the other one.
    pub there: u64,
    /// What is known of the other end.
    pub other: Other,
}

/// What is known of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It says that it waits for room.
    Waits,
    /// It does not say so, and has room.
    HasRoom,
    /// It has no room, and would say so if it waited.
    Ours,
    /// It may have room, and may wait.
    Unknown,
}

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket of this machine, over which handles can be sent.
    Local,
    /// A socket to anywhere.
    Remote,
    /// A pipe or a file.
    Other,
}

/// What there was to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The other end sends no more.
    Closed,
    /// Nothing there now.
    Nothing,
    /// A signal handler ran.
    Signal,
}

/// What came over a wire.
#[derive(Debug)]
pub enum Note {
    /// A number, and the handles that came with it.
    Tag(u64, Vec<OwnedHandle>),
    /// The same where not all handles came, because this process had no descriptors left: those that did are the first ones.
    Cut(u64, Vec<OwnedHandle>),
    /// The other end is gone.
    Closed,
    /// Nothing there now.
    Nothing,
}

/// The running program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where the loader put it; an address less this is the same in every process of this program.
    pub base: usize,
    /// Its code.
    pub text: Vec<Range<usize>>,
    /// Different for different builds: from the linker's build id, or else from the code itself.
    pub build: u64,
}

/// What has happened since an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// No fork.
    Nothing,
    /// This process has forked: some child may still use what it had.
    Forked,
    /// This process is a forked child: what it has from before belongs to its parent.
    Born,
}
