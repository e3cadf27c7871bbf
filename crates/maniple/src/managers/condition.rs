//! A lock in a manager's server whose owner can wait for a notification.

use super::Manager;
use super::containers::typed_proxy;
use super::locks::{CALLED, LockGuard, Ownable, Shared, acquire, check_owner, give_back, take};
use super::registry::Content;
use super::rpc::Answer;
use super::wait_queue::until;
use crate::error::{InTime, Result};
use std::time::{Duration, Instant};

typed_proxy!(
    /// A condition in a [`Manager`]'s server: a recursive lock whose owner can wait until another owner notifies it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let (condition, ready) = (manager.condition()?, manager.value(&false)?);
    /// let (caller, flag) = (condition.clone(), ready.clone());
    /// let thread = std::thread::spawn(move || {
    ///     let guard = caller.lock()?;
    ///     flag.set(&true)?;
    ///     guard.notify_all()
    /// });
    /// let mut guard = condition.lock()?;
    /// while !ready.get()? {
    ///     guard.wait()?;
    /// }
    /// # drop(guard);
    /// # thread.join().unwrap()
    /// # }
    /// ```
    Condition(Shared)
);

impl Condition {
    /// Acquires the condition's lock.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let condition = manager.condition()?;
    /// let guard = condition.lock()?;
    /// assert!(!guard.is_abandoned());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone.
    pub fn lock(&self) -> Result<ConditionGuard<'_>> {
        loop {
            if let Some(guard) = acquire(&self.0, None)? {
                return Ok(ConditionGuard(guard));
            }
        }
    }
}

/// The held lock of a [`Condition`]; dropping it releases the lock.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::new()?;
/// let condition = manager.condition()?;
/// let mut guard = condition.lock()?;
/// assert!(guard.wait_timeout(std::time::Duration::from_millis(1)).is_err());
/// guard.notify_all()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the lock is released as soon as this is dropped"]
pub struct ConditionGuard<'a>(LockGuard<'a>);

impl ConditionGuard<'_> {
    /// Returns whether the previous owner ended, or was killed, without releasing the lock.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(!manager.condition()?.lock()?.is_abandoned());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.0.is_abandoned()
    }

    fn wait_within(&mut self, limit: Option<Duration>) -> Result<bool> {
        let door = |lock: &Shared, limit: Option<Duration>, answer: &mut Answer| {
            let until = until(limit);
            let mut inside = lock.0.enter();
            let depth = give_back(lock, &mut inside, u32::MAX)?;
            let called = inside.sleep(CALLED, until)?;
            let abandoned = take(lock, &mut inside, depth, None)?.unwrap_or(false);
            answer.give(&(called, abandoned))
        };
        let (called, abandoned) = self.0.proxy.reference().ask(door, &limit)?;
        self.0.abandoned = abandoned;
        Ok(called)
    }

    /// Releases the lock, waits for a notification, and acquires the lock again. The caller must then check the state
    /// for which it waited.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let (condition, ready) = (manager.condition()?, manager.event()?);
    /// let (caller, flag) = (condition.clone(), ready.clone());
    /// let mut guard = condition.lock()?;
    /// let thread = std::thread::spawn(move || {
    ///     let guard = caller.lock()?;
    ///     flag.set()?;
    ///     guard.notify_one()
    /// });
    /// while !ready.is_set()? {
    ///     guard.wait()?;
    /// }
    /// # drop(guard);
    /// # thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone.
    pub fn wait(&mut self) -> Result<()> {
        self.wait_within(None).map(drop)
    }

    /// As [`wait`](Self::wait), for at most `timeout` (and until the lock is free again).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let condition = manager.condition()?;
    /// // No other thread notifies.
    /// assert!(matches!(condition.lock()?.wait_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait`](ConditionGuard::wait), and [`Error::Timeout`](crate::Error::Timeout).
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<()> {
        self.wait_within(Some(timeout))?.in_time("a notification of the condition", timeout)
    }

    /// Waits as long as `condition` returns true.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let (condition, ready) = (manager.condition()?, manager.event()?);
    /// ready.set()?;
    /// condition.lock()?.wait_while(|| Ok(!ready.is_set()?))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait`](ConditionGuard::wait), and the errors of `condition`.
    pub fn wait_while(&mut self, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        while condition()? {
            self.wait()?;
        }
        Ok(())
    }

    /// As [`wait_while`](Self::wait_while), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let (condition, ready) = (manager.condition()?, manager.event()?);
    /// let mut guard = condition.lock()?;
    /// let waited = guard.wait_timeout_while(Duration::from_millis(1), || Ok(!ready.is_set()?));
    /// assert!(matches!(waited, Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait_while`](ConditionGuard::wait_while), and [`Error::Timeout`](crate::Error::Timeout) if `condition`
    /// still returns true when the time limit expires.
    pub fn wait_timeout_while(&mut self, timeout: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = until(Some(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if !condition()? {
                return Ok(());
            }
            (left != Some(Duration::ZERO)).in_time("a condition to come true", timeout)?;
            self.wait_within(left)?;
        }
    }

    fn notify(&self, most: usize) -> Result<()> {
        let door = |lock: &Shared, most: usize, answer: &mut Answer| {
            let mut inside = lock.0.enter();
            check_owner(&inside)?;
            inside.wake(CALLED, most);
            answer.give(&())
        };
        self.0.proxy.reference().ask(door, &most)
    }

    /// Wakes one waiter.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let condition = manager.condition()?;
    /// // There is no waiter, and nothing happens.
    /// assert!(condition.lock()?.notify_one().is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn notify_one(&self) -> Result<()> {
        self.notify(1)
    }

    /// Wakes all waiters.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let condition = manager.condition()?;
    /// // There is no waiter, and nothing happens.
    /// assert!(condition.lock()?.notify_all().is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn notify_all(&self) -> Result<()> {
        self.notify(usize::MAX)
    }
}

impl Manager {
    /// Creates a condition.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let condition = manager.condition()?;
    /// assert!(!condition.lock()?.is_abandoned());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn condition(&self) -> Result<Condition> {
        self.make(|()| Content::new(Ownable::new(true)), &()).map(Condition)
    }
}
