//! The sending half of either end of a link through shared memory.
#![allow(unsafe_code)]

use super::kind;
use crate::error::{Error, Result};
use crate::pool::packet::Packet;
use crate::shm::bay::{Bay, BayWriter};
use crate::shm::blocks::{Arena, Blob};
use crate::shm::inbox::tag;
use crate::shm::ring::{Full, Head, Producer};
use crate::shm::slots::{BAY, BLOB_REF, BlobRef, HANDLES, NO_SLOT, SLOTS, Slot, Slots};
use maniple_sys::memory::Mapping;
use maniple_sys::wire::{self, Wire};
use maniple_sys::{AsHandle, BorrowedHandle};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The sending half of either end: frames, and the buffers and handles that they refer to.
///
/// Handles of blocks and of the front are sent over the wire as a numbered *batch*, before the frame that names the
/// number, so the reader of a frame finds its batch. The sender first checks that the ring has room for the frame. A
/// batch of several notes may be interrupted: the sender sends it again under another number, and the reader drops the
/// first part when it reads the next batch. A reader that skips a revoked frame drops its batch. All other handles on
/// the wire or at the reader are closed with them.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Producer,
    slots: Slots,
    bay: BayWriter,
    free_slots: Vec<u16>,
    held: Vec<Held>,
    batch: u32,
    /// The wire has refused a note, because its other end is closed or does not receive.
    cut_off: AtomicBool,
}

/// A block that a reader may still use.
#[derive(Debug)]
struct Held {
    slot: u16,
    /// None: left to the reader.
    blob: Option<Blob>,
    /// The position in the ring of the frame that names it.
    frame: u64,
}

/// Why nothing was sent.
enum Unsent {
    /// No room now.
    Full,
    Refused(Error),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Unsent::Refused(error)
    }
}

impl Sender {
    pub(super) fn new(ring: Producer, slots: Slots, bay: Bay, memory: &Arc<Mapping>) -> Sender {
        let free_slots = (0..SLOTS as u16).rev().collect();
        Sender {
            ring,
            slots,
            bay: BayWriter::new(memory, bay),
            free_slots,
            held: Vec::new(),
            batch: 0,
            cut_off: false.into(),
        }
    }

    /// Sends a frame. `Ok(Err(Full))`: no room now; nothing was sent.
    ///
    /// # Errors
    /// A block is needed, and there is no memory or descriptor for it; or the reader has damaged the link.
    pub fn send(&mut self, head: Head, packet: &Packet, wire: &Wire, arena: &Arena) -> Result<Result<u64, Full>> {
        if packet.blobs.is_empty() && packet.handles.is_empty() {
            return match self.ring.push(head, &[packet.bytes.as_slice()]) {
                Err(Full) => self.full(),
                pushed => Ok(pushed),
            };
        }
        let count = packet.blobs.len() + usize::from(!packet.handles.is_empty());
        if !self.ring.has_room(count * BLOB_REF + packet.bytes.as_slice().len()) {
            return self.full();
        }
        self.sweep();
        let (slots, tail) = (self.free_slots.len(), self.bay.tail());
        let sent = self.send_beside(head, packet, wire, arena);
        let taken = self.held.len() - (slots - self.free_slots.len());
        match sent {
            Ok(position) => {
                self.held[taken..].iter_mut().for_each(|held| held.frame = position);
                Ok(Ok(position))
            }
            Err(why) => {
                // No frame names the bytes that were written before this frame.
                self.bay.rewind(tail);
                self.free_slots.extend(self.held.drain(taken..).map(|held| held.slot));
                match why {
                    Unsent::Full => Ok(Err(Full)),
                    Unsent::Refused(error) => Err(error),
                }
            }
        }
    }

    /// There is no room now, or, if the reader has damaged the link, ever.
    fn full(&self) -> Result<Result<u64, Full>> {
        if self.is_damaged() {
            Err(Error::Damaged("more was read from a ring than was written"))
        } else {
            Ok(Err(Full))
        }
    }

    /// As `send`, for a packet with buffers or handles beside its bytes.
    fn send_beside(&mut self, mut head: Head, packet: &Packet, wire: &Wire, arena: &Arena) -> Result<u64, Unsent> {
        let mut in_bay: usize = 0;
        let goes_by_bay = |blob: &Blob, in_bay: &mut usize, bay: &BayWriter| {
            let fits = blob.bytes().is_some_and(|b| b.len() <= bay.longest() && *in_bay + b.len() <= bay.capacity());
            *in_bay += if fits { blob.len() } else { 0 };
            fits
        };
        let by_bay: Vec<bool> = packet.blobs.iter().map(|blob| goes_by_bay(blob, &mut in_bay, &self.bay)).collect();
        if in_bay > 0 && !self.bay.has_room(in_bay)? {
            return Err(Unsent::Full);
        }
        self.batch = self.batch.wrapping_add(1);
        let mut refs = Vec::with_capacity((packet.blobs.len() + 1) * BLOB_REF);
        for (blob, by_bay) in packet.blobs.iter().zip(by_bay) {
            let len = blob.len() as u64;
            let reference = match blob.bytes() {
                Some(bytes) if by_bay => BlobRef { place: self.bay.write(bytes), slot: BAY, len },
                Some(bytes) => {
                    let slot = match self.block(arena, bytes) {
                        Ok(block) => self.send_block(&block, wire)?,
                        Err(error) => self.send_block_aside(bytes, wire).unwrap_or(Err(error.into()))?,
                    };
                    BlobRef { place: self.batch, slot, len }
                }
                None => BlobRef { place: self.batch, slot: self.send_block(blob, wire)?, len },
            };
            refs.extend_from_slice(&reference.encode());
        }
        for part in packet.handles.chunks(wire::MOST) {
            let part: Vec<BorrowedHandle<'_>> = part.iter().map(AsHandle::as_handle).collect();
            self.note(wire, tag::HANDLES, &part, "send the descriptors in a value")?;
        }
        if !packet.handles.is_empty() {
            let reference = BlobRef { place: self.batch, slot: HANDLES, len: packet.handles.len() as u64 };
            refs.extend_from_slice(&reference.encode());
        }
        head.kind |= if packet.body_in_blob { kind::BODY_IN_BLOB } else { 0 };
        head.blobs = (refs.len() / BLOB_REF) as u16;
        self.ring.push(head, &[&refs, packet.bytes.as_slice()]).map_err(|Full| Unsent::Full)
    }

