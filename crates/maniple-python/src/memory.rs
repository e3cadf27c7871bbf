//! Received bytes as Python buffers.
#![allow(unsafe_code)]

use crate::error::{Saying as _, os};
use crate::made;
use maniple_engine::shm::buffers::Buffer;
use maniple_engine::shm::region::Region;
use maniple_sys::{self as sys, OwnedHandle, RawHandle};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};

/// `nameless_memory(label, size)`: return a descriptor of `size` zeroed bytes of shared memory, whose size cannot
/// change.
#[pyfunction]
pub fn nameless_memory(label: &str, size: usize) -> PyResult<RawHandle> {
    sys::memory::create(label, size)
        .map(OwnedHandle::into_raw)
        .map_err(|e| os("make shared memory (memfd_create, Linux 3.17 and newer)", e))
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
        if view.is_null() {
            return Err(PyBufferError::saying("no view to fill in"));
        }
        let memory = &slf.get().0;
        let (start, len) = (memory.start().as_ptr(), memory.len());
        // SAFETY: `start` and `len` describe memory that stays in place as long as this object, to which the view holds
        // a reference. Rust code does not read it again, so writing to it is as safe as writing to any Python buffer.
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start.cast::<c_void>(), len as ffi::Py_ssize_t, 0, flags)
        };
        if failed == 0 { Ok(()) } else { Err(made::raised(slf.py())) }
    }
}
