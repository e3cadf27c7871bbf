//! The running program in memory: the addresses of its code, and its build.

pub use super::super::system::image::{image, symbol};
pub use crate::terms::Image;
