//! Decoding that completes although signal handlers raise.
//!
//! The next call repeats an attempt that a handler has interrupted, in the calling thread. After some interrupted
//! attempts in a row another thread, in which no handler runs, decodes the value, and the call waits for it. An
//! exception of a handler then ends only the wait. The other thread is not used at first, because code that unpickles
//! may rely on its thread, for example on a lock that the thread holds, and occasional signals do no harm. It is used
//! at once if a second attempt would not find what the first has taken ([`once`](crate::once)).

use crate::args::Calls as _;
use crate::lazy::Lazy;
use crate::made::{Attributes as _, import};
use crate::unended;
use maniple_sys as sys;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The number of interrupted attempts after which another thread decodes the value.
const ATTEMPTS: u32 = 3;

/// The attempts to decode one value.
#[derive(Default)]
pub struct Attempts {
    broken_off: AtomicU32,
    // The `HandlerFreeCall` of `maniple._impl.serialization.handler_free`, if there is one.
    call: Mutex<Option<Py<PyAny>>>,
}

impl Attempts {
    fn call(&self) -> MutexGuard<'_, Option<Py<PyAny>>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a handler has interrupted an attempt.
    pub fn broken_off(&self) {
        self.broken_off.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether another thread makes the next attempt.
    pub fn need_another_thread(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed) >= ATTEMPTS
    }

    /// Lets another thread make all attempts, if handlers run in this thread.
    pub fn begin_elsewhere(&self) {
        if sys::is_first_thread() {
            self.broken_off.store(ATTEMPTS, Ordering::Relaxed);
        }
    }

    /// Returns whether a handler has interrupted an attempt.
    pub fn is_repeated(&self) -> bool {
        self.broken_off.load(Ordering::Relaxed) > 0
    }

    /// Resets the count after the value was decoded.
    pub fn begin_anew(&self) {
        self.broken_off.store(0, Ordering::Relaxed);
    }

    /// Returns the result of `make`, which another thread calls. An error is that of `make`, or of a handler in this
    /// thread.
    pub fn elsewhere<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.outcome_elsewhere(py, make).unwrap_or_else(Err)
    }

    /// As above. Returns what `make` returned or raised, or the error that a handler of this thread raised in the
    /// meantime.
    pub fn outcome_elsewhere<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> Result<PyResult<Bound<'py, PyAny>>, PyErr> {
        static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let there = self.call().as_ref().map(|call| call.clone_ref(py));
        let call = match there {
            Some(call) => call.into_bound(py),
            None => {
                let kind = KIND.get_or_make(py, || {
                    PyResult::Ok(
                        import(py, "maniple._impl.serialization.handler_free")?.attr("HandlerFreeCall")?.unbind(),
                    )
                })?;
                let made = kind.bind(py).with((make()?,))?;
                // A handler that ran in the meantime may have started another call. Both calls do the same, and the
                // first that ends has the value.
                let before = self.call().replace(made.clone().unbind());
                drop(before);
                made
            }
        };
        let result = call.attr("result").and_then(|result| unended::call(&result, (), None));
        let of_make = |error: &PyErr| call.attr("error").is_ok_and(|of_make| of_make.is(error.value(py)));
        let is_outcome = result.as_ref().map_or_else(of_make, |_| true);
        // The next call uses the result although this thread was interrupted. Without a thread there is no result.
        if is_outcome || call.attr("alone").and_then(|alone| alone.is_truthy()).unwrap_or(true) {
            let done = self.call().take();
            drop(done);
        }
        if is_outcome { Ok(result) } else { result.map(Ok) }
    }
}
