//! Locks, semaphores, conditions, events and barriers between processes.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `poison` | how the death of a holder is reported |
//! | `held` | what all guards of a lock have in common |
//! | `lock`, `rlock`, `mutex` | mutual exclusion: bare, recursive, of a value |
//! | `rwlock` | a value that many read at a time, or one changes |
//! | `semaphore`, `event`, `condition`, `barrier` | the others |
//! | `futures` | waiting for them as futures |
//! | `shm_serde` | how all of them go to other processes |
//!
//! The engine's `sync` has the protocols. All types here are handles: a clone, and what arrives in another process, is
//! the same lock. A forked child inherits no guard: a guard that it finds among its variables does nothing when it is
//! dropped.

mod barrier;
mod condition;
mod event;
#[cfg(feature = "async")]
mod futures;
pub(crate) mod held;
mod lock;
mod mutex;
mod poison;
mod rlock;
mod rwlock;
mod semaphore;
pub(crate) mod shm_serde;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condition::{Condition, Guard, WaitTimeoutResult};
pub use event::Event;
pub use lock::{Lock, LockGuard};
pub use mutex::{Mutex, MutexGuard};
pub use poison::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use rlock::{RLock, RLockGuard};
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{BoundedSemaphore, Semaphore, SemaphorePermit};
