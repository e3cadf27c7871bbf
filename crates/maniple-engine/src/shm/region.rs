//! Regions: buffers that have arrived, which tell the owner of their block when they are gone.
//!
//! A block is mapped copy-on-write: its user may write to it as to memory of its own, several readers may look at one block, and a
//! `fork()` makes the contents of parent and child independent, as with any other private memory.
#![allow(unsafe_code)]

use super::buffers::Buffer;
use super::seen::Seen;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::memory::Mapping;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Writes the word that returns a block to its owner when it is dropped.
#[derive(Debug)]
pub(crate) struct PutBack {
    place: Place,
    epoch: Epoch,
    free: u32,
    retired: u32,
}

/// Where the word is.
#[derive(Debug)]
enum Place {
    /// At an offset of a segment. It does not keep the segment: a block whose owner is gone needs no return.
    Segment(Weak<Mapping>, usize),
    /// The first of a mapping.
    Own(Mapping),
}

impl PutBack {
    /// For the word at `offset` of a segment. It becomes `free`, or `retired` where a process that was forked meanwhile may still look at
    /// the block.
    ///
    /// # Panics
    /// There is no aligned word at the offset.
    pub(crate) fn in_segment(segment: &Arc<Mapping>, offset: usize, free: u32, retired: u32) -> PutBack {
        assert!(offset.is_multiple_of(4) && offset + 4 <= segment.len());
        PutBack { place: Place::Segment(Arc::downgrade(segment), offset), epoch: Epoch::now(), free, retired }
    }

    /// The same for the first word of a mapping.
    ///
    /// # Panics
    /// The mapping has no room for it.
    pub(crate) fn of(mapping: Mapping, free: u32, retired: u32) -> PutBack {
        assert!(mapping.len() >= 4);
        PutBack { place: Place::Own(mapping), epoch: Epoch::now(), free, retired }
    }
}

impl Drop for PutBack {
    fn drop(&mut self) {
        let word = match self.epoch.since() {
            Since::Nothing => self.free,
            Since::Forked => self.retired,
            Since::Born => return,
        };
        let write = |memory: &Mapping, offset: usize| {
            // SAFETY: inside the mapping and aligned (checked where this was made), and only ever touched as an atomic.
            let state = unsafe { AtomicU32::from_ptr(memory.start().add(offset).cast().as_ptr()) };
            // Partners: `Slots::look`, and `take` in `channel/parcel/kept`.
            state.store(word, Ordering::Release);
        };
        match &self.place {
            Place::Segment(segment, offset) => {
                if let Some(segment) = segment.upgrade() {
                    write(&segment, *offset);
                }
            }
            Place::Own(mapping) => write(mapping, 0),
        }
    }
}

/// A buffer that arrived, in memory of this process's own: it may be written to, and no other process sees what is written.
/// Dropping it lets its block be used again.
#[derive(Debug)]
pub struct Region(Content);

#[derive(Debug)]
enum Content {
    Plain(Buffer),
    // In this order: the mapping goes before the block is put back.
    Mapped { mapping: Seen, len: usize, _back: Option<PutBack> },
}

impl Region {
    /// The first `len` bytes of a block, which its owner leaves alone until `back` is dropped. Without `back` the owner never uses the
    /// block again.
    ///
    /// # Panics
    /// The mapping is shorter.
    pub(crate) fn mapped(mapping: Mapping, len: usize, back: Option<PutBack>) -> Region {
        assert!(len <= mapping.len());
        Region(Content::Mapped { mapping: mapping.into(), len, _back: back })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        match &self.0 {
            Content::Plain(buffer) => NonNull::from(buffer.bytes()).cast(),
            Content::Mapped { mapping, .. } => mapping.start(),
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Plain(buffer) => buffer.bytes().len(),
            Content::Mapped { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: they are this process's own or mapped (checked in `mapped`), and the owner of a block leaves it alone until it is put back.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len()) }
    }

    /// The content, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Content::Plain(buffer) => buffer.bytes_mut(),
            // SAFETY: as in `as_slice`, and `&mut self` is the only borrow; the mapping is copy-on-write.
            Content::Mapped { mapping, len, .. } => unsafe {
                std::slice::from_raw_parts_mut(mapping.start().as_ptr(), *len)
            },
        }
    }
}

impl From<Buffer> for Region {
    fn from(buffer: Buffer) -> Region {
        Region(Content::Plain(buffer))
    }
}
