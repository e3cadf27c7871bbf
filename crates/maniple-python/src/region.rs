//! A large buffer in shared memory, as a Python buffer: writable, private to this process, and released when the last
//! view of it is gone.
#![allow(unsafe_code)]

use crate::error::Saying as _;
use crate::made;
use maniple_engine::shm::region::Region;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

/// Memory that arrived with a payload. Supports the buffer protocol, and nothing else.
#[pyclass(name = "Region", module = "maniple._maniple", frozen)]
pub struct PyRegion(pub Arc<Region>);

#[pymethods]
impl PyRegion {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Pickles it as a `bytearray`, which represents such memory in further messages.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let bytes = made::bytes(slf.py(), slf.get().0.as_slice())?;
        Ok((slf.py().get_type::<PyByteArray>().into_any(), (bytes,)))
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::saying("no view to fill in"));
        }
        let region = &slf.get().0;
        let (start, len) = (region.start().as_ptr().cast::<c_void>(), region.len() as ffi::Py_ssize_t);
        // SAFETY: `start` and `len` describe memory that stays mapped for as long as this object lives, and the view
        // holds a reference to the object. The mapping is private to this process, so writing to it is as safe as
        // writing to any Python buffer.
        let failed = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if failed == 0 { Ok(()) } else { Err(made::raised(slf.py())) }
    }
}
