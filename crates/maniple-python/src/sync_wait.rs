//! `ConditionCore`, `EventFlag` and `BarrierCore`: the bases of Python's `Condition`, `Event` and `Barrier`.

use crate::born::Born;
use crate::error::{Saying as _, python};
use crate::sync::{PyArena, PySemLock, arrived, limit, send, waiting};
use crate::unended;
use maniple_engine::sync::Outcome;
use maniple_engine::sync::barrier::{Barrier, Cause, MOST, Met};
use maniple_engine::sync::condition::Condition;
use maniple_engine::sync::event::Event;
use pyo3::exceptions::{PyAssertionError, PyOverflowError, PyRuntimeError};
use pyo3::prelude::*;

type Handle<'py> = (Bound<'py, PyArena>, u32);

/// The waiters of a condition; Python passes the lock.
#[pyclass(name = "ConditionCore", module = "maniple._maniple", frozen)]
pub struct PyCondition(Condition);

#[pymethods]
impl PyCondition {
    /// Creates a condition, or opens that of a handle.
    #[new]
    #[pyo3(signature = (handle=None))]
    fn new(handle: Option<Handle<'_>>) -> PyResult<PyCondition> {
        handle.map_or_else(Condition::new, |handle| Condition::open(arrived(&handle))).map(PyCondition).map_err(python)
    }

    fn _send(&self) -> (PyArena, u32) {
        send(self.0.place())
    }

    /// Releases `lock`, waits for a notification, and acquires `lock` again. Returns False if the time limit passed.
    #[pyo3(signature = (lock, timeout=None))]
    fn wait(&self, py: Python<'_>, lock: &Bound<'_, PySemLock>, timeout: Option<f64>) -> PyResult<bool> {
        let lock = lock.get();
        if !lock.is_mine()? {
            return Err(PyAssertionError::saying("must acquire() condition before using wait()"));
        }
        let guard = lock.guard()?;
        // The hook interrupts only once. Acquiring the lock is retried until it succeeds, or until the next signal
        // handler raises as well.
        let mut again = None;
        let (waited, raised) = waiting(py, |interrupt| {
            let mut broken = false;
            self.0.wait(&guard, limit(timeout), &mut || {
                if !broken {
                    broken = !interrupt();
                    return !broken;
                }
                again = crate::signals::look_for_signals();
                again.is_none()
            })
        });
        if let Some(error) = again.or(raised) {
            return Err(error);
        }
        match waited {
            Ok(waited) => Ok(waited.outcome == Outcome::Taken),
            Err(error) => Err(PyRuntimeError::saying(error.to_string())),
        }
    }

    /// Wakes at most `n` of the waiters; `lock` must be held.
    #[pyo3(signature = (lock, n=1))]
    fn notify(&self, lock: &Bound<'_, PySemLock>, n: i64) -> PyResult<()> {
        if !lock.get().is_mine()? {
            return Err(PyAssertionError::saying("lock is not owned"));
        }
        self.0.notify(u32::try_from(n.max(0)).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Returns the number of waiters, and the number of those that were woken and have not resumed.
    fn counts(&self) -> (u32, u32) {
        self.0.counts()
    }
}

/// A flag to wait for.
#[pyclass(name = "EventFlag", module = "maniple._maniple", subclass, frozen, weakref)]
pub struct PyEvent(Born<Event>);

#[pymethods]
impl PyEvent {
    /// Creates an event, or opens that of a handle.
    #[new]
    #[pyo3(signature = (handle=None))]
    fn new(handle: Option<Handle<'_>>) -> PyResult<PyEvent> {
        handle
            .map_or_else(Event::new, |handle| Event::open(arrived(&handle)))
            .map(|event| PyEvent(event.into()))
            .map_err(python)
    }

    fn _send(&self) -> (PyArena, u32) {
        send(self.0.place())
    }

    /// Return True if the flag is true.
    #[pyo3(text_signature = "(self)")]
    fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Make the flag true, and wake all processes and threads that wait for it.
    #[pyo3(text_signature = "(self)")]
    fn set(&self) {
        self.0.set();
    }

    /// Make the flag false.
    #[pyo3(text_signature = "(self)")]
    fn clear(&self) {
        self.0.clear();
    }

    /// Wait until the flag is true.
    ///
    /// Args:
    ///     timeout: the time limit in seconds; None means no limit.
    ///
    /// Returns:
    ///     True if the flag is true, or was true during the wait; False if the time limit passed.
    #[pyo3(signature = (timeout=None), text_signature = "(self, timeout=None)")]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        if self.0.is_set() {
            return Ok(true);
        }
        let (outcome, raised) = waiting(py, |interrupt| self.0.wait(limit(timeout), interrupt));
        raised.map_or(Ok(outcome == Outcome::Taken), Err)
    }
}

/// The state that the parties of a barrier share.
#[pyclass(name = "BarrierCore", module = "maniple._maniple", frozen)]
pub struct PyBarrier(Barrier);

#[pymethods]
impl PyBarrier {
    /// Creates a barrier for so many parties, or opens that of a handle.
    #[new]
    #[pyo3(signature = (parties, handle=None))]
    fn new(parties: u64, handle: Option<Handle<'_>>) -> PyResult<PyBarrier> {
        let barrier = match handle {
            Some(handle) => Barrier::open(arrived(&handle)),
            None => Barrier::new(u32::try_from(parties).ok().filter(|&parties| parties <= MOST).ok_or_else(|| {
                PyOverflowError::saying(format!("a barrier can have at most {MOST} parties, not {parties}"))
            })?),
        };
        // As in the standard package, a party that has arrived counts even if it is killed later.
        barrier.map(Barrier::count_dead).map(PyBarrier).map_err(python)
    }

    fn _send(&self) -> (PyArena, u32) {
        send(self.0.place())
    }

    /// Waits until all parties have arrived; the last party calls `action` first. Returns how many parties of the round
    /// arrived before this one; -1 if the barrier is broken; -2 if it is broken because a party died in the action.
    #[pyo3(signature = (timeout, action))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>, action: Option<Py<PyAny>>) -> PyResult<i64> {
        let limit = limit(timeout);
        let mut failed = None;
        let mut act = || {
            Python::attach(|py| {
                let called = action.as_ref().map(|action| unended::call(action.bind(py), (), None).map(drop));
                failed = called.and_then(Result::err);
                failed.is_none()
            })
        };
        let acts = action.is_some();
        let (met, raised) =
            waiting(py, |interrupt| self.0.wait_and_act(limit, interrupt, if acts { Some(&mut act) } else { None }));
        match (failed.or(raised), met) {
            (Some(error), _) => Err(error),
            (None, Met::All(index)) => Ok(index.into()),
            (None, Met::Broken(Cause::Died)) => Ok(-2),
            (None, Met::Broken(Cause::GivenUp) | Met::TimedOut | Met::Interrupted) => Ok(-1),
        }
    }

    /// Breaks the barrier.
    fn abort(&self, py: Python<'_>) {
        py.detach(|| self.0.abort());
    }

    /// Empties the barrier and repairs it.
    fn reset(&self, py: Python<'_>) {
        py.detach(|| self.0.reset());
    }

    /// Returns the number of waiting parties.
    fn waiting(&self) -> u32 {
        self.0.waiting()
    }

    /// Returns whether the barrier is broken.
    fn is_broken(&self) -> bool {
        self.0.broken().is_some()
    }
}
