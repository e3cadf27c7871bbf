//! Python objects for received values, or a `MemoryError`: PyO3's own constructors panic if there is no memory.
#![allow(unsafe_code)]

use crate::error::Saying as _;
use crate::lazy::Lazy;
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::collections::TryReserveError;
use std::ffi::{c_char, c_int};

/// A length or an index in the interpreter's type. Every slice's length fits.
fn size(len: usize) -> ffi::Py_ssize_t {
    ffi::Py_ssize_t::try_from(len).unwrap_or(ffi::Py_ssize_t::MAX)
}

/// The interned string of a literal. In contrast to PyO3's `intern!`, it is an error if there is no memory for it.
macro_rules! name {
    ($py:expr, $text:literal) => {{
        static NAME: ::pyo3::sync::PyOnceLock<::pyo3::Py<::pyo3::types::PyString>> = ::pyo3::sync::PyOnceLock::new();
        $crate::made::interned($py, &NAME, $text)
    }};
}
pub(crate) use name;

/// Returns the exception that is set. The interpreter sets none if there is no memory for a function's frame.
#[cold]
pub fn raised(py: Python<'_>) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| PyMemoryError::new_err(()))
}

/// Returns the object of a new reference, or the exception that is set if the pointer is null.
///
/// # Errors
/// That exception.
///
/// # Safety
/// The pointer is null, or a new reference to a live object that the caller owns.
#[inline]
pub unsafe fn owned(py: Python<'_>, pointer: *mut ffi::PyObject) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the caller's promise.
    unsafe { Bound::from_owned_ptr_or_opt(py, pointer) }.ok_or_else(|| raised(py))
}

/// Returns the string of a cell, which it interns at the first call.
///
/// # Errors
/// No memory.
#[inline]
pub fn interned<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyString>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyString>> {
    let name = cell.get_or_make(py, || {
        let mut made = text(py, name)?.into_ptr();
        // SAFETY: a string that no other code has. The call may replace it by an equal one, which it owns then.
        unsafe {
            ffi::PyUnicode_InternInPlace(&raw mut made);
            Ok(Bound::from_owned_ptr(py, made).cast_into_unchecked().unbind())
        }
    })?;
    Ok(name.bind(py))
}

/// Returns a module, which it imports at the first call.
///
/// # Errors
/// No memory, or what the import raises.
pub fn import<'py>(py: Python<'py>, module: &str) -> PyResult<Bound<'py, PyModule>> {
    py.import(text(py, module)?)
}

/// What PyO3 offers for attributes whose names are Rust strings, without its panics.
pub trait Attributes<'py> {
    /// # Errors
    /// No memory, or there is no such attribute.
    fn attr(&self, name: &str) -> PyResult<Bound<'py, PyAny>>;
}

impl<'py> Attributes<'py> for Bound<'py, PyAny> {
    fn attr(&self, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.getattr(text(self.py(), name)?)
    }
}

/// # Errors
/// No memory.
pub fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: the interpreter copies the bytes. The constructor returns a new reference to an object of that type, or
    // null with an exception set.
    unsafe {
        let made = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast::<c_char>(), size(bytes.len()));
        Ok(owned(py, made)?.cast_into_unchecked())
    }
}

/// Returns a copy of bytes. There may be gigabytes of them, and without memory Rust's own copy would end the process.
///
/// # Errors
/// No memory.
pub fn copy(bytes: &[u8]) -> Result<Vec<u8>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// # Errors
/// No memory.
pub fn text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyString>> {
    utf8(py, text.as_bytes())
}

/// # Errors
/// There is no memory, or the bytes are not UTF-8.
pub fn utf8<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: as in `bytes`. The constructor refuses bytes that are not UTF-8.
    unsafe {
        let made = ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast::<c_char>(), size(text.len()));
        Ok(owned(py, made)?.cast_into_unchecked())
    }
}

/// # Errors
/// No memory.
pub fn integer(py: Python<'_>, number: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { owned(py, ffi::PyLong_FromLongLong(number)) }
}

/// # Errors
/// No memory.
pub fn unsigned(py: Python<'_>, number: u64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { owned(py, ffi::PyLong_FromUnsignedLongLong(number)) }
}

/// # Errors
/// No memory.
pub fn float(py: Python<'_>, number: f64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as in `bytes`.
    unsafe { owned(py, ffi::PyFloat_FromDouble(number)) }
}

/// # Errors
/// No memory.
pub fn dict(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    // SAFETY: as in `bytes`.
    unsafe { Ok(owned(py, ffi::PyDict_New())?.cast_into_unchecked()) }
}

/// # Errors
/// No memory.
pub fn empty_list(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    // SAFETY: as in `bytes`.
    unsafe { Ok(owned(py, ffi::PyList_New(0))?.cast_into_unchecked()) }
}

/// A list or tuple that is being filled. Some places may stay empty.
pub struct Filling<'py> {
    object: Bound<'py, PyAny>,
    set: unsafe extern "C" fn(*mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject) -> c_int,
}

impl<'py> Filling<'py> {
    /// # Errors
    /// No memory.
    pub fn list(py: Python<'py>, len: usize) -> PyResult<Self> {
        // SAFETY: as in `bytes`.
        let object = unsafe { owned(py, ffi::PyList_New(size(len)))? };
        Ok(Filling { object, set: ffi::PyList_SetItem })
    }

