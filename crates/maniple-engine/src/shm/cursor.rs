//! The two counters of a single-producer single-consumer ring: which side may access which bytes, and when.
//!
//! The algorithm is Lamport's ring ("Specifying Concurrent Program Modules", 1983) with the cached counters of
//! FastForward and its successors: each side keeps a private copy of the other's counter and reads the shared counter
//! only if the copy shows no room (or nothing to read), so a busy ring moves cache lines once per batch, not once per
//! frame.
//!
//! * Counters count bytes since the beginning and never wrap (2^64 bytes take centuries); the place in the ring is the
//!   counter modulo the capacity, a power of two.
//! * `tail` is written by the producer only, `head` by the consumer only. Bytes in `head..tail` belong to the consumer, the
//!   others to the producer.
//! * The producer publishes with `tail.store(Release)`; the consumer's `tail.load(Acquire)` sees all bytes below it. The
//!   consumer releases bytes with `head.store(Release)`, seen by the producer's `head.load(Acquire)`.
//! * A producer that dies before its store leaves bytes that no side sees. A consumer that dies leaves the ring as it
//!   was: the producer may read `head`, and so knows what was taken.

use super::atomic::{AtomicU64, Ordering};

/// Both counters, each on separate cache lines (two: processors fetch pairs).
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

    /// How far the consumer has freed bytes.
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
    /// For a ring of `capacity` bytes that is not written to yet.
    pub fn new(capacity: u64) -> WriteSide {
        WriteSide { capacity, tail: 0, head_seen: 0, nonsense: false }
    }

    /// The position of the next byte to write.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether `need` more bytes fit now.
    pub fn has_room(&mut self, cursors: &Cursors, need: u64) -> bool {
        if self.tail + need - self.head_seen <= self.capacity {
            return true;
        }
        let head = cursors.head();
        // A head outside of the published bytes shows a damaged consumer, and is never used.
        if head > self.tail || head < self.head_seen {
            self.nonsense = true;
            return false;
        }
        self.head_seen = head;
        self.tail + need - self.head_seen <= self.capacity
    }

    /// Whether the consumer's counter was found to be invalid.
    pub fn has_met_nonsense(&self) -> bool {
        self.nonsense
    }

    /// Passes the next `len` bytes, written before, to the consumer.
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

/// The producer's counter is invalid.
#[derive(Debug, PartialEq, Eq)]
pub struct Nonsense;

impl ReadSide {
    /// For a ring of `capacity` bytes of which nothing was read.
    pub fn new(capacity: u64) -> ReadSide {
        ReadSide { capacity, head: 0, tail_seen: 0 }
    }

    /// The position of the next byte to read.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Returns how many bytes can be read now. Reads the shared counter only if none are known.
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

    /// Moves past `len` bytes without freeing them yet.
    pub fn advance(&mut self, len: u64) {
        self.head += len;
    }

    /// Frees all bytes up to the current position.
    pub fn release(&self, cursors: &Cursors) {
        // Partner: `Cursors::head` in the producer.
        cursors.head.0.store(self.head, Ordering::Release);
    }
}
