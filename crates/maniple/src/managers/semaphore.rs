//! A semaphore in a manager's server.

use super::containers::typed_proxy;
use super::registry::{Abandon, Content, Line, current_line};
use super::rpc::Answer;
use super::wait_queue::{WaitQueue, until};
use super::{FAREWELL, Manager, ManagerError};
use crate::error::{InTime, Result};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct State {
    free: u32,
    most: u32,
    /// The numbers of permits that lines have to release.
    lent: HashMap<u64, u32>,
}

pub(super) struct Counter(WaitQueue<State>);

type Shared = Arc<Counter>;

impl Abandon for Counter {
    fn abandon(&self, line: u64) {
        let mut inside = self.0.enter();
        let lent = inside.lent.remove(&line).unwrap_or(0);
        inside.free = inside.free.saturating_add(lent);
        inside.wake(0, lent as usize);
    }
}

/// Records that the line has released one permit.
fn settle(counter: &Shared, state: &mut State, line: &Line) -> Result<(), ManagerError> {
    let lent = state.lent.get_mut(&line.number).ok_or(ManagerError::NotHeld)?;
    *lent -= 1;
    if *lent == 0 {
        state.lent.remove(&line.number);
        line.let_go(counter);
    }
    Ok(())
}

typed_proxy!(
    /// A semaphore in a [`Manager`]'s server, for threads of any processes on any machines.
    ///
    /// A [`SemaphorePermit`] is released when it is dropped, and by the server when its thread or process has ended. To
    /// pass permits from one process to another, [`forget`](SemaphorePermit::forget) them in the first and
    /// [`release`](Semaphore::release) them in the second.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(1)?;
    /// let permit = semaphore.acquire()?;
    /// assert!(semaphore.try_acquire()?.is_none());
    /// drop(permit);
    /// semaphore.acquire()?.forget()?;
    /// semaphore.release(2)?;
    /// assert_eq!(semaphore.value()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    Semaphore(Shared)
);

/// A permit of a [`Semaphore`]; dropping it releases it. A permit belongs to its thread.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::new()?;
/// let semaphore = manager.semaphore(1)?;
/// let permit = semaphore.acquire()?;
/// assert_eq!(semaphore.value()?, 0);
/// drop(permit);
/// assert_eq!(semaphore.value()?, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "the permit is released as soon as this is dropped"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    held: bool,
    thread: std::marker::PhantomData<*const ()>,
}

impl std::fmt::Debug for SemaphorePermit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SemaphorePermit").field("semaphore", self.semaphore).finish_non_exhaustive()
    }
}

impl SemaphorePermit<'_> {
    /// Keeps the permit acquired: it is not released unless [`Semaphore::release`] is called.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(2)?;
    /// semaphore.acquire()?.forget()?;
    /// assert_eq!(semaphore.value()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn forget(mut self) -> Result<()> {
        self.held = false;
        let door = |counter: &Shared, (): (), answer: &mut Answer| {
            settle(counter, &mut counter.0.enter(), &current_line())?;
            answer.give(&())
        };
        self.semaphore.0.reference().ask(door, &())
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        if self.held {
            let door = |counter: &Shared, (): (), answer: &mut Answer| {
                let mut inside = counter.0.enter();
                settle(counter, &mut inside, &current_line())?;
                inside.free = inside.free.saturating_add(1);
                inside.wake(0, 1);
                answer.give(&())
            };
            // A server that is gone has no semaphore any more.
            let _ = self.semaphore.0.reference().ask_within::<_, _, ()>(door, &(), Some(FAREWELL));
        }
    }
}

impl Semaphore {
    fn acquire_within(&self, limit: Option<Duration>) -> Result<Option<SemaphorePermit<'_>>> {
        let door = |counter: &Shared, limit: Option<Duration>, answer: &mut Answer| {
            let until = until(limit);
            let mut inside = counter.0.enter();
            while inside.free == 0 {
                if !inside.sleep(0, until)? {
                    return answer.give(&false);
                }
            }
            let line = current_line();
            inside.free -= 1;
            *inside.lent.entry(line.number).or_default() += 1;
            line.hold(counter.clone());
            answer.give(&true)
        };
        let taken: bool = self.0.reference().ask(door, &limit)?;
        Ok(taken.then_some(SemaphorePermit { semaphore: self, held: true, thread: std::marker::PhantomData }))
    }

    /// Acquires a permit. Waits until there is a permit.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(2)?;
    /// let _permit = semaphore.acquire()?;
    /// assert_eq!(semaphore.value()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone.
    pub fn acquire(&self) -> Result<SemaphorePermit<'_>> {
        loop {
            if let Some(permit) = self.acquire_within(None)? {
                return Ok(permit);
            }
        }
    }

    /// As [`acquire`](Self::acquire), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(0)?;
    /// assert!(matches!(semaphore.acquire_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// semaphore.release(1)?;
    /// assert!(semaphore.acquire_timeout(Duration::from_secs(1)).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire), and [`Error::Timeout`](crate::Error::Timeout).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<SemaphorePermit<'_>> {
        self.acquire_within(Some(timeout))?.in_time("a permit of the semaphore", timeout)
    }

    /// Acquires a permit, if there is one.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(1)?;
    /// let _permit = semaphore.try_acquire()?.unwrap();
    /// assert!(semaphore.try_acquire()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire).
    pub fn try_acquire(&self) -> Result<Option<SemaphorePermit<'_>>> {
        self.acquire_within(Some(Duration::ZERO))
    }

    /// Adds `count` permits, which need not have been acquired before.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(0)?;
    /// semaphore.release(2)?;
    /// assert_eq!(semaphore.value()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::ReleasedTooOften`] if a bounded semaphore would have more permits than at its creation.
    pub fn release(&self, count: u32) -> Result<()> {
        let door = |counter: &Shared, count: u32, answer: &mut Answer| {
            let mut inside = counter.0.enter();
            let lent: u32 = inside.lent.values().sum();
            match inside.free.checked_add(count) {
                Some(free) if free <= inside.most.saturating_sub(lent) => inside.free = free,
                _ => return Err(ManagerError::ReleasedTooOften.into()),
            }
            inside.wake(0, count as usize);
            answer.give(&())
        };
        self.0.reference().ask(door, &count)
    }

    /// Returns the number of free permits.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert_eq!(manager.semaphore(3)?.value()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn value(&self) -> Result<u32> {
        let door = |counter: &Shared, (): (), answer: &mut Answer| answer.give(&counter.0.enter().free);
        self.0.reference().ask(door, &())
    }
}

impl Manager {
    fn counter(&self, free: u32, most: u32) -> Result<Semaphore> {
        let maker = |(free, most): (u32, u32)| {
            Content::new(Arc::new(Counter(WaitQueue::new(State { free, most, lent: HashMap::new() }))))
        };
        self.make(maker, &(free, most)).map(Semaphore)
    }

    /// Creates a semaphore with `permits` permits.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let semaphore = manager.semaphore(1)?;
    /// semaphore.release(1)?;
    /// assert_eq!(semaphore.value()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn semaphore(&self, permits: u32) -> Result<Semaphore> {
        self.counter(permits, u32::MAX)
    }

    /// Creates a semaphore that never has more permits than at the beginning.
    ///
    /// ```
    /// use maniple::managers::ManagerError;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let error = manager.bounded_semaphore(1)?.release(1).unwrap_err();
    /// assert!(matches!(error, maniple::Error::Manager(ManagerError::ReleasedTooOften)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn bounded_semaphore(&self, permits: u32) -> Result<Semaphore> {
        self.counter(permits, permits)
    }
}
