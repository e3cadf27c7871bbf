//! Python values to payloads.
//!
//! Small values of the commonest immutable types, and tuples of them, have a form of their own, so that a call with a few
//! numbers costs nanoseconds; everything else is a pickle (protocol 5), its large buffers out of band, the very large ones
//! copied once, straight into the block that their reader will map.
//!
//! ```text
//! value    := NONE | TRUE | FALSE | INT i64 | FLOAT f64 | STR len utf-8 | BYTES len bytes
//!           | BLOB                       (a `bytes` object in the next blob)
//!           | TUPLE n value*n            (leaves immutable, so identity does not matter)
//!           | PICKLE len stream          (its out-of-band buffers are the blobs that follow)
//! sequence := LEAN n value*n | value     (a value that is a list or tuple)
//! call     := APPLY sequence | KEYWORDS value | MAP sequence | STARMAP sequence
//! ```
//! Numbers are little-endian; `len` and `n` are 32 bits, but for a pickle's, which are 64.
#![allow(unsafe_code)]

use crate::error::{helper, python};
use maniple_engine::pool::{Packer, Packet};
use maniple_engine::shm::blocks::Blob;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};
use std::sync::Mutex;

/// First bytes of values.
pub mod tag {
    pub const NONE: u8 = b'N';
    pub const TRUE: u8 = b'T';
    pub const FALSE: u8 = b'F';
    pub const INT: u8 = b'i';
    pub const FLOAT: u8 = b'f';
    pub const STR: u8 = b's';
    pub const BYTES: u8 = b'b';
    pub const BLOB: u8 = b'B';
    pub const TUPLE: u8 = b'(';
    pub const PICKLE: u8 = b'P';
    pub const LEAN: u8 = b'L';
    pub const APPLY: u8 = b'a';
    pub const KEYWORDS: u8 = b'k';
    pub const MAP: u8 = b'm';
    pub const STARMAP: u8 = b'*';
}

/// Buffers of at least so many bytes travel beside the stream.
pub const LARGE: usize = 16 * 1024;
/// Bytes that a value takes at most beside its content.
const HEAD: usize = 16;
/// Buffers of one payload that travel beside its stream; those beyond stay in it. A very large one is a descriptor on its way.
const MOST: usize = 100;
/// Longer strings than this are left to pickle, which is as fast there. So are longer tuples.
const SHORT: usize = 16 * 1024;
/// Tuples that lie within each other.
pub const DEEP: u32 = 4;

/// How a value is dealt with that pickle refuses, or that its reader would not find by name.
#[derive(Clone, Copy)]
pub enum Pickler<'p> {
    /// For results: what came by value goes back as what it was; anything else is an error.
    Result,
    /// For functions and arguments: it goes by value. This object says what the workers have of the main module.
    For(&'p Py<PyAny>),
}

/// Collects one payload.
pub struct Encoder<'a> {
    packer: &'a Packer,
    out: Vec<u8>,
    blobs: Vec<Blob>,
}

impl<'a> Encoder<'a> {
    pub fn new(packer: &'a Packer) -> Self {
        Encoder { packer, out: Vec::with_capacity(64), blobs: Vec::new() }
    }

    /// A byte that says what follows.
    pub fn mark(&mut self, tag: u8) {
        self.out.push(tag);
    }

    /// Any value.
    pub fn value(&mut self, value: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        let (bytes, blobs) = (self.out.len(), self.blobs.len());
        if self.lean(value, 0)? {
            return Ok(());
        }
        self.out.truncate(bytes);
        self.blobs.truncate(blobs);
        self.pickle(value, pickler)
    }

    /// The items of a sequence: one by one if all are simple, else pickled together, so that what they share stays shared.
    pub fn sequence<'py>(
        &mut self,
        items: &[Bound<'py, PyAny>],
        whole: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
        pickler: Pickler<'_>,
    ) -> PyResult<()> {
        let (bytes, blobs) = (self.out.len(), self.blobs.len());
        self.out.push(tag::LEAN);
        self.count(items.len())?;
        for item in items {
            if !self.lean(item, 0)? {
                self.out.truncate(bytes);
                self.blobs.truncate(blobs);
                return self.pickle(&whole()?, pickler);
            }
        }
        Ok(())
    }

    /// As `sequence`, of a tuple.
    pub fn tuple(&mut self, items: &Bound<'_, PyTuple>, pickler: Pickler<'_>) -> PyResult<()> {
        let (bytes, blobs) = (self.out.len(), self.blobs.len());
        self.out.push(tag::LEAN);
        self.count(items.len())?;
        for item in items.iter_borrowed() {
            if !self.lean(&item, 0)? {
                self.out.truncate(bytes);
                self.blobs.truncate(blobs);
                return self.pickle(items.as_any(), pickler);
            }
        }
        Ok(())
    }

