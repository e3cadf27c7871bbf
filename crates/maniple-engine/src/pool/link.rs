//! A link: the private line between the hub and one worker. Its layout in shared memory, its frames, and the hub's end.
//!
//! A link is a segment (two rings, two bays, the worker's bell, slots for blocks under way), a wire and, where wanted, a
//! tap on the worker's standard error. All links of a pool share a lifeline and one more page, the *desk*, with the hub's bell. So a worker
//! costs the hub two descriptors, and its watch a third. A worker that goes mad can spoil its own link, which dies with it, and ring the hub's bell too often.
#![allow(unsafe_code)]

use super::packet::{Along, Incoming, Packet};
use crate::error::{Doing, Error, Result};
use crate::process::lifeline::Lifelines;
use crate::shm::bay::{Bay, BayReader, BayWriter};
use crate::shm::bell::Bell;
use crate::shm::blocks::{Arena, Blob};
use crate::shm::cursor::Cursors;
use crate::shm::inbox::{BAY, BLOB_REF, BlobRef, HANDLES, Inbox, NO_SLOT, SLOTS, Slot, Slots, tag};
use crate::shm::ring::{Consumer, Frame, Full, Head, Place, Producer};
use crate::shm::segment::{Segment, create_mapped, open_mapped};
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::epoch::count_forks;
use maniple_sys::memory::Mapping;
use maniple_sys::wire::{self, Wire};
use maniple_sys::{AsHandle, BorrowedHandle};
use maniple_sys::{OwnedHandle, tap};
use rustc_hash::FxHashSet;
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
    /// The function `aux` did not get through, for want of memory or descriptors: the next task that needs it brings it again.
    pub const MISSED: u16 = 21;
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
const TERMINATED_AT: usize = HALFWAY_AT + LINE / 2;
const DOWN_AT: usize = 2 * LINE;
const UP_AT: usize = DOWN_AT + size_of::<Cursors>();
pub(crate) const DOWN_SLOTS_AT: usize = UP_AT + size_of::<Cursors>();
pub(crate) const UP_SLOTS_AT: usize = DOWN_SLOTS_AT + Slots::BYTES;
pub(crate) const DOWN_BAY_AT: usize = UP_SLOTS_AT + Slots::BYTES;
pub(crate) const UP_BAY_AT: usize = DOWN_BAY_AT + LINE;
const DOWN_DATA_AT: usize = UP_BAY_AT + LINE;
const UP_DATA_AT: usize = DOWN_DATA_AT + RING;
// A multiple of any system's pages.
const BAYS_AT: usize = (UP_DATA_AT + RING).next_multiple_of(BAY_STEP);
const BAY_STEP: usize = 64 * 1024;
/// Bytes in a bay, as a rule. Where a file may not be so large, the least that does.
const BAY_BYTES: [usize; 2] = [2 << 20, BAY_STEP];
pub(crate) const DOWN: Place = Place { cursors: DOWN_AT, data: DOWN_DATA_AT, capacity: RING };
pub(crate) const UP: Place = Place { cursors: UP_AT, data: UP_DATA_AT, capacity: RING };

/// The handles that a worker needs, in this order; see [`worker_handles`].
pub(crate) struct Handles {
    pub link: OwnedHandle,
    pub desk: OwnedHandle,
    pub wire: OwnedHandle,
    pub lifeline: OwnedHandle,
    pub stderr: Option<OwnedHandle>,
}

/// How many handles a worker is given: with a tap on its standard error, and without.
pub fn worker_handles(tapped: bool) -> usize {
    4 + usize::from(tapped)
}

impl Handles {
    pub fn into_vec(self) -> Vec<OwnedHandle> {
        [self.link, self.desk, self.wire, self.lifeline].into_iter().chain(self.stderr).collect()
    }

