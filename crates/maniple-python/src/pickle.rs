//! The pickles that messages are made of.
//!
//! What is sent between processes is, as a rule, small and built of the commonest types. Such values are pickled and unpickled here, to
//! the letter of pickle's format, since either end may be another program; whatever else there is goes to `pickle`, before anything
//! has happened. Nobody can tell the difference: these types are pickled the same whatever reducers are registered.
//!
//! Written (protocol 4) are None, bool, int of 64 bits, float, str, bytes, tuple, list and dict, some levels deep, no list or dict
//! twice: two references to one must arrive as two references to one. Read is the same and what CPython's pickler makes of it (protocols 4
//! and 5, frames, memo).
#![allow(unsafe_code)]

use crate::made;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

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
    pub const GET: u8 = b'h';
}

/// Longer strings are left to pickle, which is as fast there.
const SHORT: usize = 16 * 1024;
/// Longer pickles are.
const SHORT_PICKLE: usize = 64 * 1024;
const DEEP: u32 = 5;
/// Items of one container at most.
const MANY: usize = 256;
/// Lists and dicts in one value at most: each is compared with all before.
const CONTAINERS: usize = 16;

/// Appends a value's pickle. False: it is not such a value, and part of it may have been written.
pub fn dump(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&[op::PROTO, 4]);
    let mut writer = Writer { out, seen: Vec::new() };
    let done = writer.value(value.as_borrowed(), 0).is_some();
    out.push(op::STOP);
    done
}

/// The pickle of a tuple of these; `None`: one of them is not such a value.
pub fn dump_tuple(items: &[Borrowed<'_, '_, PyAny>]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(&[op::PROTO, 4]);
    let mut writer = Writer { out: &mut out, seen: Vec::new() };
    if items.len() > 3 {
        writer.out.push(op::MARK);
    }
    for item in items {
        writer.value(*item, 0)?;
    }
    writer.close_tuple(items.len());
    out.push(op::STOP);
    Some(out)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The lists and dicts so far.
    seen: Vec<*mut ffi::PyObject>,
}

