//! Plain values from their pickles.

use super::{SHORT, op};
use crate::arrays::{self, Layout, MOST_DIMENSIONS, Numpy};
use crate::made;
use crate::memory::PyMemory;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};
use std::cmp::Ordering;

/// While a pickle of at least this many bytes is read, the garbage collector waits.
const MUCH: usize = 4096;

/// Returns the value of a pickle. `None` if `pickle` must read it: the pickle is long, contains other values, or is
/// damaged. `buffers` are the bytes that travelled apart.
pub fn load<'py>(py: Python<'py>, pickle: &[u8], buffers: &[Bound<'py, PyMemory>]) -> Option<Bound<'py, PyAny>> {
    if pickle.len() > SHORT {
        return None;
    }
    let _uncollected = (pickle.len() > MUCH).then(|| made::Uncollected::new(py));
    Reader {
        py,
        rest: pickle,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
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
    /// The number of bytes behind the frame that is being read.
    behind: Option<usize>,
    buffers: std::slice::Iter<'a, Bound<'py, PyMemory>>,
    numpy: Option<&'static Numpy>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn run(mut self) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            // Readers of pickles differ about an instruction that crosses the end of its frame.
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
                    return (is_over && self.is_whole()).then_some(value);
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
                op::LIST => made::empty_list(py).ok()?.into_any(),
                op::DICT => made::dict(py).ok()?.into_any(),
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
            // The frame may end before the last instruction, or with it.
            if self.rest == [op::STOP] && self.behind.is_none_or(|behind| behind <= 1) && self.is_whole() {
                return Some(value);
            }
            self.stack.try_reserve(1).ok()?;
            self.stack.push(value);
        }
    }

    /// Returns whether a value, which is not on the stack, would be all that the pickle is about.
    fn is_whole(&self) -> bool {
        self.stack.is_empty() && self.marks.is_empty() && self.buffers.len() == 0
    }

    /// Returns whether an array or a number of NumPy's begins here, as `write` writes them.
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

    /// Returns the position in the stack where the items begin: the last `fixed` values, or the values since the last
    /// mark.
    fn first_of(&mut self, one: bool, fixed: usize) -> Option<usize> {
        if one { self.above_mark(fixed) } else { self.marks.pop() }
    }

    /// Returns the position of the first of the last `len` values.
    fn above_mark(&self, len: usize) -> Option<usize> {
        let from = self.stack.len().checked_sub(len)?;
        self.is_above_mark(from).map(|()| from)
    }

    /// Checks that a position is not below the last mark. The values below it belong to an outer container.
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
