//! Memory that processes share.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `value` | a value, a list of values, with a lock |
//! | `raw` | the same without a lock |
//! | `memory` | bytes, nameless or under a name |
//! | `list` | a list of mixed values in such bytes, which Python opens, too |
//!
//! Nameless memory is gone when the last process that has it has ended, however it ended. A name stays until a process
//! removes it.

mod list;
mod memory;
mod raw;
mod raw_ranges;
mod value;

pub use list::{ShareableItem, ShareableList};
pub use memory::SharedMemory;
pub use raw::{RawArray, RawValue};
pub use value::{Array, Value};
