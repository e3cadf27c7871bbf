//! Waiting for locks, units and events as futures (feature `async`).

use super::event::Event;
use super::held;
use super::lock::{Lock, LockGuard};
use super::mutex::{Mutex, MutexGuard};
use super::poison::{LockResult, judge};
use super::rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use super::semaphore::{BoundedSemaphore, Semaphore, SemaphorePermit};
use crate::background::Background;
use crate::error::Poison;
use bytemuck::Pod;
use maniple_engine::sync::guarded_region::GuardedRegion;
use maniple_engine::sync::lock::Lock as Inner;
use maniple_engine::sync::owned_semaphore::Granted;
use maniple_engine::sync::rwlock::Admitted;
use maniple_engine::wait::Until;
use std::sync::Arc;

/// The lock of a region, with the region.
#[derive(Clone)]
struct InRegion(Arc<GuardedRegion>);

impl AsRef<Inner> for InRegion {
    fn as_ref(&self) -> &Inner {
        self.0.lock()
    }
}

impl Lock {
    /// As [`lock`](Lock::lock), as a future.
    ///
    /// Dropping the future is safe: a lock that was acquired for it is released. A background thread waits meanwhile; a
    /// few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let lock = maniple::Lock::new()?;
    /// let guard = block_on(lock.lock_async())?;
    /// assert!(lock.is_locked());
    /// drop(guard);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub async fn lock_async(&self) -> LockResult<LockGuard<'_>> {
        held::lock_async(&self.0, self.0.clone(), LockGuard).await
    }
}

impl<T: Pod> Mutex<T> {
    /// As [`lock`](Mutex::lock), as a future.
    ///
    /// Dropping the future is safe: a lock that was acquired for it is released. A background thread waits meanwhile; a
    /// few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let total = maniple::Mutex::new(1)?;
    /// *block_on(total.lock_async())? += 1;
    /// assert_eq!(*total.lock()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a holder died or panicked.
    pub async fn lock_async(&self) -> LockResult<MutexGuard<'_, T>> {
        held::lock_async(self.region.lock(), InRegion(self.region.clone()), self.guard()).await
    }
}

impl<T: Pod> RwLock<T> {
    /// As [`read`](RwLock::read), as a future.
    ///
    /// Dropping the future is safe: a lock that was acquired for it is released. A background thread waits meanwhile; a
    /// few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let total = maniple::RwLock::new(1)?;
    /// assert_eq!(*block_on(total.read_async())?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a writer died or panicked.
    pub async fn read_async(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        if let Some(taken) = self.reading(Until::Now) {
            return taken;
        }
        let (waits, forgoes) = (self.inner.clone(), self.inner.clone());
        let step = move |limit: Until, go_on: &mut dyn FnMut() -> bool| match waits.read(limit, go_on) {
            Admitted::Share(share) => Some(share),
            Admitted::TimedOut | Admitted::Interrupted => None,
        };
        let undo = move |share| {
            forgoes.give_back(share);
        };
        let share = Background::new(step, undo).await;
        self.read_guard(share)
    }

    /// As [`write`](RwLock::write), as a future.
    ///
    /// Dropping the future is safe: a lock that was acquired for it is released, and readers that it blocked continue.
    /// A thread waits meanwhile; a few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let total = maniple::RwLock::new(1)?;
    /// *block_on(total.write_async())? += 1;
    /// assert_eq!(*total.read()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The lock was acquired and is poisoned: a writer died or panicked.
    pub async fn write_async(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        if let Some(taken) = self.writing(Until::Now) {
            return taken;
        }
        let (waits, forgoes) = (self.inner.clone(), self.inner.clone());
        let step =
            move |limit: Until, go_on: &mut dyn FnMut() -> bool| waits.write(limit, go_on).is_ours().then_some(());
        let undo = move |()| {
            forgoes.release();
        };
        Background::new(step, undo).await;
        self.write_guard()
    }
}

impl Semaphore {
    /// As [`acquire`](Semaphore::acquire), as a future.
    ///
    /// Dropping the future is safe: a unit that was acquired for it is released. A background thread waits meanwhile; a
    /// few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let semaphore = maniple::Semaphore::new(1)?;
    /// block_on(semaphore.acquire_async());
    /// assert_eq!(semaphore.value(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire_async(&self) {
        if self.0.try_acquire() {
            return;
        }
        let (waits, forgoes) = (self.0.clone(), self.0.clone());
        let step =
            move |limit: Until, go_on: &mut dyn FnMut() -> bool| waits.acquire(limit, go_on).is_ours().then_some(());
        let undo = move |()| {
            forgoes.release();
        };
        Background::new(step, undo).await;
    }
}

impl BoundedSemaphore {
    /// As [`acquire`](BoundedSemaphore::acquire), as a future.
    ///
    /// Dropping the future is safe: a unit that was acquired for it is released. A background thread waits meanwhile; a
    /// few such threads are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let semaphore = maniple::BoundedSemaphore::new(1)?;
    /// let permit = block_on(semaphore.acquire_async())?;
    /// assert_eq!(semaphore.value(), 0);
    /// drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The unit was acquired from a process that died.
    pub async fn acquire_async(&self) -> LockResult<SemaphorePermit<'_>> {
        if let Some(taken) = self.take(Until::Now) {
            return taken;
        }
        let (waits, forgoes) = (self.0.clone(), self.0.clone());
        let step = move |limit: Until, go_on: &mut dyn FnMut() -> bool| match waits.acquire(limit, go_on) {
            Granted::Unit(unit) => Some((unit, None)),
            Granted::TakenOver { unit, from } => Some((unit, Some(Poison::Died(from)))),
            Granted::TimedOut | Granted::Interrupted => None,
        };
        let undo = move |(unit, _)| {
            forgoes.give_back(unit);
        };
        let (unit, poison) = Background::new(step, undo).await;
        judge(SemaphorePermit::new(&self.0, unit), poison)
    }
}

impl Event {
    /// As [`wait`](Event::wait), as a future. It also ends if the event was set and cleared while it waited.
    ///
    /// Dropping the future is safe: it leaves nothing behind. A background thread waits meanwhile; a few such threads
    /// are kept. Any executor works.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let event = maniple::Event::new()?;
    /// event.set();
    /// block_on(event.wait_async());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_async(&self) {
        let waits = self.0.clone();
        if waits.wait(Until::Now, &mut || true).is_ours() {
            return;
        }
        let step =
            move |limit: Until, go_on: &mut dyn FnMut() -> bool| waits.wait(limit, go_on).is_ours().then_some(());
        Background::new(step, |()| ()).await;
    }
}
