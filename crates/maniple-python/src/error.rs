//! Engine errors as Python exceptions, and the Python helpers that the native code calls.

use crate::lazy::Lazy;
use maniple_engine::Error;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Returns the failure of a system call with its number. PyO3's own conversion of an `io::Error` loses the number.
pub fn os(doing: &'static str, source: std::io::Error) -> PyErr {
    python(Error::Os { doing, source })
}

/// Returns the Python exception for an engine error.
pub fn python(error: Error) -> PyErr {
    match error {
        Error::Os { ref source, .. } => {
            // Python puts the number before the text.
            let number = source.raw_os_error().map_or_else(String::new, |number| format!(" (os error {number})"));
            let text = error.to_string().replacen(&number, "", 1);
            if source.kind() == std::io::ErrorKind::OutOfMemory {
                return PyMemoryError::new_err(text);
            }
            match source.raw_os_error() {
                Some(number) => PyOSError::new_err((number, text)),
                None => PyOSError::new_err(text),
            }
        }
        Error::NotRunning => PyValueError::new_err("Pool not running"),
        other => PyRuntimeError::new_err(other.to_string()),
    }
}

/// Returns the helper of this name in `maniple._impl.pool.payload`.
pub fn helper<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found =
        cell.get_or_make(py, || PyResult::Ok(py.import("maniple._impl.pool.payload")?.getattr(name)?.unbind()))?;
    Ok(found.bind(py))
}
