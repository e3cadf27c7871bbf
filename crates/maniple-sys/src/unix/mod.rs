//! The code that the systems of the Unix family share. It compiles for all of them, also for those without a backend
//! that uses it.

pub(crate) mod again;
pub mod atfork;
pub(crate) mod bytes;
pub mod epoch;
pub(crate) mod errors;
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) mod family;
pub(crate) mod mapping;
pub mod named;
pub(crate) mod net;
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) mod numbers;
pub mod own;
pub mod process;
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) mod ready;
pub mod socket_dir;
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) mod tap;
pub(crate) mod threads;

pub use crate::handle::fd::*;
