//! Locks in a manager's server. Each is owned by a thread of a client.
//!
//! If its thread or process ends without releasing a lock, the lock becomes free, and the guard of its next owner
//! reports that: the data that the lock guards may be half changed.

use super::containers::typed_proxy;
use super::protocol::Trouble;
use super::proxy::Proxy;
use super::registry::{Abandon, Content, current_line};
use super::rpc::Answer;
use super::wait_queue::{Inside, WaitQueue, until};
use super::{FAREWELL, Manager, ManagerError};
use crate::error::{InTime, Result};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The queue of callers that wait for the lock.
pub(super) const OWNERS: usize = 0;
/// The queue of callers that wait for a condition.
pub(super) const CALLED: usize = 1;

/// The owner of a lock.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    /// The owner's line; 0 if the lock is free.
    owner: u64,
    depth: u32,
    recursive: bool,
    /// The owner before ended without giving it back.
    abandoned: bool,
}

/// A lock, and the place for the waiters of a condition that it belongs to.
pub(super) struct Ownable(pub WaitQueue<Ownership, 2>);

pub(super) type Shared = Arc<Ownable>;
type In<'a> = Inside<'a, Ownership, 2>;

impl Ownable {
    pub(super) fn new(recursive: bool) -> Shared {
        Arc::new(Ownable(WaitQueue::new(Ownership { recursive, ..Ownership::default() })))
    }
}

/// Waits until it is free, and takes it, so many times. Returns whether it had been abandoned; `None`: the time is up.
pub(super) fn take(
    lock: &Shared,
    inside: &mut In<'_>,
    times: u32,
    until: Option<Instant>,
) -> Result<Option<bool>, Trouble> {
    let line = current_line();
    while inside.owner != 0 {
        if inside.owner == line.number {
            if !inside.recursive {
                return Err(ManagerError::WouldDeadlock.into());
            }
            inside.depth += times;
            return Ok(Some(false));
        }
        if !inside.sleep(OWNERS, until)? {
            return Ok(None);
        }
    }
    inside.owner = line.number;
    inside.depth = times;
    line.hold(lock.clone());
    Ok(Some(std::mem::take(&mut inside.abandoned)))
}

pub(super) fn check_owner(inside: &In<'_>) -> Result<(), Trouble> {
    if inside.owner == current_line().number { Ok(()) } else { Err(ManagerError::NotHeld.into()) }
}

/// Releases it up to so many times. Returns how often it was held.
pub(super) fn give_back(lock: &Shared, inside: &mut In<'_>, times: u32) -> Result<u32, Trouble> {
    check_owner(inside)?;
    let depth = inside.depth;
    inside.depth = depth.saturating_sub(times);
    if inside.depth == 0 {
        inside.owner = 0;
        current_line().let_go(lock);
        inside.wake(OWNERS, 1);
    }
    Ok(depth)
}

impl Abandon for Ownable {
    fn abandon(&self, line: u64) {
        let mut inside = self.0.enter();
        if inside.owner == line {
            (inside.owner, inside.depth, inside.abandoned) = (0, 0, true);
            inside.wake(OWNERS, 1);
        }
    }
}

pub(super) fn acquire(proxy: &Proxy<Shared>, limit: Option<Duration>) -> Result<Option<LockGuard<'_>>> {
    let door = |lock: &Shared, limit: Option<Duration>, answer: &mut Answer| {
        let until = until(limit);
        let taken = take(lock, &mut lock.0.enter(), 1, until)?;
        answer.give(&taken)
    };
    let taken: Option<bool> = proxy.reference().ask(door, &limit)?;
    Ok(taken.map(|abandoned| LockGuard { proxy, abandoned, held: true, thread: PhantomData }))
}

/// Acquires the lock if this thread need not wait for it.
fn try_acquire(proxy: &Proxy<Shared>) -> Result<Option<LockGuard<'_>>> {
    let door = |lock: &Shared, (): (), answer: &mut Answer| {
        let mut inside = lock.0.enter();
        let is_held_here = !inside.recursive && inside.owner == current_line().number;
        let taken = if is_held_here { None } else { take(lock, &mut inside, 1, until(Some(Duration::ZERO)))? };
        answer.give(&taken)
    };
    let taken: Option<bool> = proxy.reference().ask(door, &())?;
    Ok(taken.map(|abandoned| LockGuard { proxy, abandoned, held: true, thread: PhantomData }))
}

fn release(proxy: &Proxy<Shared>, limit: Option<Duration>) -> Result<()> {
    let door = |lock: &Shared, (): (), answer: &mut Answer| {
        give_back(lock, &mut lock.0.enter(), 1)?;
        answer.give(&())
    };
    proxy.reference().ask_within(door, &(), limit)
}

/// A held [`Lock`], [`RLock`] or [`Condition`](super::Condition); dropping it releases the lock. A guard belongs to its
/// thread.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::new()?;
/// let lock = manager.lock()?;
/// let guard = lock.lock()?;
/// assert!(!guard.is_abandoned());
/// guard.release()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "the lock is released as soon as this is dropped"]
pub struct LockGuard<'a> {
    pub(super) proxy: &'a Proxy<Shared>,
    pub(super) abandoned: bool,
    held: bool,
    thread: PhantomData<*const ()>,
}

