//! The large buffers of a pickle, which travel in blocks beside it.
#![allow(unsafe_code)]

use super::LONG;
use crate::arrays;
use crate::error::python;
use crate::made::Attributes as _;
use maniple_engine::pool::policy::BLOB_FROM;
use maniple_engine::pool::{MOST_BLOBS, Packer};
use maniple_engine::shm::blocks::Blob;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use std::sync::Mutex;

/// The `buffer_callback` of a pickler. True keeps a buffer in the stream; false takes it out, after it was copied into
/// a block.
#[pyclass(frozen)]
pub struct Buffers {
    packer: Packer,
    blobs: Mutex<Vec<Blob>>,
}

impl Buffers {
    pub(super) fn new(packer: &Packer) -> Self {
        Buffers { packer: packer.clone(), blobs: Mutex::default() }
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Blob>> {
        self.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[pymethods]
impl Buffers {
    fn __call__(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(view_of) = buffer.attr("raw").and_then(|raw| raw.call0()) else { return Ok(true) };
        let view = PyBuffer::<u8>::get(&view_of)?;
        if view.len_bytes() < BLOB_FROM || !view.is_c_contiguous() || self.lock().len() >= MOST_BLOBS {
            return Ok(true);
        }
        let _pin = arrays::pin(&view_of);
        // SAFETY: the view keeps `len_bytes` contiguous bytes alive, and the pin keeps them in place. Another thread
        // may write to them in the meantime; then a mixture arrives, as with any buffer that changes while it is
        // pickled.
        let bytes = unsafe { std::slice::from_raw_parts(view.buf_ptr().cast::<u8>(), view.len_bytes()) };
        let blob =
            if bytes.len() > LONG { py.detach(|| self.packer.blob(&[bytes])) } else { self.packer.blob(&[bytes]) };
        self.lock().push(blob.map_err(python)?);
        Ok(false)
    }

    /// Drops the collected buffers: another pickler starts again.
    fn clear(&self) {
        self.lock().clear();
    }
}
