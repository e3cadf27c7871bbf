//! Python values to payloads.
//!
//! Plain values ([`walk`](crate::walk)) have a form of their own, so that a call with a few numbers costs nanoseconds,
//! and a thousand records write each of their keys once. All other values are pickles (protocol 5) with large buffers
//! out of band. A very large buffer is copied once, directly into the block that its reader maps.
//!
//! [`payload_format`](crate::payload_format) describes the form, `plain` writes plain values, and `buffers` takes the
//! large buffers of a pickle.
#![allow(unsafe_code)]

mod buffers;
mod plain;

pub use buffers::Buffers;

use crate::arrays::{self, Content};
use crate::error::{Saying as _, helper, python};
use crate::made;
use crate::message::{has_pool_pickler, is_pool_pickler_ours};
use crate::payload_format::tag;
use crate::unended;
use crate::walk::Walk;
use maniple_engine::pool::{Packer, Packet};
use maniple_engine::shm::blocks::Blob;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};

/// The greatest number of bytes that a value takes in addition to its content.
const HEAD: usize = 16;
/// The number of bytes above which a buffer is copied without the interpreter lock.
const LONG: usize = 1 << 20;

/// How the encoder treats a value that pickle refuses, or that its reader would not find by name.
#[derive(Clone, Copy)]
pub enum Pickler<'p> {
    /// For results: a value that arrived by value returns by value; any other such value is an error.
    Result,
    /// For functions and arguments: such a value is sent by value. The object knows which parts of the main module the
    /// workers have.
    For(&'p Py<PyAny>),
}

/// The bytes of a large object that the walk has met.
enum Large {
    Bytes(*const [u8]),
    Array(Content),
}

/// The encoder of one payload.
pub struct Encoder<'a> {
    packer: &'a Packer,
    out: Vec<u8>,
    blobs: Vec<Blob>,
    // The buffers that become blobs if the walk completes.
    large: Vec<Large>,
    has_arrays: bool,
    py: Python<'a>,
    // Whether this encoder writes lists, dicts and arrays: a pickler of the program has to see them. `None` if it is
    // not known yet.
    writes_more: Option<bool>,
    asks: bool,
    // The reason why a value could not be written, if the reason is not that the value is not plain.
    failed: Option<PyErr>,
}

impl<'a> Encoder<'a> {
    pub fn new(py: Python<'a>, packer: &'a Packer) -> Self {
        Encoder {
            packer,
            out: Vec::with_capacity(64),
            blobs: Vec::new(),
            large: Vec::new(),
            has_arrays: false,
            py,
            writes_more: None,
            asks: false,
            failed: None,
        }
    }

    /// Writes a byte that says what follows.
    pub fn mark(&mut self, tag: u8) {
        self.out.push(tag);
    }

    /// Writes bytes that precede a call.
    pub fn header(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes any value.
    pub fn value(&mut self, value: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        self.plain_or(|walk, form| walk.value(value.as_borrowed(), form), || Ok(value.clone()), pickler)
    }

    /// Writes the items of a sequence. If an item is not plain, the items are pickled together, so that shared objects
    /// stay shared. `others` is the number of references to each item, besides the slice, that are not part of any
    /// item.
    pub fn sequence<'py>(
        &mut self,
        items: &[Bound<'py, PyAny>],
        others: isize,
        whole: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
        pickler: Pickler<'_>,
    ) -> PyResult<()> {
        let plain =
            |walk: &mut Walk, form: &mut Self| form.begin(tag::LEAN, items.len()) && walk.items(items, others, form);
        self.plain_or(plain, whole, pickler)
    }

    /// As `sequence`, for one item.
    pub fn one(&mut self, item: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        let whole = || Ok(made::list(item.py(), [item.clone()])?.into_any());
        self.sequence(std::slice::from_ref(item), 0, whole, pickler)
    }

    /// As `sequence`, for a list.
    pub fn list(&mut self, items: &Bound<'_, PyList>, pickler: Pickler<'_>) -> PyResult<()> {
        let plain = |walk: &mut Walk, form: &mut Self| form.begin(tag::LEAN, items.len()) && walk.items_in(items, form);
        self.plain_or(plain, || Ok(items.clone().into_any()), pickler)
    }

    /// As `sequence`, for a tuple.
    pub fn tuple(&mut self, items: &Bound<'_, PyTuple>, pickler: Pickler<'_>) -> PyResult<()> {
        let plain = |walk: &mut Walk, form: &mut Self| form.begin(tag::LEAN, items.len()) && walk.items_of(items, form);
        self.plain_or(plain, || Ok(items.clone().into_any()), pickler)
    }

    fn plain_or<'py>(
        &mut self,
        plain: impl Fn(&mut Walk, &mut Self) -> bool,
        whole: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
        pickler: Pickler<'_>,
    ) -> PyResult<()> {
        let (bytes, blobs) = (self.out.len(), self.blobs.len());
        let again = |encoder: &mut Self| {
            encoder.out.truncate(bytes);
            encoder.large.clear();
            encoder.has_arrays = false;
            plain(&mut Walk::default(), encoder)
        };
        let mut is_plain = again(self);
        if !is_plain && self.failed.is_none() && arrays::is_found(self.py) {
            is_plain = again(self);
        }
        if std::mem::take(&mut self.asks) {
            let writes = *self.writes_more.insert(!has_pool_pickler(self.py)?);
            is_plain = writes && again(self);
        }
        if is_plain {
            if std::mem::take(&mut self.has_arrays) {
                self.room(1)?;
                self.out.insert(bytes, tag::NUMPY);
            }
            // First the buffers that only the interpreter lock protects: the lock is released while a long array is
            // copied.
            let large = std::mem::take(&mut self.large);
            let mut blobs: Vec<Option<Blob>> = Vec::with_capacity(large.len());
            for large in &large {
                blobs.push(matches!(large, Large::Bytes(_)).then(|| self.blob(large)).transpose().map_err(python)?);
            }
            let releases_lock =
                large.iter().any(|large| matches!(large, Large::Array(array) if array.bytes().len() > LONG));
            let pins = large.iter().filter(|_| releases_lock).filter_map(|large| match large {
                Large::Array(content) => content.pin(self.py),
                Large::Bytes(_) => None,
            });
            let _pins: Vec<_> = pins.collect();
            for (large, blob) in large.iter().zip(blobs) {
                let blob = blob.map_or_else(|| self.blob(large), Ok).map_err(python)?;
                self.blobs.push(blob);
            }
            return Ok(());
        }
        self.large.clear();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.out.truncate(bytes);
        self.blobs.truncate(blobs);
        self.pickle(&whole()?, pickler)
    }

