//! Shared memory between a hub and one worker: segments, the ring, the bell, blocks.
//!
//! This module does not depend on what the bytes mean, which tasks exist, or which threads wait for what. The head of
//! each file explains its protocol. A model checker (`tests/loom`) checks `cursor`, `claim`, `bell` and `wait_count`.
//! It sees atomics only, so its build leaves out everything that needs an operating system.

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
