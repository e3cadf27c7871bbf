//! A counter that acquiring decrements and releasing increments. Acquiring waits while it is zero.
//!
//! It has no holder: one process may acquire a unit and another release it, and the units of a dead process stay
//! acquired.

use super::arena::{CellRef, Place};
use super::word::{CountWord, Given};
use super::{Outcome, Released};
use crate::error::Result;
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};
use std::sync::atomic::Ordering;

const KIND: u32 = 1;

/// A semaphore in shared memory.
#[derive(Debug)]
pub struct Semaphore(Place);

impl Semaphore {
    /// Creates a semaphore with `value` units, which never rises above `limit`.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn new(value: u32, limit: u32) -> Result<Semaphore> {
        let place = Place::create(KIND)?;
        place.limit.store(limit, Ordering::Relaxed);
        let semaphore = Semaphore(place);
        semaphore.word().set(value);
        Ok(semaphore)
    }

    /// Opens a semaphore that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<Semaphore> {
        Place::open(ticket.arena, ticket.number, KIND).map(Semaphore)
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.0
    }

    #[inline]
    fn word(&self) -> &CountWord {
        CountWord::of(&self.0.word)
    }

    /// The value now.
    pub fn value(&self) -> u32 {
        self.word().value()
    }

    /// The highest value.
    pub fn limit(&self) -> u32 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Takes a unit if there is one.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.word().take()
    }

    /// Takes a unit, waiting for one if need be.
    pub fn acquire(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let word = self.word();
        if word.take() {
            return Outcome::Taken;
        }
        if limit == Until::Now {
            return Outcome::TimedOut;
        }
        let mut waiting = WordWait::new(limit, interrupt);
        while !word.enter() {
            if word.take() {
                return Outcome::Taken;
            }
        }
        loop {
            if word.take_and_leave() {
                return Outcome::Taken;
            }
            let given_up = match waiting.nap(word.raw(), 0) {
                Nap::Look | Nap::Slice => continue,
                Nap::TimedOut => Outcome::TimedOut,
                Nap::Interrupted => Outcome::Interrupted,
            };
            return self.give_up(given_up);
        }
    }

    fn give_up(&self, why: Outcome) -> Outcome {
        if !self.word().leave() {
            return why;
        }
        if why == Outcome::TimedOut {
            return Outcome::Taken;
        }
        // The interrupt has priority, so the unit is released.
        self.release();
        why
    }

    /// Releases a unit.
    #[inline]
    pub fn release(&self) -> Released {
        match self.word().give(self.limit()) {
            Given::Refused => return Released::TooOften,
            Given::Quiet => {}
            Given::Wake => wait::wake_low(self.word().raw(), 1),
        }
        Released::Done
    }
}
