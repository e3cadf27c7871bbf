//! The common part of all guards of a lock: dropping a guard releases the lock, and poisons it if that is because of a
//! panic.

use super::poison::{LockResult, TryLockError, TryLockResult, judge};
#[cfg(feature = "async")]
use crate::background::Background;
use crate::error::{Poison, TimeoutError};
use maniple_engine::sync::lock::Lock;
use maniple_engine::wait::Until;
use std::thread::panicking;
use std::time::Duration;

/// The text for time-outs.
const LOCK: &str = "the lock, which others, or this thread, held";

/// A lock that this process has taken.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    lock: &'a Lock,
    // Whether the lock was acquired during a panic. If so, the panic at its release says nothing about the work under
    // the lock.
    panicking: bool,
}

impl<'a> Held<'a> {
    fn new(lock: &'a Lock) -> Held<'a> {
        Held { lock, panicking: panicking() }
    }

    pub(crate) fn lock(&self) -> &'a Lock {
        self.lock
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // A forked child finds its parent's guards among its variables, and any process may release a plain lock, so it may
        // be free.
        if self.lock.is_held_here() {
            if panicking() && !self.panicking {
                self.lock.set_poison();
            }
            self.lock.release();
        }
    }
}

pub(crate) fn poison(lock: &Lock) -> Option<Poison> {
    lock.poison().map(Poison::from_engine)
}

fn take<'a, G>(lock: &'a Lock, limit: Until, guard: impl FnOnce(Held<'a>) -> G) -> Option<LockResult<G>> {
    let outcome = lock.acquire(limit, &mut || true);
    outcome.is_ours().then(|| judge(guard(Held::new(lock)), poison(lock)))
}

/// Waits for the lock.
pub(crate) fn lock<'a, G>(lock: &'a Lock, guard: impl Fn(Held<'a>) -> G) -> LockResult<G> {
    loop {
        // Without a limit or an interrupt the wait ends only with the lock.
        if let Some(taken) = take(lock, Until::Ever, &guard) {
            return taken;
        }
    }
}

/// Takes the lock if it is free, or its holder has died.
pub(crate) fn try_lock<'a, G>(lock: &'a Lock, guard: impl FnOnce(Held<'a>) -> G) -> TryLockResult<G> {
    Ok(take(lock, Until::Now, guard).ok_or(TryLockError::WouldBlock)??)
}

/// Waits for the lock as a future. `same`: the lock once more, for a thread that outlives the caller.
#[cfg(feature = "async")]
pub(crate) async fn lock_async<'a, G, L>(lock: &'a Lock, same: L, guard: impl Fn(Held<'a>) -> G) -> LockResult<G>
where
    L: AsRef<Lock> + Clone + Send + 'static,
{
    if let Some(taken) = take(lock, Until::Now, &guard) {
        return taken;
    }
    let (waits, forgoes) = (same.clone(), same);
    let step = move |limit: Until, go_on: &mut dyn FnMut() -> bool| {
        waits.as_ref().acquire(limit, go_on).is_ours().then_some(())
    };
    let undo = move |()| {
        forgoes.as_ref().release();
    };
    Background::new(step, undo).await;
    judge(guard(Held::new(lock)), poison(lock))
}

/// Waits for the lock for at most `time`.
pub(crate) fn lock_timeout<'a, G>(
    lock: &'a Lock,
    time: Duration,
    guard: impl FnOnce(Held<'a>) -> G,
) -> TryLockResult<G> {
    Ok(take(lock, Until::after(time), guard).ok_or(TryLockError::Timeout(TimeoutError::new(LOCK, time)))??)
}
