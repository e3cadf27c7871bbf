//! The code that the systems of the Unix family share. It compiles for all of them, also for those without a backend
//! that uses it.

pub(crate) mod again;
pub mod atfork;
pub mod epoch;
pub mod named;
pub mod own;
pub mod process;
pub mod socket_dir;

pub use crate::handle::fd::*;
