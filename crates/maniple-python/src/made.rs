//! Python objects of what has arrived, or a `MemoryError`: PyO3's own constructors panic where there is no memory.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::ffi::{c_char, c_int};

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
    utf8(py, text.as_bytes())
}

/// # Errors
/// No memory, or it is no UTF-8.
pub fn utf8<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: as in `bytes`; what is no UTF-8 is refused.
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
pub fn dict(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    // SAFETY: as in `bytes`.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyDict_New())?.cast_into_unchecked()) }
}

/// A list or tuple that is being filled. Places that stay empty are allowed.
pub struct Filling<'py> {
    object: Bound<'py, PyAny>,
    set: unsafe extern "C" fn(*mut ffi::PyObject, ffi::Py_ssize_t, *mut ffi::PyObject) -> c_int,
}

impl<'py> Filling<'py> {
    /// # Errors
    /// No memory.
    pub fn list(py: Python<'py>, len: usize) -> PyResult<Self> {
        // SAFETY: as in `bytes`.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(size(len)))? };
        Ok(Filling { object, set: ffi::PyList_SetItem })
    }

    /// # Errors
    /// No memory.
    pub fn tuple(py: Python<'py>, len: usize) -> PyResult<Self> {
        // SAFETY: as in `bytes`.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(size(len)))? };
        Ok(Filling { object, set: ffi::PyTuple_SetItem })
    }

    /// The object: of a tuple, not before it is full.
    pub fn object(&self) -> &Bound<'py, PyAny> {
        &self.object
    }

    /// Puts an item into a place.
    ///
    /// # Errors
    /// There is no such place.
    pub fn set(&self, place: usize, item: Bound<'py, PyAny>) -> PyResult<()> {
        // SAFETY: `set` belongs to the object's type; it checks the place, and takes the reference over.
        match unsafe { (self.set)(self.object.as_ptr(), size(place), item.into_ptr()) } {
            0 => Ok(()),
            _ => Err(PyErr::fetch(self.object.py())),
        }
    }

    /// The object, whose places are full.
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
    // SAFETY: it was made as one.
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
    // SAFETY: as in `tuple`.
    Ok(unsafe { made.cast_into_unchecked() })
}

/// Returns the items of an iterator as a list.
///
/// # Errors
/// No memory, or what the iterator raises.
pub fn list_of<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    // SAFETY: what is given is a new list, or null with an exception set.
    unsafe { Ok(Bound::from_owned_ptr_or_err(items.py(), ffi::PySequence_List(items.as_ptr()))?.cast_into_unchecked()) }
}

/// What a function returns for one argument. It is called without a tuple made for it.
///
/// # Errors
/// What it raises.
pub fn call<'py>(func: &Bound<'py, PyAny>, argument: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: a function and one argument, and the null behind the last; what is given is a new reference, or null with an exception set.
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(func.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(func.py(), returned)
    }
}

/// The same of one to three arguments, the rest of which are null.
///
/// # Errors
/// What it raises.
pub fn called<'py>(func: &Bound<'py, PyAny>, arguments: [*mut ffi::PyObject; 3]) -> PyResult<Bound<'py, PyAny>> {
    let [first, second, third] = arguments;
    let end = std::ptr::null_mut::<ffi::PyObject>();
    // SAFETY: as in `call`: the first null ends them.
    unsafe {
        let returned = ffi::PyObject_CallFunctionObjArgs(func.as_ptr(), first, second, third, end);
        Bound::from_owned_ptr_or_err(func.py(), returned)
    }
}

/// A tuple of lengths.
///
/// # Errors
/// No memory.
pub fn shape<'py>(py: Python<'py>, lengths: &[usize]) -> PyResult<Bound<'py, PyTuple>> {
    let filling = Filling::tuple(py, lengths.len())?;
    for (place, len) in lengths.iter().enumerate() {
        filling.set(place, unsigned(py, *len as u64)?)?;
    }
    // SAFETY: it was made as one.
    Ok(unsafe { filling.done().cast_into_unchecked() })
}

/// While it is there, the interpreter collects no garbage, so that no code of a program's runs (`gc.callbacks`, `__del__`), which would see
/// lists and tuples that are filled in part. Besides, to look through what arrives again and again takes a quarter of the time. No
/// Python code may run meanwhile.
pub struct Uncollected(bool);

impl Uncollected {
    pub fn new(_: Python<'_>) -> Self {
        // SAFETY: the interpreter lock is held.
        Uncollected(unsafe { ffi::PyGC_Disable() } != 0)
    }
}

impl Drop for Uncollected {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: as above: the owner does not release the lock.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}
