//! Decoding that goes on although a signal's handler raises sooner than it is done.
//!
//! An attempt that a handler breaks off is made again by the next call, in the thread that calls. After some of those in a row the value
//! is decoded by a thread in which no handler runs, and the call waits for it: then what a handler raises ends the waiting alone. Not at
//! once, since code that unpickles may rely on what its thread has, such as a lock; and one signal now and then does no harm. But at once
//! where a second attempt would not find what the first has taken ([`once`](crate::once)).

use crate::unended;
use maniple_sys as sys;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many attempts are broken off before another thread is asked.
const ATTEMPTS: u32 = 3;

/// The attempts to decode one value.
#[derive(Default)]
pub struct Attempts {
    broken_off: AtomicU32,
    // An `Aside` of `maniple._impl.serialization.aside`, while there is one.
    aside: Mutex<Option<Py<PyAny>>>,
}

impl Attempts {
    fn aside(&self) -> MutexGuard<'_, Option<Py<PyAny>>> {
        self.aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handler has broken one off.
    pub fn broken_off(&self) {
        self.broken_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the next one is another thread's.
    pub fn are_in_vain(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed) >= ATTEMPTS
    }

    /// All are another thread's, if this is the one in which handlers run.
    pub fn begin_elsewhere(&self) {
        if sys::is_first_thread() {
            self.broken_off.store(ATTEMPTS, Ordering::Relaxed);
        }
    }

    /// Whether there was one before.
    pub fn is_repeated(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed) > 0
    }

    /// The value is there.
    pub fn begin_anew(&self) {
        self.broken_off.store(0, Ordering::Relaxed);
    }

    /// What `make` gives, called by another thread. An error: `make` or a handler of this thread has raised it.
    pub fn elsewhere<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.outcome_elsewhere(py, make).unwrap_or_else(Err)
    }

    /// The same: what `make` came to, or else what a handler of this thread raised meanwhile.
    pub fn outcome_elsewhere<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> Result<PyResult<Bound<'py, PyAny>>, PyErr> {
        static ASIDE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let there = self.aside().as_ref().map(|aside| aside.clone_ref(py));
        let aside = match there {
            Some(aside) => aside.into_bound(py),
            None => {
                let kind = ASIDE.get_or_try_init(py, || {
                    PyResult::Ok(py.import("maniple._impl.serialization.aside")?.getattr("Aside")?.unbind())
                })?;
                let made = kind.bind(py).call1((make()?,))?;
                // A handler that ran meanwhile may have begun one: both do the same, and the first that ends has made the value.
                let before = self.aside().replace(made.clone().unbind());
                drop(before);
                made
            }
        };
        let result = aside.getattr("result").and_then(|result| unended::call(&result, (), None));
        let of_make = |error: &PyErr| aside.getattr("error").is_ok_and(|of_make| of_make.is(error.value(py)));
        let is_outcome = result.as_ref().map_or_else(of_make, |_| true);
        // What came of it although this thread was interrupted is there for the next call. Without a thread nothing is.
        if is_outcome || aside.getattr("alone").and_then(|alone| alone.is_truthy()).unwrap_or(true) {
            let done = self.aside().take();
            drop(done);
        }
        if is_outcome { Ok(result) } else { result.map(Ok) }
    }
}
