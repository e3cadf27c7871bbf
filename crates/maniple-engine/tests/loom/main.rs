//! The shared-memory protocols under a model checker, which tries every order in which two sides' steps can meet and every value
//! that a weak memory may show:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p maniple-engine --release --test loom
//! ```
//!
//! A program of its own: `--cfg loom` compiles this and none of the other tests.
//!
//! Each model is as small as the fault that it is there to find. The bytes of a ring are the checker's own cells, so a missing
//! Release or Acquire is reported as two sides touching one byte at a time; a lost wake-up is reported as a deadlock.
//!
//! The locks' protocols are in `loom/sync.rs`, the driver's seat in `loom/seats.rs`.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]
// The checker's cells can only be touched so; that it is right is what is being checked.
#![allow(clippy::undocumented_unsafe_blocks)]

mod rwlock;
mod seats;
mod sync;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use maniple_engine::shm::bell::{AWAKE, Bell};
use maniple_engine::shm::claim::Claim;
use maniple_engine::shm::cursor::{Cursors, ReadSide, WriteSide};
use maniple_engine::shm::wait_count::WaitCount;

/// Tries every order of steps in which a thread is interrupted, where it need not be, at most so often; faults in protocols of two
/// parties show with two (Musuvathi and Qadeer, "Iterative Context Bounding", 2007). `LOOM_MAX_PREEMPTIONS` overrides it.
const INTERRUPTIONS: usize = 2;

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut checker = loom::model::Builder::new();
    checker.preemption_bound = checker.preemption_bound.or(Some(INTERRUPTIONS));
    checker.check(run);
}

/// A ring of a few bytes: the real cursors, and bytes that the checker watches.
struct Ring {
    cursors: Cursors,
    bytes: Vec<UnsafeCell<u64>>,
}

// The checker itself finds out whether two threads touch one byte.
unsafe impl Sync for Ring {}
unsafe impl Send for Ring {}

impl Ring {
    fn new(capacity: usize) -> Arc<Ring> {
        let bytes = (0..capacity).map(|_| UnsafeCell::new(0)).collect();
        Arc::new(Ring { cursors: Cursors::default(), bytes })
    }

    fn write(&self, side: &WriteSide, ahead: u64, value: u64) {
        let place = (side.tail() + ahead) as usize % self.bytes.len();
        self.bytes[place].with_mut(|byte| unsafe { *byte = value });
    }

    fn read(&self, side: &ReadSide) -> u64 {
        let place = side.head() as usize % self.bytes.len();
        self.bytes[place].with(|byte| unsafe { *byte })
    }
}

/// Sends `values` in pieces of so many bytes through a ring of two bytes, and checks what arrives.
fn pass(pieces: &'static [u64]) {
    model(move || {
        let ring = Ring::new(2);
        let theirs = ring.clone();
        let producer = thread::spawn(move || {
            let mut side = WriteSide::new(2);
            let mut value = 0;
            for &piece in pieces {
                while !side.has_room(&theirs.cursors, piece) {
                    thread::yield_now();
                }
                for ahead in 0..piece {
                    value += 1;
                    theirs.write(&side, ahead, value);
                }
                side.publish(&theirs.cursors, piece);
            }
        });
        let mut side = ReadSide::new(2);
        let mut expected = 0;
        while expected < pieces.iter().sum() {
            let available = side.available(&ring.cursors).unwrap();
            if available == 0 {
                thread::yield_now();
            }
            for _ in 0..available {
                expected += 1;
                assert_eq!(ring.read(&side), expected);
                side.advance(1);
            }
            side.release(&ring.cursors);
        }
        producer.join().unwrap();
        assert_eq!((ring.cursors.tail(), ring.cursors.head()), (expected, expected));
    });
}

#[test]
fn single_bytes_pass_through_a_ring_that_wraps() {
    pass(&[1, 1, 1]);
}

#[test]
fn pieces_pass_through_a_ring_that_wraps_within_them() {
    pass(&[1, 2, 1]);
}

