//! Frames in a ring, whose bytes [`cursor`](super::cursor) assigns to a side.
//!
//! A frame is a [`Head`] and its body, contiguous, in a multiple of 8 bytes. A frame that does not fit before the
//! ring's end starts at its beginning; a head of kind [`SKIP`] covers the gap, unless the gap is too small for a head
//! and is implied.
//!
//! `Head::state`, a [`Claim`], is the one word that both sides write after publishing: the consumer claims a frame
//! before it acts on it, and the producer may revoke it. Only the producer reuses the bytes, so it may read a frame's
//! state for as long as it has not overwritten it, whether or not the consumer is still alive.
#![allow(unsafe_code)]

use super::claim::{Claim, WAITING};
use super::cursor::{Cursors, ReadSide, WriteSide};
use crate::error::Error;
use maniple_sys::memory::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;

/// The header before each body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    state: u32,
    /// Bytes in the body.
    pub len: u32,
    /// What kind of frame it is.
    pub kind: u16,
    /// How many blob references the body begins with.
    pub blobs: u16,
    /// A number whose meaning depends on the kind.
    pub aux: u32,
    /// Another one.
    pub number: u64,
}

impl Head {
    /// The head of a frame of this kind, with its two numbers.
    pub fn new(kind: u16, aux: u32, number: u64) -> Head {
        Head { kind, aux, number, ..Head::default() }
    }
}

/// The kind that covers a gap at the ring's end.
pub const SKIP: u16 = u16::MAX;

const HEAD: usize = size_of::<Head>();

/// There is no room for the frame now.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// Where a ring lies in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Offset of its [`Cursors`], a multiple of 128.
    pub cursors: usize,
    /// Offset of its bytes, a multiple of 8.
    pub data: usize,
    /// How many bytes: a power of two, at least 4096.
    pub capacity: usize,
}

#[derive(Debug, Clone)]
struct Memory {
    // Keeps the mapping for as long as a side uses it.
    _segment: Arc<Mapping>,
    cursors: NonNull<Cursors>,
    data: NonNull<u8>,
    capacity: usize,
}

// SAFETY: the pointers lead into the shared segment, which lives as long as `_segment`; access follows the cursor protocol.
unsafe impl Send for Memory {}

impl Memory {
    fn new(segment: &Arc<Mapping>, place: Place) -> Memory {
        assert!(place.capacity.is_power_of_two() && place.capacity >= 4096, "a ring's capacity is a power of two");
        assert!(place.cursors.is_multiple_of(128) && place.data.is_multiple_of(8));
        assert!(place.cursors + size_of::<Cursors>() <= segment.len() && place.data + place.capacity <= segment.len());
        // SAFETY: both offsets were just checked to lie inside the segment.
        let (cursors, data) = unsafe { (segment.start().add(place.cursors).cast(), segment.start().add(place.data)) };
        Memory { _segment: segment.clone(), cursors, data, capacity: place.capacity }
    }

    fn cursors(&self) -> &Cursors {
        // SAFETY: aligned and inside the segment (checked in `new`); atomics may be shared between processes.
        unsafe { self.cursors.as_ref() }
    }

    fn offset(&self, position: u64) -> usize {
        position as usize & (self.capacity - 1)
    }

    fn head_at(&self, position: u64) -> *mut Head {
        // SAFETY: callers pass positions with room for a head before the ring's end.
        unsafe { self.data.as_ptr().add(self.offset(position)).cast() }
    }

    fn state_at(&self, position: u64) -> &Claim {
        // SAFETY: as `head_at`; `state` is the head's first word, aligned, and accessed only through atomics once
        // published.
        unsafe { &*self.head_at(position).cast() }
    }
}

/// Bytes that a frame with this body takes in the ring.
fn span(body: usize) -> usize {
    (HEAD + body).next_multiple_of(8)
}

/// The writing side.
#[derive(Debug)]
pub struct Producer {
    memory: Memory,
    side: WriteSide,
}

impl Producer {
    /// The writing side of a fresh ring.
    pub fn new(segment: &Arc<Mapping>, place: Place) -> Producer {
        Producer { memory: Memory::new(segment, place), side: WriteSide::new(place.capacity as u64) }
    }

    /// The longest body that fits at all.
    pub fn longest(&self) -> usize {
        self.memory.capacity / 4
    }

    /// Whether a frame with a body of so many bytes has room now. It keeps the room until the next push.
    pub fn has_room(&mut self, body: usize) -> bool {
        let (gap, need) = self.place(body);
        body <= self.longest() && self.side.has_room(self.memory.cursors(), (gap + need) as u64)
    }

    /// Bytes that a frame takes, and bytes that are skipped before it because it does not fit before the ring's end.
    fn place(&self, body: usize) -> (usize, usize) {
        let need = span(body);
        let before_end = self.memory.capacity - self.memory.offset(self.side.tail());
        (if need > before_end { before_end } else { 0 }, need)
    }

