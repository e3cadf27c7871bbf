//! The pickles that messages are made of.
//!
//! Plain values ([`walk`](crate::walk)) are pickled and unpickled here, in exactly pickle's format, since either end may be
//! another program; all other values go to `pickle`, before anything has happened.
//!
//! Written is protocol 4, with a memo. Read is the same and what CPython's pickler makes of such values (protocols 4 and 5, frames, memo).

use crate::arrays::{self, Array, Content, Layout, MOST_DIMENSIONS, Numpy};
use crate::made;
use crate::memory::PyMemory;
use crate::walk::{Container, Form, Walk};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};
use std::cmp::Ordering;

mod op {
    pub const PROTO: u8 = 0x80;
    pub const FRAME: u8 = 0x95;
    pub const STOP: u8 = b'.';
    pub const MARK: u8 = b'(';
    pub const NONE: u8 = b'N';
    pub const TRUE: u8 = 0x88;
    pub const FALSE: u8 = 0x89;
    pub const INT1: u8 = b'K';
    pub const INT2: u8 = b'M';
    pub const INT4: u8 = b'J';
    pub const LONG1: u8 = 0x8a;
    pub const FLOAT: u8 = b'G';
    pub const STR1: u8 = 0x8c;
    pub const STR4: u8 = b'X';
    pub const BYTES1: u8 = b'C';
    pub const BYTES4: u8 = b'B';
    pub const NO_TUPLE: u8 = b')';
    pub const TUPLE1: u8 = 0x85;
    pub const TUPLE2: u8 = 0x86;
    pub const TUPLE3: u8 = 0x87;
    pub const TUPLE: u8 = b't';
    pub const LIST: u8 = b']';
    pub const APPEND: u8 = b'a';
    pub const APPENDS: u8 = b'e';
    pub const DICT: u8 = b'}';
    pub const SET_ITEM: u8 = b's';
    pub const SET_ITEMS: u8 = b'u';
    pub const MEMOIZE: u8 = 0x94;
    pub const GET1: u8 = b'h';
    pub const GET4: u8 = b'j';
    pub const REDUCE: u8 = b'R';
    pub const BUILD: u8 = b'b';
}

/// Longer pickles are left to pickle; the bytes written until then are discarded.
const SHORT: usize = 1 << 20;
/// So are longer strings, which are copied once less there.
const LONGEST: usize = 16 * 1024;
/// So are arrays, whose bytes are not apart.
const LARGE: usize = 64 * 1024;
/// No array has its bytes apart that has fewer.
pub const MIDDLING: usize = 16 * 1024;

/// From so many bytes on, the garbage collector waits until all is read.
const MUCH: usize = 4096;

/// A value's pickle, and the bytes of its large arrays: of those that have as many as `apart` says, which is asked only where it matters.
/// `None`: it is not plain, or long.
pub fn dump(value: &Bound<'_, PyAny>, apart: &dyn Fn() -> usize) -> Option<(Vec<u8>, Vec<Content>)> {
    let done = |writer: &mut Writer<'_>| Walk::default().value(value.as_borrowed(), writer) && writer.put(&[op::STOP]);
    written(value.py(), apart, done)
}

fn written(
    py: Python<'_>,
    apart: &dyn Fn() -> usize,
    write: impl Fn(&mut Writer<'_>) -> bool,
) -> Option<(Vec<u8>, Vec<Content>)> {
    let mut writer = Writer { py, out: Vec::with_capacity(96), apart, large: Vec::new() };
    writer.out.extend_from_slice(&[op::PROTO, 4]);
    let mut done = write(&mut writer);
    if !done && arrays::is_found(py) {
        writer.out.truncate(2);
        writer.large.clear();
        done = write(&mut writer);
    }
    if !writer.large.is_empty() {
        writer.out[1] = 5;
    }
    done.then_some((writer.out, writer.large))
}

/// The pickle of a tuple of these; `None`: one of them is not plain, or it is long.
pub fn dump_tuple(py: Python<'_>, items: &[Borrowed<'_, '_, PyAny>]) -> Option<Vec<u8>> {
    let done = |writer: &mut Writer<'_>| {
        writer.tuple(items.len(), false)
            && Walk::default().items(items, 0, writer)
            && writer.end(Container::Tuple, items.len(), false)
            && writer.put(&[op::STOP])
    };
    written(py, &|| usize::MAX, done).map(|(pickle, _)| pickle)
}

