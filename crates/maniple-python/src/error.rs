//! Engine errors as Python exceptions, and the Python helpers that the native code calls.

use crate::args::Calls as _;
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import, name};
use maniple_engine::Error;
use pyo3::PyErrArguments;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::type_object::PyTypeInfo;
use std::borrow::Cow;

/// The arguments of an exception: a text, perhaps after a number. If there is no memory for them, the exception has none;
/// PyO3's own conversions panic then.
struct Said(Option<i32>, Cow<'static, str>);

impl PyErrArguments for Said {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        let Said(number, text) = self;
        let text = made::text(py, &text).map(Bound::into_any);
        let said = match number {
            None => text,
            Some(number) => {
                text.and_then(|text| Ok(made::tuple(py, vec![made::integer(py, number.into())?, text])?.into_any()))
            }
        };
        said.map_or_else(|_| py.None(), Bound::unbind)
    }
}

/// A type of exceptions with a text.
pub trait Saying: PyTypeInfo {
    /// Returns an exception of this type with the text.
    fn saying(text: impl Into<Cow<'static, str>>) -> PyErr {
        PyErr::new::<Self, _>(Said(None, text.into()))
    }
}

impl<T: PyTypeInfo> Saying for T {}

/// Returns an exception with the number of an error and its text.
pub fn numbered<T: PyTypeInfo>(number: i32, text: impl Into<Cow<'static, str>>) -> PyErr {
    PyErr::new::<T, _>(Said(Some(number), text.into()))
}

/// Adds a note to an exception, if there is memory for it.
pub fn note(py: Python<'_>, error: &PyErr, text: &str) {
    let add = name!(py, "add_note").and_then(|name| error.value(py).getattr(name));
    let _ = add.and_then(|add| add.with((text,)));
}

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
                return PyMemoryError::saying(text);
            }
            match maniple_sys::error_number(source) {
                Some(number) => numbered::<PyOSError>(number, text),
                None => PyOSError::saying(text),
            }
        }
        Error::NotRunning => PyValueError::saying("Pool not running"),
        other => PyRuntimeError::saying(other.to_string()),
    }
}

/// Returns the helper of this name in `maniple._impl.pool.payload`.
pub fn helper<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found =
        cell.get_or_make(py, || PyResult::Ok(import(py, "maniple._impl.pool.payload")?.attr(name)?.unbind()))?;
    Ok(found.bind(py))
}
