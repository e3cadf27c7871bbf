//! The two counters of a single-producer single-consumer ring, and nothing else: which side may touch which bytes, and when.
//!
//! The algorithm is Lamport's ring ("Specifying Concurrent Program Modules", 1983) with the cached counters of FastForward
//! and its successors: each side keeps a private copy of the other's counter and looks at the shared one only when the copy
//! says there is no room (or nothing to read), so a busy ring moves cache lines once per batch, not once per frame.
//!
//! * Counters count bytes since the beginning and never wrap (2^64 bytes take centuries); the place in the ring is the
//!   counter modulo the capacity, a power of two.
//! * `tail` is written by the producer only, `head` by the consumer only. Bytes in `head..tail` belong to the consumer, the
//!   others to the producer.
//! * The producer publishes with `tail.store(Release)`; the consumer's `tail.load(Acquire)` sees all bytes below it. The
//!   consumer releases bytes with `head.store(Release)`, seen by the producer's `head.load(Acquire)`.
//! * A producer that dies before its store leaves bytes that no side sees. A consumer that dies leaves the ring as it was:
//!   the producer may read `head` and knows what had been taken.

use super::atomic::{AtomicU64, Ordering};

/// Both counters, each on cache lines of its own (two: processors fetch pairs).
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Cursors {
    tail: Line,
    head: Line,
}

#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Line(AtomicU64);

impl Cursors {
    /// How far the producer has published.
    pub fn tail(&self) -> u64 {
        // Partner: `WriteSide::publish`.
        self.tail.0.load(Ordering::Acquire)
    }

    /// How far the consumer has given bytes back.
    pub fn head(&self) -> u64 {
        // Partner: `ReadSide::release`.
        self.head.0.load(Ordering::Acquire)
    }
}

/// The producer's private half.
#[derive(Debug)]
pub struct WriteSide {
    capacity: u64,
    tail: u64,
    head_seen: u64,
    nonsense: bool,
}

impl WriteSide {
    /// For a ring of `capacity` bytes that was not written to yet.
    pub fn new(capacity: u64) -> WriteSide {
        WriteSide { capacity, tail: 0, head_seen: 0, nonsense: false }
    }

    /// Where the next byte goes.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether `need` more bytes fit now.
    pub fn has_room(&mut self, cursors: &Cursors, need: u64) -> bool {
        if self.tail + need - self.head_seen <= self.capacity {
            return true;
        }
        let head = cursors.head();
        // A head outside what was published is the mark of a damaged consumer: never believe it.
        if head > self.tail || head < self.head_seen {
            self.nonsense = true;
            return false;
        }
        self.head_seen = head;
        self.tail + need - self.head_seen <= self.capacity
    }

    /// Whether the consumer's counter was found to make no sense.
    pub fn has_met_nonsense(&self) -> bool {
        self.nonsense
    }

    /// Hands the next `len` bytes, written before, to the consumer.
    pub fn publish(&mut self, cursors: &Cursors, len: u64) {
        self.tail += len;
        // Partner: `Cursors::tail` in the consumer.
        cursors.tail.0.store(self.tail, Ordering::Release);
    }
}

/// The consumer's private half.
#[derive(Debug)]
pub struct ReadSide {
    capacity: u64,
    head: u64,
    tail_seen: u64,
}

/// The producer's counter makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub struct Nonsense;

impl ReadSide {
    /// For a ring of `capacity` bytes of which nothing was read.
    pub fn new(capacity: u64) -> ReadSide {
        ReadSide { capacity, head: 0, tail_seen: 0 }
    }

    /// Where the next byte is read.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How many bytes can be read now; looks at the shared counter only when none are known of.
    pub fn available(&mut self, cursors: &Cursors) -> Result<u64, Nonsense> {
        if self.tail_seen == self.head {
            let tail = cursors.tail();
            if tail < self.tail_seen || tail - self.head > self.capacity {
                return Err(Nonsense);
            }
            self.tail_seen = tail;
        }
        Ok(self.tail_seen - self.head)
    }

    /// Moves past `len` bytes without giving them back yet.
    pub fn advance(&mut self, len: u64) {
        self.head += len;
    }

    /// Releases all that was moved past.
    pub fn release(&self, cursors: &Cursors) {
        // Partner: `Cursors::head` in the producer.
        cursors.head.0.store(self.head, Ordering::Release);
    }
}
