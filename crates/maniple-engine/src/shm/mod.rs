//! Shared memory between a hub and one worker: segments, the ring, the bell, blocks.
//!
//! What may not be known here: what the bytes mean, which tasks exist, who is waiting for what. The protocols are argued in
//! prose at the head of each file; `ring` and `bell` are checked by a model checker (`tests/loom.rs`).

pub mod atomic;
pub mod bell;
pub mod blocks;
pub mod cursor;
pub mod inbox;
pub mod ring;
pub mod segment;
