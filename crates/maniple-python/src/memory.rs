//! Received bytes as Python buffers.
#![allow(unsafe_code)]

use crate::error::{Saying as _, os};
use crate::flat::{bytes_of, flat};
use crate::handles::borrow;
use crate::made;
use maniple_engine::shm::buffers::Buffer;
use maniple_engine::shm::region::Region;
use maniple_sys::memory::{Mapping, Share};
use maniple_sys::{self as sys, AsHandle, OwnedHandle, RawHandle};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

/// `nameless_memory(label, size)`: return a descriptor of `size` zeroed bytes of shared memory, whose size cannot
/// change.
#[pyfunction]
pub fn nameless_memory(label: &str, size: usize) -> PyResult<RawHandle> {
    sys::memory::create(label, size)
        .map(OwnedHandle::into_raw)
        .map_err(|e| os("make shared memory (memfd_create, Linux 3.17 and newer)", e))
}

/// `filled_memory(label, content)`: return a handle of shared memory with this content.
#[pyfunction]
pub fn filled_memory(label: &str, content: &Bound<'_, PyAny>) -> PyResult<RawHandle> {
    let buffer = flat(content)?;
    let made = sys::memory::create(label, buffer.len_bytes()).and_then(|made| {
        sys::memory::write_at(made.as_handle(), bytes_of(&buffer), 0)?;
        Ok(made.into_raw())
    });
    made.map_err(|e| os("make shared memory", e))
}

/// `content_of_memory(handle)`: return the content of shared memory as bytes.
#[pyfunction]
pub fn content_of_memory(py: Python<'_>, handle: RawHandle) -> PyResult<Bound<'_, PyBytes>> {
    let content = sys::memory::read_all(borrow(&handle)?).map_err(|e| os("read shared memory", e))?;
    made::bytes(py, &content)
}

/// Shared memory in this process's address space. Supports the writable buffer protocol; it is unmapped when the last view
/// of it is gone.
#[pyclass(name = "Mapped", module = "maniple._maniple", frozen)]
pub struct PyMapped(Mapping);

#[pymethods]
impl PyMapped {
    /// Maps the first `size` bytes of the memory behind a handle.
    #[new]
    fn new(handle: RawHandle, size: usize) -> PyResult<Self> {
        let handle = borrow(&handle)?;
        let mapped = Mapping::new(handle, size, Share::All).map_err(|e| os("map shared memory", e))?;
        Ok(PyMapped(mapped))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: `view` is the interpreter's. The memory stays mapped as long as this object. Rust code makes no references to
        // it; other processes write to it, as to any memory that Python maps.
        unsafe { fill_view(slf.as_any(), slf.get().0.start(), slf.get().0.len(), view, flags) }
    }
}

/// Fills in a writable view of memory that belongs to `owner`, to which the view holds a reference.
///
/// # Safety
/// `view` is null, or may be written to. The memory stays where it is as long as `owner`, and other code may write to it.
unsafe fn fill_view(
    owner: &Bound<'_, PyAny>,
    start: NonNull<u8>,
    len: usize,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::saying("no view to fill in"));
    }
    let start = start.as_ptr().cast::<c_void>();
    // SAFETY: the caller promises that.
    let failed = unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), start, len as ffi::Py_ssize_t, 0, flags) };
    if failed == 0 { Ok(()) } else { Err(made::raised(owner.py())) }
}

/// Private memory of this process. Supports the writable buffer protocol, and nothing else.
#[pyclass(name = "Memory", module = "maniple._maniple", frozen)]
pub struct PyMemory(Region);

impl From<Vec<u8>> for PyMemory {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer::from_vec(bytes).into()
    }
}

impl From<Buffer> for PyMemory {
    fn from(bytes: Buffer) -> Self {
        PyMemory(bytes.into())
    }
}

impl From<Region> for PyMemory {
    fn from(region: Region) -> Self {
        PyMemory(region)
    }
}

impl PyMemory {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[pymethods]
impl PyMemory {
    fn __len__(&self) -> usize {
        self.len()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: `view` is the interpreter's. The memory stays in place as long as this object. Rust code does not read it
        // again, so writing to it is as safe as writing to any Python buffer.
        unsafe { fill_view(slf.as_any(), slf.get().0.start(), slf.get().0.len(), view, flags) }
    }
}
