//! A value in shared memory that many threads may read at a time, or one thread may change.
#![allow(unsafe_code)]

use super::poison::{LockResult, TryLockError, TryLockResult, judge};
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{Poison, Result, TimeoutError};
use bytemuck::Pod;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::guarded_region::ALIGNMENT;
use maniple_engine::sync::rwlock::{Admitted, RwLock as Inner};
use maniple_engine::wait::Until;
use maniple_sys::{BorrowedHandle, OwnedHandle};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

const READ: &str = "the lock, which a writer held";
const WRITE: &str = "the lock, which others, or this thread, held";

/// A value that processes share. Many threads may read it at a time, or one thread may change it: the standard
/// library's `RwLock`, between processes.
///
/// The value is plain old data ([`Pod`]), as in a [`Mutex`](crate::Mutex). At most 61 guards can read at a time;
/// further readers wait for one of them.
///
/// If a process dies while it writes, the lock is poisoned, as a mutex is; see [`PoisonError`](crate::PoisonError). If
/// a process dies while it reads, a waiting writer releases its share within half a second.
///
/// # Fairness
/// A writer that waits blocks new readers, so readers do not starve writers. The operating system chooses among several
/// waiters; there is no order of arrival. If a thread that has a read guard calls [`read`](RwLock::read) again, the
/// call may wait for a writer that waits for the first guard: a deadlock, as with the standard library's lock.
///
/// # Deadlock
/// [`write`](RwLock::write) waits forever if the calling thread itself has a guard of this lock, and so does
/// [`read`](RwLock::read) if the thread has the guard of a writer. A guard without a name lives to the end of its
/// statement: `println!("{} {}", *total.read()?, *total.write()?)` waits for itself.
///
/// ```
/// use maniple::{Exit, Process, RwLock};
///
/// # fn main() -> maniple::Result<()> {
/// let prices = RwLock::new([10.0, 20.0])?;
/// let reading = prices.read()?;
/// let process = Process::new(
///     // Both read at a time.
///     |prices: RwLock<[f64; 2]>| i32::from(prices.read().unwrap()[1] == 20.0 && prices.try_write().is_err()),
///     prices.clone(),
/// )?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(1));
/// drop(reading);
/// prices.write()?[1] = 25.0;
/// assert_eq!(*prices.read()?, [10.0, 25.0]);
/// # Ok(())
/// # }
/// ```
pub struct RwLock<T: Pod> {
    pub(super) inner: Arc<Inner>,
    // The bounds are those of the standard library's `RwLock`.
    _value: PhantomData<std::sync::RwLock<T>>,
}

/// A guard for reading the value. Dropping it releases the lock.
///
/// ```
/// let number = maniple::RwLock::new(1)?;
/// let (one, other) = (number.read()?, number.read()?);
/// assert_eq!((*one, *other), (1, 1));
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockReadGuard<'a, T> {
    lock: &'a Inner,
    share: u32,
    _value: PhantomData<&'a T>,
}

/// A guard for changing the value. Dropping it releases the lock.
///
/// ```
/// let number = maniple::RwLock::new(1)?;
/// let mut guard = number.write()?;
/// *guard += 1;
/// assert_eq!(*guard, 2);
/// # Ok::<(), maniple::Error>(())
/// ```
#[must_use = "the lock is released when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T> {
    lock: &'a Inner,
    // Whether the lock was acquired during a panic. If so, the panic at its release says nothing about the work under
    // the lock.
    panicking: bool,
    _value: PhantomData<&'a mut T>,
}

fn value<T>(lock: &Inner) -> NonNull<T> {
    lock.start().cast()
}

fn poison(lock: &Inner) -> Option<Poison> {
    lock.poison().map(Poison::from_engine)
}

