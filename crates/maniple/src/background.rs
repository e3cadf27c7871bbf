//! Futures of waits that need a thread: for objects without a descriptor that could be polled, such as a lock in shared
//! memory.
//!
//! A wait runs on a separate thread. Threads are kept for the next wait for a moment. Dropping a future cancels its
//! wait: the thread, which checks for that at least twice a second, ends the wait, and releases what it has acquired by
//! then. If no thread can be started, short waits run in the executor's own thread, so the future still ends. A forked
//! child has none of these threads: a waiting future belongs to its parent.

use maniple_engine::wait::Until;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a wait in the executor's own thread lasts.
const SHORT: Duration = Duration::from_millis(5);
/// How long a thread stays when there is nothing to wait for.
const LINGER: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;
/// A wait with a time limit that continues while the hook returns true. Returns the result.
type Step<T> = Box<dyn FnMut(Until, &mut dyn FnMut() -> bool) -> Option<T> + Send>;
/// Releases a result that is no longer needed.
type Undo<T> = Box<dyn FnOnce(T) + Send>;

struct Threads {
    // The process to which they belong.
    process: u32,
    idle: usize,
    jobs: VecDeque<Job>,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { process: 0, idle: 0, jobs: VecDeque::new() });
static CALL: Condvar = Condvar::new();

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes the wait to a thread.
fn hand_over(job: Job) -> Result<(), Job> {
    let mut threads = lock(&THREADS);
    if threads.process != std::process::id() {
        *threads = Threads { process: std::process::id(), idle: 0, jobs: VecDeque::new() };
    }
    threads.jobs.push_back(job);
    if threads.idle >= threads.jobs.len()
        || std::thread::Builder::new().name("maniple-waiter".into()).spawn(live).is_ok()
    {
        CALL.notify_one();
        return Ok(());
    }
    // Other waits may have been added behind it since. No thread is needed if there are none.
    threads.jobs.pop_back().map_or(Ok(()), Err)
}

fn live() {
    let mut threads = lock(&THREADS);
    loop {
        if let Some(job) = threads.jobs.pop_front() {
            drop(threads);
            job();
            threads = lock(&THREADS);
            continue;
        }
        threads.idle += 1;
        let (next, late) = CALL.wait_timeout(threads, LINGER).unwrap_or_else(PoisonError::into_inner);
        threads = next;
        threads.idle -= 1;
        if late.timed_out() && threads.jobs.is_empty() {
            return;
        }
    }
}

enum State<T> {
    /// The thread waits, and wakes this one.
    Waits(Option<Waker>),
    Done(T),
    /// The future has its result, or was dropped.
    Over,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    undo: Mutex<Option<Undo<T>>>,
}

impl<T> Shared<T> {
    fn is_wanted(&self) -> bool {
        !matches!(*lock(&self.state), State::Over)
    }

    fn finish(&self, value: T) {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Over) {
            State::Waits(waker) => {
                *state = State::Done(value);
                drop(state);
                waker.into_iter().for_each(Waker::wake);
            }
            State::Done(_) | State::Over => {
                drop(state);
                self.undo(value);
            }
        }
    }

    fn undo(&self, value: T) {
        let undo = lock(&self.undo).take();
        if let Some(undo) = undo {
            undo(value);
        }
    }
}

/// A wait that continues in the background, until it is over or this is dropped.
pub(crate) struct Background<T> {
    shared: Arc<Shared<T>>,
    // Used if there is no thread.
    step: Option<Step<T>>,
}

impl<T: Send + 'static> Background<T> {
    /// Calls `step` until it returns a value. A value that is no longer needed by then is passed to `undo`.
    pub(crate) fn new(
        step: impl FnMut(Until, &mut dyn FnMut() -> bool) -> Option<T> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Background<T> {
        let state = Mutex::new(State::Waits(None));
        let shared = Arc::new(Shared { state, undo: Mutex::new(Some(Box::new(undo) as Undo<T>)) });
        let theirs = shared.clone();
        let step: Arc<Mutex<Option<Step<T>>>> = Arc::new(Mutex::new(Some(Box::new(step))));
        let its = step.clone();
        let job = move || {
            let Some(mut step) = lock(&its).take() else { return };
            while theirs.is_wanted() {
                if let Some(value) = step(Until::Ever, &mut || theirs.is_wanted()) {
                    return theirs.finish(value);
                }
            }
        };
        let step = match hand_over(Box::new(job)) {
            Ok(()) => None,
            Err(_) => lock(&step).take(),
        };
        Background { shared, step }
    }
}

impl<T> Unpin for Background<T> {}

impl<T> Future for Background<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        if let Some(step) = &mut self.step {
            let Some(value) = step(Until::after(SHORT), &mut || true) else {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            *lock(&self.shared.state) = State::Over;
            return Poll::Ready(value);
        }
        let mut state = lock(&self.shared.state);
        match std::mem::replace(&mut *state, State::Over) {
            State::Done(value) => Poll::Ready(value),
            State::Waits(_) | State::Over => {
                *state = State::Waits(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        let before = std::mem::replace(&mut *lock(&self.shared.state), State::Over);
        if let State::Done(value) = before {
            self.shared.undo(value);
        }
    }
}
