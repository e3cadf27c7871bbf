//! Objects that are made at their first use, in a way that a fork in another thread cannot interrupt.
//!
//! `PyOnceLock::get_or_try_init` lets other threads wait while one makes the value. The making runs Python code, so another thread can fork in
//! its middle, and in the child the first use would wait forever for a thread that is not there. The same holds for the cells in
//! which PyO3 keeps types. Its types that need an import are not used here; our own are made when this module is imported.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A cell that no thread waits for.
pub trait Lazy<T> {
    /// Returns the value. If there is none, makes it; where two threads make it at once, one of the two values stays.
    ///
    /// # Errors
    /// That of `make`.
    fn get_or_make(&self, py: Python<'_>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T>;
}

impl<T> Lazy<T> for PyOnceLock<T> {
    #[inline]
    fn get_or_make(&self, py: Python<'_>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T> {
        if let Some(value) = self.get(py) {
            return Ok(value);
        }
        // No Python code runs while it is stored.
        drop(self.set(py, make()?));
        self.get(py).ok_or_else(|| PyRuntimeError::new_err("a value that was stored is not there"))
    }
}

/// Makes the classes that are not added to the module, which PyO3 would make at their first use. No Python code runs.
pub fn make_classes(py: Python<'_>) {
    py.get_type::<crate::encode::Buffers>();
    py.get_type::<crate::shelf::PyUnread>();
}
