//! Memory that processes share.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `value` | a value, a list of values, with a lock |
//! | `raw` | a value, a list of values, without a lock |
//! | `memory` | bytes, with or without a name |
//! | `list` | a list of mixed values in such bytes, which Python can open, too |
//!
//! The system frees nameless memory when the last process that has it has ended in any way. A name exists until a
//! process removes it.

mod list;
mod memory;
mod raw;
mod raw_ranges;
mod value;

pub use list::{ShareableItem, ShareableList};
pub use memory::SharedMemory;
pub use raw::{RawArray, RawValue};
pub use value::{Array, Value};