    fn blob(&self, large: &Large) -> Result<Blob, maniple_engine::Error> {
        match large {
            // SAFETY: the bytes belong to a `bytes` object in the value that `plain_or` walked over, which its caller
            // keeps alive. Such objects do not change.
            Large::Bytes(bytes) => self.packer.blob(&[unsafe { &**bytes }]),
            Large::Array(content) if content.bytes().len() > LONG => {
                let packer = &self.packer;
                self.py.detach(|| packer.blob(&[content.bytes()]))
            }
            Large::Array(content) => self.packer.blob(&[content.bytes()]),
        }
    }

    /// Returns the payload.
    pub fn packet(self) -> PyResult<Packet> {
        self.packer.pack_owned(self.out, self.blobs).map_err(python)
    }

    /// Reserves room for `len` more bytes. The program determines the length, so there may be no memory for it.
    #[inline]
    fn room(&mut self, len: usize) -> PyResult<()> {
        // The room is there nearly always; the other path is out of line.
        if self.out.capacity() - self.out.len() < len {
            let made = self.out.try_reserve(len);
            return made.map_err(|_| PyMemoryError::saying("there is no memory for a call's pickled items or result"));
        }
        Ok(())
    }

    /// Records why a value cannot be written.
    #[inline]
    fn fails(&mut self, error: PyErr) -> bool {
        self.failed = Some(error);
        false
    }

    /// As `room`. Returns false, and records the error, if there is no memory.
    #[inline]
    fn has_room(&mut self, len: usize) -> bool {
        match self.room(len) {
            Ok(()) => true,
            Err(error) => self.fails(error),
        }
    }

    /// Writes a tag and a number.
    #[inline]
    fn begin(&mut self, tag: u8, n: usize) -> bool {
        if !self.has_room(HEAD) {
            return false;
        }
        let Ok(n) = u32::try_from(n) else { return false }; // pickle knows longer ones
        self.out.push(tag);
        self.out.extend_from_slice(&n.to_le_bytes());
        true
    }

    /// Returns whether this encoder writes values that a pickler of the program would have to see.
    #[inline]
    fn writes_more(&mut self) -> bool {
        if self.writes_more.is_none() && is_pool_pickler_ours(self.py) {
            self.writes_more = Some(true);
        }
        self.asks |= self.writes_more.is_none(); // when the walk is over: the answer may run Python code
        self.writes_more == Some(true)
    }

    #[inline]
    fn container(&mut self, tag: u8, len: usize, kept: bool) -> bool {
        self.writes_more() && (!kept || self.short(&[tag::KEPT])) && self.begin(tag, len)
    }

    #[inline]
    fn short(&mut self, head: &[u8]) -> bool {
        let has_room = self.has_room(HEAD);
        if has_room {
            self.out.extend_from_slice(head);
        }
        has_room
    }

    fn pickle(&mut self, value: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        static DUMP_RESULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static DUMP_FOR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        let buffers = Bound::new(py, Buffers::new(self.packer))?;
        let stream = match pickler {
            Pickler::Result => {
                let dump = helper(py, &DUMP_RESULT, "dump_result")?;
                unended::call(dump, (value, &buffers), None)?
            }
            Pickler::For(main) => {
                let dump = helper(py, &DUMP_FOR, "dump_for")?;
                unended::call(dump, (value, &buffers, main), None)?
            }
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
