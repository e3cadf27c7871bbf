//! Shared memory between a hub and one worker: segments, the ring, the bell, blocks.
//!
//! What may not be known here: what the bytes mean, which tasks exist, which threads wait for what. The protocols are argued in
//! prose at the head of each file; `cursor`, `claim`, `bell` and `wait_count` are checked by a model checker (`tests/loom`), which sees
//! atomics only, so that what needs an operating system is left out of its build.

pub mod atomic;
#[cfg(not(loom))]
pub mod bay;
pub mod bell;
#[cfg(not(loom))]
pub mod blocks;
#[cfg(not(loom))]
pub mod buffers;
pub mod claim;
pub mod cursor;
#[cfg(not(loom))]
pub mod inbox;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod ring;
#[cfg(not(loom))]
pub mod seen;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod slots;
pub mod wait_count;