#[test]
fn a_frame_is_claimed_or_taken_back_and_never_both_or_neither() {
    model(|| {
        let frame = Arc::new((Claim::default(), UnsafeCell::new(0)));
        let theirs = frame.clone();
        let act = |frame: &(Claim, UnsafeCell<u32>)| frame.1.with_mut(|owned| unsafe { *owned += 1 });
        let consumer = thread::spawn(move || {
            let claimed = theirs.0.claim();
            if claimed {
                act(&theirs);
            }
            claimed
        });
        let revoked = frame.0.revoke();
        if revoked {
            act(&frame);
        }
        let claimed = consumer.join().unwrap();
        assert!(claimed != revoked, "claimed: {claimed}, taken back: {revoked}");
        assert_eq!(frame.0.is_claimed(), claimed);
        assert!(!frame.0.claim() && !frame.0.revoke());
    });
}

#[test]
fn whoever_loses_a_frame_sees_what_the_winner_did_before() {
    /// Both do something, then one tries `first`, the other `second`; the loser looks at what the winner did.
    fn race(first: fn(&Claim) -> bool, second: fn(&Claim) -> bool) {
        model(move || {
            let frame = Arc::new((Claim::default(), UnsafeCell::new(0)));
            let theirs = frame.clone();
            let winner = thread::spawn(move || {
                theirs.1.with_mut(|note| unsafe { *note = 1 });
                first(&theirs.0)
            });
            if !second(&frame.0) {
                assert_eq!(frame.1.with(|note| unsafe { *note }), 1);
            }
            winner.join().unwrap();
        });
    }
    race(Claim::claim, Claim::revoke);
    race(Claim::revoke, Claim::claim);
    // The producer may also only look.
    race(Claim::claim, |claim| !claim.is_claimed());
}

/// As [`a_frame_is_claimed_or_taken_back_and_never_both_or_neither`], but through a ring: a frame is read by its
/// position, as the producer does for its dead or busy consumer, after the consumer may have gone past it.
#[test]
fn a_frame_that_was_gone_past_is_not_taken_back() {
    model(|| {
        let ring = Ring::new(1);
        let state = Arc::new(Claim::default());
        let (their_ring, their_state) = (ring.clone(), state.clone());
        let mut writer = WriteSide::new(1);
        assert!(writer.has_room(&ring.cursors, 1));
        ring.write(&writer, 0, 7);
        writer.publish(&ring.cursors, 1);
        let consumer = thread::spawn(move || {
            let mut side = ReadSide::new(1);
            assert_eq!(side.available(&their_ring.cursors), Ok(1));
            let claimed = their_state.claim();
            let value = claimed.then(|| their_ring.read(&side));
            side.advance(1);
            side.release(&their_ring.cursors);
            value
        });
        let revoked = ring.cursors.head() == 0 && state.revoke();
        if writer.has_room(&ring.cursors, 1) {
            // The consumer is past the frame: its bytes are the producer's again.
            ring.write(&writer, 0, 8);
        }
        let claimed = consumer.join().unwrap();
        assert!(claimed.is_none_or(|value| value == 7));
        assert!(claimed.is_some() != revoked);
    });
}

/// A sleeper's side of the operating system: it sleeps only while the word is what it was said to be, and a waker can report
/// neither too early nor too late.
#[derive(Default)]
struct Bed {
    lock: Mutex<()>,
    bell: Bell,
    call: Condvar,
    wakes: AtomicU32,
}

