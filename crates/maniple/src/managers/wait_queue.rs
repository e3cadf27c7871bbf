//! Waits in the server: state behind a mutex, and queues of threads that wait for a condition of the state.
//!
//! Like a mutex with condition variables, but a wait also ends when the client process for which the thread waits is
//! gone: its [session](super::registry::Session) wakes the thread then. So nothing is passed to a dead process, and no
//! thread stays behind.
//!
//! The thread that wakes a waiter removes it from its queue. A waiter that was removed but cannot use the wake-up,
//! because its caller is gone, wakes the next waiter. So no wake-up is lost.

use super::protocol::Trouble;
use super::registry::current_line;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// State, and `QUEUES` kinds of waiters.
#[derive(Debug)]
pub(super) struct WaitQueue<S, const QUEUES: usize = 1>(Mutex<Inner<S, QUEUES>>);

#[derive(Debug)]
struct Inner<S, const QUEUES: usize> {
    state: S,
    queues: [VecDeque<(u64, Thread)>; QUEUES],
    next: u64,
}

/// The locked state of a queue.
#[derive(Debug)]
pub(super) struct Inside<'a, S, const QUEUES: usize> {
    queue: &'a WaitQueue<S, QUEUES>,
    // None only while this thread sleeps.
    guard: Option<MutexGuard<'a, Inner<S, QUEUES>>>,
}

/// The time limit of a wait.
pub(super) fn until(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

impl<S, const QUEUES: usize> WaitQueue<S, QUEUES> {
    pub(super) fn new(state: S) -> Self {
        WaitQueue(Mutex::new(Inner { state, queues: [const { VecDeque::new() }; QUEUES], next: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S, QUEUES>> {
        // The lock is held for a few steps, none of which runs a user's code except destructors.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self) -> Inside<'_, S, QUEUES> {
        Inside { queue: self, guard: Some(self.lock()) }
    }
}

impl<S, const QUEUES: usize> Inside<'_, S, QUEUES> {
    fn inner(&mut self) -> &mut Inner<S, QUEUES> {
        let queue = self.queue;
        self.guard.get_or_insert_with(|| queue.lock())
    }

    /// Wakes up to `most` waiters of a queue, the longest waits first.
    pub(super) fn wake(&mut self, queue: usize, most: usize) {
        let queue = &mut self.inner().queues[queue];
        let count = most.min(queue.len());
        queue.drain(..count).for_each(|(_, thread)| thread.unpark());
    }

    /// Releases the lock and sleeps until woken. Returns false if the time limit has passed.
    pub(super) fn sleep(&mut self, queue: usize, until: Option<Instant>) -> Result<bool, Trouble> {
        let line = current_line();
        let inner = self.inner();
        let number = inner.next;
        inner.next += 1;
        inner.queues[queue].push_back((number, std::thread::current()));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let gone = line.is_gone();
            if !gone && left != Some(Duration::ZERO) {
                self.guard = None;
                match left {
                    Some(left) => std::thread::park_timeout(left),
                    None => std::thread::park(),
                }
            }
            let waiting = &mut self.inner().queues[queue];
            let place = waiting.iter().position(|(other, _)| *other == number);
            match place {
                None if line.is_gone() => {
                    self.wake(queue, 1);
                    return Err(Trouble::CallerGone);
                }
                None => return Ok(true),
                Some(place) if gone || left == Some(Duration::ZERO) => {
                    waiting.remove(place);
                    return if gone { Err(Trouble::CallerGone) } else { Ok(false) };
                }
                Some(_) => {}
            }
        }
    }
}

impl<S, const QUEUES: usize> Deref for Inside<'_, S, QUEUES> {
    type Target = S;

    fn deref(&self) -> &S {
        match &self.guard {
            Some(guard) => &guard.state,
            None => unreachable!("`sleep` locks again before it returns"),
        }
    }
}

impl<S, const QUEUES: usize> DerefMut for Inside<'_, S, QUEUES> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.inner().state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managers::registry::{Registry, Served, Session, serve_here, serve_no_more};
    use std::sync::Arc;

    /// Waits in the queue on behalf of that session.
    fn sleeper(queue: &Arc<WaitQueue<()>>, session: &Arc<Session>) -> std::thread::JoinHandle<Result<bool, Trouble>> {
        let (theirs, session, before) = (queue.clone(), session.clone(), queue.enter().inner().queues[0].len());
        let thread = std::thread::spawn(move || {
            serve_here(Served::begin(session));
            let slept = theirs.enter().sleep(0, None);
            serve_no_more();
            slept
        });
        while queue.enter().inner().queues[0].len() == before {
            std::thread::yield_now();
        }
        thread
    }

    #[test]
    fn a_wait_ends_with_its_session_and_leaves_no_trace() {
        let (queue, session) = (Arc::new(WaitQueue::new(())), Arc::new(Session::new(1)));
        let thread = sleeper(&queue, &session);
        session.end(&Registry::default());
        assert!(matches!(thread.join().unwrap(), Err(Trouble::CallerGone)));
        assert!(queue.enter().inner().queues[0].is_empty());
    }

    #[test]
    fn one_that_is_woken_for_the_dead_wakes_the_next() {
        let queue = Arc::new(WaitQueue::new(()));
        let (dying, living) = (Arc::new(Session::new(1)), Arc::new(Session::new(2)));
        let first = sleeper(&queue, &dying);
        let second = sleeper(&queue, &living);
        let mut inside = queue.enter();
        inside.wake(0, 1);
        dying.end(&Registry::default());
        drop(inside);
        assert!(matches!(first.join().unwrap(), Err(Trouble::CallerGone)));
        assert!(matches!(second.join().unwrap(), Ok(true)));
    }
}
