//! A lock without a value.

use super::held::{self, Held};
use super::poison::{LockResult, TryLockResult};
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{Error, Result, SyncError};
use maniple_engine::sync::Released;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::lock::Lock as Inner;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Mutual exclusion between processes and threads, for resources outside of memory: a file, a device, the terminal. For
/// a value in shared memory use [`Mutex`](crate::Mutex).
///
/// If a holder dies, a waiter acquires the lock within half a second, and gets an error that reports the death, see
/// [`PoisonError`](crate::PoisonError).
///
/// ```
/// use maniple::{Exit, Lock, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let lock = Lock::new()?;
/// let guard = lock.lock()?;
/// let process = Process::new(|lock: Lock| i32::from(lock.try_lock().is_ok()), lock.clone())?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(0));
/// drop(guard);
/// # Ok(())
/// # }
/// ```
///
/// As with Python's `Lock`, one process may acquire the lock and another release it: [`std::mem::forget`] the guard in
/// the first, and call [`release`](Lock::release) in the second.
#[derive(Clone)]
pub struct Lock(pub(super) Arc<Inner>);

/// A guard of a [`Lock`]. Dropping it releases the lock.
///
/// ```
/// let lock = maniple::Lock::new()?;
/// let guard = lock.lock()?;
/// assert!(lock.is_locked());
/// drop(guard);
/// assert!(!lock.is_locked());
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard<'a>(pub(super) Held<'a>);

impl Lock {
    /// Creates a free lock.
    ///
    /// ```
    /// assert!(!maniple::Lock::new()?.is_locked());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory or descriptor left.
    pub fn new() -> Result<Lock> {
        Ok(Lock(Arc::new(Inner::new()?)))
    }

    /// Waits until the lock is free, and acquires it. Waits forever if this thread itself holds the lock, unless another
    /// thread releases it; use [`RLock`](crate::RLock) to acquire a lock twice.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// let _guard = lock.lock()?;
    /// assert!(lock.is_locked());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub fn lock(&self) -> LockResult<LockGuard<'_>> {
        held::lock(&self.0, LockGuard)
    }

    /// Acquires the lock if it is free, or if its holder has died. The holder's death is checked at most every 100 ms,
    /// and not at the first attempt.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// let guard = lock.try_lock()?;
    /// assert!(lock.try_lock().is_err());
    /// drop(guard);
    /// assert!(lock.try_lock().is_ok());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`](crate::TryLockError::WouldBlock), or the lock was acquired and is poisoned.
    pub fn try_lock(&self) -> TryLockResult<LockGuard<'_>> {
        held::try_lock(&self.0, LockGuard)
    }

    /// As [`lock`](Lock::lock), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{Lock, TryLockError};
    /// use std::time::Duration;
    ///
    /// let lock = Lock::new()?;
    /// let _guard = lock.lock_timeout(Duration::from_secs(1))?;
    /// assert!(matches!(lock.lock_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`](crate::TryLockError::Timeout), or the lock was acquired and is poisoned.
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<LockGuard<'_>> {
        held::lock_timeout(&self.0, timeout, LockGuard)
    }

    /// Releases the lock, for any holder.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// std::mem::forget(lock.lock()?);
    /// lock.release()?;
    /// assert!(lock.release().is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::NotHeld`] if the lock is not held.
    pub fn release(&self) -> Result<()> {
        match self.0.release() {
            Released::Done => Ok(()),
            Released::TooOften | Released::NotOwner => Err(Error::Sync(SyncError::NotHeld)),
        }
    }

    /// Returns whether the lock is held.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// assert!(!lock.is_locked());
    /// let _guard = lock.lock()?;
    /// assert!(lock.is_locked());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.is_held()
    }

    /// Returns whether a holder died or panicked, and no process has [cleared](Lock::clear_poison) that.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// let there = lock.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert!(lock.is_poisoned());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.0.poison().is_some()
    }

    /// Removes the mark of a dead holder. The caller must hold the lock.
    ///
    /// ```
    /// let lock = maniple::Lock::new()?;
    /// let there = lock.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// if let Err(poisoned) = lock.lock() {
    ///     // Repairs the resource that the lock guards, and then:
    ///     lock.clear_poison();
    ///     drop(poisoned);
    /// }
    /// assert!(lock.lock().is_ok());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.0.clear_poison();
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("locked", &self.is_locked()).field("poisoned", &self.is_poisoned()).finish()
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}

impl ShmSerde for Lock {
    const WHAT: &'static str = "a Lock";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<Lock> {
        Ok(Lock(Arc::new(Inner::open(ticket)?)))
    }
}

shm_serde!(Lock);
