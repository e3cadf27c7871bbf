//! Python values to payloads.
//!
//! Plain values ([`walk`](crate::walk)) have a form of their own, so that a call with a few numbers costs nanoseconds, and a thousand
//! records write each of their keys once; everything else is a pickle (protocol 5), its large buffers out of band, the very large
//! ones copied once, straight into the block that their reader will map.
//!
//! ```text
//! value    := NONE | TRUE | FALSE | INT1 i8 | INT4 i32 | INT i64 | FLOAT f64
//!           | STR1 len utf-8 | STR len utf-8 | BYTES len bytes
//!           | BLOB                       (a `bytes` object in the next blob)
//!           | ARRAY layout d length*d (BYTES len bytes | BLOB)
//!           | NUMBER kind n byte*n       (one of NumPy's)
//!           | LIST items | TUPLE items | DICT n (value value)*n
//!           | KEPT value                 (one of the last nine, which may be referred to)
//!           | AGAIN1 place | AGAIN place (what was kept as number `place`)
//!           | PICKLE len stream          (its out-of-band buffers are the blobs that follow)
//! items    := n MIXED value*n | n width integer*n | n FLOATS f64*n | n SAME value (n times the same object)
//! sequence := LEAN items | value         (a value that is a list or tuple)
//!           | NUMPY sequence | NUMPY value (there are arrays in it)
//! call     := APPLY sequence | KEYWORDS value | MAP sequence | STARMAP sequence
//! ```
//! Numbers are little-endian; `len` of STR1 and `place` of AGAIN1 are 8 bits, other `len`, `n` and `place` are 32, but for a pickle's, which
//! are 64, and the lengths of an array's dimensions, of which there are `d`; `d`, `layout`, `kind` and `n` of NUMBER are 8. Lists and dicts are kept before their content, others behind it. Each value that is not within another, and each sequence,
//! counts its kept ones from 0.
#![allow(unsafe_code)]

use crate::arrays::{self, Array, Content};
use crate::error::{helper, python};
use crate::made;
use crate::message::{has_pool_pickler, is_pool_pickler_ours};
use crate::unended;
use crate::walk::{Container, Form, Walk};
use maniple_engine::pool::policy::LARGE;
use maniple_engine::pool::{MOST_BLOBS, Packer, Packet};
use maniple_engine::shm::blocks::Blob;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};
use std::sync::Mutex;

/// First bytes of values.
pub mod tag {
    pub const NONE: u8 = b'N';
    pub const TRUE: u8 = b'T';
    pub const FALSE: u8 = b'F';
    pub const INT1: u8 = b'1';
    pub const INT4: u8 = b'4';
    pub const INT: u8 = b'i';
    pub const FLOAT: u8 = b'f';
    pub const STR1: u8 = b'u';
    pub const STR: u8 = b's';
    pub const BYTES: u8 = b'b';
    pub const BLOB: u8 = b'B';
    pub const ARRAY: u8 = b'A';
    pub const NUMBER: u8 = b'#';
    pub const NUMPY: u8 = b'n';
    pub const LIST: u8 = b'[';
    pub const TUPLE: u8 = b'(';
    pub const DICT: u8 = b'{';
    pub const KEPT: u8 = b'K';
    pub const AGAIN1: u8 = b'g';
    pub const AGAIN: u8 = b'G';
    pub const PICKLE: u8 = b'P';
    pub const LEAN: u8 = b'L';
    pub const APPLY: u8 = b'a';
    pub const KEYWORDS: u8 = b'k';
    pub const MAP: u8 = b'm';
    pub const STARMAP: u8 = b'*';
}

/// What items are; other values: integers of so many bytes each.
pub mod items {
    pub const MIXED: u8 = 0;
    pub const FLOATS: u8 = b'f';
    pub const SAME: u8 = b'=';
}

