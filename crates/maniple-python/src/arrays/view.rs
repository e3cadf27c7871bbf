//! The bytes of an array, and how long they stay in place.
#![allow(unsafe_code)]

use super::{is_found, known};
use crate::made::{self, name};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ptr::null_mut;

/// The description of an object by the buffer protocol. While it exists, the object keeps its bytes in place. An array
/// does so while the interpreter lock is held; without the lock it does so while a [`pin`](Content::pin) exists.
pub struct View(pub(super) Box<ffi::Py_buffer>);

// SAFETY: the view holds a reference to the owner of the bytes. `drop` releases the view with the interpreter lock
// held.
unsafe impl Send for View {}
// SAFETY: as above; the fields are only read.
unsafe impl Sync for View {}

impl View {
    /// Returns `None` if the object has no buffer.
    pub(super) fn of(object: *mut ffi::PyObject) -> Option<View> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the caller passes a live object and holds the interpreter lock.
        if unsafe { ffi::PyObject_GetBuffer(object, &raw mut *view, ffi::PyBUF_FULL_RO) } != 0 {
            // SAFETY: as above.
            unsafe { ffi::PyErr_Clear() };
            return None;
        }
        Some(View(view))
    }

    /// Returns the bytes. Another thread may write to them in the meantime; then a mixture arrives, as with any buffer
    /// that changes while it is sent.
    pub fn bytes(&self) -> &[u8] {
        if self.0.len <= 0 {
            return &[];
        }
        // SAFETY: `Array::of` accepts contiguous views only, and `single` views of one number. The view keeps the bytes
        // alive and in place.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), self.0.len as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: `PyObject_GetBuffer` has filled the view in, and only this call releases it.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

/// The adjacent numbers of an array.
pub enum Content {
    /// In the memory of the array.
    View(View),
    /// A copy, of an array whose numbers are not adjacent.
    Copy(Vec<u8>),
}

/// Returns an object that keeps other threads from moving the bytes of a buffer's owner while they are read without the
/// interpreter lock. `None` if the owner does not move them.
///
/// NumPy's `resize(refcheck=False)` frees an array's memory even if views of it exist. But it always checks for weak
/// references. If there is one, the other thread gets NumPy's `ValueError`.
pub fn pin(owner: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let py = owner.py();
    is_found(py);
    let array = known(py)?.array.bind(py);
    let mut owner = owner.clone();
    while owner.is_instance_of::<PyMemoryView>() {
        owner = owner.getattr(name!(py, "obj").ok()?).ok()?;
    }
    if !owner.is_instance(array).ok()? {
        return None;
    }
    // SAFETY: a live object. `PyWeakref_NewRef` returns a new reference, or null with an exception set.
    let made = unsafe { made::owned(py, ffi::PyWeakref_NewRef(owner.as_ptr(), null_mut())) };
    made.ok().map(Bound::unbind)
}

impl Content {
    /// Returns the object to keep alive while the bytes are read without the interpreter lock. The caller has held the
    /// lock since the bytes were checked.
    pub fn pin(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let Content::View(view) = self else { return None };
        // SAFETY: the view holds a reference to its owner.
        pin(&unsafe { Bound::from_borrowed_ptr_or_opt(py, view.0.obj) }?)
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Content::View(view) => view.bytes(),
            Content::Copy(bytes) => bytes,
        }
    }
}
