//! Waiting until another process reports a change.

use super::held;
use super::lock::LockGuard;
use super::mutex::MutexGuard;
use super::poison::{LockResult, judge};
use super::rlock::RLockGuard;
use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{Poison, Result};
use maniple_engine::sync::Outcome;
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::condition::{Condition as Inner, Guard as Unlock};
use maniple_engine::wait::Until;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The standard library's `Condvar`, between processes. A wait releases a lock, waits for a notification, and acquires
/// the lock again.
///
/// It works with the guards of a [`Lock`](crate::Lock), an [`RLock`](crate::RLock) (which is released completely, at
/// any depth), a [`Mutex`](crate::Mutex), a [`Value`](crate::Value) or an [`Array`](crate::Array). All waiters of one
/// condition use the same lock. As with any condition, a wait may end without a notification, so check a state:
/// [`wait_while`](Condition::wait_while).
///
/// A waiter that dies blocks no other waiter; at worst another waiter is woken once too often. The lock that a wait
/// acquires again may be poisoned.
///
/// ```
/// use maniple::{Condition, Mutex, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let (stock, changed) = (Mutex::new(0)?, Condition::new()?);
/// let process = Process::new(
///     |(stock, changed): (Mutex<i32>, Condition)| {
///         *stock.lock().unwrap() = 3;
///         changed.notify_all();
///     },
///     (stock.clone(), changed.clone()),
/// )?;
/// process.start()?;
/// let guard = changed.wait_while(stock.lock()?, |stock| **stock == 0)?;
/// assert_eq!(*guard, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Condition(Arc<Inner>);

/// Whether a wait ended because its time limit expired.
///
/// ```
/// use std::time::Duration;
///
/// let (lock, changed) = (maniple::Lock::new()?, maniple::Condition::new()?);
/// let (_guard, result) = changed.wait_timeout_while(lock.lock()?, Duration::from_millis(1), |_| true)?;
/// assert!(result.timed_out());
/// # Ok::<(), maniple::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Returns whether the time limit expired.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, changed) = (maniple::Lock::new()?, maniple::Condition::new()?);
    /// let (_guard, result) = changed.wait_timeout_while(lock.lock()?, Duration::from_secs(1), |_| false)?;
    /// assert!(!result.timed_out());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// A guard whose lock a [`Condition`] can release and acquire again.
///
/// ```
/// use maniple::{Condition, Guard, Lock, Mutex};
/// use std::time::Duration;
///
/// fn pause<G: Guard>(changed: &Condition, guard: G) -> maniple::Result<G> {
///     Ok(changed.wait_timeout(guard, Duration::from_millis(1))?.0)
/// }
///
/// let (lock, number, changed) = (Lock::new()?, Mutex::new(7)?, Condition::new()?);
/// let _guard = pause(&changed, lock.lock()?)?;
/// assert_eq!(*pause(&changed, number.lock()?)?, 7);
/// # Ok::<(), maniple::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a guard of a lock that a `Condition` can release while it waits",
    note = "use the guard of a `maniple::Lock`, `RLock`, `Mutex`, `Value` or `Array`; the locks of `std::sync` work \
        within one process"
)]
pub trait Guard: sealed::Waits {}

impl<G: sealed::Waits> Guard for G {}

mod sealed {
    use super::{Inner, Outcome, Poison, Until};

    pub trait Waits {
        #[doc(hidden)]
        fn wait(&self, condition: &Inner, limit: Until) -> Outcome;

        #[doc(hidden)]
        fn poison(&self) -> Option<Poison>;
    }
}

/// How long a caller sleeps that cannot wait, because 65535 waiters are there.
const CROWDED: Duration = Duration::from_millis(1);

fn wait(lock: &impl Unlock, condition: &Inner, limit: Until) -> Outcome {
    match condition.wait(lock, limit, &mut || true) {
        Ok(waited) => waited.outcome,
        // Woken without a reason, which is allowed; but not without others having had a chance to take the lock.
        Err(_) => {
            if let Some(depth) = lock.let_go() {
                std::thread::sleep(CROWDED);
                while !lock.take_again(depth, &mut || true).is_ours() {}
            }
            Outcome::Taken
        }
    }
}

impl sealed::Waits for LockGuard<'_> {
    fn wait(&self, condition: &Inner, limit: Until) -> Outcome {
        wait(self.0.lock(), condition, limit)
    }

    fn poison(&self) -> Option<Poison> {
        held::poison(self.0.lock())
    }
}

impl<T: ?Sized> sealed::Waits for MutexGuard<'_, T> {
    fn wait(&self, condition: &Inner, limit: Until) -> Outcome {
        wait(self.held.lock(), condition, limit)
    }

    fn poison(&self) -> Option<Poison> {
        held::poison(self.held.lock())
    }
}

impl sealed::Waits for RLockGuard<'_> {
    fn wait(&self, condition: &Inner, limit: Until) -> Outcome {
        wait(self.lock, condition, limit)
    }

    fn poison(&self) -> Option<Poison> {
        held::poison(self.lock.lock())
    }
}

