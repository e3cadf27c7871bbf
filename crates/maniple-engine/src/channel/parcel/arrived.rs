//! Buffers that have arrived in blocks.
#![allow(unsafe_code)]

use super::kept::State;
use super::{FREE, PAGE, SPENT, damaged};
use crate::channel::known;
use crate::error::{Doing, Result};
use crate::shm::blocks::LONG;
use crate::shm::buffers::Buffer;
use crate::shm::seen::Seen;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use maniple_sys::{AsHandle, OwnedHandle};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// A buffer that arrived, in private memory of this process: it may be written to, and no other process sees the
/// changes.
#[derive(Debug)]
pub struct Arrived(Content);

#[derive(Debug)]
enum Content {
    Plain(Buffer),
    // In this order: the mapping ends before the block is free.
    Mapped(Seen, #[allow(dead_code)] PutBack),
}

/// Reports that a block is no longer used.
#[derive(Debug)]
struct PutBack {
    state: State,
    epoch: Epoch,
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let word = match self.epoch.since() {
            Since::Nothing => FREE,
            Since::Forked => SPENT,
            Since::Born => return,
        };
        // Partner: `KeptBlocks::take` in `kept`.
        self.state.word().store(word, Ordering::Release);
    }
}

impl Arrived {
    /// As a frame describes it, which may be wrong.
    pub(super) fn checked(handle: &OwnedHandle, len: usize, room: usize) -> Result<Arrived> {
        let (file, whole) = File::and_len(handle.as_handle()).doing("measure a shared-memory block")?;
        if len == 0 || len > room || !room.is_multiple_of(PAGE) || room.checked_add(PAGE) != Some(whole) {
            return Err(damaged());
        }
        if len < LONG
            && room < 2 * LONG
            && let Some(bytes) = known::copy(handle, file, len, room, whole, FREE)
        {
            return Ok(Arrived(Content::Plain(bytes)));
        }
        Arrived::of(handle, len, room)
    }

    fn of(handle: &OwnedHandle, len: usize, room: usize) -> Result<Arrived> {
        if len >= LONG
            && Seen::is_room(len)
            && memory::is_fixed(handle)
            && let (Ok(state), Ok(data)) = (State::of(handle, room), Mapping::new(handle, len, Share::CopyOnWrite))
        {
            return Ok(Arrived(Content::Mapped(data.into(), PutBack { state, epoch: Epoch::now() })));
        }
        let mut bytes = Buffer::default();
        memory::read_at(handle.as_handle(), bytes.fill(len)?, 0).doing("receive a large buffer")?;
        // If this process may not write to that place, the block is not used again.
        let _ = memory::write_at(handle.as_handle(), &FREE.to_ne_bytes(), room as u64);
        Ok(Arrived(Content::Plain(bytes)))
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        match &self.0 {
            Content::Plain(bytes) => NonNull::from(bytes.bytes()).cast(),
            Content::Mapped(data, _) => data.start(),
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Plain(bytes) => bytes.bytes().len(),
            Content::Mapped(data, _) => data.len(),
        }
    }

    /// Whether there are none (never).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the bytes are private or mapped, and the sender does not touch the block until the word says so.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len()) }
    }

    /// The content, to be changed for this process alone.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Content::Plain(bytes) => bytes.bytes_mut(),
            // SAFETY: as above; the mapping is this value's alone, and copy-on-write.
            Content::Mapped(data, _) => unsafe { std::slice::from_raw_parts_mut(data.start().as_ptr(), data.len()) },
        }
    }
}