/// Bytes that a value takes at most beside its content.
const HEAD: usize = 16;
/// Longer ones are copied without the interpreter lock, in bytes.
const LONG: usize = 1 << 20;
/// How a value is dealt with that pickle refuses, or that its reader would not find by name.
#[derive(Clone, Copy)]
pub enum Pickler<'p> {
    /// For results: what came by value goes back as what it was; anything else is an error.
    Result,
    /// For functions and arguments: it goes by value. This object says what the workers have of the main module.
    For(&'p Py<PyAny>),
}

/// The bytes of a large object that is walked over.
enum Large {
    Bytes(*const [u8]),
    Array(Content),
}

/// Collects one payload.
pub struct Encoder<'a> {
    packer: &'a Packer,
    out: Vec<u8>,
    blobs: Vec<Blob>,
    // What becomes blobs if all that is walked over is plain.
    large: Vec<Large>,
    has_arrays: bool,
    py: Python<'a>,
    // Whether lists, dicts and arrays are written here: a program's own pickler has to see them.
    writes_more: Option<bool>,
    asks: bool,
    // Why a value could not be written, where the reason is not that it is not plain.
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

    /// A byte that says what follows.
    pub fn mark(&mut self, tag: u8) {
        self.out.push(tag);
    }

    /// Any value.
    pub fn value(&mut self, value: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        self.plain_or(|walk, form| walk.value(value.as_borrowed(), form), || Ok(value.clone()), pickler)
    }

    /// The items of a sequence: if all are plain as they are, else pickled together, so that what they share stays shared. `others`: what
    /// refers to each item besides the slice, and is no part of any.
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

    /// As `sequence`, of one item.
    pub fn one(&mut self, item: &Bound<'_, PyAny>, pickler: Pickler<'_>) -> PyResult<()> {
        let whole = || Ok(made::list(item.py(), [item.clone()])?.into_any());
        self.sequence(std::slice::from_ref(item), 0, whole, pickler)
    }

    /// As `sequence`, of a list.
    pub fn list(&mut self, items: &Bound<'_, PyList>, pickler: Pickler<'_>) -> PyResult<()> {
        let plain = |walk: &mut Walk, form: &mut Self| form.begin(tag::LEAN, items.len()) && walk.items_in(items, form);
        self.plain_or(plain, || Ok(items.clone().into_any()), pickler)
    }

    /// As `sequence`, of a tuple.
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
            // First the buffers that only the interpreter lock protects, which is released while a long array is copied.
            let large = std::mem::take(&mut self.large);
            let mut blobs: Vec<Option<Blob>> = Vec::with_capacity(large.len());
            for large in &large {
                blobs.push(matches!(large, Large::Bytes(_)).then(|| self.blob(large)).transpose().map_err(python)?);
            }
            let lets_go = large.iter().any(|large| matches!(large, Large::Array(array) if array.bytes().len() > LONG));
            let pins = large.iter().filter(|_| lets_go).filter_map(|large| match large {
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
            // SAFETY: of a `bytes` object in the value that was walked over, which lives; such objects do not change.
            Large::Bytes(bytes) => self.packer.blob(&[unsafe { &**bytes }]),
            Large::Array(content) if content.bytes().len() > LONG => {
                let packer = &self.packer;
                self.py.detach(|| packer.blob(&[content.bytes()]))
            }
            Large::Array(content) => self.packer.blob(&[content.bytes()]),
        }
    }

    /// The payload.
    pub fn packet(self) -> PyResult<Packet> {
        self.packer.pack_owned(self.out, self.blobs).map_err(python)
    }

    /// Reserves room for `len` more bytes. The length is the program's, so that there may be no memory for it.
    fn room(&mut self, len: usize) -> PyResult<()> {
        // Nearly always there is; the rest is out of the way.
        if self.out.capacity() - self.out.len() < len {
            let made = self.out.try_reserve(len);
            return made.map_err(|_| PyMemoryError::new_err("there is no memory for a call's pickled items or result"));
        }
        Ok(())
    }

    /// Notes why a value cannot be written.
    fn fails(&mut self, error: PyErr) -> bool {
        self.failed = Some(error);
        false
    }

    /// As `room`; false: there is none, which is noted.
    fn has_room(&mut self, len: usize) -> bool {
        match self.room(len) {
            Ok(()) => true,
            Err(error) => self.fails(error),
        }
    }

    /// A tag and a number behind it.
    fn begin(&mut self, tag: u8, n: usize) -> bool {
        if !self.has_room(HEAD) {
            return false;
        }
        let Ok(n) = u32::try_from(n) else { return false }; // pickle knows longer ones
        self.out.push(tag);
        self.out.extend_from_slice(&n.to_le_bytes());
        true
    }

    /// Whether values are written here that a program's own pickler would have to see.
    fn writes_more(&mut self) -> bool {
        if self.writes_more.is_none() && is_pool_pickler_ours(self.py) {
            self.writes_more = Some(true);
        }
        self.asks |= self.writes_more.is_none(); // when the walk is over: the answer may run Python code
        self.writes_more == Some(true)
    }

    fn container(&mut self, tag: u8, len: usize, kept: bool) -> bool {
        self.writes_more() && (!kept || self.short(&[tag::KEPT])) && self.begin(tag, len)
    }

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
        let buffers = Bound::new(py, Buffers { packer: self.packer.clone(), blobs: Mutex::default() })?;
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

