//! The engine of maniple: processes and bytes.
//!
//! A *hub* (the process that owns a pool) talks to each of its *workers* over a private *link*: two rings and two bells
//! in shared memory. They exchange opaque *frames*: a small header, inline bytes, and references to *blobs*, large
//! buffers in separate shared-memory blocks. This crate does not interpret the bytes and does not know which language
//! wrote them; the two fronts (`maniple` for Rust, the `maniple` package for Python) do.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`shm`] | segments, rings, bells, blocks |
//! | [`sync`] | locks, semaphores, conditions and events in shared memory |
//! | [`channel`] | messages over a stream descriptor, large buffers beside them, and the queue's log |
//! | [`idle`] | returns kept memory to the system |
//! | [`reserve`] | memory for small allocations when the system refuses them |
//! | [`process`] | start, wait, exit status, lifeline |
//! | [`wait`] | how long a wait lasts, spins and sleeps |
//! | [`pool`] | the scheduler (a pure state machine), the hub and the worker around it |
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(not(loom))]
pub mod channel;
pub mod error;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod hostile;
#[cfg(not(loom))]
pub mod idle;
#[cfg(not(loom))]
pub mod pool;
/// The parts of the pool that a model checker checks.
#[cfg(loom)]
pub mod pool {
    pub mod seats;
}
pub mod process;
#[cfg(not(loom))]
pub mod reserve;
pub mod shm;
pub mod sync;
pub mod wait;

pub use error::{Error, Result};

/// Registers every fork handler of the engine. A front calls it when it is loaded, before the program has other threads: a fork by another
/// thread in the middle of a registration would leave a child that waits forever.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
#[cfg(not(loom))]
pub fn watch_forks() -> std::io::Result<()> {
    maniple_sys::epoch::count_forks()?;
    sync::holder::watch_forks()?;
    wait::spin::watch_forks()?;
    idle::watch_forks()?;
    pool::watch_forks()
}
