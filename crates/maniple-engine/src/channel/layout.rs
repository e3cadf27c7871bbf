//! The words at the head of a log's memory.
//!
//! | word | written by | meaning |
//! | --- | --- | --- |
//! | `writers.lock`, `readers.lock` | | one writer, one reader at a time; the kernel passes it on when a holder dies |
//! | `writers.at` (*tail*) | the writer | position behind the last message; storing it publishes the message |
//! | `readers.at` (*head*) | the reader | position of the next message; storing it takes the message |
//! | `count` | with `at` | messages put, messages taken |
//! | `base` | the writer, only while head = tail | the position that lies at the start of the data |
//! | `size` | the creator | bytes of data; the data is a ring of so many |
//! | `used` | the writer | how far from `base` the memory has been written to: it has pages, except where they were returned |
//! | `recent` | the writer | how far from `base` it has written since the log was last looked at (`log/sides.rs`) |
//! | `ready` | the writer | how far from `base` pages were made to be written to |
//! | `freed`, `freed_base` | the reader | up to where pages behind the head were returned to the system, and under which base |
//! | `readers` | anyone | sleeping readers ([`wait_count`](crate::shm::wait_count)) |
//! | `room`, `pacing` | anyone | a futex for writers that let readers catch up, and whether there may be any |
//! | `watched` | anyone, 0 → 1 | a process waits by descriptor: see [`log`](super::log) |
//! | `counted` | the writer, before it publishes | messages put so far that have to be reported done (wraps) |
//! | `done` | anyone, never beyond `counted` | messages reported done (wraps); a futex for threads that wait for the rest |
//! | `counting` | the writer | 1 from before it counts a message until it has published it |
//! | `counting_at`, `counted_before` | the writer, before `counting` | the tail and `counted` at that moment |
//! | `closed` | anyone who holds the writers' lock, 0 → 1 → 2 | 1: nothing more is put; 2: and no caller wants the messages |
//! | `bound` | the creator | the greatest number of messages; 0: any number |
//!
//! `at` and `count` change together although they are two words: the next values of both are noted first, so that the
//! holder after a dead one can tell whether the message was published (`Side::mend`). A writer that finds `counting`
//! set succeeds a writer that died. It learns from the tail whether the message was published, and so whether the count
//! is right (`Header::mend_counted`).

use crate::shm::wait_count::WaitCount;
use maniple_sys::memory;
use maniple_sys::mutex::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes before the data.
pub const HEAD: usize = memory::PAGES;
/// First word: this layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"mnplog04");

/// One side of the log.
#[repr(C, align(128))]
pub struct Side {
    pub lock: Mutex,
    pub at: AtomicU64,
    pub count: AtomicU64,
    next_at: AtomicU64,
    next_count: AtomicU64,
}

/// The head page.
#[repr(C)]
pub struct Header {
    pub magic: AtomicU64,
    pub writers: Side,
    pub size: AtomicU64,
    pub ready: AtomicU64,
    pub used: AtomicU64,
    pub recent: AtomicU64,
    pub base: AtomicU64,
    pub readers: Side,
    pub freed: AtomicU64,
    pub freed_base: AtomicU64,
    pub calls: Calls,
}

/// What wakes those who wait.
#[repr(C, align(128))]
pub struct Calls {
    pub readers: WaitCount,
    pub room: AtomicU32,
    pub pacing: AtomicU32,
    pub watched: AtomicU32,
    pub counted: AtomicU32,
    pub done: AtomicU32,
    pub counting: AtomicU32,
    pub counted_before: AtomicU32,
    pub counting_at: AtomicU64,
    pub closed: AtomicU32,
    pub bound: AtomicU64,
}

const _: () = assert!(size_of::<Header>() <= HEAD);

impl Header {
    /// Records that the memory has been written to up to `end`. The caller holds the writers' lock, so only the reset of
    /// `recent` can come between. Then `recent` may be too large once, which costs a second of idle memory.
    pub fn has_used(&self, end: u64) {
        for word in [&self.used, &self.recent] {
            if word.load(Ordering::Relaxed) < end {
                word.store(end, Ordering::Relaxed);
            }
        }
    }

    /// Counts a message that is to be reported done and is about to be published at `tail`. The caller holds the writers' lock.
    pub fn count(&self, tail: u64) {
        let calls = &self.calls;
        let counted = calls.counted.load(Ordering::Relaxed);
        calls.counting_at.store(tail, Ordering::Relaxed);
        calls.counted_before.store(counted, Ordering::Relaxed);
        // Partner: `mend_counted`, through the lock, which the kernel passes on. A death leaves the first of these
        // stores, in order.
        calls.counting.store(1, Ordering::Release);
        calls.counted.store(counted.wrapping_add(1), Ordering::Release);
    }

    /// Takes back the count of a writer that died before it published. The caller holds the writers' lock.
    pub fn mend_counted(&self) {
        let calls = &self.calls;
        if calls.counting.load(Ordering::Acquire) != 0 {
            if self.writers.at.load(Ordering::Relaxed) == calls.counting_at.load(Ordering::Relaxed) {
                calls.counted.store(calls.counted_before.load(Ordering::Relaxed), Ordering::Release);
            }
            calls.counting.store(0, Ordering::Release);
        }
    }
}

impl Side {
    /// Advances by one message. The caller holds the lock.
    pub fn advance(&self, to: u64) {
        let count = self.count.load(Ordering::Relaxed).wrapping_add(1);
        self.next_at.store(to, Ordering::Relaxed);
        self.next_count.store(count, Ordering::Relaxed);
        // Partner: every load of `at` with Acquire: the message's bytes (or the end of reading them) come before.
        self.at.store(to, Ordering::Release);
        self.count.store(count, Ordering::Relaxed);
    }

    /// Corrects `count` after the death of a holder. The caller holds the lock.
    pub fn mend(&self) {
        if self.at.load(Ordering::Relaxed) == self.next_at.load(Ordering::Relaxed) {
            self.count.store(self.next_count.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}
