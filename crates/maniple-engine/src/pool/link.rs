//! A link: the private line between the hub and one worker. Its layout in shared memory, its frames, and the hub's end.
//!
//! A link is a segment (two rings, the worker's bell, slots for blobs under way), a wire, a lifeline and, where wanted, a
//! tap on the worker's standard error. All links of a pool share one more page, the *desk*, with the hub's bell. A worker
//! that goes mad can spoil its own link, which dies with it, and ring the hub's bell too often.
#![allow(unsafe_code)]

use super::packet::{Along, Incoming, Packet};
use crate::error::{Doing, Error, Result};
use crate::process::epoch::count_forks;
use crate::process::lifeline;
use crate::shm::bell::Bell;
use crate::shm::blocks::{Arena, Blob};
use crate::shm::cursor::Cursors;
use crate::shm::inbox::{BLOB_REF, BlobRef, HANDLES, Inbox, NO_SLOT, SLOTS, Slot, Slots, tag};
use crate::shm::ring::{Consumer, Frame, Full, Head, Place, Producer};
use crate::shm::segment::Segment;
use crate::sys::wire::{self, Wire};
use crate::sys::{Handle, tap};
use rustc_hash::FxHashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of frames. Hub to worker below 16, worker to hub from there on.
pub(crate) mod kind {
    /// A function: `aux` is its number.
    pub const DEFINE: u16 = 1;
    /// The function `aux` is not needed any more.
    pub const FORGET: u16 = 2;
    /// A task of function `aux`; `number` is its number on the link.
    pub const TASK: u16 = 3;
    /// Nothing more will come.
    pub const STOP: u16 = 4;
    /// The worker is ready.
    pub const HELLO: u16 = 16;
    /// Task `number` gave a result; `aux` is how long it took, in nanoseconds.
    pub const DONE: u16 = 17;
    /// Task `number` failed; the body says how.
    pub const FAILED: u16 = 18;
    /// The worker could not get ready; the body says why.
    pub const UNFIT: u16 = 19;
    /// The handles of task `number` have arrived: the hub need not keep its own open.
    pub const TAKEN: u16 = 20;
    /// Flag: the first blob is the body.
    pub const BODY_IN_BLOB: u16 = 0x100;
}

/// Levels of the hub's bell: what its sleeper wants to be woken for, and where it sleeps.
pub(crate) mod level {
    /// A caller sleeps on the bell itself and wants all news.
    pub const CALLER: u32 = 1;
    /// The same, but only where a worker is half through what it has.
    pub const CALLER_HALF: u32 = 2;
    /// Nobody waits; the keeper, reached over the wire, wants all news.
    pub const KEEPER: u32 = 3;
    /// The same, but only where a worker is half through what it has.
    pub const KEEPER_HALF: u32 = 4;
    /// Nobody waits and there is nothing to hand out: the keeper comes only where answers fill a worker's ring.
    pub const KEEPER_FULL: u32 = 5;
}

const RING: usize = 256 * 1024;
const LINE: usize = 128;
const BELL_AT: usize = 0;
const HALFWAY_AT: usize = LINE;
const DOWN_AT: usize = 2 * LINE;
const UP_AT: usize = DOWN_AT + size_of::<Cursors>();
const DOWN_SLOTS_AT: usize = UP_AT + size_of::<Cursors>();
const UP_SLOTS_AT: usize = DOWN_SLOTS_AT + Slots::BYTES;
const DOWN_DATA_AT: usize = UP_SLOTS_AT + Slots::BYTES;
const UP_DATA_AT: usize = DOWN_DATA_AT + RING;
const LINK_BYTES: usize = UP_DATA_AT + RING;
const DOWN: Place = Place { cursors: DOWN_AT, data: DOWN_DATA_AT, capacity: RING };
const UP: Place = Place { cursors: UP_AT, data: UP_DATA_AT, capacity: RING };