impl Bed {
    fn sleep(&self, level: u32) {
        let guard = self.lock.lock().unwrap();
        if self.bell.level() == level {
            drop(self.call.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        let _guard = self.lock.lock().unwrap();
        self.call.notify_one();
    }

    fn ring(&self) {
        if self.bell.ring(|_| true).is_some() {
            self.wake();
        }
    }

    /// Waits, by the rules of the bell, until `ready`. Returns how often it slept.
    fn wait(&self, mut ready: impl FnMut() -> bool) -> u32 {
        let mut slept = 0;
        while !ready() {
            self.bell.arm(1);
            if ready() {
                self.bell.disarm();
                break;
            }
            slept += 1;
            self.sleep(1);
            self.bell.disarm();
        }
        slept
    }
}

#[test]
fn news_published_while_its_reader_goes_to_sleep_wakes_it() {
    model(|| {
        let (bed, ring) = (Arc::new(Bed::default()), Ring::new(2));
        let (their_bed, their_ring) = (bed.clone(), ring.clone());
        let ringer = thread::spawn(move || {
            let mut side = WriteSide::new(2);
            their_ring.write(&side, 0, 5);
            side.publish(&their_ring.cursors, 1);
            their_bed.ring();
        });
        let mut side = ReadSide::new(2);
        bed.wait(|| side.available(&ring.cursors) == Ok(1));
        assert_eq!(ring.read(&side), 5);
        ringer.join().unwrap();
    });
}

#[test]
fn a_reader_that_sleeps_again_is_woken_again() {
    model(|| {
        let (bed, ring) = (Arc::new(Bed::default()), Ring::new(2));
        let (their_bed, their_ring) = (bed.clone(), ring.clone());
        let ringer = thread::spawn(move || {
            let mut side = WriteSide::new(2);
            for value in [5, 6] {
                their_ring.write(&side, 0, value);
                side.publish(&their_ring.cursors, 1);
                their_bed.ring();
            }
        });
        let mut side = ReadSide::new(2);
        for value in [5, 6] {
            bed.wait(|| side.available(&ring.cursors) != Ok(0));
            assert_eq!(ring.read(&side), value);
            side.advance(1);
        }
        ringer.join().unwrap();
    });
}

#[test]
fn of_two_ringers_one_wakes_the_sleeper() {
    model(|| {
        let bed = Arc::new(Bed::default());
        let news = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let first = {
            let (bed, news) = (bed.clone(), news.clone());
            thread::spawn(move || {
                news.0.store(1, Ordering::Release);
                bed.ring();
            })
        };
        let second = {
            let (bed, news) = (bed.clone(), news.clone());
            thread::spawn(move || {
                news.1.store(1, Ordering::Release);
                bed.ring();
            })
        };
        // One arming, so one call at most; either news ends it.
        bed.bell.arm(1);
        if news.0.load(Ordering::Acquire) + news.1.load(Ordering::Acquire) == 0 {
            bed.sleep(1);
        }
        first.join().unwrap();
        second.join().unwrap();
        assert!(bed.wakes.load(Ordering::Relaxed) <= 1, "two ringers won the same bell");
    });
}

#[test]
fn a_level_that_does_not_want_the_news_is_left_asleep() {
    model(|| {
        let bell = Arc::new(Bell::default());
        let theirs = bell.clone();
        let ringer = thread::spawn(move || theirs.ring(|level| level == 1));
        bell.arm(2);
        assert_eq!(ringer.join().unwrap(), None);
        assert_eq!(bell.level(), 2);
        bell.disarm();
        assert_eq!(bell.level(), AWAKE);
    });
}

/// Messages that several take, and the crowd of those who wait for one. The lock and the condition stand for the kernel's.
#[derive(Default)]
struct Counter {
    messages: AtomicU32,
    crowd: WaitCount,
    sleeping: Mutex<usize>,
    woken: Condvar,
}

impl Counter {
    fn put(&self) {
        self.messages.fetch_add(1, Ordering::Release);
        self.crowd.call(|_| {
            let mut sleeping = self.sleeping.lock().unwrap();
            self.woken.notify_one();
            let woken = (*sleeping).min(1);
            *sleeping -= woken;
            woken
        });
    }

    fn take(&self) {
        let take = || self.messages.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        while !take() {
            let seat = self.crowd.join();
            if self.messages.load(Ordering::Acquire) == 0 {
                let mut sleeping = self.sleeping.lock().unwrap();
                if self.crowd.bell().load(Ordering::Relaxed) == seat.seen {
                    *sleeping += 1;
                    drop(self.woken.wait(sleeping).unwrap());
                }
            }
            self.crowd.leave(seat);
        }
    }
}

#[test]
fn each_message_finds_one_of_those_who_wait() {
    for takers in 1..=2 {
        model(move || {
            let counter = Arc::new(Counter::default());
            let takers: Vec<_> = (0..takers)
                .map(|_| {
                    let counter = counter.clone();
                    thread::spawn(move || counter.take())
                })
                .collect();
            for _ in &takers {
                counter.put();
            }
            takers.into_iter().for_each(|taker| taker.join().unwrap());
        });
    }
}
