//! Decodes messages, and converts the engine's errors.

use crate::codec::Codec;
use crate::error::{ChannelError, Error, Result};
use crate::sideband::{self, Source};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Converts an error of sending.
pub(super) fn sending(error: maniple_engine::Error) -> Error {
    match &error {
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Channel(ChannelError::Closed),
        _ => error.into(),
    }
}

/// Converts an error of receiving. `begun`: the length of the message has arrived.
pub(super) fn receiving(error: maniple_engine::Error, begun: bool) -> Error {
    let ended = if begun { ChannelError::UnexpectedEof } else { ChannelError::Closed };
    match &error {
        maniple_engine::Error::EndOfStream => Error::Channel(ended),
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Channel(ended),
        maniple_engine::Error::CutOff => Error::Channel(ChannelError::UnexpectedEof),
        maniple_engine::Error::TooLong => {
            Error::Channel(ChannelError::Message("it is longer than the limit; the connection is unusable"))
        }
        _ => error.into(),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}

/// Decodes the only value in `bytes`.
pub(super) fn decode<C: Codec, T: DeserializeOwned>(mut bytes: &[u8], source: &mut Source) -> Result<T> {
    let value = sideband::decode::<C, T>(&mut bytes, source)?;
    if bytes.is_empty() {
        return Ok(value);
    }
    let left = bytes.len();
    Err(Error::codec::<T>("decoded", format_args!("{left} bytes are left over; the other side sends another type")))
}