    /// # Errors
    /// No memory.
    pub fn tuple(py: Python<'py>, len: usize) -> PyResult<Self> {
        // SAFETY: as in `bytes`.
        let object = unsafe { owned(py, ffi::PyTuple_New(size(len)))? };
        Ok(Filling { object, set: ffi::PyTuple_SetItem })
    }

    /// Returns the object. A tuple must be full before other code may see it.
    pub fn object(&self) -> &Bound<'py, PyAny> {
        &self.object
    }

    /// Puts an item into a place.
    ///
    /// # Errors
    /// The index is out of range.
    pub fn set(&self, place: usize, item: Bound<'py, PyAny>) -> PyResult<()> {
        // SAFETY: `set` was chosen with the object's type. It checks the index, and takes the reference over.
        match unsafe { (self.set)(self.object.as_ptr(), size(place), item.into_ptr()) } {
            0 => Ok(()),
            _ => Err(raised(self.object.py())),
        }
    }

    /// Returns the object, all of whose places are full.
    pub fn done(self) -> Bound<'py, PyAny> {
        self.object
    }
}

fn filled<'py>(
    filling: Filling<'py>,
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    items.enumerate().try_for_each(|(place, item)| filling.set(place, item))?;
    Ok(filling.done())
}

/// # Errors
/// No memory.
pub fn tuple<'py>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Bound<'py, PyAny>, IntoIter: ExactSizeIterator>,
) -> PyResult<Bound<'py, PyTuple>> {
    let items = items.into_iter();
    let made = filled(Filling::tuple(py, items.len())?, items)?;
    // SAFETY: `Filling::tuple` made the object as a tuple.
    Ok(unsafe { made.cast_into_unchecked() })
}

/// # Errors
/// No memory.
pub fn list<'py, T>(
    py: Python<'py>,
    items: impl IntoIterator<Item = Bound<'py, T>, IntoIter: ExactSizeIterator>,
) -> PyResult<Bound<'py, PyList>> {
    let items = items.into_iter();
    let made = filled(Filling::list(py, items.len())?, items.map(Bound::into_any))?;
    // SAFETY: `Filling::list` made the object as a list.
    Ok(unsafe { made.cast_into_unchecked() })
}

/// Returns what an iterator returns for each of `len` steps, such as the interpreter's `map`. In contrast to
/// `list(map(...))`, it raises a StopIteration that the function of the `map` raises.
///
/// # Errors
/// No memory, or what the iterator raises; and how many steps came before.
pub fn list_of_steps<'py>(steps: &Bound<'py, PyAny>, len: usize) -> Result<Bound<'py, PyList>, (PyErr, usize)> {
    let py = steps.py();
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| (PyMemoryError::new_err(()), 0))?;
    // SAFETY: a live object's type. The slot of an iterator is such a function; it is null in other types.
    let next: Option<ffi::iternextfunc> =
        unsafe { std::mem::transmute(ffi::PyType_GetSlot(ffi::Py_TYPE(steps.as_ptr()), ffi::Py_tp_iternext)) };
    let next = next.ok_or_else(|| (PyTypeError::saying("not an iterator"), 0))?;
    for _ in 0..len {
        // SAFETY: the type's own function. It returns a new reference, or null, with an exception set unless the iterator
        // is at its end.
        match unsafe { Bound::from_owned_ptr_or_opt(py, next(steps.as_ptr())) } {
            Some(value) => values.push(value),
            None => match PyErr::take(py) {
                Some(raised) => return Err((raised, values.len())),
                None => break,
            },
        }
    }
    list(py, values).map_err(|error| (error, 0))
}

/// Calls a function with one argument, without making a tuple for it.
///
/// # Errors
/// The exception that the function raises.
pub fn call<'py>(func: &Bound<'py, PyAny>, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: a function and one argument, and a null after the last argument. The call returns a new reference, or
    // null with an exception set.
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(func.as_ptr(), argument.as_ptr(), end);
        owned(func.py(), returned)
    }
}

/// Calls a function with one to three arguments. The other elements are null.
///
/// # Errors
/// The exception that the function raises.
pub fn called<'py>(func: &Bound<'py, PyAny>, arguments: [*mut ffi::PyObject; 3]) -> PyResult<Bound<'py, PyAny>> {
    let [first, second, third] = arguments;
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: as in `call`: the first null ends the arguments.
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(func.as_ptr(), first, second, third, end);
        owned(func.py(), returned)
    }
}

/// Returns a tuple of lengths.
///
/// # Errors
/// No memory.
pub fn shape<'py>(py: Python<'py>, lengths: &[usize]) -> PyResult<Bound<'py, PyTuple>> {
    let filling = Filling::tuple(py, lengths.len())?;
    for (place, len) in lengths.iter().enumerate() {
        filling.set(place, unsigned(py, *len as u64)?)?;
    }
    // SAFETY: `Filling::tuple` made the object as a tuple.
    Ok(unsafe { filling.done().cast_into_unchecked() })
}

/// While this value exists, the interpreter collects no garbage. A collection would run code of the program
/// (`gc.callbacks`, `__del__`), which would see partly filled lists and tuples. Without it, reading also takes a
/// quarter less time. No Python code may run in the meantime.
pub struct Uncollected(bool);

impl Uncollected {
    pub fn new(_: Python<'_>) -> Self {
        // SAFETY: the argument shows that the interpreter lock is held.
        Uncollected(unsafe { ffi::PyGC_Disable() } != 0)
    }
}

impl Drop for Uncollected {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: the owner holds the interpreter lock from `new` to here: `decode` and `pickle` keep the value in
            // one call that does not release the lock.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
