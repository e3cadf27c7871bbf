//! A flag that processes can wait for.

use super::Outcome;
use super::arena::{CellRef, Place};
use super::word::{FlagWord, Given};
use crate::error::Result;
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};

const KIND: u32 = 4;

/// An event in shared memory: clear at first.
#[derive(Debug)]
pub struct Event(Place);

impl Event {
    /// A clear one.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn new() -> Result<Event> {
        Place::create(KIND).map(Event)
    }

    /// One that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<Event> {
        Place::open(ticket.arena, ticket.number, KIND).map(Event)
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.0
    }

    fn word(&self) -> &FlagWord {
        FlagWord::of(&self.0.word)
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.word().is_set()
    }

    /// Sets it, and wakes all who wait.
    pub fn set(&self) {
        if self.word().set() == Given::Wake {
            wait::wake_low(self.word().raw(), u32::MAX >> 1);
        }
    }

    /// Clears it.
    pub fn clear(&self) {
        self.word().clear();
    }

    /// Waits until it is set, or was meanwhile: then `Taken`.
    pub fn wait(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let word = self.word();
        let Some(seen) = word.look() else { return Outcome::Taken };
        if limit == Until::Now {
            return Outcome::TimedOut;
        }
        let mut waiting = WordWait::new(limit, interrupt);
        while word.enter(seen) {
            match waiting.nap(word.raw(), seen) {
                Nap::Look | Nap::Slice => {}
                Nap::TimedOut => return if word.look() == Some(seen) { Outcome::TimedOut } else { Outcome::Taken },
                Nap::Interrupted => return Outcome::Interrupted,
            }
        }
        Outcome::Taken
    }
}
