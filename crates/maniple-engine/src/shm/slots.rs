//! The reference to a large buffer in a frame, and the words by which a block's reader returns the block to its owner.
#![allow(unsafe_code)]

use super::region::PutBack;
use maniple_sys::memory::Mapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many reusable blocks one direction of a link can have under way.
pub const SLOTS: usize = 64;

/// The slot of a block that its owner will never use again: the last process that unmaps it frees it.
pub const NO_SLOT: u16 = u16::MAX;

/// The slot of a reference that names handles of the front: `place` is the number of their batch, `len` their number.
pub const HANDLES: u16 = u16::MAX - 1;

/// The slot of a reference to a body in the bay: `place` is where it lies.
pub const BAY: u16 = u16::MAX - 2;

/// A frame's reference to a buffer, or to handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Its place: for a block, the number of the batch that contains its handle.
    pub place: u32,
    /// The slot to mark when the region is dropped, or one of the constants above.
    pub slot: u16,
    /// Bytes of content.
    pub len: u64,
}

/// Bytes of an encoded reference.
pub const BLOB_REF: usize = 16;

impl BlobRef {
    /// Its form in a frame: length, place, slot, two bytes of nothing.
    pub fn encode(self) -> [u8; BLOB_REF] {
        let mut bytes = [0; BLOB_REF];
        bytes[..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.place.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.slot.to_le_bytes());
        bytes
    }

    /// From its form in a frame.
    pub fn decode(bytes: &[u8; BLOB_REF]) -> BlobRef {
        let number = |at: std::ops::Range<usize>| bytes[at].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        BlobRef { len: number(0..8), place: number(8..12) as u32, slot: number(12..14) as u16 }
    }
}

/// One direction's slots, in a link's segment.
#[derive(Debug, Clone)]
pub struct Slots {
    segment: Arc<Mapping>,
    offset: usize,
}

const FREE: u32 = 0;
const USED: u32 = 1;
const RETIRED: u32 = 2;

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The reader uses the block.
    Used,
    /// The reader no longer uses it.
    Free,
    /// The reader no longer uses it, but a process that was forked meanwhile may still map it: it must not be used
    /// again.
    Retired,
}

impl Slots {
    /// Bytes that the slots of one direction take.
    pub const BYTES: usize = SLOTS * 4;

    /// The slots at `offset` of a segment.
    pub fn new(segment: &Arc<Mapping>, offset: usize) -> Slots {
        assert!(offset.is_multiple_of(4) && offset + Self::BYTES <= segment.len());
        Slots { segment: segment.clone(), offset }
    }

    /// Where the word of a slot is.
    fn at(&self, slot: u16) -> usize {
        self.offset + 4 * (usize::from(slot) % SLOTS)
    }

    fn word(&self, slot: u16) -> &AtomicU32 {
        // SAFETY: inside the segment (checked in `new`), aligned, and only ever touched as an atomic.
        unsafe { AtomicU32::from_ptr(self.segment.start().add(self.at(slot)).cast().as_ptr()) }
    }

    /// Owner: marks a slot as used, before the frame that names it is published (which orders this store).
    pub fn take(&self, slot: u16) {
        self.word(slot).store(USED, Ordering::Relaxed);
    }

    /// Owner: returns the state of a slot.
    pub fn look(&self, slot: u16) -> Slot {
        // Partner: the end of a `PutBack`; the reader's last access to the block happened before.
        match self.word(slot).load(Ordering::Acquire) {
            FREE => Slot::Free,
            RETIRED => Slot::Retired,
            _ => Slot::Used,
        }
    }

    /// Reader: a value that frees the slot when it is dropped.
    pub(super) fn on_drop(&self, slot: u16) -> PutBack {
        PutBack::in_segment(&self.segment, self.at(slot), FREE, RETIRED)
    }
}
