//! The reader's side of blocks: handles that came over the wire, and regions, which tell the owner when they are gone.
//!
//! Regions are mapped copy-on-write. Their user may write to them as to memory of its own, several readers may look at one
//! block, and a `fork()` gives parent and child independent contents, as with any other private memory.
#![allow(unsafe_code)]

use super::segment::Segment;
use crate::error::{Doing, Error, Result};
use crate::process::epoch::{Epoch, Since};
use crate::sys::wire::{Note, Wire, out_of_handles};
use crate::sys::{Handle, memory};
use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many references one direction of a link can have under way.
pub const SLOTS: usize = 256;

/// The slot of a block that its owner will never use again: whoever maps it last frees it.
pub const NO_SLOT: u16 = u16::MAX;

/// The slot of a reference that names no block: `block` is the number of a batch of handles, `len` how many there are.
pub const HANDLES: u16 = u16::MAX - 1;

/// A frame's reference to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// The block's number in its owner's arena.
    pub block: u32,
    /// The slot to mark when the region is gone.
    pub slot: u16,
    /// Bytes of content.
    pub len: u64,
}

/// Bytes of an encoded reference.
pub const BLOB_REF: usize = 16;

impl BlobRef {
    /// Its form in a frame: length, block, slot, two bytes of nothing.
    pub fn encode(self) -> [u8; BLOB_REF] {
        let mut bytes = [0; BLOB_REF];
        bytes[..8].copy_from_slice(&self.len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.block.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.slot.to_le_bytes());
        bytes
    }

    /// From its form in a frame.
    pub fn decode(bytes: &[u8; BLOB_REF]) -> BlobRef {
        let number = |at: std::ops::Range<usize>| bytes[at].iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
        BlobRef { len: number(0..8), block: number(8..12) as u32, slot: number(12..14) as u16 }
    }
}

/// One direction's slots, in a link's segment.
#[derive(Debug, Clone)]
pub struct Slots {
    segment: Arc<Segment>,
    offset: usize,
}

const FREE: u32 = 0;
const USED: u32 = 1;
const SPENT: u32 = 2;

/// How a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The reader uses the block.
    Used,
    /// It is done with it.
    Free,
    /// It is done with it, but a process that was forked meanwhile may still look at it: it must not be used again.
    Spent,
}

impl Slots {
    /// Bytes that the slots of one direction take.
    pub const BYTES: usize = SLOTS * 4;

    /// The slots at `offset` of a segment.
    pub fn new(segment: &Arc<Segment>, offset: usize) -> Slots {
        assert!(offset.is_multiple_of(4) && offset + Self::BYTES <= segment.len());
        Slots { segment: segment.clone(), offset }
    }

    fn word(&self, slot: u16) -> &AtomicU32 {
        let slot = usize::from(slot) % SLOTS;
        // SAFETY: inside the segment (checked in `new`), aligned, and only ever touched as an atomic.
        unsafe { AtomicU32::from_ptr(self.segment.start().add(self.offset + 4 * slot).cast().as_ptr()) }
    }

    /// Owner: marks a slot as used, before the frame that names it is published (which orders this store).
    pub fn take(&self, slot: u16) {
        self.word(slot).store(USED, Ordering::Relaxed);
    }

    /// Owner: how a slot stands.
    pub fn look(&self, slot: u16) -> Slot {
        // Partner: `put_back`; the reader's last access to the block happened before.
        match self.word(slot).load(Ordering::Acquire) {
            FREE => Slot::Free,
            SPENT => Slot::Spent,
            _ => Slot::Used,
        }
    }

    fn put_back(&self, slot: u16, since: Since) {
        let word = match since {
            Since::Nothing => FREE,
            Since::Forked => SPENT,
            Since::Born => return,
        };
        // Partner: `look`.
        self.word(slot).store(word, Ordering::Release);
    }
}

/// What the tags of a wire's notes mean.
pub mod tag {
    /// A ring of the hub's keeper.
    pub const BELL: u64 = 0;
    /// The handle of the block whose number is in the low half.
    pub const BLOCK: u64 = 1 << 32;
    /// The block in the low half will not come again.
    pub const FORGET: u64 = 2 << 32;
    /// Handles of the batch whose number is in the low half; a large batch comes in several notes.
    pub const HANDLES: u64 = 3 << 32;
}

/// Blocks of the other side that this side knows, and handles that came ahead of their frames.
#[derive(Debug, Default)]
pub struct Inbox {
    known: HashMap<u32, Handle>,
    // In the order of their frames. One that no frame names any more was begun in vain, and goes with the next that is taken.
    batches: VecDeque<(u32, Vec<Handle>)>,
}

impl Inbox {
    /// Takes in a note from the wire.
    fn accept(&mut self, tag: u64, mut handles: Vec<Handle>) {
        let number = tag as u32;
        match tag & !0xffff_ffff {
            tag::BLOCK => drop(handles.pop().and_then(|handle| self.known.insert(number, handle))),
            tag::FORGET => drop(self.known.remove(&number)),
            tag::HANDLES => match self.batches.back_mut() {
                Some((last, batch)) if *last == number => batch.append(&mut handles),
                _ => self.batches.push_back((number, handles)),
            },
            _ => {}
        }
    }

