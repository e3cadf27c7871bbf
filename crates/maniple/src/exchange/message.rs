//! What the forms of a line have in common: what the engine's errors mean, and how a message is decoded.

use crate::baggage::{self, Source};
use crate::codec::Codec;
use crate::error::{ChannelError, Error, Result};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an error while sending means.
pub(super) fn sending(error: maniple_engine::Error) -> Error {
    match &error {
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Channel(ChannelError::Closed),
        _ => error.into(),
    }
}

/// What an error means at the beginning of a message.
pub(super) fn beginning(error: maniple_engine::Error) -> Error {
    match &error {
        maniple_engine::Error::EndOfStream => Error::Channel(ChannelError::Closed),
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Channel(ChannelError::Closed),
        maniple_engine::Error::CutOff => Error::Channel(ChannelError::UnexpectedEof),
        _ => error.into(),
    }
}

/// And behind that.
pub(super) fn continuing(error: maniple_engine::Error) -> Error {
    match beginning(error) {
        Error::Channel(ChannelError::Closed) => Error::Channel(ChannelError::UnexpectedEof),
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}

/// The one value in `bytes`.
pub(super) fn decode<C: Codec, T: DeserializeOwned>(mut bytes: &[u8], source: &mut Source) -> Result<T> {
    let value = baggage::decode::<C, T>(&mut bytes, source)?;
    if bytes.is_empty() {
        return Ok(value);
    }
    let left = bytes.len();
    Err(Error::codec::<T>("decoded", format_args!("{left} bytes are left over; the other side sends another type")))
}
