//! How much a log takes: a bound on its messages, and its end.
//!
//! A bound is no count of free places, which a process could take and die with: a writer that holds the lock compares how many were put and
//! how many were taken. A reader killed between taking and counting leaves one too many in that, until the next reader comes; none
//! need come to an empty log, so that is never called full.
//!
//! Closing happens under the writers' lock: whoever sees the log closed sees every message there will ever be.

use super::{Interrupted, Log, SLICE, hold};
use crate::error::{Error, Result};
use crate::sys::futex::{self, Woken};
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

impl Log {
    /// Sets how many messages there may be at most (0: any number), before anybody else has the log.
    pub fn limit(&self, messages: u64) {
        self.header().calls.bound.store(messages, Ordering::Relaxed);
    }

    /// Whether there are as many messages as there may be.
    pub fn is_full(&self) -> bool {
        let bound = self.header().calls.bound.load(Ordering::Relaxed);
        bound != 0 && self.len() >= bound && !self.is_empty()
    }

    /// Waits until there is room for a message or the log is closed, or until `deadline`. Gives whether it is so.
    pub fn wait_for_room(&self, deadline: Option<Instant>, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        let calls = &self.header().calls;
        loop {
            let seen = calls.room.load(Ordering::Relaxed);
            calls.pacing.store(1, Ordering::Relaxed);
            // Partner: the fence in `take_and`.
            fence(Ordering::SeqCst);
            if !self.is_full() || self.is_closed() {
                return Ok(true);
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            // A reader may be killed before it calls.
            let woken = futex::wait(&calls.room, seen, Some(left.map_or(SLICE, |left| left.min(SLICE))));
            if woken == Woken::Signal && interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Ends putting: from now on it fails, what is there can still be taken, and nobody waits any more.
    pub fn close(&self, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let header = self.header();
        let held = hold(&header.writers, Some(interrupted))?;
        // Partner: `is_closed`; what was put comes before.
        header.calls.closed.store(1, Ordering::Release);
        if header.calls.watched.load(Ordering::Relaxed) != 0 {
            self.shared.event.kick();
        }
        drop(held);
        header.calls.readers.call(|bell| futex::wake(bell, u32::MAX >> 1));
        header.calls.room.fetch_add(1, Ordering::Relaxed);
        futex::wake(&header.calls.room, u32::MAX >> 1);
        Ok(())
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        // Partner: `close`.
        self.header().calls.closed.load(Ordering::Acquire) != 0
    }
}