struct Writer<'a> {
    py: Python<'a>,
    out: Vec<u8>,
    apart: &'a dyn Fn() -> usize,
    large: Vec<Content>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> bool {
        // Where there is no memory, pickle will say so.
        let has_room = self.out.capacity() - self.out.len() >= bytes.len() || self.out.try_reserve(bytes.len()).is_ok();
        if has_room {
            self.out.extend_from_slice(bytes);
        }
        has_room && self.out.len() <= SHORT
    }

    fn sized(&mut self, short: u8, long: u8, bytes: &[u8], kept: bool) -> bool {
        let head = match u8::try_from(bytes.len()) {
            Ok(len) => self.put(&[short, len]),
            Err(_) => bytes.len() <= LONGEST && self.put(&[long]) && self.put(&(bytes.len() as u32).to_le_bytes()),
        };
        head && self.put(bytes) && self.kept(kept)
    }

    fn kept(&mut self, kept: bool) -> bool {
        !kept || self.put(&[op::MEMOIZE])
    }
}

impl Form for Writer<'_> {
    fn none(&mut self) -> bool {
        self.put(&[op::NONE])
    }

    fn truth(&mut self, is: bool) -> bool {
        self.put(&[if is { op::TRUE } else { op::FALSE }])
    }

    fn int(&mut self, number: i64) -> bool {
        if let Ok(n) = u8::try_from(number) {
            self.put(&[op::INT1, n])
        } else if let Ok(n) = u16::try_from(number) {
            let [a, b] = n.to_le_bytes();
            self.put(&[op::INT2, a, b])
        } else if let Ok(n) = i32::try_from(number) {
            self.put(&[op::INT4]) && self.put(&n.to_le_bytes())
        } else {
            self.put(&[op::LONG1, 8]) && self.put(&number.to_le_bytes())
        }
    }

    fn float(&mut self, number: f64) -> bool {
        self.put(&[op::FLOAT]) && self.put(&number.to_be_bytes())
    }

    fn text(&mut self, utf8: &[u8], kept: bool) -> bool {
        self.sized(op::STR1, op::STR4, utf8, kept)
    }

    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool {
        self.sized(op::BYTES1, op::BYTES4, bytes, kept)
    }

    fn array(&mut self, array: Array, kept: bool) -> bool {
        let Some(numpy) = arrays::known(self.py) else { return false };
        let shape = |writer: &mut Self| {
            let mut lengths = array.shape().iter().map(|len| i64::try_from(*len));
            writer.put(&[op::MARK])
                && lengths.all(|len| len.is_ok_and(|len| writer.int(len)))
                && writer.put(&[op::TUPLE])
        };
        let (order, is_fortran) = if array.layout.is_fortran { (b'F', op::TRUE) } else { (b'C', op::FALSE) };
        let len = array.content.bytes().len();
        if len >= MIDDLING && len >= (self.apart)() {
            // NumPy's own pickles say all this, too: what its function makes of the buffer, with kind, shape and order.
            let is_written = self.put(&numpy.apart)
                && self.put(numpy.dtype(array.layout.kind))
                && shape(self)
                && self.put(&[op::STR1, 1, order, op::TUPLE, op::REDUCE])
                && self.kept(kept);
            self.large.push(array.content);
            return is_written;
        }
        if len > LARGE {
            return false;
        }
        // Here: an empty array, then its state, which is version, shape, kind, order, and bytes.
        self.put(&numpy.within)
            && self.kept(kept)
            && self.put(&[op::MARK, op::INT1, 1])
            && shape(self)
            && self.put(numpy.dtype(array.layout.kind))
            && self.put(&[is_fortran, op::BYTES4])
            && self.put(&(len as u32).to_le_bytes())
            && self.put(array.content.bytes())
            && self.put(&[op::TUPLE, op::BUILD])
    }

    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool {
        let Some(numpy) = arrays::known(self.py) else { return false };
        self.put(&numpy.single)
            && self.put(numpy.dtype(kind))
            && self.put(&[op::BYTES1, bytes.len() as u8])
            && self.put(bytes)
            && self.put(&[op::TUPLE2, op::REDUCE])
            && self.kept(kept)
    }

    fn again(&mut self, place: u32) -> bool {
        match u8::try_from(place) {
            Ok(place) => self.put(&[op::GET1, place]),
            Err(_) => self.put(&[op::GET4]) && self.put(&place.to_le_bytes()),
        }
    }

    fn list(&mut self, len: usize, kept: bool) -> bool {
        len < SHORT && self.put(&[op::LIST]) && self.kept(kept) && (len == 0 || self.put(&[op::MARK]))
    }

    fn dict(&mut self, len: usize, kept: bool) -> bool {
        len < SHORT && self.put(&[op::DICT]) && self.kept(kept) && (len == 0 || self.put(&[op::MARK]))
    }

    fn tuple(&mut self, len: usize, _: bool) -> bool {
        len <= 3 || len < SHORT && self.put(&[op::MARK])
    }

    fn end(&mut self, container: Container, len: usize, kept: bool) -> bool {
        match (container, len) {
            (Container::List | Container::Dict, 0) => true,
            (Container::List, _) => self.put(&[op::APPENDS]),
            (Container::Dict, _) => self.put(&[op::SET_ITEMS]),
            (Container::Tuple, 0) => self.put(&[op::NO_TUPLE]),
            (Container::Tuple, 1) => self.put(&[op::TUPLE1]) && self.kept(kept),
            (Container::Tuple, 2) => self.put(&[op::TUPLE2]) && self.kept(kept),
            (Container::Tuple, 3) => self.put(&[op::TUPLE3]) && self.kept(kept),
            (Container::Tuple, _) => self.put(&[op::TUPLE]) && self.kept(kept),
        }
    }

    fn ints(&mut self, numbers: &[i64]) -> bool {
        numbers.iter().all(|number| self.int(*number))
    }

    fn floats(&mut self, numbers: &[f64]) -> bool {
        numbers.iter().all(|number| self.float(*number))
    }

    fn same(&mut self) -> bool {
        false
    }

    fn mixed(&mut self) -> bool {
        true
    }
}

