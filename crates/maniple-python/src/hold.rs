//! `Hold`: a lock that a block of Python code holds, and that no exception of a signal handler leaves locked.
//!
//! A handler runs between two of the interpreter's steps. If it raises after `lock.acquire()` returned and before the
//! following `try`, the lock stays locked forever. On Python 3.14 the same happens to `with lock:`, between the end of
//! `__enter__` and the beginning of the block. A hold that is dropped releases its lock, and in both cases the
//! interpreter drops the hold.

use crate::error::Saying as _;
use crate::made::name;
use crate::unended;
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyAny;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A context manager for one block: `__enter__` acquires `lock` and returns whether it did.
///
/// `lock` is any object with the methods of `threading.Lock`. `timeout` limits the wait of `__enter__`, in seconds: -1
/// means no limit, and 0 means no wait. The block runs in each case; with a limit, it has to check what `__enter__`
/// returned.
#[pyclass(name = "Hold", module = "maniple._maniple", frozen)]
pub struct PyHold {
    lock: Py<PyAny>,
    timeout: f64,
    /// Whether the lock is to be released.
    held: AtomicBool,
}

impl PyHold {
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        // Only one caller reads `true` here, so the lock is released once.
        if self.held.swap(false, Relaxed) {
            self.lock.bind(py).call_method0(name!(py, "release")?)?;
        }
        Ok(())
    }
}

#[pymethods]
impl PyHold {
    #[new]
    #[pyo3(signature = (lock, timeout = -1.0))]
    fn new(lock: Py<PyAny>, timeout: f64) -> PyHold {
        PyHold { lock, timeout, held: AtomicBool::new(false) }
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        if self.held.load(Relaxed) {
            return Err(PyRuntimeError::saying("a Hold serves one block at a time: make another for another block"));
        }
        let acquire = self.lock.bind(py).getattr(name!(py, "acquire")?)?;
        let taken = if self.timeout == 0.0 {
            unended::call(&acquire, (false,), None)?
        } else if self.timeout < 0.0 {
            unended::call(&acquire, (), None)?
        } else {
            unended::call(&acquire, (true, self.timeout), None)?
        };
        let taken = taken.is_truthy()?;
        self.held.store(taken, Relaxed);
        Ok(taken)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.release(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.lock)
    }
}

impl Drop for PyHold {
    fn drop(&mut self) {
        if *self.held.get_mut() {
            Python::attach(|py| {
                // The interpreter raises this exception again after the call.
                let raised = PyErr::take(py);
                if let Err(error) = self.release(py) {
                    error.write_unraisable(py, None);
                }
                if let Some(raised) = raised {
                    raised.restore(py);
                }
            });
        }
    }
}
