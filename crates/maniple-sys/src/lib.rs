//! What an operating system must supply. Nothing above this crate may assume which one it is.
//!
//! Each platform's folder supplies the same items:
//!
//! | item | meaning |
//! | --- | --- |
//! | `OwnedHandle`, `BorrowedHandle`, `AsHandle`, `FromHandle`, `IntoHandle`, `RawHandle` | what the system has opened for this process, and can be passed to a child |
//! | `own::{Own, File}` | a handle that knows what it was opened for, and leaves alone what is no longer that |
//! | `named::{open, create, find, leads_to, unlink}` | shared memory under a name, for programs that ask for one |
//! | `memory::{create, is_fixed, longest, duplicate, close_on_exec, release, read_at, write_at, Mapping}` | nameless shared memory whose size is sealed; a mapping of it, shared or copy-on-write |
//! | `plain::Plain` | memory of this process's own, in huge pages where the system has them |
//! | `mutex::{Mutex, Found}` | a lock in shared memory that is handed on when its holder dies |
//! | `stream` | bytes, and handles with them, over pipes and sockets: read, write, wait |
//! | `standoff::{unread, Unread, Other, Said}` | what lies unreceived at both ends of a connection; saying that an end waits, and seeing that the other one says it |
//! | `socket` | local and network sockets: listen, accept, connect, whether a listener has taken a client; random bytes |
//! | `folder::Folder` | a folder for a socket that only this user can enter; swept out after its process was killed |
//! | `futex::{wait, wake}` | sleep until another *process* changes a word in shared memory |
//! | `holder::{identity, is_gone}` | this process in words that others can check; whether such a one has ended |
//! | `wire::{Wire, MOST}` | a local line that carries small notes, each with up to so many handles, and shows when its other end is gone |
//! | `ready::{wait, wait_for, Interest, Kick}` | wait for any of several handles, or for another thread's kick |
//! | `tap::{pair, redirect, drain, forward, forward_until_closed}` | a worker's standard error, seen by the hub on its way to the hub's own |
//! | `tap::{records, record, RECORD}` | small records from a child, each in one piece, that outlive it |
//! | `process` | children: start, wait (by handles on them where the system has such), signal, lifeline, ending after the maker  |
//! | `quiet::{spawn, Number}` | a thread that is given no signals; whether one is still counted |
//! | `aside` | work with descriptors that do not count, where this process has as many as it may |
//! | `is_shortage` | whether an error says that something ran out which may be there again later |
//! | `advice` | what to do about such an error, for its reader |
//! | `most_handles` | how many descriptors this process may have |
//! | `clock::now`, `cores`, `process_id` | monotonic nanoseconds, usable processors, this process |
//! | `is_first_thread` | whether the calling thread is the process's first |

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod exit;
mod handle;
#[cfg(target_os = "linux")]
mod linux;
mod start;
// Compiled for tests everywhere: what it answers is tested.
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(unused_imports, dead_code))]
mod stub;
mod terms;
#[cfg(all(target_os = "linux", any(test, feature = "testing")))]
#[doc(hidden)]
pub mod testing;
#[cfg(unix)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub mod unix;

pub use handle::{AsHandle, AtomicRawHandle, BorrowedHandle, FromHandle, IntoHandle, OwnedHandle, RawHandle};
#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(not(target_os = "linux"))]
pub use stub::*;
#[cfg(unix)]
pub use unix::{atfork, epoch};