impl Form for Encoder<'_> {
    fn none(&mut self) -> bool {
        self.short(&[tag::NONE])
    }

    fn truth(&mut self, is: bool) -> bool {
        self.short(&[if is { tag::TRUE } else { tag::FALSE }])
    }

    fn int(&mut self, number: i64) -> bool {
        if !self.has_room(HEAD) {
            return false;
        }
        if let Ok(number) = i8::try_from(number) {
            self.out.extend_from_slice(&[tag::INT1, number as u8]);
        } else if let Ok(number) = i32::try_from(number) {
            self.out.push(tag::INT4);
            self.out.extend_from_slice(&number.to_le_bytes());
        } else {
            self.out.push(tag::INT);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        true
    }

    fn float(&mut self, number: f64) -> bool {
        let has_room = self.has_room(HEAD);
        if has_room {
            self.out.push(tag::FLOAT);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        has_room
    }

    fn text(&mut self, utf8: &[u8], kept: bool) -> bool {
        if !self.has_room(HEAD + utf8.len()) {
            return false;
        }
        if kept {
            self.out.push(tag::KEPT);
        }
        if let Ok(len) = u8::try_from(utf8.len()) {
            self.out.extend_from_slice(&[tag::STR1, len]);
        } else if !self.begin(tag::STR, utf8.len()) {
            return false;
        }
        self.out.extend_from_slice(utf8);
        true
    }

    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool {
        if kept && !self.short(&[tag::KEPT]) {
            return false;
        }
        if bytes.len() >= LARGE && self.blobs.len() + self.large.len() < MOST_BLOBS {
            self.large.push(Large::Bytes(bytes));
            return self.short(&[tag::BLOB]);
        }
        if !(self.has_room(HEAD + bytes.len()) && self.begin(tag::BYTES, bytes.len())) {
            return false;
        }
        self.out.extend_from_slice(bytes);
        true
    }

    fn array(&mut self, array: Array, kept: bool) -> bool {
        if !self.writes_more() || kept && !self.short(&[tag::KEPT]) {
            return false;
        }
        self.has_arrays = true;
        let lengths = array.shape();
        let bytes = array.content.bytes();
        if !self.has_room(HEAD + 8 * lengths.len()) {
            return false;
        }
        self.out.extend_from_slice(&[tag::ARRAY, array.layout.code(), lengths.len() as u8]);
        lengths.iter().for_each(|len| self.out.extend_from_slice(&(*len as u64).to_le_bytes()));
        if bytes.len() >= LARGE && self.blobs.len() + self.large.len() < MOST_BLOBS {
            self.out.push(tag::BLOB);
            self.large.push(Large::Array(array.content));
            return true;
        }
        if !(self.has_room(HEAD + bytes.len()) && self.begin(tag::BYTES, bytes.len())) {
            return false;
        }
        self.out.extend_from_slice(bytes);
        true
    }

    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool {
        if !self.writes_more() || kept && !self.short(&[tag::KEPT]) || !self.has_room(HEAD + bytes.len()) {
            return false;
        }
        self.has_arrays = true;
        self.out.extend_from_slice(&[tag::NUMBER, kind, bytes.len() as u8]);
        self.out.extend_from_slice(bytes);
        true
    }

    fn again(&mut self, place: u32) -> bool {
        match u8::try_from(place) {
            Ok(place) => self.short(&[tag::AGAIN1, place]),
            Err(_) => self.begin(tag::AGAIN, place as usize),
        }
    }

    fn list(&mut self, len: usize, kept: bool) -> bool {
        self.container(tag::LIST, len, kept)
    }

    fn tuple(&mut self, len: usize, kept: bool) -> bool {
        (!kept || self.short(&[tag::KEPT])) && self.begin(tag::TUPLE, len)
    }

    fn dict(&mut self, len: usize, kept: bool) -> bool {
        self.container(tag::DICT, len, kept)
    }

    fn end(&mut self, _: Container, _: usize, _: bool) -> bool {
        true
    }

    fn ints(&mut self, numbers: &[i64]) -> bool {
        let (low, high) = numbers.iter().fold((0, 0), |(low, high), &n| (n.min(low), n.max(high)));
        let width = match low.min(!high) {
            -0x80..=0 => 1,
            -0x8000..=0 => 2,
            -0x8000_0000..=0 => 4,
            _ => 8,
        };
        if !self.has_room(1 + width * numbers.len()) {
            return false;
        }
        self.out.push(width as u8);
        match width {
            1 => self.out.extend(numbers.iter().map(|n| *n as u8)),
            2 => numbers.iter().for_each(|n| self.out.extend_from_slice(&(*n as i16).to_le_bytes())),
            4 => numbers.iter().for_each(|n| self.out.extend_from_slice(&(*n as i32).to_le_bytes())),
            _ => numbers.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes())),
        }
        true
    }

    fn floats(&mut self, numbers: &[f64]) -> bool {
        let has_room = self.has_room(1 + 8 * numbers.len());
        if has_room {
            self.out.push(items::FLOATS);
            numbers.iter().for_each(|n| self.out.extend_from_slice(&n.to_le_bytes()));
        }
        has_room
    }

    fn same(&mut self) -> bool {
        self.short(&[items::SAME])
    }

    fn mixed(&mut self) -> bool {
        self.short(&[items::MIXED])
    }
}

/// The `buffer_callback` of a pickler: true keeps a buffer in the stream, false (here: it was copied into a block) takes it out.
#[pyclass(frozen)]
pub struct Buffers {
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
        let Ok(view_of) = buffer.call_method0("raw") else { return Ok(true) };
        let view = PyBuffer::<u8>::get(&view_of)?;
        if view.len_bytes() < LARGE || !view.is_c_contiguous() || self.lock().len() >= MOST_BLOBS {
            return Ok(true);
        }
        let _pin = arrays::pin(&view_of);
        // SAFETY: the view keeps `len_bytes` contiguous bytes alive. Another thread may write to them meanwhile; then what
        // arrives is a mixture, as with any buffer that is changed while it is being pickled.
        let bytes = unsafe { std::slice::from_raw_parts(view.buf_ptr().cast::<u8>(), view.len_bytes()) };
        let blob =
            if bytes.len() > LONG { py.detach(|| self.packer.blob(&[bytes])) } else { self.packer.blob(&[bytes]) };
        self.lock().push(blob.map_err(python)?);
        Ok(false)
    }

    /// Forgets what was collected: another pickler starts over.
    fn clear(&self) {
        self.lock().clear();
    }
}