    /// Writes and publishes a frame whose body is `parts`, one after the other. Returns its position.
    pub fn push(&mut self, head: Head, parts: &[&[u8]]) -> Result<u64, Full> {
        let body: usize = parts.iter().map(|p| p.len()).sum();
        let (gap, need) = self.place(body);
        if body > self.longest() {
            return Err(Full);
        }
        if !self.side.has_room(self.memory.cursors(), (gap + need) as u64) {
            return Err(Full);
        }
        if gap >= HEAD {
            let skip = Head { state: WAITING, len: (gap - HEAD) as u32, kind: SKIP, blobs: 0, aux: 0, number: 0 };
            // SAFETY: `has_room` gave us these bytes, and a head fits before the ring's end.
            unsafe { self.memory.head_at(self.side.tail()).write(skip) };
        }
        let position = self.side.tail() + gap as u64;
        let head = Head { state: WAITING, len: body as u32, ..head };
        // SAFETY: `has_room` gave us `gap + need` bytes from the tail on; the frame does not cross the ring's end.
        unsafe {
            self.memory.head_at(position).write(head);
            let mut at = self.memory.head_at(position).cast::<u8>().add(HEAD);
            for part in parts {
                at.copy_from_nonoverlapping(part.as_ptr(), part.len());
                at = at.add(part.len());
            }
        }
        self.side.publish(self.memory.cursors(), (gap + need) as u64);
        Ok(position)
    }

    /// Whether a pushed frame that no later frame has overwritten may lie at `position`.
    pub fn may_hold(&self, position: u64) -> bool {
        let tail = self.side.tail();
        position.is_multiple_of(8) && position < tail && tail - position <= self.memory.capacity as u64
    }

    /// Whether the consumer has claimed the frame at `position`.
    ///
    /// # Safety
    /// [`Producer::may_hold`] returned true for the position. The result for a position at which no frame begins has no
    /// meaning.
    pub unsafe fn claimed(&self, position: u64) -> bool {
        self.memory.cursors().head() > position || self.memory.state_at(position).is_claimed()
    }

    /// Revokes the frame at `position`. Returns false if the consumer has claimed it first.
    ///
    /// # Safety
    /// As [`Producer::claimed`].
    pub unsafe fn revoke(&self, position: u64) -> bool {
        self.memory.cursors().head() <= position && self.memory.state_at(position).revoke()
    }

    /// Whether the consumer was found beyond the published bytes: it is damaged, and there will never be room.
    pub fn is_damaged(&self) -> bool {
        self.side.has_met_nonsense()
    }

    /// Whether the consumer has not freed more than half of the ring.
    pub fn is_half_full(&self) -> bool {
        self.backlog() > self.memory.capacity as u64 / 2
    }

    /// Published bytes that the consumer has not freed.
    pub fn backlog(&self) -> u64 {
        self.side.tail().saturating_sub(self.memory.cursors().head())
    }
}

/// The reading side.
#[derive(Debug)]
pub struct Consumer {
    memory: Memory,
    side: ReadSide,
}

/// A frame in the ring, until it is popped.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Its head, copied out.
    pub head: Head,
    /// Its body, still in the ring.
    pub body: &'a [u8],
    state: &'a Claim,
}

impl Frame<'_> {
    /// Claims the frame before the consumer acts on it. Returns false if the producer has revoked it.
    pub fn claim(&self) -> bool {
        self.state.claim()
    }
}

impl Consumer {
    /// The reading side of a fresh ring.
    pub fn new(segment: &Arc<Mapping>, place: Place) -> Consumer {
        Consumer { memory: Memory::new(segment, place), side: ReadSide::new(place.capacity as u64) }
    }

