//! Pickles of plain values, written and read without the pickle module.
//!
//! A plain value is None, a truth value, a number, a string, a byte string, a tuple of such, or one list or dict among them. What is
//! written is a pickle as any Python reads it (protocol 4); what is read is the part of protocols 4 and 5 that a pickler uses for
//! such values. Everything else is left to the pickle module, before anything has happened: both directions only look.
//!
//! Two references to one list or dict must arrive as two references to one, so there may be only one; for what cannot be changed
//! nobody sees the difference.
#![allow(unsafe_code)]

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

/// Longer strings, and collections of more items, are pickle's: it is as fast there.
const SHORT: usize = 16 * 1024;
const DEEP: u32 = 5;

/// The pickle of a tuple of plain values; `None`: one of them is not plain. `fresh`: the value at this place is a dict that nothing else
/// refers to.
pub fn write(items: &[Borrowed<'_, '_, PyAny>], fresh: Option<usize>) -> Option<Vec<u8>> {
    let mut writer = Writer { out: Vec::with_capacity(96), shared: false };
    writer.out.extend_from_slice(&[op::PROTO, 4]);
    if items.len() > 3 {
        writer.out.push(op::MARK);
    }
    for (place, item) in items.iter().enumerate() {
        if fresh == Some(place) {
            let before = std::mem::take(&mut writer.shared);
            writer.value(*item, 0)?;
            writer.shared = before;
        } else {
            writer.value(*item, 0)?;
        }
    }
    writer.close_tuple(items.len());
    writer.out.push(op::STOP);
    Some(writer.out)
}

struct Writer {
    out: Vec<u8>,
    /// There is a list or dict already.
    shared: bool,
}

impl Writer {
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
            let len = Some(tuple.len()).filter(|len| *len <= SHORT)?;
            if len > 3 {
                self.out.push(op::MARK);
            }
            for item in tuple.iter_borrowed() {
                self.value(item, depth + 1)?;
            }
            self.close_tuple(len);
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.only_one(dict.len())?;
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
            self.only_one(list.len())?;
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

    fn only_one(&mut self, len: usize) -> Option<()> {
        (!std::mem::replace(&mut self.shared, true) && len <= SHORT).then_some(())
    }
}

/// The value of a pickle; `None` where there is more in it than plain values, or it is damaged.
pub fn read<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
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
                op::INT1 => self.byte()?.into_pyobject(py).ok()?.into_any(),
                op::INT2 => u16::from_le_bytes(self.array()?).into_pyobject(py).ok()?.into_any(),
                op::INT4 => i32::from_le_bytes(self.array()?).into_pyobject(py).ok()?.into_any(),
                op::LONG1 => {
                    let len = self.byte().filter(|len| (1..=8).contains(len))?;
                    let bytes = self.bytes(len.into())?;
                    let sign = if bytes.last()? & 0x80 == 0 { 0 } else { 0xff };
                    let mut whole = [sign; 8];
                    whole[..bytes.len()].copy_from_slice(bytes);
                    i64::from_le_bytes(whole).into_pyobject(py).ok()?.into_any()
                }
                op::FLOAT => PyFloat::new(py, f64::from_be_bytes(self.array()?)).into_any(),
                code @ (op::STR1 | op::STR4) => {
                    let len = self.len(code == op::STR1)?;
                    PyString::new(py, std::str::from_utf8(self.bytes(len)?).ok()?).into_any()
                }
                code @ (op::BYTES1 | op::BYTES4) => {
                    let len = self.len(code == op::BYTES1)?;
                    PyBytes::new(py, self.bytes(len)?).into_any()
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
                    let items = self.stack.split_off(from);
                    let list = self.stack.last()?.cast_exact::<PyList>().ok()?;
                    items.into_iter().try_for_each(|item| list.append(item)).ok()?;
                    continue;
                }
                code @ (op::SET_ITEM | op::SET_ITEMS) => {
                    let from = self.first_of(code == op::SET_ITEM, 2)?;
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
        let from = if one { self.stack.len().checked_sub(fixed)? } else { self.marks.pop()? };
        (from <= self.stack.len()).then_some(from)
    }

    fn collect(&mut self, len: usize) -> Option<Bound<'py, PyAny>> {
        let from = self.stack.len().checked_sub(len)?;
        Some(PyTuple::new(self.py, self.stack.drain(from..)).ok()?.into_any())
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