impl Condition {
    /// Creates a condition without waiters.
    ///
    /// ```
    /// let changed = maniple::Condition::new()?;
    /// assert_eq!(changed.notify(1), 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new() -> Result<Condition> {
        Ok(Condition(Arc::new(Inner::new()?)))
    }

    /// Releases the lock, waits for a notification, and acquires the lock again.
    ///
    /// ```
    /// use maniple::{Condition, Mutex};
    ///
    /// let (stock, changed) = (Mutex::new(0)?, Condition::new()?);
    /// let (there, tell) = (stock.clone(), changed.clone());
    /// let thread = std::thread::spawn(move || {
    ///     *there.lock().unwrap() = 3;
    ///     tell.notify_one();
    /// });
    /// let mut guard = stock.lock()?;
    /// while *guard == 0 {
    ///     guard = changed.wait(guard)?;
    /// }
    /// assert_eq!(*guard, 3);
    /// # drop(guard);
    /// # thread.join().unwrap();
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired again and is poisoned: a holder died or panicked.
    pub fn wait<G: Guard>(&self, guard: G) -> LockResult<G> {
        guard.wait(&self.0, Until::Ever);
        let poison = guard.poison();
        judge(guard, poison)
    }

    /// Waits as long as `condition` returns true. The thread holds the lock when it calls `condition`.
    ///
    /// ```
    /// use maniple::{Condition, Mutex};
    ///
    /// let (stock, changed) = (Mutex::new(0)?, Condition::new()?);
    /// let (there, tell) = (stock.clone(), changed.clone());
    /// let thread = std::thread::spawn(move || {
    ///     *there.lock().unwrap() = 3;
    ///     tell.notify_one();
    /// });
    /// assert_eq!(*changed.wait_while(stock.lock()?, |stock| **stock == 0)?, 3);
    /// # thread.join().unwrap();
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired again and is poisoned: a holder died or panicked.
    pub fn wait_while<G: Guard>(&self, mut guard: G, mut condition: impl FnMut(&mut G) -> bool) -> LockResult<G> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Condition::wait), for at most `timeout` (and as long as it takes to acquire the lock again).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (stock, changed) = (maniple::Mutex::new(0)?, maniple::Condition::new()?);
    /// let (guard, _result) = changed.wait_timeout(stock.lock()?, Duration::from_millis(1))?;
    /// assert_eq!(*guard, 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired again and is poisoned: a holder died or panicked.
    pub fn wait_timeout<G: Guard>(&self, guard: G, timeout: Duration) -> LockResult<(G, WaitTimeoutResult)> {
        let timed_out = guard.wait(&self.0, Until::after(timeout)) == Outcome::TimedOut;
        let poison = guard.poison();
        judge((guard, WaitTimeoutResult(timed_out)), poison)
    }

    /// As [`wait_while`](Condition::wait_while), for at most `timeout`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let (value, changed) = (maniple::Mutex::new(0)?, maniple::Condition::new()?);
    /// let (guard, result) = changed.wait_timeout_while(value.lock()?, Duration::from_millis(5), |value| **value == 0)?;
    /// assert!(result.timed_out() && *guard == 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lock was acquired again and is poisoned: a holder died or panicked.
    pub fn wait_timeout_while<G: Guard>(
        &self,
        mut guard: G,
        timeout: Duration,
        mut condition: impl FnMut(&mut G) -> bool,
    ) -> LockResult<(G, WaitTimeoutResult)> {
        let begun = Instant::now();
        loop {
            if !condition(&mut guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let Some(left) = timeout.checked_sub(begun.elapsed()) else {
                return Ok((guard, WaitTimeoutResult(true)));
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Wakes one waiter, if there is any.
    ///
    /// ```
    /// use maniple::{Condition, Mutex};
    ///
    /// let (ready, changed) = (Mutex::new(0u8)?, Condition::new()?);
    /// std::thread::scope(|scope| {
    ///     let waiting = scope.spawn(|| changed.wait_while(ready.lock()?, |ready| **ready == 0).map(|ready| *ready));
    ///     *ready.lock().unwrap() = 1;
    ///     changed.notify_one();
    ///     assert_eq!(waiting.join().unwrap().unwrap(), 1);
    /// });
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn notify_one(&self) {
        self.notify(1);
    }

    /// Wakes all waiters.
    ///
    /// ```
    /// use maniple::{Condition, Mutex};
    ///
    /// let (ready, changed) = (Mutex::new(0u8)?, Condition::new()?);
    /// std::thread::scope(|scope| {
    ///     let wait = || changed.wait_while(ready.lock()?, |ready| **ready == 0).map(|ready| *ready);
    ///     let waiting = [scope.spawn(wait), scope.spawn(wait)];
    ///     *ready.lock().unwrap() = 1;
    ///     changed.notify_all();
    ///     assert!(waiting.into_iter().all(|thread| matches!(thread.join().unwrap(), Ok(1))));
    /// });
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn notify_all(&self) {
        self.notify(u32::MAX);
    }

    /// Wakes at most `most` waiters, and returns how many. Waiters that have died may be among them.
    ///
    /// ```
    /// let changed = maniple::Condition::new()?;
    /// // There is no waiter.
    /// assert_eq!(changed.notify(10), 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn notify(&self, most: u32) -> u32 {
        self.0.notify(most)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("waiting", &self.0.counts().0).finish()
    }
}

impl ShmSerde for Condition {
    const WHAT: &'static str = "a Condition";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<Condition> {
        Ok(Condition(Arc::new(Inner::open(ticket)?)))
    }
}

shm_serde!(Condition);