    /// The payload.
    pub fn packet(self) -> PyResult<Packet> {
        self.packer.pack_owned(self.out, self.blobs).map_err(python)
    }

    /// Sees to it that `len` bytes more have room. The length is the program's, so that there may be no memory for it.
    fn room(&mut self, len: usize) -> PyResult<()> {
        // Nearly always there is; the rest is out of the way.
        if self.out.capacity() - self.out.len() < len {
            let made = self.out.try_reserve(len);
            return made.map_err(|_| PyMemoryError::new_err("there is no memory for a call's pickled items or result"));
        }
        Ok(())
    }

    fn count(&mut self, n: usize) -> PyResult<()> {
        let n = u32::try_from(n).map_err(|_| PyRuntimeError::new_err("more than 2**32 items in one task"))?;
        self.out.extend_from_slice(&n.to_le_bytes());
        Ok(())
    }

    /// The short form, if the value has one. False: part of it may have been written.
    fn lean(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> PyResult<bool> {
        self.room(HEAD)?;
        if value.is_exact_instance_of::<PyInt>() {
            let mut overflow = 0;
            // SAFETY: `value` is a Python int and the lock is held.
            let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
            if overflow != 0 {
                return Ok(false);
            }
            self.out.push(tag::INT);
            self.out.extend_from_slice(&number.to_le_bytes());
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            // A string with lone surrogates has no UTF-8 form.
            let Ok(text) = text.to_str() else { return Ok(false) };
            if text.len() > SHORT {
                return Ok(false);
            }
            self.room(HEAD + text.len())?;
            self.out.push(tag::STR);
            self.count(text.len())?;
            self.out.extend_from_slice(text.as_bytes());
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.out.push(tag::FLOAT);
            self.out.extend_from_slice(&number.value().to_le_bytes());
        } else if value.is_none() {
            self.out.push(tag::NONE);
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.out.push(if truth.is_true() { tag::TRUE } else { tag::FALSE });
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            if depth == DEEP || tuple.len() > SHORT {
                return Ok(false);
            }
            self.out.push(tag::TUPLE);
            self.count(tuple.len())?;
            for item in tuple.iter_borrowed() {
                if !self.lean(&item, depth + 1)? {
                    return Ok(false);
                }
            }
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            let bytes = bytes.as_bytes();
            if bytes.len() >= LARGE {
                self.out.push(tag::BLOB);
                let blob = self.packer.blob(&[bytes]).map_err(python)?;
                self.blobs.push(blob);
            } else {
                self.room(HEAD + bytes.len())?;
                self.out.push(tag::BYTES);
                self.count(bytes.len())?;
                self.out.extend_from_slice(bytes);
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn pickle(&mut self, value: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        static DUMP_RESULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static DUMP_FOR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        let buffers = Bound::new(py, Buffers { packer: self.packer.clone(), blobs: Mutex::default() })?;
        let stream = match pickler {
            Pickler::Result => helper(py, &DUMP_RESULT, "dump_result")?.call1((value, &buffers))?,
            Pickler::For(main) => helper(py, &DUMP_FOR, "dump_for")?.call1((value, &buffers, main))?,
        };
        let stream = PyBuffer::<u8>::get(&stream)?;
        self.room(HEAD + stream.item_count())?;
        self.out.push(tag::PICKLE);
        self.out.extend_from_slice(&(stream.item_count() as u64).to_le_bytes());
        let at = self.out.len();
        self.out.resize(at + stream.item_count(), 0);
        stream.copy_to_slice(py, &mut self.out[at..])?;
        self.blobs.append(&mut buffers.get().lock());
        Ok(())
    }
}

/// The `buffer_callback` of a pickler: true keeps a buffer in the stream, false (here: it was copied into a block) takes it out.
#[pyclass(frozen)]
struct Buffers {
    packer: Packer,
    blobs: Mutex<Vec<Blob>>,
}

impl Buffers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Blob>> {
        self.blobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[pymethods]
impl Buffers {
    fn __call__(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(view) = buffer.call_method0("raw") else { return Ok(true) };
        let view = PyBuffer::<u8>::get(&view)?;
        if view.len_bytes() < LARGE || !view.is_c_contiguous() || self.lock().len() >= MOST {
            return Ok(true);
        }
        // SAFETY: the view keeps `len_bytes` contiguous bytes alive. Another thread may write to them meanwhile; then what
        // arrives is a mixture, as with any buffer that is changed while it is being pickled.
        let bytes = unsafe { std::slice::from_raw_parts(view.buf_ptr().cast::<u8>(), view.len_bytes()) };
        let blob =
            if bytes.len() > 1 << 20 { py.detach(|| self.packer.blob(&[bytes])) } else { self.packer.blob(&[bytes]) };
        self.lock().push(blob.map_err(python)?);
        Ok(false)
    }

    /// Forgets what was collected: another pickler starts over.
    fn clear(&self) {
        self.lock().clear();
    }
}