/// The value of a pickle; `None` where `pickle` must be asked: it is long, there is more in it than such values, or it is damaged.
/// `buffers`: what came apart.
pub fn load<'py>(py: Python<'py>, pickle: &[u8], buffers: &[Bound<'py, PyMemory>]) -> Option<Bound<'py, PyAny>> {
    if pickle.len() > SHORT {
        return None;
    }
    let _uncollected = (pickle.len() > MUCH).then(|| made::Uncollected::new(py));
    Reader {
        py,
        rest: pickle,
        stack: Vec::with_capacity(8),
        marks: Vec::new(),
        memo: Vec::with_capacity(8),
        behind: None,
        buffers: buffers.iter(),
        numpy: arrays::known(py),
    }
    .run()
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
    stack: Vec<Bound<'py, PyAny>>,
    marks: Vec<usize>,
    memo: Vec<Bound<'py, PyAny>>,
    /// How many bytes are left behind the frame that is being read.
    behind: Option<usize>,
    buffers: std::slice::Iter<'a, Bound<'py, PyMemory>>,
    numpy: Option<&'static Numpy>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn run(mut self) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            // What goes beyond its frame is read in one way by some and in another by others.
            match self.behind.map(|behind| self.rest.len().cmp(&behind)) {
                Some(Ordering::Less) => return None,
                Some(Ordering::Equal) => self.behind = None,
                _ => {}
            }
            let value: Bound<'py, PyAny> = match self.byte()? {
                op::PROTO => {
                    self.byte().filter(|version| matches!(version, 4 | 5))?;
                    continue;
                }
                op::FRAME => {
                    let len = u64::from_le_bytes(self.array()?);
                    let behind = self.rest.len().checked_sub(usize::try_from(len).ok()?)?;
                    if self.behind.replace(behind).is_some() {
                        return None;
                    }
                    continue;
                }
                op::MEMOIZE => {
                    self.above_mark(1)?;
                    self.memo.try_reserve(1).ok()?;
                    self.memo.push(self.stack.last()?.clone());
                    continue;
                }
                op::MARK => {
                    self.marks.try_reserve(1).ok()?;
                    self.marks.push(self.stack.len());
                    continue;
                }
                op::STOP => {
                    let value = self.stack.pop()?;
                    let is_over = self.rest.is_empty() && self.behind.is_none_or(|behind| behind == 0);
                    let is_over = is_over && self.buffers.len() == 0;
                    return (is_over && self.stack.is_empty() && self.marks.is_empty()).then_some(value);
                }
                code @ (op::GET1 | op::GET4) => {
                    let place = self.len(code == op::GET1)?;
                    self.memo.get(place)?.clone()
                }
                op::NONE => py.None().into_bound(py),
                op::TRUE => PyBool::new(py, true).to_owned().into_any(),
                op::FALSE => PyBool::new(py, false).to_owned().into_any(),
                op::INT1 => made::integer(py, self.byte()?.into()).ok()?,
                op::INT2 => made::integer(py, u16::from_le_bytes(self.array()?).into()).ok()?,
                op::INT4 => made::integer(py, i32::from_le_bytes(self.array()?).into()).ok()?,
                op::LONG1 => {
                    let len = self.byte().filter(|len| (1..=8).contains(len))?;
                    let bytes = self.bytes(len.into())?;
                    let sign = if bytes.last()? & 0x80 == 0 { 0 } else { 0xff };
                    let mut whole = [sign; 8];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    made::integer(py, i64::from_le_bytes(whole)).ok()?
                }
                op::FLOAT => made::float(py, f64::from_be_bytes(self.array()?)).ok()?,
                code @ (op::STR1 | op::STR4) => {
                    if let Some(numpy) = self.at_array() {
                        let array = self.array_of(numpy)?;
                        self.stack.try_reserve(1).ok()?;
                        self.stack.push(array);
                        continue;
                    }
                    let len = self.len(code == op::STR1)?;
                    made::text(py, std::str::from_utf8(self.bytes(len)?).ok()?).ok()?.into_any()
                }
                code @ (op::BYTES1 | op::BYTES4) => {
                    let len = self.len(code == op::BYTES1)?;
                    made::bytes(py, self.bytes(len)?).ok()?.into_any()
                }
                op::NO_TUPLE => PyTuple::empty(py).into_any(),
                op::TUPLE1 => self.collect(1)?,
                op::TUPLE2 => self.collect(2)?,
                op::TUPLE3 => self.collect(3)?,
                op::TUPLE => {
                    let len = self.stack.len().checked_sub(self.marks.pop()?)?;
                    self.collect(len)?
                }
                op::LIST => PyList::empty(py).into_any(),
                op::DICT => PyDict::new(py).into_any(),
                code @ (op::APPEND | op::APPENDS) => {
                    let from = self.first_of(code == op::APPEND, 1)?;
                    self.is_above_mark(from.checked_sub(1)?)?;
                    let (below, items) = self.stack.split_at_checked(from)?;
                    let list = below.last()?.cast_exact::<PyList>().ok()?;
                    items.iter().try_for_each(|item| list.append(item)).ok()?;
                    self.stack.truncate(from);
                    continue;
                }
                code @ (op::SET_ITEM | op::SET_ITEMS) => {
                    let from = self.first_of(code == op::SET_ITEM, 2)?;
                    self.is_above_mark(from.checked_sub(1)?)?;
                    let (below, items) = self.stack.split_at_checked(from)?;
                    let dict = below.last()?.cast_exact::<PyDict>().ok()?;
                    if !items.len().is_multiple_of(2) {
                        return None;
                    }
                    items.chunks_exact(2).try_for_each(|pair| dict.set_item(&pair[0], &pair[1])).ok()?;
                    self.stack.truncate(from);
                    continue;
                }
                _ => return None,
            };
            self.stack.try_reserve(1).ok()?;
            self.stack.push(value);
        }
    }

    /// Whether an array or one of NumPy's numbers begins here, as [`Writer`] writes them.
    fn at_array(&self) -> Option<&'static Numpy> {
        self.numpy.filter(|numpy| {
            [&numpy.within, &numpy.apart, &numpy.single].iter().any(|head| self.rest.starts_with(&head[1..]))
        })
    }

    fn array_of(&mut self, numpy: &'static Numpy) -> Option<Bound<'py, PyAny>> {
        if let Some(rest) = self.rest.strip_prefix(&numpy.apart[1..]) {
            self.rest = rest;
            let kind = self.kind_of(numpy)?;
            let (shape, dimensions) = self.shape()?;
            self.rest = self.rest.strip_prefix(&[op::STR1, 1])?;
            let is_fortran = match self.byte()? {
                b'C' => false,
                b'F' => true,
                _ => return None,
            };
            self.rest = self.rest.strip_prefix(&[op::TUPLE, op::REDUCE])?;
            let buffer = self.buffers.next()?;
            let layout = Layout { kind, is_fortran };
            return numpy.over(layout, &shape[..dimensions], buffer, buffer.get().len()).ok();
        }
        if let Some(rest) = self.rest.strip_prefix(&numpy.single[1..]) {
            self.rest = rest;
            let kind = self.kind_of(numpy)?;
            self.rest = self.rest.strip_prefix(&[op::BYTES1])?;
            let len = self.byte()?.into();
            let number = numpy.number(self.py, kind, self.bytes(len)?).ok()?;
            self.rest = self.rest.strip_prefix(&[op::TUPLE2, op::REDUCE])?;
            return Some(number);
        }
        self.rest = self.rest.strip_prefix(&numpy.within[1..])?;
        let is_kept = self.rest.first() == Some(&op::MEMOIZE);
        self.rest = self.rest.strip_prefix(&[op::MEMOIZE]).unwrap_or(self.rest);
        self.rest = self.rest.strip_prefix(&[op::MARK, op::INT1, 1])?;
        let (shape, dimensions) = self.shape()?;
        let kind = self.kind_of(numpy)?;
        let is_fortran = match self.byte()? {
            op::FALSE => false,
            op::TRUE => true,
            _ => return None,
        };
        self.rest = self.rest.strip_prefix(&[op::BYTES4])?;
        let len = self.len(false)?;
        let (py, bytes) = (self.py, self.bytes(len)?);
        let layout = Layout { kind, is_fortran };
        let array = numpy.filled(py, layout, &shape[..dimensions], bytes).ok()?;
        self.rest = self.rest.strip_prefix(&[op::TUPLE, op::BUILD])?;
        if is_kept {
            self.memo.try_reserve(1).ok()?;
            self.memo.push(array.clone());
        }
        Some(array)
    }

    fn kind_of(&mut self, numpy: &Numpy) -> Option<u8> {
        let kind = numpy.kind_at(self.rest)?;
        self.rest = &self.rest[numpy.dtype(kind).len()..];
        Some(kind)
    }

    fn shape(&mut self) -> Option<([usize; MOST_DIMENSIONS], usize)> {
        let (mut shape, mut dimensions) = ([0; MOST_DIMENSIONS], 0);
        self.rest = self.rest.strip_prefix(&[op::MARK])?;
        loop {
            let len = match self.byte()? {
                op::TUPLE => return Some((shape, dimensions)),
                op::INT1 => self.byte()?.into(),
                op::INT2 => u16::from_le_bytes(self.array()?).into(),
                op::INT4 => usize::try_from(i32::from_le_bytes(self.array()?)).ok()?,
                op::LONG1 if self.byte()? == 8 => usize::try_from(i64::from_le_bytes(self.array()?)).ok()?,
                _ => return None,
            };
            *shape.get_mut(dimensions)? = len;
            dimensions += 1;
        }
    }

    /// Where in the stack the items begin: the last `fixed`, or those since the last mark.
    fn first_of(&mut self, one: bool, fixed: usize) -> Option<usize> {
        if one { self.above_mark(fixed) } else { self.marks.pop() }
    }

    /// The place of the first of the last `len` values.
    fn above_mark(&self, len: usize) -> Option<usize> {
        let from = self.stack.len().checked_sub(len)?;
        self.is_above_mark(from).map(|()| from)
    }

    /// Sees that this place is not below the last mark, where nothing is to be taken.
    fn is_above_mark(&self, place: usize) -> Option<()> {
        (place >= self.marks.last().copied().unwrap_or(0)).then_some(())
    }

    fn collect(&mut self, len: usize) -> Option<Bound<'py, PyAny>> {
        let from = self.above_mark(len)?;
        Some(made::tuple(self.py, self.stack.drain(from..)).ok()?.into_any())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }

    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(first)
    }

    fn len(&mut self, short: bool) -> Option<usize> {
        if short { self.byte().map(usize::from) } else { self.array().map(|four| u32::from_le_bytes(four) as usize) }
    }
}