    /// A block with these bytes.
    fn block(&mut self, arena: &Arena, bytes: &[u8]) -> Result<Blob> {
        arena.block(&[bytes]).or_else(|_| {
            // A block that the reader has needs no descriptor here, if it is left to the reader.
            for blob in self.held.iter_mut().filter_map(|held| held.blob.take()) {
                blob.give_away();
            }
            arena.block(&[bytes])
        })
    }

    /// Sends a block's handle. Returns the slot that its reader frees, if the block is to be used again.
    fn send_block(&mut self, blob: &Blob, wire: &Wire) -> Result<u16, Unsent> {
        self.note(wire, tag::BLOCK, &blob.handles(), "send a large buffer")?;
        // A reader that keeps more buffers than there are slots gets blocks that are never returned.
        let Some(slot) = self.free_slots.pop() else {
            blob.give_away();
            return Ok(NO_SLOT);
        };
        self.slots.take(slot);
        self.held.push(Held { slot, blob: Some(blob.clone()), frame: 0 });
        Ok(slot)
    }

    /// Makes a block of these bytes and sends its handle, for a process that has no number for a handle. The block
    /// belongs to the reader alone. Returns `None` if that is impossible as well.
    fn send_block_aside(&self, bytes: &[u8], wire: &Wire) -> Option<Result<u16, Unsent>> {
        let tag = tag::BLOCK | u64::from(self.batch);
        let send = || {
            let block = Arena::new(0).block(&[bytes]).ok()?;
            Some(wire.send(tag, &block.handles()))
        };
        let sent = maniple_sys::aside(&[wire.as_handle()], send).ok()??;
        Some(self.noted(sent, "send a large buffer").map(|()| NO_SLOT))
    }

    fn note(&self, wire: &Wire, tag: u64, handles: &[BorrowedHandle<'_>], doing: &'static str) -> Result<(), Unsent> {
        self.noted(wire.send(tag | u64::from(self.batch), handles), doing)
    }

    fn noted(&self, sent: std::io::Result<()>, doing: &'static str) -> Result<(), Unsent> {
        match sent {
            Ok(()) => Ok(()),
            // No frame under way would make room.
            Err(source) if wire::is_crowded(&source) && self.ring.backlog() == 0 => {
                Err(Unsent::Refused(Error::Os { doing, source }))
            }
            Err(source) if is_passing(&source) => {
                let cut_off = matches!(source.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                self.cut_off.fetch_or(cut_off, Ordering::Relaxed);
                Err(Unsent::Full)
            }
            Err(source) => Err(Unsent::Refused(Error::Os { doing, source })),
        }
    }

    /// Releases blocks that their readers no longer use.
    pub fn sweep(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (slots, free) = (&self.slots, &mut self.free_slots);
        self.held.retain(|held| match slots.look(held.slot) {
            Slot::Used => true,
            now => {
                if let (Slot::Retired, Some(blob)) = (now, &held.blob) {
                    blob.give_away();
                }
                free.push(held.slot);
                false
            }
        });
    }

    /// Returns unused memory to the system.
    pub fn trim(&mut self) {
        self.sweep();
        self.bay.trim();
    }

    /// Whether the worker has claimed the frame at `position`, which [`Sender::send`] returned.
    pub fn claimed(&self, position: u64) -> bool {
        // SAFETY: checked just before. The worker is past the overwritten bytes.
        !self.ring.may_hold(position) || unsafe { self.ring.claimed(position) }
    }

    /// Revokes the frame at `position`, which [`Sender::send`] returned, with its buffers and handles. Returns false if
    /// the worker has claimed it first.
    pub fn revoke(&mut self, position: u64) -> bool {
        // SAFETY: as above.
        let revoked = self.ring.may_hold(position) && unsafe { self.ring.revoke(position) };
        if revoked {
            self.release(position);
        }
        revoked
    }

    /// Releases the blocks of a revoked frame, which the reader will never open.
    fn release(&mut self, frame: u64) {
        let free = &mut self.free_slots;
        self.held.retain(|held| {
            if held.frame == frame {
                free.push(held.slot);
            }
            held.frame != frame
        });
    }

    /// Whether the reader has damaged the link.
    pub fn is_damaged(&self) -> bool {
        self.ring.is_damaged()
    }

    /// Whether memory is kept for later frames.
    pub fn keeps_memory(&self) -> bool {
        self.bay.is_touched() || !self.held.is_empty()
    }

    /// Whether the wire has refused a note, because its other end is closed or does not receive.
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Whether the other end is past all sent frames.
    pub fn has_been_read(&self) -> bool {
        self.ring.backlog() == 0
    }

    /// Whether the reader is far behind.
    pub fn is_half_full(&self) -> bool {
        self.ring.is_half_full() || self.bay.is_half_full()
    }
}

/// Too many handles are under way, or there is no reader: the sender causes neither condition, and both end.
fn is_passing(e: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, WouldBlock};
    matches!(e.kind(), WouldBlock | BrokenPipe | ConnectionReset | ConnectionRefused)
        || maniple_sys::wire::is_crowded(e)
}
