//! Locks, semaphores, conditions, events and barriers that processes share: futex words in nameless shared memory.
//!
//! What may not be known here: what is guarded, what starts the processes, how a [`arena::CellRef`] travels. Nothing has a name in the
//! system, so nothing is left when all are dead, and no descriptor is spent per lock.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `word/` | the protocols, each one 64-bit word; pure, under the model checker |
//! | [`arena`] | where the words lie: cells in shared memory, and when a cell may be used again |
//! | [`holder`] | the holder of a lock, and whether that process still lives |
//! | [`wait::word`](crate::wait::word) | sleeping on a word, with a deadline and an interrupt hook |
//! | [`lock`] | `Lock`, `RLock` |
//! | [`semaphore`], [`condition`], [`event`] | the others that are one word |
//! | [`barrier`] | a lock, and a place for each of those who wait |
//! | [`owned_semaphore`] | a semaphore that records the holders of its units |
//! | [`guarded_region`] | a value beside its lock |
//! | [`rwlock`] | a value with a lock for many readers or one writer |
//!
//! # What a death leaves
//! A process may be killed between any two instructions. Two things keep the others going:
//!
//! * **Every change of state is one compare-exchange of one word.** There is no half-changed state.
//! * **Every sleeper looks again by itself**, after 10 ms, then in growing intervals up to half a second ([`wait::word`](crate::wait::word)). A wake-up
//!   that a dead process owed, or that died with the sleeper it went to, is thereby delayed and not lost.
//!
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | holding a lock | its number and birth in the word | a waiter finds that it has ended and takes the lock over ([`lock`]) |
//! | between freeing a word and waking a sleeper | a free word, sleepers asleep | the first to look again takes it |
//! | asleep, or woken and not yet awake | a mark that a thread sleeps | the next to free the word makes one system call in vain |
//! | asleep in a condition | a sleeper too many in the count | a later `notify_all` may leave one wake-up, which one later sleeper takes for its own |
//! | holding a unit of a semaphore | the unit is gone | as meant: a semaphore counts, it has no holder; where it has, there are [`owned_semaphore`] |
//! | reading under a lock for readers and writers | its share | a waiting writer clears it ([`rwlock`]) |
//! | waiting at a barrier | its slot | the barrier breaks, and all waiters learn why ([`barrier`]) |
//!
//! A holder that died is seen by processes of its own pid namespace only: across namespaces numbers mean nothing. Where an arena is
//! used from more than one, or where `/proc` does not tell, nothing is ever taken over ([`holder`]).
#[cfg(not(loom))]
pub mod arena;
#[cfg(not(loom))]
pub mod barrier;
#[cfg(not(loom))]
pub mod condition;
#[cfg(not(loom))]
pub mod event;
#[cfg(not(loom))]
pub mod guarded_region;
#[cfg(not(loom))]
pub mod holder;
#[cfg(not(loom))]
pub mod lock;
#[cfg(not(loom))]
pub mod owned_semaphore;
#[cfg(not(loom))]
pub mod rwlock;
#[cfg(not(loom))]
pub mod semaphore;
pub mod word;

/// How an attempt to acquire something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is ours.
    Taken,
    /// It is ours, and was held by a process that died: what it guards may be half changed.
    TakenOver,
    /// The time was up.
    TimedOut,
    /// The interrupt hook broke the wait off.
    Interrupted,
}

impl Outcome {
    /// Whether it is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Outcome::Taken | Outcome::TakenOver)
    }
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was given back.
    Done,
    /// It was not held (a lock), or would have risen above its limit (a semaphore): nothing was changed.
    TooOften,
    /// It is held by another thread or process, and only its owner may release it.
    NotOwner,
}