    pub fn from_vec(handles: Vec<OwnedHandle>) -> Result<Handles> {
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

    pub fn open(handle: OwnedHandle) -> Result<Desk> {
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

    pub fn share(&self) -> Result<OwnedHandle> {
        self.0.share()
    }
}

/// What both ends see of a link's segment.
#[derive(Debug, Clone)]
pub(crate) struct Board(Arc<Mapping>);

impl Board {
    /// A new one, and the handle by which the worker opens it.
    pub fn create() -> Result<(Board, OwnedHandle)> {
        let [large, small] = BAY_BYTES.map(|bytes| move || create_mapped("maniple-link", BAYS_AT + 2 * bytes));
        let (memory, handle) = large().or_else(|_| small())?;
        Ok((Board(Arc::new(memory)), handle))
    }

    pub fn open(handle: &OwnedHandle) -> Result<Board> {
        let memory = open_mapped(handle)?;
        if !memory.len().checked_sub(BAYS_AT).is_some_and(|bays| bays > 0 && bays.is_multiple_of(2 * BAY_STEP)) {
            return Err(Error::BadHandles("the link has another size; was the worker started by another version?"));
        }
        Ok(Board(Arc::new(memory)))
    }

    /// All of it.
    #[cfg(any(test, fuzzing))]
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.0
    }

    fn down_bay(&self) -> Bay {
        let capacity = (self.0.len() - BAYS_AT) / 2;
        Bay { word: DOWN_BAY_AT, data: BAYS_AT, capacity }
    }

    fn up_bay(&self) -> Bay {
        let Bay { data, capacity, .. } = self.down_bay();
        Bay { word: UP_BAY_AT, data: data + capacity, capacity }
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

    /// Not 0: the pool was terminated. For those who cannot read the ring, as in a signal's handler.
    pub fn terminated(&self) -> &AtomicU64 {
        // SAFETY: aligned, inside the segment, touched only as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.start().add(TERMINATED_AT).cast().as_ptr()) }
    }

    pub fn worker_side(&self) -> (Reader, Sender) {
        (
            Reader::new(Consumer::new(&self.0, DOWN), Slots::new(&self.0, DOWN_SLOTS_AT), self.down_bay(), &self.0),
            Sender::new(Producer::new(&self.0, UP), Slots::new(&self.0, UP_SLOTS_AT), self.up_bay(), &self.0),
        )
    }

    pub fn hub_side(&self) -> (Reader, Sender) {
        (
            Reader::new(Consumer::new(&self.0, UP), Slots::new(&self.0, UP_SLOTS_AT), self.up_bay(), &self.0),
            Sender::new(Producer::new(&self.0, DOWN), Slots::new(&self.0, DOWN_SLOTS_AT), self.down_bay(), &self.0),
        )
    }
}

/// The sending half of either end: frames, and the buffers and handles that they refer to.
///
/// Handles, those of blocks and the front's, go over the wire as a *batch* under a number of its own, ahead of the frame that names the
/// number, so whoever reads a frame finds its batch. The frame's room in the ring is made sure of first. A batch of several notes may
/// get stuck half-way: it is sent anew under another number, and the reader throws the first part away when it comes to the next
/// batch. A reader that passes over a frame that was taken back throws its batch away. Whatever else is on the wire or with the reader
/// dies with them.
#[derive(Debug)]
pub(crate) struct Sender {
    ring: Producer,
    slots: Slots,
    bay: BayWriter,
    free_slots: Vec<u16>,
    held: Vec<Held>,
    batch: u32,
}

/// A block that a reader may still use.
#[derive(Debug)]
struct Held {
    slot: u16,
    /// None: left to the reader.
    blob: Option<Blob>,
    /// Where the frame that names it stands in the ring.
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
    fn new(ring: Producer, slots: Slots, bay: Bay, memory: &Arc<Mapping>) -> Sender {
        let free_slots = (0..SLOTS as u16).rev().collect();
        Sender { ring, slots, bay: BayWriter::new(memory, bay), free_slots, held: Vec::new(), batch: 0 }
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
                // What was written ahead of the frame is not named by any.
                self.bay.rewind(tail);
                self.free_slots.extend(self.held.drain(taken..).map(|held| held.slot));
                match why {
                    Unsent::Full => Ok(Err(Full)),
                    Unsent::Refused(error) => Err(error),
                }
            }
        }
    }

