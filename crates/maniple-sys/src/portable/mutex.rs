//! A lock in shared memory that survives its holders.
//!
//! ```text
//! state   0: free; otherwise the holder: process number (low half) and birth (high half)
//! turn    counts releases while a thread waits; the threads that wait sleep on it
//! waits   how many threads wait (too many, if some have died: then a release makes a call for nothing)
//! ```
//! A thread that waits looks from time to time whether the holder's process has ended, and takes the lock over by
//! compare-exchange from exactly that holder. A thread that ends while it holds a lock, in a process that continues,
//! keeps it.
#![allow(unsafe_code)]

use crate::{futex, holder};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

pub use crate::terms::Found;

/// The lock. It lies in shared memory; any process that maps it can acquire it.
#[derive(Debug)]
#[repr(C)]
pub struct Mutex {
    state: AtomicU64,
    turn: AtomicU32,
    waits: AtomicU32,
}

/// This process: its number (low half) and its birth.
pub(crate) fn me() -> u64 {
    static ME: AtomicU64 = AtomicU64::new(0);
    let known = ME.load(Relaxed);
    // A forked child has another number than its parent.
    if known as u32 == crate::process_id() {
        return known;
    }
    let me = holder::identity();
    let me = u64::from(me.born) << 32 | u64::from(me.pid);
    ME.store(me, Relaxed);
    me
}

impl Mutex {
    /// Creates a lock in fresh memory.
    ///
    /// # Safety
    /// `at` is aligned, valid for writes, and not in use yet.
    pub unsafe fn init(at: *mut Mutex) -> io::Result<()> {
        let fresh = Mutex { state: AtomicU64::new(0), turn: AtomicU32::new(0), waits: AtomicU32::new(0) };
        // SAFETY: the caller ensures the contract above.
        unsafe { at.write(fresh) };
        Ok(())
    }

    /// Acquires the lock if it is free, or if its holder has ended.
    pub fn try_lock(&self) -> io::Result<Found> {
        Ok(self.attempt(true))
    }

    /// `looks`: asks whether the holder has ended.
    fn attempt(&self, looks: bool) -> Found {
        // Acquire: partner of the Release in `unlock`.
        match self.state.compare_exchange(0, me(), Acquire, Relaxed) {
            Ok(_) => Found::Ours,
            Err(held) if held == me() || !looks => Found::Taken,
            Err(held) if !holder::is_gone(held as u32, (held >> 32) as u32) => Found::Taken,
            // The end of a process comes after all its writes.
            Err(held) => match self.state.compare_exchange(held, me(), Acquire, Relaxed) {
                Ok(_) => Found::Orphaned,
                Err(_) => Found::Taken,
            },
        }
    }

    /// Acquires the lock, and waits for it at most so long.
    pub fn lock_within(&self, limit: Duration) -> io::Result<Found> {
        const SPINS: usize = 100;
        const FIRST_SLICE: Duration = Duration::from_millis(2);
        const LONGEST_SLICE: Duration = Duration::from_millis(100);
        for _ in 0..SPINS {
            let found = self.attempt(false);
            if found != Found::Taken {
                return Ok(found);
            }
            std::hint::spin_loop();
        }
        let until = Instant::now().checked_add(limit);
        let mut slice = FIRST_SLICE;
        self.waits.fetch_add(1, SeqCst);
        let mut looked = Instant::now();
        let found = loop {
            let turn = self.turn.load(SeqCst);
            let looks = looked.elapsed() >= slice;
            let found = self.attempt(looks);
            let left = until.map_or(LONGEST_SLICE, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() || found != Found::Taken {
                break found;
            }
            if looks {
                looked = Instant::now();
                slice = (slice * 2).min(LONGEST_SLICE);
            }
            futex::wait(&self.turn, turn, Some(slice.min(left)));
        };
        self.waits.fetch_sub(1, SeqCst);
        Ok(found)
    }

    /// Releases the lock.
    ///
    /// # Safety
    /// This thread holds it.
    pub unsafe fn unlock(&self) {
        self.state.store(0, Release);
        // SeqCst: a thread that waits counts itself before it looks at the state, so it sees the store above, or is
        // seen here.
        std::sync::atomic::fence(SeqCst);
        if self.waits.load(SeqCst) > 0 {
            self.turn.fetch_add(1, SeqCst);
            futex::wake(&self.turn, 1);
        }
    }
}
