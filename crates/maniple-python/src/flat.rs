//! Python buffers of adjacent bytes that stay in place.
#![allow(unsafe_code)]

use crate::args::Calls as _;
use crate::arrays;
use crate::lazy::Lazy;
use crate::made::{Attributes as _, import};
use crate::unended;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ops::Deref;

/// A buffer whose bytes do not move, also while the interpreter lock is released.
pub struct Flat {
    buffer: PyBuffer<u8>,
    _pin: Option<Py<PyAny>>,
}

impl Flat {
    /// Returns a view of an object's bytes.
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Flat> {
        PyBuffer::get(object).map(|buffer| Flat::of(object.py(), buffer))
    }

    /// Returns the buffer of a pickle, which has no other user.
    pub fn of_pickle(pickle: &Bound<'_, PyAny>) -> PyResult<Flat> {
        Ok(Flat { buffer: PyBuffer::get(pickle)?, _pin: None })
    }

    pub fn of(py: Python<'_>, buffer: PyBuffer<u8>) -> Flat {
        // The pin is for the owner of the bytes; the object that was passed may be a view of it.
        let pin = buffer.obj(py).and_then(arrays::pin);
        Flat { buffer, _pin: pin }
    }
}

impl Deref for Flat {
    type Target = PyBuffer<u8>;

    fn deref(&self) -> &PyBuffer<u8> {
        &self.buffer
    }
}

/// Returns a view of the bytes of any contiguous buffer.
pub fn flat(object: &Bound<'_, PyAny>) -> PyResult<Flat> {
    if let Ok(buffer) = PyBuffer::<u8>::get(object)
        && buffer.is_c_contiguous()
        && buffer.dimensions() == 1
    {
        return Ok(Flat::of(object.py(), buffer));
    }
    let view = import(object.py(), "builtins")?.attr("memoryview")?;
    let view = unended::call(&view, (object,), None)?;
    Flat::get(&view.attr("cast")?.with(("B",))?)
}

/// Returns the bytes of a contiguous buffer.
pub fn bytes_of(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    // SAFETY: pickle's streams and raw buffers are contiguous, and the view keeps the bytes alive; a pin keeps them in
    // place. Another thread may write to them in the meantime; then a mixture arrives, as with any buffer that changes
    // while it is sent.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) }
}

/// Copies a message into a writable buffer, which has room for `room` bytes from `from` on.
pub fn put_into(buffer: &PyBuffer<u8>, from: usize, room: usize, whole: Bound<'_, PyAny>) -> PyResult<usize> {
    static TOO_SHORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = whole.py();
    let view = flat(&whole)?;
    if view.len_bytes() <= room {
        // SAFETY: `from + room` is within the buffer. The view keeps the buffer in place, and the buffer is writable.
        unsafe {
            let into = buffer.buf_ptr().cast::<u8>().add(from);
            std::ptr::copy_nonoverlapping(bytes_of(&view).as_ptr(), into, view.len_bytes());
        }
        return Ok(view.len_bytes());
    }
    let kind =
        TOO_SHORT.get_or_make(py, || PyResult::Ok(import(py, "maniple.context")?.attr("BufferTooShort")?.unbind()))?;
    Err(PyErr::from_value(kind.bind(py).with((whole,))?))
}
