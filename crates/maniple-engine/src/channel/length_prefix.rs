//! The codec of frames: a length and so many bytes, in the standard package's wire format. Every stream of bytes uses
//! it.
//!
//! ```text
//! frame  := length body
//! length := i32 (at least 0) | i32 -1, u64        most significant byte first
//! ```
//! This module handles only bytes. `frame` (never beyond the current frame), `framed_stream` (ahead) and `reception`
//! (short messages, without waiting) read and write them. All of them report the same condition as the same error:
//!
//! | the stream | error |
//! | --- | --- |
//! | ends between two frames | [`Error::EndOfStream`] |
//! | ends within a frame or its length | [`Error::CutOff`] |
//! | has a length that no frame can have | [`Error::BadLength`] |

use crate::error::{Error, Result};

/// Bytes of the length of a frame of less than 2 GiB.
pub const SHORT: usize = 4;
/// Bytes of the length of any other frame.
pub const LONG: usize = 12;

/// An encoded length.
#[derive(Clone, Copy, Debug)]
pub struct Length([u8; LONG], usize);

impl Length {
    /// The length of a body.
    pub fn of(body: &[u8]) -> Length {
        let mut bytes = [0xff; LONG];
        match i32::try_from(body.len()) {
            Ok(short) => {
                bytes[..SHORT].copy_from_slice(&short.to_be_bytes());
                Length(bytes, SHORT)
            }
            Err(_) => {
                bytes[SHORT..].copy_from_slice(&(body.len() as u64).to_be_bytes());
                Length(bytes, LONG)
            }
        }
    }

    /// The bytes that go before the body.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// The content of a frame's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The body begins at `body`, and has `len` bytes. Their end is a `usize`.
    Known {
        /// Where the body begins.
        body: usize,
        /// Its bytes.
        len: usize,
    },
    /// So many bytes of the length are missing.
    Missing(usize),
}

/// Reads the length at the beginning of `bytes`.
///
/// # Errors
/// [`Error::BadLength`]
pub fn begin(bytes: &[u8]) -> Result<Begin> {
    let Some((short, rest)) = bytes.split_first_chunk::<SHORT>() else {
        return Ok(Begin::Missing(SHORT - bytes.len()));
    };
    let (body, len) = match i32::from_be_bytes(*short) {
        -1 => match rest.first_chunk() {
            Some(long) => (LONG, u64::from_be_bytes(*long)),
            None => return Ok(Begin::Missing(LONG - bytes.len())),
        },
        short => (SHORT, u64::try_from(short).map_err(|_| Error::BadLength)?),
    };
    // No object in memory is longer than an `isize` can say.
    let len = isize::try_from(len).map_err(|_| Error::BadLength)? as usize;
    Ok(Begin::Known { body, len })
}

/// The error of a stream that ends; `within` a frame, or between two.
pub fn ended(within: bool) -> Error {
    if within { Error::CutOff } else { Error::EndOfStream }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_as_it_was_written() {
        for len in [0, 1, 300, 70_000] {
            let length = Length::of(&vec![0; len]);
            assert_eq!(length.bytes().len(), SHORT);
            assert_eq!(begin(length.bytes()).unwrap(), Begin::Known { body: SHORT, len });
        }
    }

    #[test]
    fn both_forms_of_a_length_are_read_and_missing_bytes_are_counted() {
        let long = [&[0xff; 4][..], &(1u64 << 40).to_be_bytes()].concat();
        for have in 0..LONG {
            let missing = if have < SHORT { SHORT - have } else { LONG - have };
            assert_eq!(begin(&long[..have]).unwrap(), Begin::Missing(missing));
        }
        // A length beyond the address space is refused, not cut.
        match usize::try_from(1u64 << 40) {
            Ok(len) => assert_eq!(begin(&long).unwrap(), Begin::Known { body: LONG, len }),
            Err(_) => assert!(matches!(begin(&long), Err(Error::BadLength))),
        }
        assert_eq!(begin(b"\0\0\x01\0body").unwrap(), Begin::Known { body: SHORT, len: 256 });
    }

    #[test]
    fn a_length_that_no_frame_can_have_is_refused() {
        let most = [&[0xff; 4][..], &(isize::MAX as u64 + 1).to_be_bytes()].concat();
        for bytes in [&(-2i32).to_be_bytes()[..], &i32::MIN.to_be_bytes(), &[0xff; LONG], &most] {
            assert!(matches!(begin(bytes), Err(Error::BadLength)), "{bytes:?}");
        }
    }
}
