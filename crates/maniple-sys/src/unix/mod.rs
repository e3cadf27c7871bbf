//! What the systems of the Unix family share. It compiles for all of them, whether a backend makes use of it yet or not.

pub(crate) mod again;
pub mod atfork;
pub mod epoch;
pub mod named;
pub mod own;
pub mod process;
pub mod socket_dir;

pub use crate::handle::fd::*;