/// The handles that a worker needs, in this order; see [`worker_handles`].
pub(crate) struct Handles {
    pub link: Handle,
    pub desk: Handle,
    pub wire: Handle,
    pub lifeline: Handle,
    pub stderr: Option<Handle>,
}

/// How many handles a worker is given: with a tap on its standard error, and without.
pub fn worker_handles(tapped: bool) -> usize {
    4 + usize::from(tapped)
}

impl Handles {
    pub fn into_vec(self) -> Vec<Handle> {
        [self.link, self.desk, self.wire, self.lifeline].into_iter().chain(self.stderr).collect()
    }

    pub fn from_vec(handles: Vec<Handle>) -> Result<Handles> {
        let count = handles.len();
        let mut all = handles.into_iter();
        match (all.next(), all.next(), all.next(), all.next(), all.next(), all.next()) {
            (Some(link), Some(desk), Some(wire), Some(lifeline), stderr, None) => {
                Ok(Handles { link, desk, wire, lifeline, stderr })
            }
            _ if count == 0 => Err(Error::BadHandles("there are none")),
            _ => Err(Error::BadHandles("their number is wrong")),
        }
    }
}

/// The page that all links of a pool share: the hub's bell.
#[derive(Debug, Clone)]
pub(crate) struct Desk(Arc<Segment>);

impl Desk {
    pub fn create() -> Result<Desk> {
        Ok(Desk(Arc::new(Segment::create("maniple-desk", 4096)?)))
    }

    pub fn open(handle: Handle) -> Result<Desk> {
        let segment = Segment::open(handle)?;
        if segment.len() < size_of::<Bell>() {
            return Err(Error::BadHandles("the desk is too small"));
        }
        Ok(Desk(Arc::new(segment)))
    }

    pub fn bell(&self) -> &Bell {
        // SAFETY: the segment is page-aligned, larger than a bell, and zeroed memory is a valid one.
        unsafe { self.0.start().cast().as_ref() }
    }

    pub fn share(&self) -> Result<Handle> {
        self.0.share()
    }
}

/// What both ends see of a link's segment.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Segment>);

impl Board {
    pub fn open(handle: Handle) -> Result<Board> {
        let segment = Segment::open(handle)?;
        if segment.len() != LINK_BYTES {
            return Err(Error::BadHandles("the link has another size; was the worker started by another version?"));
        }
        Ok(Board(Arc::new(segment)))
    }

    /// The worker's bell: level 1 while it sleeps.
    pub fn bell(&self) -> &Bell {
        // SAFETY: aligned, inside the segment, and zeroed memory is a valid bell.
        unsafe { self.0.start().add(BELL_AT).cast().as_ref() }
    }

    /// The number of the task after which a hub that sleeps at a "half" level wants to be woken.
    pub fn halfway(&self) -> &AtomicU64 {
        // SAFETY: aligned, inside the segment, touched only as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.start().add(HALFWAY_AT).cast().as_ptr()) }
    }

    pub fn worker_side(&self) -> (Consumer, Producer, Slots, Slots) {
        (
            Consumer::new(&self.0, DOWN),
            Producer::new(&self.0, UP),
            Slots::new(&self.0, DOWN_SLOTS_AT),
            Slots::new(&self.0, UP_SLOTS_AT),
        )
    }

    fn hub_side(&self) -> (Producer, Consumer, Slots, Slots) {
        (
            Producer::new(&self.0, DOWN),
            Consumer::new(&self.0, UP),
            Slots::new(&self.0, DOWN_SLOTS_AT),
            Slots::new(&self.0, UP_SLOTS_AT),
        )
    }
}

