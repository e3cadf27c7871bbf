//! The crate's integration tests: one program, so that the crate is linked once.
//!
//! `support` has what all of them need. A test that changes its whole process (a limit, the descriptors that it counts) does so in a process
//! of its own: `support::apart`, or `support::start_hub`. The programs beside this folder have a `main` of their own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// Windows has no low limit of handles.
#[cfg(not(windows))]
mod answers;
mod arguments;
mod backlog;
mod calls;
mod cancelling;
#[cfg(feature = "auto-init")]
mod ceremony;
mod codec;
mod deaths;
mod debug;
mod drops;
mod endings;
mod errors;
mod examples;
// Windows has no limits on the sizes of files.
#[cfg(not(windows))]
mod file_size;
#[cfg(feature = "async")]
mod futures;
mod iterators;
mod lazy;
// Needs a Python that loads a shared library of this build.
#[cfg(not(windows))]
mod library;
mod limits;
mod listener;
mod managers;
mod many;
// The groups are Linux's control groups.
#[cfg(not(windows))]
mod memory_groups;
#[cfg(feature = "macros")]
mod named;
mod pool_handles;
mod process;
mod queues;
mod readme;
mod reentry;
mod retries;
mod sharing;
// Windows has no low limits of handles, of processes and of address space.
#[cfg(not(windows))]
mod shortage;
mod sizes;
mod slow_items;
mod spawn;
mod standoff;
mod stats;
mod support;
mod sync;
mod timeouts;
#[cfg(feature = "tracing")]
mod tracing;
mod transport;
mod transport_deaths;
mod values;
mod workers;