    /// Returns the oldest frame, if there is one. It stays until [`Consumer::pop`].
    pub fn peek(&mut self) -> Result<Option<Frame<'_>>, Error> {
        loop {
            let available = self
                .side
                .available(self.memory.cursors())
                .map_err(|_| Error::Damaged("a ring's counter went backwards or too far"))?
                as usize;
            if available == 0 {
                return Ok(None);
            }
            let before_end = self.memory.capacity - self.memory.offset(self.side.head());
            if before_end < HEAD {
                self.skip(before_end, available)?;
                continue;
            }
            let at = self.memory.head_at(self.side.head());
            // SAFETY: the cursor protocol gave us `available` bytes, and a head fits before the ring's end. The state
            // word, which the producer may be changing, is not read here.
            let head = unsafe {
                Head {
                    state: WAITING,
                    len: (&raw const (*at).len).read(),
                    kind: (&raw const (*at).kind).read(),
                    blobs: (&raw const (*at).blobs).read(),
                    aux: (&raw const (*at).aux).read(),
                    number: (&raw const (*at).number).read(),
                }
            };
            let len = head.len as usize;
            if len > before_end - HEAD || span(len) > available {
                return Err(Error::Damaged("a frame is longer than what was published"));
            }
            if head.kind == SKIP {
                if len != before_end - HEAD {
                    return Err(Error::Damaged("a gap does not reach to the end of its ring"));
                }
                self.skip(before_end, available)?;
                continue;
            }
            // SAFETY: the check above ensures that `len` bytes after the head belong to the consumer and lie before the
            // ring's end.
            let body = unsafe {
                std::slice::from_raw_parts(self.memory.head_at(self.side.head()).cast::<u8>().add(HEAD), len)
            };
            let state = self.memory.state_at(self.side.head());
            return Ok(Some(Frame { head, body, state }));
        }
    }

    /// Moves past a gap before the ring's end.
    fn skip(&mut self, gap: usize, available: usize) -> Result<(), Error> {
        if gap > available {
            return Err(Error::Damaged("a gap is longer than what was published"));
        }
        self.side.advance(gap as u64);
        Ok(())
    }

    /// Moves past the frame last peeked at, whose body had `len` bytes, and releases its bytes.
    pub fn pop(&mut self, len: u32) {
        self.side.advance(span(len as usize) as u64);
        self.side.release(self.memory.cursors());
    }

    /// Whether there are further published bytes.
    pub fn has_news(&mut self) -> bool {
        self.side.available(self.memory.cursors()) != Ok(0)
    }

    /// Bytes waiting to be read.
    pub fn backlog(&self) -> u64 {
        self.memory.cursors().tail().saturating_sub(self.side.head())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(capacity: usize) -> (Producer, Consumer) {
        let place = Place { cursors: 0, data: 256, capacity };
        let segment = Arc::new(crate::shm::segment::create_mapped("ring-test", 256 + capacity).unwrap().0);
        (Producer::new(&segment, place), Consumer::new(&segment, place))
    }

    fn head(number: u64) -> Head {
        Head { kind: 1, number, ..Head::default() }
    }

    #[test]
    fn a_revoked_frame_cannot_be_claimed_and_a_claimed_one_cannot_be_revoked() {
        let (mut tx, mut rx) = pair(4096);
        let first = tx.push(head(1), &[b"one"]).unwrap();
        let second = tx.push(head(2), &[b"two"]).unwrap();
        // SAFETY: `push` gave the positions, and nothing is pushed until the end of the test.
        let revoke = |position| unsafe { tx.revoke(position) };
        // SAFETY: as above.
        let claimed = |position| unsafe { tx.claimed(position) };
        assert!(revoke(second));
        let frame = rx.peek().unwrap().unwrap();
        assert!(frame.claim());
        let len = frame.head.len;
        assert!(!revoke(first));
        assert!(claimed(first));
        rx.pop(len);
        assert!(claimed(first));
        assert!(!rx.peek().unwrap().unwrap().claim());
    }

    #[test]
    fn a_counter_that_runs_ahead_is_reported_as_damage() {
        let (tx, mut rx) = pair(4096);
        let mut liar = WriteSide::new(4096);
        liar.publish(tx.memory.cursors(), 1 << 40);
        assert!(matches!(rx.peek(), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_gap_that_was_not_published_is_reported_as_damage() {
        // A gap that covers the whole ring, one that ends early, and one that is implied.
        for (at, len) in [(0, 4096 - HEAD), (0, 0), (0, 8), (1024, 4096 - 1024 - HEAD), (4096 - 16, 0)] {
            let (mut tx, mut rx) = pair(4096);
            tx.side.publish(tx.memory.cursors(), at as u64);
            assert_eq!(rx.side.available(rx.memory.cursors()), Ok(at as u64));
            rx.side.advance(at as u64);
            if at + HEAD <= 4096 {
                let skip = Head { state: WAITING, len: len as u32, kind: SKIP, ..Head::default() };
                // SAFETY: a head fits there.
                unsafe { tx.memory.head_at(at as u64).write(skip) };
            }
            tx.side.publish(tx.memory.cursors(), HEAD.min(4096 - at).min(8.max(4096 - at - 8)) as u64);
            assert!(matches!(rx.peek(), Err(Error::Damaged(_))), "a gap of {len} bytes at {at}");
        }
    }

    #[test]
    fn a_reader_that_claims_more_than_was_written_is_found_out() {
        for head in [1 << 40, 8] {
            let (mut tx, rx) = pair(4096);
            let mut liar = ReadSide::new(4096);
            liar.advance(head);
            liar.release(rx.memory.cursors());
            while tx.push(Head::default(), &[&[0; 1000]]).is_ok() {}
            assert!(tx.is_damaged() || head == 8);
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(sizes in prop::collection::vec((0usize..1024, any::<bool>()), 1..400)) {
            let (mut tx, mut rx) = pair(4096);
            let (mut sent, mut seen) = (0u64, 0u64);
            let mut expected = std::collections::VecDeque::new();
            for (size, drain) in sizes {
                let body = vec![size as u8; size];
                let (left, right) = body.split_at(size / 2);
                if tx.push(head(sent), &[left, right]).is_ok() {
                    expected.push_back(body);
                    sent += 1;
                }
                if drain {
                    while let Some(frame) = rx.peek().unwrap() {
                        prop_assert_eq!(frame.head.number, seen);
                        let want = expected.pop_front().unwrap();
                        prop_assert_eq!(frame.body, &want[..]);
                        let len = frame.head.len;
                        rx.pop(len);
                        seen += 1;
                    }
                    prop_assert_eq!(seen, sent);
                    prop_assert_eq!(tx.backlog(), 0);
                }
            }
        }
    }
}
