//! Semaphores: a count of units, or units of which each has a holder.

use super::poison::{LockResult, TryLockError, TryLockResult, judge};
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{Error, InTime, Poison, Result, SyncError, TimeoutError};
use maniple_engine::sync::Released;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::owned_semaphore::{Granted, OwnedSemaphore};
use maniple_engine::sync::semaphore::Semaphore as Counter;
use maniple_engine::wait::Until;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The text for time-outs.
const UNIT: &str = "a unit of the semaphore";

/// A counter that `acquire` decrements and `release` increments, in any process. `acquire` waits while the counter is
/// zero.
///
/// Its units have no holders, so the units that a dead process has acquired are lost; wait for them with a time limit.
/// For a limited number of *resources*, such as connections or licences, use [`BoundedSemaphore`], which recovers them.
///
/// ```
/// use maniple::{Process, Semaphore};
///
/// # fn main() -> maniple::Result<()> {
/// let done = Semaphore::new(0)?;
/// let work = |done: Semaphore| (0..3).for_each(|_| done.release().unwrap());
/// let process = Process::new(work, done.clone())?;
/// process.start()?;
/// for _ in 0..3 {
///     done.acquire();
/// }
/// assert_eq!(done.value(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Semaphore(pub(super) Arc<Counter>);

impl Semaphore {
    /// Creates a semaphore of this value.
    ///
    /// ```
    /// assert_eq!(maniple::Semaphore::new(3)?.value(), 3);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no memory or descriptor left.
    pub fn new(value: u32) -> Result<Semaphore> {
        Ok(Semaphore(Arc::new(Counter::new(value, u32::MAX)?)))
    }

    /// Acquires a unit, and waits for a unit if there is none.
    ///
    /// ```
    /// let units = maniple::Semaphore::new(2)?;
    /// units.acquire();
    /// assert_eq!(units.value(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn acquire(&self) {
        while !self.0.acquire(Until::Ever, &mut || true).is_ours() {}
    }

    /// Acquires a unit if there is one, and returns whether there was.
    ///
    /// ```
    /// let units = maniple::Semaphore::new(1)?;
    /// assert!(units.try_acquire());
    /// assert!(!units.try_acquire());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn try_acquire(&self) -> bool {
        self.0.try_acquire()
    }

    /// Acquires a unit, and waits for it at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let units = maniple::Semaphore::new(1)?;
    /// units.acquire_timeout(Duration::from_secs(1))?;
    /// assert!(matches!(units.acquire_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<()> {
        self.0.acquire(Until::after(timeout), &mut || true).is_ours().in_time(UNIT, timeout)
    }

    /// Releases a unit.
    ///
    /// ```
    /// let units = maniple::Semaphore::new(0)?;
    /// units.release()?;
    /// assert_eq!(units.value(), 1);
    /// assert!(maniple::Semaphore::new(u32::MAX)?.release().is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::NotHeld`] if the value is [`u32::MAX`] already.
    pub fn release(&self) -> Result<()> {
        if self.0.release() == Released::Done { Ok(()) } else { Err(Error::Sync(SyncError::NotHeld)) }
    }

    /// Returns the current value.
    ///
    /// ```
    /// let units = maniple::Semaphore::new(2)?;
    /// units.acquire();
    /// assert_eq!(units.value(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> u32 {
        self.0.value()
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("value", &self.value()).finish()
    }
}

impl ShmSerde for Semaphore {
    const WHAT: &'static str = "a Semaphore";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<Semaphore> {
        Ok(Semaphore(Arc::new(Counter::open(ticket)?)))
    }
}

shm_serde!(Semaphore);

/// A fixed number of units, each of which has a holder while it is acquired. The number of units never grows.
///
/// If a process dies, waiters acquire its units within half a second. Each such waiter gets a
/// [`PoisonError`](crate::PoisonError) once, which holds the permit: the resource behind the unit may need a check.
///
/// ```
/// use maniple::{BoundedSemaphore, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let downloads = BoundedSemaphore::new(2)?;
/// let download = |downloads: BoundedSemaphore| {
///     let _permit = downloads.acquire().unwrap_or_else(|dead| dead.into_inner());
///     // at most two at a time are here
/// };
/// let crew: Vec<_> = (0..4).map(|_| Process::new(download, downloads.clone())).collect::<Result<_, _>>()?;
/// crew.iter().try_for_each(Process::start)?;
/// for process in crew {
///     process.join()?;
/// }
/// assert_eq!(downloads.value(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BoundedSemaphore(pub(super) Arc<OwnedSemaphore>);

/// A unit of a [`BoundedSemaphore`]. Dropping it releases the unit.
///
/// ```
/// let downloads = maniple::BoundedSemaphore::new(2)?;
/// let permit = downloads.acquire()?;
/// assert_eq!(downloads.value(), 1);
/// drop(permit);
/// assert_eq!(downloads.value(), 2);
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the unit is released when the permit is dropped"]
pub struct SemaphorePermit<'a> {
    permits: &'a OwnedSemaphore,
    unit: u32,
}

