//! Python objects of what has arrived, or a `MemoryError`: PyO3's own constructors panic where there is no memory.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use std::ffi::c_char;

/// A length or a place, as the interpreter counts: no slice is longer than it can say.
fn size(len: usize) -> ffi::Py_ssize_t {
    ffi::Py_ssize_t::try_from(len).unwrap_or(ffi::Py_ssize_t::MAX)
}

/// # Errors
/// No memory.
pub fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: the bytes are copied; what is given is a new reference to an object of that type, or null with an exception set.
    unsafe {
        let made = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast::<c_char>(), size(bytes.len()));
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

/// # Errors
/// No memory.
pub fn text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: as in `bytes`.
    unsafe {
        let made = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast::<c_char>(), size(text.len()));
        Ok(Bound::from_owned_ptr_or_err(py, made)?.cast_into_unchecked())
    }
}

/// # Errors
/// No memory.
pub fn integer(py: Python<'_>, number: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(number)) }
}

/// # Errors
/// No memory.
pub fn unsigned(py: Python<'_>, number: u64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromUnsignedLongLong(number)) }
}

/// # Errors
/// No memory.
pub fn float(py: Python<'_>, number: f64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(number)) }
}

/// # Errors
/// No memory.
pub fn tuple<'py>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Bound<'py, PyAny>, IntoIter: ExactSizeIterator>,
) -> PyResult<Bound<'py, PyTuple>> {
    let items = items.into_iter();
    // SAFETY: as in `bytes`. Each place of the new tuple, which nobody else has seen, is filled at most once; `SetItem` takes the
    // reference over, and places that stay empty are allowed.
    unsafe {
        let made = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(size(items.len())))?;
        for (place, item) in (0..size(items.len())).zip(items) {
            if ffi::PyTuple_SetItem(made.as_ptr(), place, item.into_ptr()) < 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(made.cast_into_unchecked())
    }
}

/// # Errors
/// No memory.
pub fn list<'py, T>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Bound<'py, T>, IntoIter: ExactSizeIterator>,
) -> PyResult<Bound<'py, PyList>> {
    let items = items.into_iter();
    // SAFETY: as in `tuple`.
    unsafe {
        let made = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(size(items.len())))?;
        for (place, item) in (0..size(items.len())).zip(items) {
            if ffi::PyList_SetItem(made.as_ptr(), place, item.into_ptr()) < 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(made.cast_into_unchecked())
    }
}