    /// Takes in all that is on the wire now. False: the other end is gone.
    pub fn drain(&mut self, wire: &Wire) -> Result<bool> {
        loop {
            match wire.receive().doing("receive a handle on a shared-memory block")? {
                Note::Tag(tag, handles) => self.accept(tag, handles),
                // Of the user's handles those that came are delivered: it is the values with the others that fail.
                Note::Cut(tag, handles) if tag & !0xffff_ffff == tag::HANDLES => self.accept(tag, handles),
                Note::Cut(..) => {
                    return Err(out_of_handles()).doing("receive a handle on a shared-memory block");
                }
                Note::Closed => return Ok(false),
                Note::Nothing => return Ok(true),
            }
        }
    }

    /// The batch of handles that `reference` names. They were sent before the reference was.
    pub fn take_handles(&mut self, reference: BlobRef, wire: &Wire) -> Result<Vec<Handle>> {
        let is_all =
            |(last, batch): &(u32, Vec<Handle>)| *last == reference.block && batch.len() as u64 == reference.len;
        if !self.batches.back().is_some_and(is_all) {
            self.drain(wire)?;
        }
        while let Some((number, handles)) = self.batches.pop_front() {
            if number == reference.block {
                return Ok(handles);
            }
        }
        Err(Error::Damaged("handles were named but never sent"))
    }

    /// Lets go of what came for a frame that was taken back.
    pub fn discard(&mut self, reference: BlobRef, wire: &Wire) -> Result<()> {
        match reference.slot {
            HANDLES => drop(self.take_handles(reference, wire)?),
            NO_SLOT => {
                self.drain(wire)?;
                self.known.remove(&reference.block);
            }
            _ => {}
        }
        Ok(())
    }

    /// The block that `reference` names, as a region. Its handle was sent before the reference was.
    pub fn open(&mut self, reference: BlobRef, wire: &Wire, slots: &Slots) -> Result<Region> {
        if !self.known.contains_key(&reference.block) {
            self.drain(wire)?;
        }
        let handle = self.known.get(&reference.block).ok_or(Error::Damaged("a block was named but never sent"))?;
        let len = reference.len as usize;
        if len > memory::len(handle).doing("measure a shared-memory block")? {
            return Err(Error::Damaged("a blob is longer than its block"));
        }
        let mapping =
            memory::Mapping::new(handle.as_fd(), len, memory::Share::CopyOnWrite).doing("map a shared-memory block")?;
        let slot = if reference.slot == NO_SLOT {
            self.known.remove(&reference.block);
            None
        } else {
            Some((slots.clone(), reference.slot))
        };
        Ok(Region { mapping, slot, epoch: Epoch::now() })
    }
}

/// The content of a block, in a view of this process's own: it may be written to, and nobody else sees what is written.
/// Dropping it lets the block be used again.
#[derive(Debug)]
pub struct Region {
    mapping: memory::Mapping,
    slot: Option<(Slots, u16)>,
    epoch: Epoch,
}

impl Region {
    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.mapping.start()
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// The content.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: they are mapped, and the owner leaves the block alone until the slot is put back.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len()) }
    }

    /// The content, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` is the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len()) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some((slots, slot)) = self.slot.take() {
            slots.put_back(slot, self.epoch.since());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u32, len: u64) -> BlobRef {
        BlobRef { block: number, slot: HANDLES, len }
    }

    /// Sends a note of a batch with so many write ends of a pipe; gives the read end, at its end once all are closed.
    fn send(wire: &Wire, number: u32, count: usize) -> std::io::PipeReader {
        let (reader, writer) = std::io::pipe().unwrap();
        wire.send(tag::HANDLES | u64::from(number), &vec![writer.as_fd(); count]).unwrap();
        reader
    }

    fn is_closed(mut reader: &std::io::PipeReader) -> bool {
        rustix::io::ioctl_fionbio(reader, true).unwrap();
        std::io::Read::read(&mut reader, &mut [0]).is_ok_and(|n| n == 0)
    }

    #[test]
    fn handles_of_frames_that_were_taken_back_are_closed() {
        let (here, there) = Wire::pair().unwrap();
        let mut inbox = Inbox::default();
        let (revoked, begun, wanted) = (send(&here, 1, 2), send(&here, 2, 3), send(&here, 3, 4));
        inbox.discard(batch(1, 2), &there).unwrap();
        assert!(is_closed(&revoked) && !is_closed(&begun));
        let handles = inbox.take_handles(batch(3, 4), &there).unwrap();
        assert_eq!(handles.len(), 4);
        // A batch that was only begun goes with the next that is taken.
        assert!(is_closed(&begun) && !is_closed(&wanted));
        drop(handles);
        assert!(is_closed(&wanted));
        assert!(matches!(inbox.take_handles(batch(4, 1), &there), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_batch_of_several_notes_is_waited_for_as_a_whole() {
        let (here, there) = Wire::pair().unwrap();
        let mut inbox = Inbox::default();
        let _first = send(&here, 1, 2);
        inbox.drain(&there).unwrap();
        let _second = send(&here, 1, 3);
        assert_eq!(inbox.take_handles(batch(1, 5), &there).unwrap().len(), 5);
    }

    #[test]
    fn a_reference_survives_its_encoding() {
        let r = BlobRef { block: 0xdead_beef, slot: 1023, len: (1 << 40) + 7 };
        assert_eq!(BlobRef::decode(&r.encode()), r);
    }
}
