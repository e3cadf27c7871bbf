//! Locks, semaphores, conditions, events and barriers between processes.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `poison` | errors that report the death of a holder |
//! | `held` | the common part of all guards |
//! | `lock`, `rlock`, `mutex` | mutual exclusion: without a value, recursive, of a value |
//! | `rwlock` | a value that many threads read at a time, or one thread changes |
//! | `semaphore`, `event`, `condition`, `barrier` | the others |
//! | `futures` | futures of their waits |
//! | `shm_serde` | how all of them are sent to other processes |
//!
//! The engine's `sync` has the protocols. All types are handles: a clone is the same lock, and so is the value that
//! arrives in another process. A forked child does not inherit a guard: dropping a copy of its parent's guard does
//! nothing.

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