/// The sending half of either end: frames, and the blobs and handles that they refer to.
///
/// Handles go over the wire as a *batch* under a number of its own, ahead of the frame that names the number, so whoever reads a frame
/// finds its batch. The frame's room in the ring is made sure of first. A batch of several notes may get stuck half-way: it is sent
/// anew under another number, and the reader throws the first part away when it comes to the next batch. A reader that passes over a
/// frame that was taken back throws its batch away. Whatever else is on the wire or with the reader dies with them.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Producer,
    slots: Slots,
    free_slots: Vec<u16>,
    held: Vec<(u16, Blob)>,
    known: FxHashSet<u32>,
    evictions: u64,
    batch: u32,
}

impl Sender {
    pub fn new(ring: Producer, slots: Slots) -> Sender {
        let free_slots = (0..SLOTS as u16).rev().collect();
        Sender { ring, slots, free_slots, held: Vec::new(), known: FxHashSet::default(), evictions: 0, batch: 0 }
    }

    /// Sends a frame. `Ok(Err(Full))`: no room now; nothing was sent.
    pub fn send(&mut self, head: Head, packet: &Packet, wire: &Wire, arena: &Arena) -> Result<Result<u64, Full>> {
        let count = packet.blobs.len() + usize::from(!packet.handles.is_empty());
        if count == 0 {
            return Ok(self.ring.push(head, &[packet.bytes.as_slice()]));
        }
        if !self.ring.has_room(count * BLOB_REF + packet.bytes.as_slice().len()) {
            return Ok(Err(Full));
        }
        self.sweep();
        self.tell_evicted(wire, arena);
        // A reader that keeps more buffers than there are slots is given blocks that never come back.
        let giving_away = self.free_slots.len() < packet.blobs.len();
        for blob in &packet.blobs {
            if giving_away || !self.known.contains(&blob.id()) {
                match wire.send(tag::BLOCK | u64::from(blob.id()), blob.handle().as_slice()) {
                    Ok(()) => {}
                    // Full, or the other end is gone, whose death is reported by other means.
                    Err(e) if is_passing(&e) => return Ok(Err(Full)),
                    Err(source) => return Err(Error::Os { doing: "send a handle on a shared-memory block", source }),
                }
                if !giving_away {
                    self.known.insert(blob.id());
                }
            }
        }
        let batch = match self.send_handles(&packet.handles, wire)? {
            Ok(batch) => batch,
            Err(full) => return Ok(Err(full)),
        };
        let slots: Vec<u16> = if giving_away {
            packet.blobs.iter().for_each(Blob::give_away);
            vec![NO_SLOT; packet.blobs.len()]
        } else {
            self.free_slots.split_off(self.free_slots.len() - packet.blobs.len())
        };
        let mut refs = Vec::with_capacity(count * BLOB_REF);
        for (blob, &slot) in packet.blobs.iter().zip(&slots) {
            if slot != NO_SLOT {
                self.slots.take(slot);
            }
            let reference = BlobRef { block: blob.id(), slot, len: blob.len() as u64 };
            refs.extend_from_slice(&reference.encode());
        }
        refs.extend(batch.into_iter().flat_map(BlobRef::encode));
        let flag = if packet.body_in_blob { kind::BODY_IN_BLOB } else { 0 };
        let mut head = head;
        head.kind |= flag;
        head.blobs = count as u16;
        match self.ring.push(head, &[&refs, packet.bytes.as_slice()]) {
            Ok(position) => {
                self.held.extend(slots.into_iter().zip(packet.blobs.iter().cloned()).filter(|(s, _)| *s != NO_SLOT));
                Ok(Ok(position))
            }
            Err(full) => {
                self.free_slots.extend(slots.into_iter().filter(|&s| s != NO_SLOT));
                Ok(Err(full))
            }
        }
    }

