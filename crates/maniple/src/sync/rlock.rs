//! A lock that its holder may acquire again.

use super::held;
use super::poison::{LockResult, TryLockError, TryLockResult, judge};
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{Result, TimeoutError};
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::lock::RLock as Inner;
use maniple_engine::wait::Until;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::panicking;
use std::time::Duration;

/// What a time-out says was waited for: not for this thread, which may acquire the lock again.
const OTHERS: &str = "the lock, which others held";

/// A [`Lock`](crate::Lock) that belongs to a thread, which may acquire it several times.
///
/// ```
/// use maniple::RLock;
///
/// fn record(journal: &RLock, what: &str) -> maniple::Result<()> {
///     let _guard = journal.lock()?;
///     // ...
///     Ok(())
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let journal = RLock::new()?;
/// let _both_or_none = journal.lock()?;
/// record(&journal, "one")?;
/// record(&journal, "two")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RLock(Arc<Inner>);

/// A guard of an [`RLock`]. Dropping it releases the lock once.
///
/// ```
/// let lock = maniple::RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop(outer);
/// assert_eq!(lock.depth(), 1);
/// drop(inner);
/// assert!(!lock.is_locked());
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct RLockGuard<'a> {
    pub(super) lock: &'a Inner,
    panicking: bool,
    // It is the thread's that took it.
    _here: PhantomData<*const ()>,
}

/// The locks that came from other processes or were sent to some. The process records the holder of a recursive lock, and the depth,
/// so a lock that arrives for a second time has to be the very same object.
static KNOWN: Mutex<Vec<(Spot, Weak<Inner>)>> = Mutex::new(Vec::new());

/// Arena and number.
type Spot = ([u64; 2], u32);

fn known(place: Spot, or: impl FnOnce() -> maniple_engine::Result<Arc<Inner>>) -> maniple_engine::Result<Arc<Inner>> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = known.iter().find(|(at, _)| *at == place).and_then(|(_, lock)| lock.upgrade()) {
        return Ok(same);
    }
    let lock = or()?;
    known.retain(|(_, lock)| lock.strong_count() > 0);
    known.push((place, Arc::downgrade(&lock)));
    Ok(lock)
}

impl RLock {
    /// Creates a free lock.
    ///
    /// ```
    /// assert!(!maniple::RLock::new()?.is_locked());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new() -> Result<RLock> {
        Ok(RLock(Arc::new(Inner::new()?)))
    }

    fn take(&self, limit: Until) -> Option<LockResult<RLockGuard<'_>>> {
        let outcome = self.0.acquire(limit, &mut || true);
        let guard = || RLockGuard { lock: &self.0, panicking: panicking(), _here: PhantomData };
        outcome.is_ours().then(|| judge(guard(), held::poison(self.0.lock())))
    }

    /// Waits until the lock is free or this thread holds it, and acquires it once more.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
    /// let _outer = lock.lock()?;
    /// let _inner = lock.lock()?;
    /// assert_eq!(lock.depth(), 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub fn lock(&self) -> LockResult<RLockGuard<'_>> {
        loop {
            // Without a limit or an interrupt the wait ends only with the lock.
            if let Some(taken) = self.take(Until::Ever) {
                return taken;
            }
        }
    }

    /// Acquires the lock if it is free, or if this thread or a dead holder has it.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
    /// let _guard = lock.try_lock()?;
    /// assert!(lock.try_lock().is_ok());
    /// let other = lock.clone();
    /// assert!(std::thread::spawn(move || other.try_lock().is_err()).join().unwrap());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`], or the lock was acquired and is poisoned.
    pub fn try_lock(&self) -> TryLockResult<RLockGuard<'_>> {
        Ok(self.take(Until::Now).ok_or(TryLockError::WouldBlock)??)
    }

    /// As [`lock`](RLock::lock), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = maniple::RLock::new()?;
    /// let _guard = lock.lock()?;
    /// let other = lock.clone();
    /// let thread = std::thread::spawn(move || other.lock_timeout(Duration::from_millis(1)).is_err());
    /// assert!(thread.join().unwrap());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`], or the lock was acquired and is poisoned.
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<RLockGuard<'_>> {
        Ok(self.take(Until::after(timeout)).ok_or(TryLockError::Timeout(TimeoutError::new(OTHERS, timeout)))??)
    }

    /// Returns how many times this thread holds the lock.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
    /// assert_eq!(lock.depth(), 0);
    /// let _guard = lock.lock()?;
    /// assert_eq!(lock.depth(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.0.depth()
    }

    /// Returns whether the lock is held.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.is_locked());
    /// drop(guard);
    /// assert!(!lock.is_locked());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.0.lock().is_held()
    }

    /// Returns whether a holder died or panicked, and no process has [cleared](RLock::clear_poison) that.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
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
        self.0.lock().poison().is_some()
    }

    /// Removes the mark of a dead holder. The caller must hold the lock.
    ///
    /// ```
    /// let lock = maniple::RLock::new()?;
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
        self.0.lock().clear_poison();
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        if panicking() && !self.panicking && self.lock.depth() > 0 {
            self.lock.lock().set_poison();
        }
        // Refused in a forked child, which owns nothing.
        self.lock.release();
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock").field("locked", &self.is_locked()).field("poisoned", &self.is_poisoned()).finish()
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard").field("depth", &self.lock.depth()).finish()
    }
}

impl ShmSerde for RLock {
    const WHAT: &'static str = "an RLock";

    fn place(&self) -> &Place {
        let place = self.0.lock().place();
        // The same lock may arrive again.
        let _ = known((place.send().arena.id(), place.number()), || Ok(self.0.clone()));
        place
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<RLock> {
        known((ticket.arena.id(), ticket.number), || Ok(Arc::new(Inner::open(ticket)?))).map(RLock)
    }
}

shm_serde!(RLock);
