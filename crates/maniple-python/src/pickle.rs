//! The pickles that messages are made of.
//!
//! What is sent between processes is, as a rule, small and built of the commonest types. Such values are pickled and
//! unpickled here, to the letter of pickle's format, since either end may be another program; whatever else there is goes
//! to `pickle`. Nobody can tell the difference: these types are pickled the same whatever reducers are registered.
//!
//! Written are None, bool, int of 64 bits, float, str, bytes, tuple, list and dict, some levels deep, no list or dict twice. Read is
//! the same and what CPython's pickler makes of it (frames, memo).

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Longer strings are left to pickle, which is as fast there.
const SHORT: usize = 4096;
/// Longer pickles are.
const SHORT_PICKLE: usize = 8192;
const DEEP: u32 = 4;
/// Items of one container at most.
const MANY: usize = 256;
/// Lists and dicts in one value at most: each is compared with all before.
const CONTAINERS: usize = 16;

/// Appends a value's pickle. False: it is not such a value, and part of it may have been written.
#[allow(unsafe_code)]
pub fn dump(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
    out.extend_from_slice(b"\x80\x04");
    let done = write(value, out, 0, &mut Vec::new())?;
    out.push(b'.');
    Ok(done)
}

#[allow(unsafe_code)]
fn write(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    depth: u32,
    seen: &mut Vec<*mut ffi::PyObject>,
) -> PyResult<bool> {
    if value.is_exact_instance_of::<PyInt>() {
        let mut overflow = 0;
        // SAFETY: `value` is a Python int and the lock is held.
        let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
        if overflow != 0 {
            return Ok(false);
        }
        if let Ok(byte) = u8::try_from(number) {
            out.extend_from_slice(&[b'K', byte]);
        } else if let Ok(two) = u16::try_from(number) {
            out.push(b'M');
            out.extend_from_slice(&two.to_le_bytes());
        } else if let Ok(four) = i32::try_from(number) {
            out.push(b'J');
            out.extend_from_slice(&four.to_le_bytes());
        } else {
            out.extend_from_slice(&[0x8a, 8]);
            out.extend_from_slice(&number.to_le_bytes());
        }
    } else if let Ok(text) = value.cast_exact::<PyString>() {
        // A string with lone surrogates has no UTF-8 form.
        let Ok(text) = text.to_str() else { return Ok(false) };
        match (u8::try_from(text.len()), text.len() <= SHORT) {
            (Ok(len), _) => out.extend_from_slice(&[0x8c, len]),
            (_, true) => {
                out.push(b'X');
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            }
            _ => return Ok(false),
        }
        out.extend_from_slice(text.as_bytes());
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        let len = tuple.len();
        if depth == DEEP || len > MANY {
            return Ok(false);
        }
        if len > 3 {
            out.push(b'(');
        }
        for item in tuple.iter_borrowed() {
            if !write(&item, out, depth + 1, seen)? {
                return Ok(false);
            }
        }
        out.push(*b")\x85\x86\x87t".get(len.min(4)).unwrap_or(&b't'));
    } else if value.is_none() {
        out.push(b'N');
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { 0x88 } else { 0x89 });
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        out.push(b'G');
        out.extend_from_slice(&number.value().to_be_bytes());
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        let bytes = bytes.as_bytes();
        match (u8::try_from(bytes.len()), bytes.len() <= SHORT) {
            (Ok(len), _) => out.extend_from_slice(&[b'C', len]),
            (_, true) => {
                out.push(b'B');
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            }
            _ => return Ok(false),
        }
        out.extend_from_slice(bytes);
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        if list.len() > MANY || !enter(value, depth, seen) {
            return Ok(false);
        }
        out.push(b']');
        if !list.is_empty() {
            out.push(b'(');
            for item in list.iter() {
                if !write(&item, out, depth + 1, seen)? {
                    return Ok(false);
                }
            }
            out.push(b'e');
        }
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        if dict.len() > MANY || !enter(value, depth, seen) {
            return Ok(false);
        }
        out.push(b'}');
        if !dict.is_empty() {
            out.push(b'(');
            for (key, item) in dict.iter() {
                if !(write(&key, out, depth + 1, seen)? && write(&item, out, depth + 1, seen)?) {
                    return Ok(false);
                }
            }
            out.push(b'u');
        }
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Whether a list or dict may be written here: what is in a value twice must be one object again.
fn enter(value: &Bound<'_, PyAny>, depth: u32, seen: &mut Vec<*mut ffi::PyObject>) -> bool {
    let fits = depth < DEEP && seen.len() < CONTAINERS && !seen.contains(&value.as_ptr());
    seen.push(value.as_ptr());
    fits
}

/// The value that a pickle stands for. None: ask `pickle`.
pub fn load<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
    if pickle.len() > SHORT_PICKLE { None } else { Reader { rest: pickle }.read(py) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn len4(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.array()?) as usize)
    }

    fn read<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let mut stack: Vec<Bound<'py, PyAny>> = Vec::with_capacity(8);
        let mut marks: Vec<usize> = Vec::new();
        let mut memo: Vec<Bound<'py, PyAny>> = Vec::new();
        loop {
            let [op] = self.array()?;
            let value = match op {
                0x80 => {
                    self.take(1)?;
                    continue;
                }
                0x95 => {
                    self.take(8)?;
                    continue;
                }
                0x94 => {
                    memo.push(stack.last()?.clone());
                    continue;
                }
                b'(' => {
                    marks.push(stack.len());
                    continue;
                }
                b'.' => return if stack.len() == 1 && marks.is_empty() { stack.pop() } else { None },
                b'h' => memo.get(usize::from(self.array::<1>()?[0]))?.clone(),
                b'N' => py.None().into_bound(py),
                0x88 => PyBool::new(py, true).to_owned().into_any(),
                0x89 => PyBool::new(py, false).to_owned().into_any(),
                b'K' => self.array::<1>()?[0].into_pyobject(py).ok()?.into_any(),
                b'M' => u16::from_le_bytes(self.array()?).into_pyobject(py).ok()?.into_any(),
                b'J' => i32::from_le_bytes(self.array()?).into_pyobject(py).ok()?.into_any(),
                0x8a => {
                    let len = usize::from(self.array::<1>()?[0]);
                    let bytes = self.take(len)?;
                    let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
                    let mut whole = [sign; 8];
                    whole.get_mut(..len)?.copy_from_slice(bytes);
                    i64::from_le_bytes(whole).into_pyobject(py).ok()?.into_any()
                }
                b'G' => PyFloat::new(py, f64::from_be_bytes(self.array()?)).into_any(),
                0x8c | b'X' => {
                    let len = if op == b'X' { self.len4()? } else { usize::from(self.array::<1>()?[0]) };
                    PyString::new(py, std::str::from_utf8(self.take(len)?).ok()?).into_any()
                }
                b'C' | b'B' => {
                    let len = if op == b'B' { self.len4()? } else { usize::from(self.array::<1>()?[0]) };
                    PyBytes::new(py, self.take(len)?).into_any()
                }
                b')' => PyTuple::empty(py).into_any(),
                0x85..=0x87 => {
                    let from = stack.len().checked_sub(usize::from(op) - 0x84)?;
                    PyTuple::new(py, stack.drain(from..)).ok()?.into_any()
                }
                b't' => {
                    let from = marks.pop()?;
                    if from > stack.len() {
                        return None;
                    }
                    PyTuple::new(py, stack.drain(from..)).ok()?.into_any()
                }
                b']' => PyList::empty(py).into_any(),
                b'}' => PyDict::new(py).into_any(),
                b'a' | b'e' => {
                    let from = if op == b'a' { stack.len().checked_sub(1)? } else { marks.pop()? };
                    let list = stack.get(from.checked_sub(1)?)?.cast_exact::<PyList>().ok()?.clone();
                    if from > stack.len() {
                        return None;
                    }
                    for item in stack.drain(from..) {
                        list.append(item).ok()?;
                    }
                    continue;
                }
                b's' | b'u' => {
                    let from = if op == b's' { stack.len().checked_sub(2)? } else { marks.pop()? };
                    let dict = stack.get(from.checked_sub(1)?)?.cast_exact::<PyDict>().ok()?.clone();
                    if from > stack.len() || !(stack.len() - from).is_multiple_of(2) {
                        return None;
                    }
                    let mut items = stack.drain(from..);
                    while let (Some(key), Some(item)) = (items.next(), items.next()) {
                        dict.set_item(key, item).ok()?;
                    }
                    continue;
                }
                _ => return None,
            };
            stack.push(value);
        }
    }
}