impl<T: Pod> RwLock<T> {
    /// Creates an unlocked value.
    ///
    /// ```
    /// assert_eq!(*maniple::RwLock::new([1.5, 2.5])?.read()?, [1.5, 2.5]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new(value: T) -> Result<RwLock<T>> {
        const { assert!(align_of::<T>() <= ALIGNMENT, "a shared value is aligned to 64 bytes at most") };
        let inner = Inner::create(size_of::<T>())?;
        // SAFETY: `Inner::create` has made room for a `T`, aligned to 64 bytes. No other process has the memory yet.
        unsafe { inner.start().cast::<T>().write(value) };
        Ok(RwLock { inner: Arc::new(inner), _value: PhantomData })
    }

    pub(super) fn read_guard(&self, share: u32) -> LockResult<RwLockReadGuard<'_, T>> {
        judge(RwLockReadGuard { lock: &self.inner, share, _value: PhantomData }, poison(&self.inner))
    }

    pub(super) fn write_guard(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        let guard = RwLockWriteGuard { lock: &self.inner, panicking: panicking(), _value: PhantomData };
        judge(guard, poison(&self.inner))
    }

    pub(super) fn reading(&self, limit: Until) -> Option<LockResult<RwLockReadGuard<'_, T>>> {
        match self.inner.read(limit, &mut || true) {
            Admitted::Share(share) => Some(self.read_guard(share)),
            Admitted::TimedOut | Admitted::Interrupted => None,
        }
    }

    pub(super) fn writing(&self, limit: Until) -> Option<LockResult<RwLockWriteGuard<'_, T>>> {
        self.inner.write(limit, &mut || true).is_ours().then(|| self.write_guard())
    }

    /// Waits until no writer has the lock or waits for it, and acquires it for reading. Waits forever if this thread
    /// has the guard of a writer.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// assert_eq!(*total.read()?, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a writer died or panicked.
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        loop {
            // Without a limit or an interrupt the wait ends only with the lock.
            if let Some(taken) = self.reading(Until::Ever) {
                return taken;
            }
        }
    }

    /// Acquires the lock for reading if no writer has it or waits for it, or if that writer has died. The writer's
    /// death is checked at most every 100 ms, and not at the first attempt.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// let guard = total.write()?;
    /// assert!(total.try_read().is_err());
    /// drop(guard);
    /// assert_eq!(*total.try_read()?, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`], or the lock was acquired and is poisoned.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        Ok(self.reading(Until::Now).ok_or(TryLockError::WouldBlock)??)
    }

    /// As [`read`](RwLock::read), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{RwLock, TryLockError};
    /// use std::time::Duration;
    ///
    /// let total = RwLock::new(1)?;
    /// let _guard = total.write()?;
    /// assert!(matches!(total.read_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`], or the lock was acquired and is poisoned.
    pub fn read_timeout(&self, timeout: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let late = || TryLockError::Timeout(TimeoutError::new(READ, timeout));
        Ok(self.reading(Until::after(timeout)).ok_or_else(late)??)
    }

    /// Waits until the lock is free, and acquires it for writing. Waits forever if this thread has a guard of this lock.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// *total.write()? += 1;
    /// assert_eq!(*total.read()?, 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a writer died or panicked.
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        loop {
            // As in `read`.
            if let Some(taken) = self.writing(Until::Ever) {
                return taken;
            }
        }
    }

    /// Acquires the lock for writing if it is free, or if its holders have died. Their death is checked at most every
    /// 100 ms, and not at the first attempt.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// let guard = total.read()?;
    /// assert!(total.try_write().is_err());
    /// drop(guard);
    /// *total.try_write()? = 2;
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`], or the lock was acquired and is poisoned.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        Ok(self.writing(Until::Now).ok_or(TryLockError::WouldBlock)??)
    }

    /// As [`write`](RwLock::write), for at most `timeout`. Readers that arrived meanwhile continue after that.
    ///
    /// ```
    /// use maniple::{RwLock, TryLockError};
    /// use std::time::Duration;
    ///
    /// let total = RwLock::new(1)?;
    /// let _guard = total.read()?;
    /// assert!(matches!(total.write_timeout(Duration::from_millis(1)), Err(TryLockError::Timeout(_))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TryLockError::Timeout`], or the lock was acquired and is poisoned.
    pub fn write_timeout(&self, timeout: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let late = || TryLockError::Timeout(TimeoutError::new(WRITE, timeout));
        Ok(self.writing(Until::after(timeout)).ok_or_else(late)??)
    }

    /// Returns whether a writer died or panicked, and no process has [cleared](RwLock::clear_poison) that.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.write();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// assert!(total.is_poisoned() && total.read().is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.inner.poison().is_some()
    }

    /// Removes the mark of a dead writer, once the value is consistent. The caller must hold the lock.
    ///
    /// ```
    /// let total = maniple::RwLock::new(1)?;
    /// let there = total.clone();
    /// let thread = std::thread::spawn(move || {
    ///     let _guard = there.write();
    ///     panic!("in the middle of it");
    /// });
    /// assert!(thread.join().is_err());
    /// if let Err(poisoned) = total.write() {
    ///     let mut guard = poisoned.into_inner();
    ///     *guard = 0;
    ///     total.clear_poison();
    /// }
    /// assert_eq!(*total.read()?, 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear_poison(&self) {
        self.inner.clear_poison();
    }
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock has the size (`new` makes it so, `open` checks it) and alignment of a `T`, and any bit
        // pattern is valid for a `T`. The share excludes writers.
        unsafe { value::<T>(self.lock).as_ref() }
    }
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as for a reader. While this guard exists, no other guard does.
        unsafe { value::<T>(self.lock).as_ref() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above; `&mut self` excludes other borrows through this guard.
        unsafe { value::<T>(self.lock).as_mut() }
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        // A forked child inherits copies of its parent's guards. The share is not the child's, so the lock does not
        // release it.
        self.lock.give_back(self.share);
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        // In a forked child, as above.
        if self.lock.is_written_here() {
            if panicking() && !self.panicking {
                self.lock.set_poison();
            }
            self.lock.release();
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod> Clone for RwLock<T> {
    fn clone(&self) -> Self {
        RwLock { inner: self.inner.clone(), _value: PhantomData }
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => it.field("value", &*guard),
            Err(TryLockError::Poisoned(error)) => it.field("value", &**error.get_ref()),
            Err(_) => it.field("value", &format_args!("<locked>")),
        };
        it.field("poisoned", &self.is_poisoned()).finish()
    }
}

impl<T: Pod> ShmSerde for RwLock<T> {
    const WHAT: &'static str = "an RwLock";

    fn place(&self) -> &Place {
        self.inner.region().place()
    }

    fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.inner.region().apart()
    }

    fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> maniple_engine::Result<Self> {
        let inner = Inner::open(ticket, apart)?;
        if inner.len() != size_of::<T>() {
            return Err(maniple_engine::Error::Lock("the shared value that was sent has another size"));
        }
        Ok(RwLock { inner: Arc::new(inner), _value: PhantomData })
    }
}

shm_serde!(RwLock<T: Pod>);
