//! Values as messages of a queue.

use super::Queue;
use crate::codec::Postcard;
use crate::error::Result;
use crate::sideband::{self, Sink, Source};
use crate::transport::message;
use maniple_engine::shm::buffers::Buffer;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// An encoded value for a queue.
pub(in crate::transport) struct Outgoing {
    pub(super) first: Vec<u8>,
    pub(super) rest: Vec<Vec<u8>>,
    pub(super) handles: Vec<maniple_sys::OwnedHandle>,
    pub(super) nonce: u64,
}

/// The last byte of a message says whether the value has descriptors. If it has, the nonce precedes the byte.
const ALONE: u8 = 0;
const WITH_HANDLES: u8 = 1;

impl<T: Serialize> Queue<T> {
    /// Encodes a value.
    pub(in crate::transport) fn prepare(&self, value: &T) -> Result<Outgoing> {
        let (mut first, mut sink) = (Vec::with_capacity(64), Sink::parts());
        sideband::encode::<Postcard, T>(value, &mut first, &mut sink)?;
        let (rest, handles) = (sink.take_parts(), sink.take_handles());
        let mut nonce = 0;
        if handles.is_empty() {
            first.push(ALONE);
        } else {
            nonce = self.shared.fds.nonce();
            first.extend_from_slice(&nonce.to_ne_bytes());
            first.push(WITH_HANDLES);
        }
        Ok(Outgoing { first, rest, handles, nonce })
    }
}

pub(super) fn nonce_of(first: &[u8]) -> Option<u64> {
    let (&WITH_HANDLES, before) = first.split_last()? else { return None };
    Some(u64::from_ne_bytes(*before.last_chunk()?))
}

pub(super) fn decode<T: DeserializeOwned>(
    first: &[u8],
    rest: Vec<Buffer>,
    handles: Vec<maniple_sys::OwnedHandle>,
) -> Result<T> {
    let trailer = if nonce_of(first).is_some() { 9 } else { 1 };
    let bytes = &first[..first.len().saturating_sub(trailer)];
    message::decode::<Postcard, T>(bytes, &mut Source::with(rest, handles))
}