impl LockGuard<'_> {
    /// Returns whether the previous owner ended, or was killed, without releasing the lock. Only the next owner's guard
    /// returns true.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.lock()?;
    /// std::thread::scope(|scope| {
    ///     // It ends without giving the lock back.
    ///     scope.spawn(|| lock.lock().map(std::mem::forget)).join().unwrap()
    /// })?;
    /// assert!(lock.lock()?.is_abandoned());
    /// assert!(!lock.lock()?.is_abandoned());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Releases the lock, and returns whether that succeeded.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.lock()?;
    /// lock.lock()?.release()?;
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn release(mut self) -> Result<()> {
        self.held = false;
        release(self.proxy, None)
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        if self.held {
            // A server that is gone has no lock any more.
            let _ = release(self.proxy, Some(FAREWELL));
        }
    }
}

impl fmt::Debug for LockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockGuard({:?})", self.proxy.reference())
    }
}

macro_rules! lock_methods {
    ($name:ident, $make:ident) => {
        impl $name {
            /// Acquires the lock, and waits until it is free.
            ///
            /// ```
            /// # fn main() -> maniple::Result<()> {
            /// let manager = maniple::Manager::new()?;
            #[doc = concat!("let lock = manager.", stringify!($make), "()?;")]
            /// let guard = lock.lock()?;
            /// assert!(!guard.is_abandoned());
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone.
            /// For a [`Lock`], [`ManagerError::WouldDeadlock`] if this thread holds the lock.
            pub fn lock(&self) -> Result<LockGuard<'_>> {
                loop {
                    if let Some(guard) = acquire(&self.0, None)? {
                        return Ok(guard);
                    }
                }
            }

            /// As [`lock`](Self::lock), for at most `timeout`.
            ///
            /// ```
            /// use std::time::Duration;
            ///
            /// # fn main() -> maniple::Result<()> {
            /// let manager = maniple::Manager::new()?;
            #[doc = concat!("let lock = manager.", stringify!($make), "()?;")]
            /// let _guard = lock.lock()?;
            /// let other = lock.clone();
            /// let wait = move || other.lock_timeout(Duration::from_millis(1)).map(drop);
            /// let late = std::thread::spawn(wait).join().unwrap();
            /// assert!(matches!(late, Err(maniple::Error::Timeout(_))));
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// As `lock`, and [`Error::Timeout`](crate::Error::Timeout).
            pub fn lock_timeout(&self, timeout: Duration) -> Result<LockGuard<'_>> {
                acquire(&self.0, Some(timeout))?.in_time("the lock, which others held", timeout)
            }

            /// Acquires the lock if that is possible without waiting. Returns `None` if another thread holds it, and,
            /// for a [`Lock`], also if this thread holds it.
            ///
            /// ```
            /// # fn main() -> maniple::Result<()> {
            /// let manager = maniple::Manager::new()?;
            #[doc = concat!("let lock = manager.", stringify!($make), "()?;")]
            /// let _guard = lock.try_lock()?.unwrap();
            /// let other = lock.clone();
            /// let attempt = move || other.try_lock().map(|held| held.is_none());
            /// assert!(std::thread::spawn(attempt).join().unwrap()?);
            /// # Ok(())
            /// # }
            /// ```
            ///
            /// # Errors
            /// [`Error::ManagerLost`](crate::Error::ManagerLost).
            pub fn try_lock(&self) -> Result<Option<LockGuard<'_>>> {
                try_acquire(&self.0)
            }
        }
    };
}

typed_proxy!(
    /// A lock in a [`Manager`]'s server, for threads of any processes on any machines. A thread that acquires it twice
    /// gets an error.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.lock()?;
    /// let held = lock.lock()?;
    /// assert!(!held.is_abandoned());
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| lock.try_lock().map(|held| held.is_none()));
    ///     assert!(other.join().unwrap().unwrap());
    /// });
    /// # Ok(())
    /// # }
    /// ```
    Lock(Shared)
);
lock_methods!(Lock, lock);

typed_proxy!(
    /// A lock that its owner can acquire again; it is free when all guards are dropped.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.rlock()?;
    /// let outer = lock.lock()?;
    /// let inner = lock.lock()?;
    /// # drop((outer, inner));
    /// # Ok(())
    /// # }
    /// ```
    RLock(Shared)
);
lock_methods!(RLock, rlock);

impl Manager {
    /// Creates a free lock.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.lock()?;
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn lock(&self) -> Result<Lock> {
        self.make(|()| Content::new(Ownable::new(false)), &()).map(Lock)
    }

    /// Creates a free lock that its owner can acquire again.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let lock = manager.rlock()?;
    /// let _outer = lock.lock()?;
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn rlock(&self) -> Result<RLock> {
        self.make(|()| Content::new(Ownable::new(true)), &()).map(RLock)
    }
}
