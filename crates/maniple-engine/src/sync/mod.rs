//! Locks, semaphores, conditions, events and barriers that processes share: futex words in nameless shared memory.
//!
//! This module does not depend on what a lock guards, how processes are started, or how a [`arena::CellRef`] travels.
//! Nothing has a name in the system, so nothing is left when all processes are dead, and a lock costs no descriptor.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `word/` | the protocols, each one 64-bit word; pure, under the model checker |
//! | [`arena`] | the memory of the words: cells in shared memory, and when a cell may be used again |
//! | [`holder`] | the holder of a lock, and whether that process still lives |
//! | [`wait::word`](crate::wait::word) | sleeping on a word, with a deadline and an interrupt hook |
//! | [`lock`] | `Lock`, `RLock` |
//! | [`semaphore`], [`condition`], [`event`] | the other types of one word |
//! | [`barrier`] | a lock, and a place for each waiting party |
//! | [`owned_semaphore`] | a semaphore that records the holders of its units |
//! | [`guarded_region`] | a value beside its lock |
//! | [`rwlock`] | a value with a lock for many readers or one writer |
//!
//! # What a death leaves
//! A process may be killed between any two instructions. Two rules keep the others going:
//!
//! * **Every change of state is one compare-exchange of one word.** There is no half-changed state.
//! * **Every sleeper checks again by itself**, after 10 ms, then in growing intervals up to half a second
//!   ([`wait::word`](crate::wait::word)). So a wake-up that a dead process did not send, or that a dead sleeper
//!   received, is delayed and not lost.
//!
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | holding a lock | its number and birth in the word | a waiter finds that it has ended and takes over the lock ([`lock`]) |
//! | between freeing a word and waking a sleeper | a free word, sleepers asleep | the first to check again takes it |
//! | asleep, or woken and not yet awake | a mark that a thread sleeps | the next release makes an unnecessary system call |
//! | asleep in a condition | a sleeper too many in the count | a later `notify_all` may leave one wake-up, which one later sleeper uses |
//! | holding a unit of a semaphore | the unit is lost | as intended: a semaphore has no holders; [`owned_semaphore`] has |
//! | reading under a lock for readers and writers | its share | a waiting writer clears it ([`rwlock`]) |
//! | waiting at a barrier | its slot | the barrier breaks, and all waiters get the reason ([`barrier`]) |
//!
//! Only processes of its own pid namespace detect the death of a holder: numbers of different namespaces cannot be
//! compared. If an arena is used from more than one namespace, or if `/proc` is missing, no lock is ever taken over
//! ([`holder`]).
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

/// How an attempt to acquire a lock or a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller has it.
    Taken,
    /// The caller has it, and its previous holder died: the data that it guards may be half changed.
    TakenOver,
    /// The time was up.
    TimedOut,
    /// The interrupt hook broke the wait off.
    Interrupted,
}

impl Outcome {
    /// Whether the caller has it.
    pub fn is_ours(self) -> bool {
        matches!(self, Outcome::Taken | Outcome::TakenOver)
    }
}

/// What a release found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It was released.
    Done,
    /// It was not held (a lock), or would have risen above its limit (a semaphore): nothing was changed.
    TooOften,
    /// It is held by another thread or process, and only its owner may release it.
    NotOwner,
}
