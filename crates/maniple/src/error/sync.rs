//! Errors of locks, semaphores and barriers.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a lock, a unit of a semaphore or a barrier was not acquired: [`Error::Sync`](crate::Error::Sync).
///
/// ```
/// use maniple::{Error, Lock, SyncError};
///
/// # fn main() -> maniple::Result<()> {
/// assert!(matches!(Lock::new()?.release(), Err(Error::Sync(SyncError::NotHeld))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The lock was acquired, but the process that held it before died, or the thread panicked. The guard was dropped
    /// when this was made; to keep it, match on the [`PoisonError`](crate::PoisonError) instead of using `?`.
    #[error(
        "{0}: what it guards may be half changed; into_inner() returns the guard or permit; after the repair, clear_poison() of \
            a lock forgets this"
    )]
    Poisoned(Poison),
    /// A thread holds the lock, or no unit of the semaphore is free.
    #[error(
        "the lock, or each unit of the semaphore, is held; unless this thread holds it, wait with lock() or acquire()"
    )]
    WouldBlock,
    /// There was nothing to release: the lock is free, this process has no unit of the bounded semaphore, or the
    /// semaphore has the largest value.
    #[error(
        "there is nothing to release: the lock is free, this process holds no unit of the bounded semaphore, or the \
            semaphore has the largest value"
    )]
    NotHeld,
    /// Not all parties arrived at the barrier.
    #[error("the barrier is broken: {0}; reset() begins a new round")]
    BrokenBarrier(BrokenBarrier),
}

/// Why a lock is poisoned: how the holder ended that may have left an incomplete change.
///
/// ```
/// use maniple::{Lock, Poison};
///
/// let lock = Lock::new()?;
/// std::thread::scope(|scope| {
///     let thread = scope.spawn(|| {
///         let _guard = lock.lock();
///         panic!("in the middle of it");
///     });
///     assert!(thread.join().is_err());
/// });
/// assert_eq!(lock.lock().unwrap_err().poison(), Poison::Panicked(std::process::id()));
/// # Ok::<(), maniple::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Poison {
    /// The process with this number died while it held the lock.
    Died(u32),
    /// A thread of the process with this number panicked while it held the lock.
    Panicked(u32),
}

impl Poison {
    pub(crate) fn from_engine(poison: maniple_engine::sync::lock::Poison) -> Poison {
        if poison.died { Poison::Died(poison.pid) } else { Poison::Panicked(poison.pid) }
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Poison::Died(pid) => write!(f, "process {pid} died while it held this lock or unit"),
            Poison::Panicked(pid) => write!(f, "a thread of process {pid} panicked while it held this lock or unit"),
        }
    }
}

/// Why a barrier is broken.
///
/// ```
/// use maniple::{Barrier, BrokenBarrier};
///
/// let barrier = Barrier::new(2)?;
/// barrier.abort();
/// assert_eq!(barrier.broken(), Some(BrokenBarrier::GivenUp));
/// # Ok::<(), maniple::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BrokenBarrier {
    /// A process died while it waited at the barrier.
    Died,
    /// The time limit of a waiting party expired, or the barrier was aborted or reset.
    GivenUp,
}

impl fmt::Display for BrokenBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BrokenBarrier::Died => "a process died while it waited at the barrier",
            BrokenBarrier::GivenUp => "the time limit of a waiting party expired, or the barrier was aborted or reset",
        })
    }
}
