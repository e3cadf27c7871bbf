//! The bytes of an array, and how long they stay in place.
#![allow(unsafe_code)]

use super::{is_found, known};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;
use std::ptr::null_mut;

/// What the buffer protocol says of an object, as long as this lives. Until then it keeps its bytes where they are; an array does as long as
/// the interpreter lock is held, and without it while there is a [`pin`](Content::pin).
pub struct View(pub(super) Box<ffi::Py_buffer>);

// SAFETY: bytes of an object to which the view holds a reference; it is released with the interpreter lock held.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// `None`: it has no buffer.
    pub(super) fn of(object: *mut ffi::PyObject) -> Option<View> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: the caller has a live object, and the interpreter lock.
        if unsafe { ffi::PyObject_GetBuffer(object, &raw mut *view, ffi::PyBUF_FULL_RO) } != 0 {
            // SAFETY: as above.
            unsafe { ffi::PyErr_Clear() };
            return None;
        }
        Some(View(view))
    }

    /// Its bytes. Another thread may write to them meanwhile; then what arrives is a mixture, as with any buffer that changes while it is
    /// being sent.
    pub fn bytes(&self) -> &[u8] {
        if self.0.len <= 0 {
            return &[];
        }
        // SAFETY: an array that was taken is contiguous; the view keeps its bytes alive and in place.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), self.0.len as usize) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: it was filled in by the interpreter.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

/// An array's numbers, one behind the other.
pub enum Content {
    /// Where they lie.
    View(View),
    /// Of an array that has others between them.
    Copy(Vec<u8>),
}

/// What keeps other threads from moving the bytes of a buffer's owner while they are read without the interpreter lock; `None`: it does not
/// move them.
///
/// NumPy's `resize` frees an array's memory even if views of it exist, with `refcheck=False`. But it always checks for weak references:
/// if there is one, the other thread gets NumPy's `ValueError`.
pub fn pin(owner: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let py = owner.py();
    is_found(py);
    let array = known(py)?.array.bind(py);
    let mut owner = owner.clone();
    while owner.is_instance_of::<PyMemoryView>() {
        owner = owner.getattr(pyo3::intern!(py, "obj")).ok()?;
    }
    if !owner.is_instance(array).ok()? {
        return None;
    }
    // SAFETY: a live object; what is given is a new reference, or null with an exception set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyWeakref_NewRef(owner.as_ptr(), null_mut())) };
    made.ok().map(Bound::unbind)
}

impl Content {
    /// The object to keep alive while the bytes are read without the interpreter lock. The lock was held since the bytes were checked.
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
