//! Errors that report the death of a holder.
//!
//! As in the standard library, with one more cause: the previous holder of the lock panicked, or its *process died*. Either way
//! the lock is poisoned until [`clear_poison`](crate::Mutex::clear_poison), every attempt to acquire it returns an error,
//! and the error holds the guard.

use crate::error::{Error, Poison, SyncError, TimeoutError};
use std::fmt;

/// The lock was acquired, but its previous holder died or panicked: the data that it guards may be half changed.
///
/// The error holds the guard; dropping the error releases the lock. With `?` it becomes an [`SyncError::Poisoned`].
///
/// ```
/// use maniple::{Mutex, Poison, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let balance = Mutex::new([50, 50])?;
/// let process = Process::new(
///     |balance: Mutex<[i32; 2]>| {
///         let mut balance = balance.lock().unwrap();
///         balance[0] -= 20;
///         std::process::abort();
///         #[allow(unreachable_code)]
///         (balance[1] += 20)
///     },
///     balance.clone(),
/// )?;
/// process.start()?;
/// process.join()?;
///
/// let poisoned = balance.lock().unwrap_err();
/// assert_eq!(poisoned.poison(), Poison::Died(process.pid().unwrap()));
/// let mut guard = poisoned.into_inner();
/// guard[1] = 100 - guard[0];
/// balance.clear_poison();
/// # Ok(())
/// # }
/// ```
pub struct PoisonError<G> {
    guard: G,
    poison: Poison,
}

/// A guard, or the guard within an error.
///
/// ```
/// use maniple::{LockResult, Mutex, MutexGuard, PoisonError};
///
/// let number = Mutex::new(7)?;
/// let taken: LockResult<MutexGuard<'_, i32>> = number.lock();
/// // Poisoned or not:
/// assert_eq!(*taken.unwrap_or_else(PoisonError::into_inner), 7);
/// # Ok::<(), maniple::Error>(())
/// ```
pub type LockResult<G> = Result<G, PoisonError<G>>;

pub(crate) fn judge<G>(guard: G, poison: Option<Poison>) -> LockResult<G> {
    match poison {
        None => Ok(guard),
        Some(poison) => Err(PoisonError { guard, poison }),
    }
}

impl<G> PoisonError<G> {
    /// Returns the guard, to use it nevertheless.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert_eq!(*total.lock().unwrap_err().into_inner(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn into_inner(self) -> G {
        self.guard
    }

    /// Returns a reference to the guard.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert_eq!(**total.lock().unwrap_err().get_ref(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn get_ref(&self) -> &G {
        &self.guard
    }

    /// Returns a mutable reference to the guard.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// let mut poisoned = total.lock().unwrap_err();
    /// **poisoned.get_mut() = 0;
    /// assert_eq!(*poisoned.into_inner(), 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn get_mut(&mut self) -> &mut G {
        &mut self.guard
    }

    /// Returns whether the holder died or panicked, and its process number.
    ///
    /// ```
    /// use maniple::{Mutex, Poison};
    ///
    /// let total = Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert_eq!(total.lock().unwrap_err().poison(), Poison::Panicked(std::process::id()));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn poison(&self) -> Poison {
        self.poison
    }
}

impl<G> fmt::Debug for PoisonError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoisonError").field("poison", &self.poison).finish_non_exhaustive()
    }
}

impl<G> fmt::Display for PoisonError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Error::Sync(SyncError::Poisoned(self.poison)), f)
    }
}

impl<G> std::error::Error for PoisonError<G> {}

impl<G> From<PoisonError<G>> for Error {
    fn from(error: PoisonError<G>) -> Error {
        Error::Sync(SyncError::Poisoned(error.poison))
    }
}

/// Why a lock was not acquired at once or in time, or that it was acquired and is poisoned.
///
/// ```
/// use maniple::{Lock, TryLockError};
/// use std::time::Duration;
///
/// let lock = Lock::new()?;
/// let _guard = lock.lock()?;
/// assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
/// assert!(matches!(lock.lock_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
/// # Ok::<(), maniple::Error>(())
/// ```
#[non_exhaustive]
pub enum TryLockError<G> {
    /// The lock was acquired, and the previous holder died or panicked.
    Poisoned(PoisonError<G>),
    /// The lock is held, by another thread or by this thread.
    WouldBlock,
    /// The time limit expired: the lock was held all the time, by other threads or by this thread.
    Timeout(TimeoutError),
}

/// The result of `try_lock` and `lock_timeout`.
///
/// ```
/// use maniple::{Lock, LockGuard, TryLockError, TryLockResult};
///
/// let lock = Lock::new()?;
/// let first = lock.lock()?;
/// let second: TryLockResult<LockGuard<'_>> = lock.try_lock();
/// assert!(matches!(second, Err(TryLockError::WouldBlock)));
/// # Ok::<(), maniple::Error>(())
/// ```
pub type TryLockResult<G> = Result<G, TryLockError<G>>;

impl<G> fmt::Debug for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Poisoned(error) => f.debug_tuple("Poisoned").field(error).finish(),
            TryLockError::WouldBlock => f.write_str("WouldBlock"),
            TryLockError::Timeout(time) => f.debug_tuple("Timeout").field(time).finish(),
        }
    }
}

impl<G> fmt::Display for TryLockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Poisoned(error) => error.fmt(f),
            TryLockError::WouldBlock => Error::Sync(SyncError::WouldBlock).fmt(f),
            TryLockError::Timeout(error) => error.fmt(f),
        }
    }
}

impl<G> std::error::Error for TryLockError<G> {}

impl<G> From<PoisonError<G>> for TryLockError<G> {
    fn from(error: PoisonError<G>) -> TryLockError<G> {
        TryLockError::Poisoned(error)
    }
}

impl<G> From<TryLockError<G>> for Error {
    fn from(error: TryLockError<G>) -> Error {
        match error {
            TryLockError::Poisoned(error) => error.into(),
            TryLockError::WouldBlock => Error::Sync(SyncError::WouldBlock),
            TryLockError::Timeout(error) => error.into(),
        }
    }
}
