//! Objects that are made at their first use, so that a fork in another thread cannot interrupt them.
//!
//! With `PyOnceLock::get_or_try_init` other threads wait while one thread makes the value. Making it runs Python code,
//! so another thread can fork in the meantime. In the child the first use would then wait forever for a thread that
//! does not exist there. The same applies to the cells in which PyO3 keeps types. PyO3's types that need an import are
//! not used here; the types of this module are made when it is imported.

use crate::error::Saying as _;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A cell that no thread waits for.
pub trait Lazy<T> {
    /// Returns the value. Makes it if there is none; if two threads make it at once, one of the two values stays.
    ///
    /// # Errors
    /// The error of `make`.
    fn get_or_make(&self, py: Python<'_>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T>;
}

impl<T> Lazy<T> for PyOnceLock<T> {
    #[inline]
    fn get_or_make(&self, py: Python<'_>, make: impl FnOnce() -> PyResult<T>) -> PyResult<&T> {
        if let Some(value) = self.get(py) {
            return Ok(value);
        }
        // No Python code runs while the value is stored.
        drop(self.set(py, make()?));
        self.get(py).ok_or_else(|| PyRuntimeError::saying("a value that was stored is not there"))
    }
}

/// Makes the classes that are not added to the module, which PyO3 would otherwise make at their first use. No Python
/// code runs.
pub fn make_classes(py: Python<'_>) {
    py.get_type::<crate::encode::Buffers>();
    py.get_type::<crate::shelf::PyUnread>();
}
