//! The pickles that messages are made of.
//!
//! Plain values ([`walk`](crate::walk)) are pickled and unpickled here, in exactly pickle's format, since either end may be
//! another program; all other values go to `pickle`, before anything has happened.
//!
//! Written is protocol 4, with a memo. Read is the same and what CPython's pickler makes of such values (protocols 4 and 5, frames, memo).

mod op;
mod read;
mod write;

pub use read::load;
pub use write::{dump, dump_tuple};

/// Longer pickles are left to pickle; the bytes written until then are discarded.
const SHORT: usize = 1 << 20;
/// No array has its bytes apart that has fewer.
pub const MIDDLING: usize = 16 * 1024;