impl BoundedSemaphore {
    /// Creates a semaphore of `units` units.
    ///
    /// ```
    /// let units = maniple::BoundedSemaphore::new(2)?;
    /// assert_eq!((units.value(), units.bound()), (2, 2));
    /// assert!(maniple::BoundedSemaphore::new(0).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 units, [`Error::System`] for more than 5115, or if there is no memory or descriptor left.
    pub fn new(units: u32) -> Result<BoundedSemaphore> {
        if units == 0 {
            return Err(Error::InvalidArgument(
                "a bounded semaphore of 0 units, which no process could acquire; use 1 or more",
            ));
        }
        Ok(BoundedSemaphore(Arc::new(OwnedSemaphore::new(units)?)))
    }

    pub(super) fn take(&self, limit: Until) -> Option<LockResult<SemaphorePermit<'_>>> {
        let permit = |unit| SemaphorePermit { permits: &self.0, unit };
        match self.0.acquire(limit, &mut || true) {
            Granted::Unit(unit) => Some(Ok(permit(unit))),
            Granted::TakenOver { unit, from } => Some(judge(permit(unit), Some(Poison::Died(from)))),
            Granted::TimedOut | Granted::Interrupted => None,
        }
    }

    /// Acquires a unit, and waits for a unit if there is none.
    ///
    /// ```
    /// let units = maniple::BoundedSemaphore::new(2)?;
    /// let _permit = units.acquire()?;
    /// assert_eq!(units.value(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The unit was acquired from a process that died.
    pub fn acquire(&self) -> LockResult<SemaphorePermit<'_>> {
        loop {
            // Without a limit or an interrupt the wait ends only with a unit.
            if let Some(taken) = self.take(Until::Ever) {
                return taken;
            }
        }
    }

    /// Acquires a unit if there is a free unit, or a unit whose holder has died. The holders' death is checked at most
    /// every 100 ms, and not at the first attempt.
    ///
    /// ```
    /// use maniple::{BoundedSemaphore, TryLockError};
    ///
    /// let units = BoundedSemaphore::new(1)?;
    /// let _permit = units.try_acquire()?;
    /// assert!(matches!(units.try_acquire(), Err(TryLockError::WouldBlock)));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`], or the unit was acquired from a process that died.
    pub fn try_acquire(&self) -> TryLockResult<SemaphorePermit<'_>> {
        Ok(self.take(Until::Now).ok_or(TryLockError::WouldBlock)??)
    }

    /// As [`acquire`](BoundedSemaphore::acquire), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{BoundedSemaphore, TryLockError};
    /// use std::time::Duration;
    ///
    /// let units = BoundedSemaphore::new(1)?;
    /// let _permit = units.acquire_timeout(Duration::from_secs(1))?;
    /// assert!(matches!(units.acquire_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`], or the unit was acquired from a process that died.
    pub fn acquire_timeout(&self, timeout: Duration) -> TryLockResult<SemaphorePermit<'_>> {
        Ok(self.take(Until::after(timeout)).ok_or(TryLockError::Timeout(TimeoutError::new(UNIT, timeout)))??)
    }

    /// Releases a unit of this process whose permit was forgotten ([`std::mem::forget`]).
    ///
    /// ```
    /// let units = maniple::BoundedSemaphore::new(1)?;
    /// std::mem::forget(units.acquire()?);
    /// units.release()?;
    /// assert_eq!(units.value(), 1);
    /// assert!(units.release().is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::NotHeld`] if this process has none.
    pub fn release(&self) -> Result<()> {
        if self.0.give_back_any() == Released::Done { Ok(()) } else { Err(Error::Sync(SyncError::NotHeld)) }
    }

    /// Returns the number of free units.
    ///
    /// ```
    /// let units = maniple::BoundedSemaphore::new(2)?;
    /// let _permit = units.acquire()?;
    /// assert_eq!(units.value(), 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn value(&self) -> u32 {
        self.0.free()
    }

    /// Returns the number of all units.
    ///
    /// ```
    /// let units = maniple::BoundedSemaphore::new(2)?;
    /// let _permit = units.acquire()?;
    /// assert_eq!(units.bound(), 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.0.units()
    }
}

#[cfg(feature = "async")]
impl<'a> SemaphorePermit<'a> {
    pub(super) fn new(permits: &'a OwnedSemaphore, unit: u32) -> Self {
        SemaphorePermit { permits, unit }
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        // Refused in a forked child, whose unit it is not.
        self.permits.give_back(self.unit);
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore").field("value", &self.value()).field("bound", &self.bound()).finish()
    }
}

impl fmt::Debug for SemaphorePermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphorePermit").field("unit", &self.unit).finish()
    }
}

impl ShmSerde for BoundedSemaphore {
    const WHAT: &'static str = "a BoundedSemaphore";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<BoundedSemaphore> {
        Ok(BoundedSemaphore(Arc::new(OwnedSemaphore::open(ticket)?)))
    }
}

shm_serde!(BoundedSemaphore);