impl Writer<'_> {
    fn close_tuple(&mut self, len: usize) {
        self.out.push(match len {
            0 => op::NO_TUPLE,
            1 => op::TUPLE1,
            2 => op::TUPLE2,
            3 => op::TUPLE3,
            _ => op::TUPLE,
        });
    }

    fn sized(&mut self, short: u8, long: u8, bytes: &[u8]) -> Option<()> {
        if bytes.len() > SHORT {
            return None;
        }
        match u8::try_from(bytes.len()) {
            Ok(len) => self.out.extend_from_slice(&[short, len]),
            Err(_) => {
                self.out.push(long);
                self.out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
            }
        }
        self.out.extend_from_slice(bytes);
        Some(())
    }

    fn int(&mut self, number: i64) {
        if let Ok(n) = u8::try_from(number) {
            self.out.extend_from_slice(&[op::INT1, n]);
        } else if let Ok(n) = u16::try_from(number) {
            self.out.push(op::INT2);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(number) {
            self.out.push(op::INT4);
            self.out.extend_from_slice(&n.to_le_bytes());
        } else {
            self.out.extend_from_slice(&[op::LONG1, 8]);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn value(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> Option<()> {
        if value.is_exact_instance_of::<PyInt>() {
            let mut overflow = 0;
            // SAFETY: `value` is a Python int and the interpreter lock is held.
            let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
            if overflow != 0 {
                return None;
            }
            self.int(number);
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            self.sized(op::STR1, op::STR4, text.to_str().ok()?.as_bytes())?;
        } else if value.is_none() {
            self.out.push(op::NONE);
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.out.push(if truth.is_true() { op::TRUE } else { op::FALSE });
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.out.push(op::FLOAT);
            self.out.extend_from_slice(&number.value().to_be_bytes());
        } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            self.sized(op::BYTES1, op::BYTES4, bytes.as_bytes())?;
        } else if depth == DEEP {
            return None;
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            let len = Some(tuple.len()).filter(|len| *len <= MANY)?;
            if len > 3 {
                self.out.push(op::MARK);
            }
            for item in tuple.iter_borrowed() {
                self.value(item, depth + 1)?;
            }
            self.close_tuple(len);
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.enter(value, dict.len())?;
            self.out.push(op::DICT);
            if !dict.is_empty() {
                self.out.push(op::MARK);
                for (key, value) in dict.iter() {
                    self.value(key.as_borrowed(), depth + 1)?;
                    self.value(value.as_borrowed(), depth + 1)?;
                }
                self.out.push(op::SET_ITEMS);
            }
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.enter(value, list.len())?;
            self.out.push(op::LIST);
            if !list.is_empty() {
                self.out.push(op::MARK);
                for item in list.iter() {
                    self.value(item.as_borrowed(), depth + 1)?;
                }
                self.out.push(op::APPENDS);
            }
        } else {
            return None;
        }
        Some(())
    }

    /// Whether a list or dict may be written here: what is in a value twice must be one object again.
    fn enter(&mut self, value: Borrowed<'_, '_, PyAny>, len: usize) -> Option<()> {
        let fits = len <= MANY && self.seen.len() < CONTAINERS && !self.seen.contains(&value.as_ptr());
        self.seen.push(value.as_ptr());
        fits.then_some(())
    }
}

/// The value of a pickle; `None` where `pickle` must be asked: it is long, there is more in it than such values, or it is damaged.
pub fn load<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
    if pickle.len() > SHORT_PICKLE {
        return None;
    }
    Reader { py, rest: pickle, stack: Vec::with_capacity(8), marks: Vec::new(), memo: Vec::with_capacity(8) }.run()
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
    stack: Vec<Bound<'py, PyAny>>,
    marks: Vec<usize>,
    memo: Vec<Bound<'py, PyAny>>,
}

impl<'py> Reader<'_, 'py> {
    fn run(mut self) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            let value: Bound<'py, PyAny> = match self.byte()? {
                op::PROTO => {
                    self.byte().filter(|version| matches!(version, 4 | 5))?;
                    continue;
                }
                op::FRAME => {
                    let len = u64::from_le_bytes(self.array()?);
                    usize::try_from(len).ok().filter(|len| *len <= self.rest.len())?;
                    continue;
                }
                op::MEMOIZE => {
                    self.above_mark(1)?;
                    self.memo.push(self.stack.last()?.clone());
                    continue;
                }
                op::MARK => {
                    self.marks.push(self.stack.len());
                    continue;
                }
                op::STOP => {
                    let value = self.stack.pop()?;
                    return (self.stack.is_empty() && self.marks.is_empty() && self.rest.is_empty()).then_some(value);
                }
                op::GET => {
                    let place = self.byte()?;
                    self.memo.get(usize::from(place))?.clone()
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
                    let items = self.stack.split_off(from);
                    let list = self.stack.last()?.cast_exact::<PyList>().ok()?;
                    items.into_iter().try_for_each(|item| list.append(item)).ok()?;
                    continue;
                }
                code @ (op::SET_ITEM | op::SET_ITEMS) => {
                    let from = self.first_of(code == op::SET_ITEM, 2)?;
                    self.is_above_mark(from.checked_sub(1)?)?;
                    let items = self.stack.split_off(from);
                    let dict = self.stack.last()?.cast_exact::<PyDict>().ok()?;
                    if !items.len().is_multiple_of(2) {
                        return None;
                    }
                    items.chunks_exact(2).try_for_each(|pair| dict.set_item(&pair[0], &pair[1])).ok()?;
                    continue;
                }
                _ => return None,
            };
            self.stack.push(value);
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

    fn bytes(&mut self, len: usize) -> Option<&[u8]> {
        let (first, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(first)
    }

    fn len(&mut self, short: bool) -> Option<usize> {
        if short { self.byte().map(usize::from) } else { self.array().map(|four| u32::from_le_bytes(four) as usize) }
    }
}
