//! NumPy's arrays of numbers, and its single numbers, written without NumPy's pickling.
//!
//! Pickling an array of a thousand numbers takes several times as long as copying it, and unpickling takes as long
//! again. The buffer protocol supplies the kind of an array's numbers, its shape and its bytes. An array is taken as it
//! is if it is of NumPy's own class and holds numbers of this machine's kinds. Other arrays, and all arrays for which
//! the program has registered a reducer, are left to pickle. An array arrives writable and contiguous. A single number
//! is taken if its class is NumPy's own class for such a kind.
//!
//! This module does not import NumPy to write an array. It finds NumPy when the program has loaded it, or when an array
//! arrives.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `array`, `gather` | looks into an array; copies an array whose numbers are not adjacent |
//! | `view` | the bytes of an array, and how long they stay in place |
//! | `numpy` | NumPy's classes and functions; makes arrays and numbers |
#![allow(unsafe_code)]

mod array;
mod gather;
mod numpy;
mod view;

pub use array::{Array, Layout};
pub use numpy::Numpy;
pub use view::{Content, View, pin};

use crate::error::Saying as _;
use crate::lazy::Lazy;
use crate::made::{Attributes as _, import, name};
use crate::message::has_reducer;
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use std::ffi::CStr;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The greatest number of dimensions of an array that is taken.
pub const MOST_DIMENSIONS: usize = 16;

/// The kinds of numbers: their names in the buffer protocol and in NumPy. A payload names a kind by its index here.
const KINDS: [(&CStr, &str); 18] = [
    (c"d", "d"),
    (c"f", "f"),
    (c"l", "l"),
    (c"i", "i"),
    (c"B", "B"),
    (c"?", "?"),
    (c"b", "b"),
    (c"h", "h"),
    (c"H", "H"),
    (c"I", "I"),
    (c"L", "L"),
    (c"q", "q"),
    (c"Q", "Q"),
    (c"e", "e"),
    (c"g", "g"),
    (c"Zf", "F"),
    (c"Zd", "D"),
    (c"Zg", "G"),
];

/// None if the module named `numpy` is not NumPy.
static NUMPY: PyOnceLock<Option<Numpy>> = PyOnceLock::new();
/// NumPy's class of arrays, and its classes of single numbers, once they are known.
static CLASS: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
static CLASSES: [AtomicPtr<ffi::PyTypeObject>; KINDS.len()] = [const { AtomicPtr::new(null_mut()) }; KINDS.len()];

/// Returns whether an object is an array.
///
/// # Safety
/// The object is live, and the interpreter lock is held.
pub unsafe fn is_array(value: *mut ffi::PyObject) -> bool {
    // SAFETY: the caller passes a live object, which has a type.
    unsafe { ffi::Py_TYPE(value) == CLASS.load(Ordering::Relaxed) }
}

/// Looks into a single number. Returns `None` if the object is not a number of NumPy's, or is left to pickle.
///
/// # Safety
/// As [`is_array`].
pub unsafe fn single(value: *mut ffi::PyObject) -> Option<(u8, View)> {
    // SAFETY: the caller passes a live object, which has a type.
    let class = unsafe { ffi::Py_TYPE(value) };
    if CLASS.load(Ordering::Relaxed).is_null() {
        return None;
    }
    let kind = CLASSES.iter().position(|known| known.load(Ordering::Relaxed) == class)?;
    // SAFETY: the caller holds the interpreter lock.
    let py = unsafe { Python::assume_attached() };
    let dtype = known(py)?.dtypes.get(kind)?;
    if has_reducer(py, class.cast()) {
        return None;
    }
    let view = View::of(value)?;
    (usize::try_from(view.0.len) == Ok(dtype.item)).then_some((kind as u8, view))
}

/// Returns NumPy if it is known already.
pub fn known(py: Python<'_>) -> Option<&'static Numpy> {
    NUMPY.get(py)?.as_ref()
}

/// Looks for NumPy among the loaded modules. Returns false if nothing has changed.
pub fn is_found(py: Python<'_>) -> bool {
    if NUMPY.get(py).is_some() {
        return false;
    }
    let found = loaded(py).and_then(|module| module.map(|module| Numpy::of(&module)).transpose());
    // During the import of NumPy some parts are missing.
    let Ok(Some(numpy)) = found else { return false };
    let is_new = numpy.is_some() && NUMPY.set(py, numpy).is_ok();
    if let Some(numpy) = known(py) {
        for (class, dtype) in CLASSES.iter().zip(&numpy.dtypes).filter(|(_, dtype)| dtype.is_read_so) {
            class.store(dtype.class.as_ptr().cast(), Ordering::Relaxed);
        }
        CLASS.store(numpy.array.as_ptr().cast(), Ordering::Relaxed);
    }
    is_new
}

fn loaded(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_make(py, || PyResult::Ok(import(py, "sys")?.attr("modules")?.extract()?))?;
    modules.bind(py).get_item(name!(py, "numpy")?)
}

/// Imports NumPy for an array that has arrived.
pub fn need(py: Python<'_>) -> PyResult<()> {
    if known(py).is_none() {
        import(py, "numpy")?;
        is_found(py);
        known(py)
            .ok_or_else(|| PyImportError::saying("an array has arrived, but the module numpy here is not NumPy"))?;
    }
    Ok(())
}