    /// There is no room: now, or, where the reader has damaged the link, ever.
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
            // Blocks that the reader has need no descriptor here, if they are left to it.
            for blob in self.held.iter_mut().filter_map(|held| held.blob.take()) {
                blob.give_away();
            }
            arena.block(&[bytes])
        })
    }

    /// Sends a block's handle. Gives the slot that its reader puts back, if the block is to be used again.
    fn send_block(&mut self, blob: &Blob, wire: &Wire) -> Result<u16, Unsent> {
        self.note(wire, tag::BLOCK, &blob.handles(), "send a large buffer")?;
        // A reader that keeps more buffers than there are slots is given blocks that never come back.
        let Some(slot) = self.free_slots.pop() else {
            blob.give_away();
            return Ok(NO_SLOT);
        };
        self.slots.take(slot);
        self.held.push(Held { slot, blob: Some(blob.clone()), frame: 0 });
        Ok(slot)
    }

    /// Makes a block of these bytes and sends its handle, where this process has no number for that: the block is the reader's alone. `None`:
    /// that cannot be done either.
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
            // Nothing is on its way that would make room.
            Err(source) if wire::is_crowded(&source) && self.ring.backlog() == 0 => {
                Err(Unsent::Refused(Error::Os { doing, source }))
            }
            Err(source) if is_passing(&source) => Err(Unsent::Full),
            Err(source) => Err(Unsent::Refused(Error::Os { doing, source })),
        }
    }

    /// Lets go of blocks whose readers are done with them.
    pub fn sweep(&mut self) {
        let (slots, free) = (&self.slots, &mut self.free_slots);
        self.held.retain(|held| match slots.look(held.slot) {
            Slot::Used => true,
            now => {
                if let (Slot::Spent, Some(blob)) = (now, &held.blob) {
                    blob.give_away();
                }
                free.push(held.slot);
                false
            }
        });
    }

    /// Lets go of the blocks of a frame that was taken back, which the reader will never open.
    pub fn release(&mut self, frame: u64) {
        let free = &mut self.free_slots;
        self.held.retain(|held| {
            if held.frame == frame {
                free.push(held.slot);
            }
            held.frame != frame
        });
    }

    /// Gives memory back that is not in use.
    pub fn trim(&mut self) {
        self.sweep();
        self.bay.trim();
    }

    /// Whether the worker has claimed the frame at `position`, which [`Sender::send`] gave.
    pub fn claimed(&self, position: u64) -> bool {
        // SAFETY: looked at just before. The worker has gone past what is overwritten.
        !self.ring.may_hold(position) || unsafe { self.ring.claimed(position) }
    }

    /// Takes the frame at `position` back, which [`Sender::send`] gave. False: the worker was first.
    pub fn revoke(&self, position: u64) -> bool {
        // SAFETY: as above.
        self.ring.may_hold(position) && unsafe { self.ring.revoke(position) }
    }

    /// Whether the reader has damaged the link.
    pub fn is_damaged(&self) -> bool {
        self.ring.is_damaged()
    }

    /// Whether the other end is past all that was sent.
    pub fn has_been_read(&self) -> bool {
        self.ring.backlog() == 0
    }

    pub fn is_half_full(&self) -> bool {
        self.ring.backlog() > RING as u64 / 2 || self.bay.is_half_full()
    }
}

/// Too many handles under way, or nobody there to take them: neither is the sender's fault, and both end.
fn is_passing(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, WouldBlock};
    matches!(e.kind(), WouldBlock | BrokenPipe | ConnectionReset | ConnectionRefused)
        || maniple_sys::wire::is_crowded(e)
}

/// The reading half of either end.
#[derive(Debug)]
pub(crate) struct Reader {
    ring: Consumer,
    slots: Slots,
    bay: BayReader,
    pub inbox: Inbox,
}

/// A frame as it was read. The content is an error where this process lacked something for it, which harms no other frame.
#[derive(Debug)]
pub(crate) struct Said {
    pub kind: u16,
    pub aux: u32,
    pub number: u64,
    pub content: Result<Incoming>,
}

impl Reader {
    fn new(ring: Consumer, slots: Slots, bay: Bay, memory: &Arc<Mapping>) -> Reader {
        Reader { ring, slots, bay: BayReader::new(memory, bay), inbox: Inbox::default() }
    }

    pub fn has_news(&mut self) -> bool {
        self.ring.has_news()
    }

