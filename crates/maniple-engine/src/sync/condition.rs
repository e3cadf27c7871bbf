//! A condition, at which a process waits until another process notifies it.
//!
//! The condition's lock is a [`Lock`] or an [`RLock`], which the waiter holds. A waiter enters, releases the lock
//! completely, sleeps until it is called, and acquires the lock again at the same depth. The notifier waits for no
//! waiter, so a killed waiter cannot block it.

use super::arena::{CellRef, Place};
use super::lock::{Lock, RLock};
use super::word::CallWord;
use super::{Outcome, Released};
use crate::error::{Error, Result};
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};

const KIND: u32 = 5;

/// The lock that a waiter holds, releases, and acquires again.
pub trait Guard {
    /// Releases the lock completely. Returns the depth at which it was held; `None`: this thread does not hold it.
    fn let_go(&self) -> Option<u32>;
    /// Takes it again.
    fn take_again(&self, depth: u32, interrupt: Interrupt<'_>) -> Outcome;
}

impl Guard for Lock {
    fn let_go(&self) -> Option<u32> {
        (self.release() == Released::Done).then_some(1)
    }

    fn take_again(&self, _depth: u32, interrupt: Interrupt<'_>) -> Outcome {
        self.acquire(Until::Ever, interrupt)
    }
}

impl Guard for RLock {
    fn let_go(&self) -> Option<u32> {
        let depth = self.depth();
        (depth > 0 && self.release_deep() == Released::Done).then_some(depth)
    }

    fn take_again(&self, depth: u32, interrupt: Interrupt<'_>) -> Outcome {
        self.acquire_deep(depth, Until::Ever, interrupt)
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// `Taken`: called; `TimedOut`; `Interrupted`.
    pub outcome: Outcome,
    /// How acquiring the lock again ended: `Interrupted` means that it is not held.
    pub lock: Outcome,
}

/// A condition in shared memory.
#[derive(Debug)]
pub struct Condition(Place);

impl Condition {
    /// Creates a condition without waiters.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn new() -> Result<Condition> {
        Place::create(KIND).map(Condition)
    }

    /// Opens a condition that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<Condition> {
        Place::open(ticket.arena, ticket.number, KIND).map(Condition)
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.0
    }

    fn word(&self) -> &CallWord {
        CallWord::of(&self.0.word)
    }

    /// Releases `guard`, waits to be called, and acquires `guard` again.
    ///
    /// # Errors
    /// 65535 threads already wait, or this thread does not hold `guard`.
    pub fn wait(&self, guard: &impl Guard, limit: Until, interrupt: Interrupt<'_>) -> Result<Waited> {
        let word = self.word();
        let entered_at = word.enter().ok_or(Error::Lock("65535 threads already wait for this condition"))?;
        let Some(depth) = guard.let_go() else {
            word.leave(entered_at);
            return Err(Error::Lock("the condition's lock is not held"));
        };
        let mut waiting = WordWait::new(limit, &mut *interrupt);
        let outcome = loop {
            let Err(number) = word.answer(entered_at) else { break Outcome::Taken };
            let why = match waiting.nap(word.raw(), number) {
                Nap::Look | Nap::Slice => continue,
                Nap::TimedOut => Outcome::TimedOut,
                Nap::Interrupted => Outcome::Interrupted,
            };
            let called = word.leave(entered_at);
            break if called && why == Outcome::TimedOut { Outcome::Taken } else { why };
        };
        Ok(Waited { outcome, lock: guard.take_again(depth, interrupt) })
    }

    /// Calls at most `most` waiters, and returns how many. The caller holds the lock.
    pub fn notify(&self, most: u32) -> u32 {
        let called = self.word().notify(most);
        if called > 0 {
            wait::wake_low(self.word().raw(), called);
        }
        called
    }

    /// How many wait and are not called; how many are called and have not returned.
    pub fn counts(&self) -> (u32, u32) {
        self.word().counts()
    }
}
