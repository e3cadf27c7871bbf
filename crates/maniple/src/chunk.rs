//! The content of the engine's opaque payloads.
//!
//! ```text
//! definition   identity of `make` · what the call wrote of itself
//! chunk        count: u32 · type: u32 · value …                      values: the items
//!            | NUMBERS + count: u32 · type: u32 · numbers            as they lie in memory
//! answer       task: u64 · chunk                                     values: those of the type, or failures
//! value        length: u8, 253 at most · plainly encoded value
//!            | WHOLE · length: u32 · encoded value
//!            | FAILED · length: u32 · encoded Failure                 in answers alone
//! failure      task: u64 · length: u32 · encoded Failure
//! ```
//! `task` is the number of the task that an answer was made for; an answer to another task is an error. `type` is the
//! fingerprint of the values' type (`codec`); other values contain their fingerprint.
//!
//! The length of a value precedes it, so a value that cannot be decoded does not affect the next values. A short value
//! that owns nothing, such as a number, is encoded plainly: without names, and with nothing beside the bytes. Large
//! buffers in values travel beside the bytes, as blobs, and so do descriptors.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `output`, `input` | writes and reads payloads |
//! | `numbers` | numbers as they lie in memory |

mod input;
mod numbers;
mod output;
#[cfg(test)]
mod tests;

pub(crate) use input::{Input, open};
pub(crate) use output::Output;

use crate::error::{CallError, Error};

const LENGTH: usize = 4;
/// The marks in place of a value's length.
const WHOLE: u8 = 254;
const FAILED: u8 = 255;
/// The flag in a chunk's count that says that all values are numbers.
const NUMBERS: u32 = 1 << 31;

fn cut_short() -> Error {
    Error::Call(CallError::Remote("a message between pool and worker is shorter than the length that it states".into()))
}
