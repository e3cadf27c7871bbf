//! A value in shared memory with its lock, and the guard of all such values.
#![allow(unsafe_code)]

use super::held::{self, Held};
use super::poison::{LockResult, TryLockResult};
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::Result;
use bytemuck::Pod;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::guarded_region::{ALIGNMENT, Access, GuardedRegion};
use maniple_sys::{BorrowedHandle, OwnedHandle};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// A value that processes share, with a lock that one thread at a time holds: the standard library's
/// `Mutex`, between processes.
///
/// The value is plain old data ([`Pod`]), because it lies in shared memory: numbers, arrays of them, and structs that
/// derive `bytemuck::Pod`. If a holder dies, the next owner gets an error, see [`PoisonError`](crate::PoisonError).
///
/// # Deadlock
/// [`lock`](Mutex::lock) waits forever if the calling thread itself holds the lock. A guard without a name lives to the
/// end of its statement: `println!("{} {}", *total.lock()?, *total.lock()?)` waits for itself.
///
/// ```
/// use maniple::{Mutex, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let total = Mutex::new(0u64)?;
/// let add = |total: Mutex<u64>| {
///     for _ in 0..1000 {
///         *total.lock().unwrap() += 1;
///     }
/// };
/// let processes = [Process::new(add, total.clone())?, Process::new(add, total.clone())?];
/// processes.iter().try_for_each(Process::start)?;
/// for process in &processes {
///     process.join()?;
/// }
/// assert_eq!(*total.lock()?, 2000);
/// # Ok(())
/// # }
/// ```
pub struct Mutex<T: Pod> {
    pub(crate) region: Arc<GuardedRegion>,
    // The bounds are those of the standard library's `Mutex`.
    _value: PhantomData<std::sync::Mutex<T>>,
}

/// A guard of a value whose lock is held. It dereferences to the value. Dropping it releases the lock.
///
/// ```
/// let number = maniple::Mutex::new(1)?;
/// let mut guard = number.lock()?;
/// *guard += 1;
/// assert_eq!(*guard, 2);
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    pub(super) held: Held<'a>,
    value: NonNull<T>,
    _value: PhantomData<&'a mut T>,
}

// SAFETY: the guard acts as a `&mut T`. The lock belongs to the process and not to a thread, so any thread may release
// it.
unsafe impl<T: ?Sized + Send> Send for MutexGuard<'_, T> {}
// SAFETY: a shared guard returns only a `&T`.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// # Safety
    /// `value` lies in a guarded region whose lock is `held`, any bit pattern is valid for it, and no code borrows it
    /// without that lock.
    pub(crate) unsafe fn new(held: Held<'a>, value: NonNull<T>) -> Self {
        MutexGuard { held, value, _value: PhantomData }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the caller of `new` has promised this. The guard borrows the region, so the value exists, and no
        // other code accesses it while the lock is held.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; `&mut self` excludes other borrows through this guard.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod> Mutex<T> {
    /// Creates an unlocked value.
    ///
    /// ```
    /// assert_eq!(*maniple::Mutex::new([1.5, 2.5])?.lock()?, [1.5, 2.5]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new(value: T) -> Result<Mutex<T>> {
        const { assert!(align_of::<T>() <= ALIGNMENT, "a shared value is aligned to 64 bytes at most") };
        let region = GuardedRegion::create(size_of::<T>(), Access::Guarded)?;
        // SAFETY: `GuardedRegion::create` has made the region with this size and alignment. No other process has the
        // memory yet.
        unsafe { region.start().cast::<T>().write(value) };
        Ok(Mutex { region: Arc::new(region), _value: PhantomData })
    }

    pub(super) fn guard<'a>(&'a self) -> impl Fn(Held<'a>) -> MutexGuard<'a, T> {
        // SAFETY: the region has the size (`new` makes it so, `open` checks it) and alignment of a `T`, and any bit
        // pattern is valid for a `T`. Only guards access it.
        |held| unsafe { MutexGuard::new(held, self.region.start().cast()) }
    }

    /// Waits until the lock is free, and acquires it. Waits forever if this thread itself holds the lock.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// *total.lock()? += 1;
    /// assert_eq!(*total.lock()?, 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        held::lock(self.region.lock(), self.guard())
    }

    /// Acquires the lock if it is free, or if its holder has died. The holder's death is checked at most every 100 ms,
    /// and not at the first attempt.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let guard = total.try_lock()?;
    /// assert!(total.try_lock().is_err());
    /// drop(guard);
    /// assert_eq!(*total.try_lock()?, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`](crate::TryLockError::WouldBlock), or the lock was acquired and is poisoned.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        held::try_lock(self.region.lock(), self.guard())
    }

    /// As [`lock`](Mutex::lock), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{Mutex, TryLockError};
    /// use std::time::Duration;
    ///
    /// let total = Mutex::new(1)?;
    /// let _guard = total.lock_timeout(Duration::from_secs(1))?;
    /// assert!(matches!(total.lock_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`](crate::TryLockError::Timeout), or the lock was acquired and is poisoned.
    pub fn lock_timeout(&self, timeout: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        held::lock_timeout(self.region.lock(), timeout, self.guard())
    }

    /// Returns whether a holder died or panicked, and no process has [cleared](Mutex::clear_poison) that.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert!(total.is_poisoned());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.region.lock().poison().is_some()
    }

    /// Removes the mark of a dead holder, once the value is consistent. The caller must hold the lock.
    ///
    /// ```
    /// let total = maniple::Mutex::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.lock();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// if let Err(poisoned) = total.lock() {
    ///     let mut guard = poisoned.into_inner();
    ///     *guard = 0;
    ///     total.clear_poison();
    /// }
    /// assert_eq!(*total.lock()?, 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.region.lock().clear_poison();
    }
}

impl<T: Pod> Clone for Mutex<T> {
    fn clone(&self) -> Self {
        Mutex { region: self.region.clone(), _value: PhantomData }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => it.field("value", &*guard),
            Err(crate::TryLockError::Poisoned(error)) => it.field("value", &**error.get_ref()),
            Err(_) => it.field("value", &format_args!("<locked>")),
        };
        it.field("poisoned", &self.is_poisoned()).finish()
    }
}

impl<T: Pod> ShmSerde for Mutex<T> {
    const WHAT: &'static str = "a Mutex";

    fn place(&self) -> &Place {
        self.region.place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.region.apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        let region = GuardedRegion::open(ticket, apart, Access::Guarded)?;
        if region.len() != size_of::<T>() {
            return Err(maniple_engine::Error::Lock("the shared value that was sent has another size"));
        }
        Ok(Mutex { region: Arc::new(region), _value: PhantomData })
    }
}

shm_serde!(Mutex<T: Pod>);