    /// The next frame. Those of the kind `claimed` are claimed first, and passed over where they were taken back.
    ///
    /// # Errors
    /// The link is damaged.
    pub fn take(&mut self, claimed: Option<u16>, wire: &Wire) -> Result<Option<Said>> {
        let Reader { ring, slots, bay, inbox } = self;
        loop {
            let Some(frame) = ring.peek()? else { return Ok(None) };
            let Head { len, aux, number, .. } = frame.head;
            let kind = frame.head.kind & !kind::BODY_IN_BLOB;
            if claimed == Some(kind) && !frame.claim() {
                references(&frame)?.iter().try_for_each(|r| passable(inbox.discard(BlobRef::decode(r), wire, bay)))?;
                ring.pop(len);
                continue;
            }
            let mut along = Along::default();
            let mut in_bay: u64 = 0;
            if frame.head.blobs > 0 {
                for bytes in references(&frame)? {
                    along.inline += BLOB_REF;
                    let reference = BlobRef::decode(bytes);
                    if reference.slot == BAY {
                        in_bay = in_bay.saturating_add(reference.len);
                        if in_bay > bay.capacity() as u64 {
                            return Err(Error::Damaged("a frame names more than its bay holds"));
                        }
                    }
                    let read = match reference.slot {
                        HANDLES => inbox.take_handles(reference, wire).map(|handles| along.handles = handles),
                        _ => inbox.open(reference, wire, slots, bay).map(|region| along.regions.push(region)),
                    };
                    match read {
                        Err(error) if error.is_local() => along.missing = Some(error),
                        other => other?,
                    }
                }
            }
            let in_blob = frame.head.kind & kind::BODY_IN_BLOB != 0;
            let content = Incoming::new(&frame.body[along.inline..], along, in_blob);
            ring.pop(len);
            return Ok(Some(Said { kind, aux, number, content }));
        }
    }
}

/// Nothing is lost with a buffer that nobody wants.
fn passable(discarded: Result<()>) -> Result<()> {
    match discarded {
        Err(error) if error.is_local() => Ok(()),
        other => other,
    }
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
    reader: Reader,
    wire: Arc<Wire>,
    pub stderr: Option<Arc<HubOnly>>,
    // Functions that the worker knows.
    pub functions: FxHashSet<u32>,
    // Something was sent since the worker's bell was last rung.
    pub dirty: bool,
}

impl HubLink {
    pub fn create(desk: &Desk, lifelines: &Lifelines, tapped: bool) -> Result<(HubLink, Handles)> {
        count_forks().doing("count forks")?;
        let (board, link) = Board::create()?;
        let (reader, sender) = board.hub_side();
        let (wire, far) = atfork::making(Wire::for_worker).doing("make a socket pair")?;
        let tap = || {
            let (hub, worker) = tap::pair()?;
            Ok::<_, std::io::Error>((HubOnly::new(hub)?, worker))
        };
        let tap = tapped.then(|| atfork::making(tap).doing("make a pipe for a worker's standard error")).transpose()?;
        let (stderr, worker_stderr) = tap.unzip();
        let handles =
            Handles { link, desk: desk.share()?, wire: far, lifeline: lifelines.share()?, stderr: worker_stderr };
        let link = HubLink {
            board,
            sender,
            reader,
            wire: Arc::new(wire),
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
        let said = self.reader.take(None, &self.wire)?;
        if said.is_some() && !self.sender.held.is_empty() {
            // The worker is done with the task's buffers, as a rule: the next task can have their blocks.
            self.sender.sweep();
        }
        Ok(said)
    }

    pub fn has_news(&mut self) -> bool {
        self.reader.has_news()
    }

    /// Whether memory is kept for what is sent next.
    pub fn keeps_memory(&self) -> bool {
        self.sender.bay.is_touched() || !self.sender.held.is_empty()
    }

    /// Takes notes off the wire. False: the worker's end is gone.
    pub fn drain_wire(&mut self) -> Result<bool> {
        self.reader.inbox.drain(&self.wire)
    }

    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub fn set_halfway(&self, number: u64) {
        // A hint: the worker may see it late.
        self.board.halfway().store(number, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod hostile;
