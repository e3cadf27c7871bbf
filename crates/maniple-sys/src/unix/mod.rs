//! What the systems of the Unix family share.

pub mod atfork;
pub mod epoch;
pub mod handle;

pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