    /// Gives the reference to them, if there are any.
    fn send_handles(&mut self, handles: &[Handle], wire: &Wire) -> Result<Result<Option<BlobRef>, Full>> {
        if handles.is_empty() {
            return Ok(Ok(None));
        }
        self.batch = self.batch.wrapping_add(1);
        for part in handles.chunks(wire::MOST) {
            let part: Vec<BorrowedFd<'_>> = part.iter().map(AsFd::as_fd).collect();
            match wire.send(tag::HANDLES | u64::from(self.batch), &part) {
                Ok(()) => {}
                Err(e) if is_passing(&e) => return Ok(Err(Full)),
                Err(source) => return Err(Error::Os { doing: "send the descriptors in a value", source }),
            }
        }
        Ok(Ok(Some(BlobRef { block: self.batch, slot: HANDLES, len: handles.len() as u64 })))
    }

    /// Lets go of blobs whose readers are done with them.
    pub fn sweep(&mut self) {
        let (slots, free) = (&self.slots, &mut self.free_slots);
        self.held.retain(|(slot, blob)| match slots.look(*slot) {
            Slot::Used => true,
            now => {
                if now == Slot::Spent {
                    blob.give_away();
                }
                free.push(*slot);
                false
            }
        });
    }

    /// Lets go of the blobs of a task that was taken back, which the reader will never open.
    pub fn release(&mut self, packet: &Packet) {
        for blob in &packet.blobs {
            if let Some(at) = self.held.iter().position(|(_, held)| held.id() == blob.id()) {
                let (slot, _) = self.held.swap_remove(at);
                self.free_slots.push(slot);
            }
        }
    }

    fn tell_evicted(&mut self, wire: &Wire, arena: &Arena) {
        let (evicted, seen) = arena.evicted_since(self.evictions);
        self.evictions = seen;
        let evicted = evicted.unwrap_or_else(|| {
            // Too many to have heard of each. Whatever is not under way can be sent anew.
            let held = |block: &u32| self.held.iter().any(|(_, blob)| blob.id() == *block);
            self.known.iter().copied().filter(|block| !held(block)).collect()
        });
        for block in evicted {
            if self.known.remove(&block) {
                // Full or gone: the reader keeps a mapping that it does not need, no more.
                let _ = wire.send(tag::FORGET | u64::from(block), &[]);
            }
        }
    }

    pub fn claimed(&self, position: u64) -> bool {
        self.ring.claimed(position)
    }

    pub fn revoke(&self, position: u64) -> bool {
        self.ring.revoke(position)
    }

    pub fn is_half_full(&self) -> bool {
        self.ring.backlog() > RING as u64 / 2
    }
}

/// Too many handles under way, or nobody there to take them: neither is the sender's fault, and both end.
fn is_passing(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, WouldBlock};
    matches!(e.kind(), WouldBlock | BrokenPipe | ConnectionReset | ConnectionRefused) || crate::sys::wire::is_crowded(e)
}

/// What a frame refers to.
pub(crate) fn open_blobs(frame: &Frame<'_>, inbox: &mut Inbox, wire: &Wire, slots: &Slots) -> Result<Along> {
    let mut along = Along::default();
    if frame.head.blobs == 0 {
        return Ok(along);
    }
    for bytes in references(frame)? {
        along.inline += BLOB_REF;
        match BlobRef::decode(bytes) {
            reference if reference.slot == HANDLES => along.handles = inbox.take_handles(reference, wire)?,
            reference => along.regions.push(inbox.open(reference, wire, slots)?),
        }
    }
    Ok(along)
}

/// Lets go of what a frame refers to that was taken back.
pub(crate) fn pass_over(frame: &Frame<'_>, inbox: &mut Inbox, wire: &Wire) -> Result<()> {
    references(frame)?.iter().try_for_each(|bytes| inbox.discard(BlobRef::decode(bytes), wire))
}

fn references<'a>(frame: &Frame<'a>) -> Result<&'a [[u8; BLOB_REF]]> {
    let end = usize::from(frame.head.blobs) * BLOB_REF;
    let refs = frame.body.get(..end).ok_or(Error::Damaged("a frame is shorter than its blob references"))?;
    Ok(refs.as_chunks::<BLOB_REF>().0)
}

/// The hub's end.
#[derive(Debug)]
pub(crate) struct HubLink {
    pub board: Board,
    sender: Sender,
    up: Consumer,
    up_slots: Slots,
    wire: Arc<Wire>,
    inbox: Inbox,
    // Held for as long as the worker may live.
    _lifeline: lifeline::LifelineHub,
    pub stderr: Option<Arc<Handle>>,
    // Functions that the worker knows.
    pub functions: FxHashSet<u32>,
    // Something was sent since the worker's bell was last rung.
    pub dirty: bool,
}

/// What a worker said.
#[derive(Debug)]
pub(crate) struct Said {
    pub kind: u16,
    pub nanos: u64,
    pub number: u64,
    pub content: Incoming,
}

impl HubLink {
    pub fn create(desk: &Desk, tapped: bool) -> Result<(HubLink, Handles)> {
        count_forks().doing("count forks")?;
        let board = Board(Arc::new(Segment::create("maniple-link", LINK_BYTES)?));
        let (down, up, down_slots, up_slots) = board.hub_side();
        let (wire, far) = Wire::pair().doing("make a socket pair")?;
        let (lifeline, worker_lifeline) = lifeline::pair()?;
        let (stderr, worker_stderr) = if tapped {
            let (hub, worker) = tap::pair().doing("make a pipe for a worker's standard error")?;
            (Some(hub), Some(worker))
        } else {
            (None, None)
        };
        let handles = Handles {
            link: board.0.share()?,
            desk: desk.share()?,
            wire: far.into_handle(),
            lifeline: worker_lifeline,
            stderr: worker_stderr,
        };
        let link = HubLink {
            board,
            sender: Sender::new(down, down_slots),
            up,
            up_slots,
            wire: Arc::new(wire),
            inbox: Inbox::default(),
            _lifeline: lifeline,
            stderr: stderr.map(Arc::new),
            functions: FxHashSet::default(),
            dirty: false,
        };
        Ok((link, handles))
    }

    pub fn send(&mut self, head: Head, packet: &Packet, arena: &Arena) -> Result<Result<u64, Full>> {
        self.dirty = true;
        self.sender.send(head, packet, &self.wire, arena)
    }

    pub fn signal(&mut self, kind: u16, aux: u32) -> bool {
        self.dirty = true;
        self.sender.ring.push(Head::new(kind, aux, 0), &[]).is_ok()
    }

    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Wakes the worker if it sleeps and something was sent.
    pub fn ring(&mut self) {
        if std::mem::take(&mut self.dirty) && self.board.bell().ring(|_| true).is_some() {
            self.board.bell().wake();
        }
    }

    /// The next thing that the worker said.
    pub fn hear(&mut self) -> Result<Option<Said>> {
        let Some(frame) = self.up.peek()? else { return Ok(None) };
        let along = open_blobs(&frame, &mut self.inbox, &self.wire, &self.up_slots)?;
        let in_blob = frame.head.kind & kind::BODY_IN_BLOB != 0;
        let said = Said {
            kind: frame.head.kind & !kind::BODY_IN_BLOB,
            nanos: u64::from(frame.head.aux),
            number: frame.head.number,
            content: Incoming::new(&frame.body[along.inline..], along, in_blob),
        };
        let len = frame.head.len;
        self.up.pop(len);
        if !self.sender.held.is_empty() {
            // The worker is done with the task's buffers, as a rule: the next task can have their blocks.
            self.sender.sweep();
        }
        Ok(Some(said))
    }

    pub fn has_news(&mut self) -> bool {
        self.up.has_news()
    }

    /// Takes notes off the wire. False: the worker's end is gone.
    pub fn drain_wire(&mut self) -> Result<bool> {
        self.inbox.drain(&self.wire)
    }

    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub fn set_halfway(&self, number: u64) {
        // A hint: the worker may see it late.
        self.board.halfway().store(number, Ordering::Relaxed);
    }
}
