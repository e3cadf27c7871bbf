//! Python values from payloads. [`payload_format`](crate::payload_format) describes the form.

use crate::arrays;
use crate::error::{Saying as _, helper};
use crate::made;
use crate::payload_format::{items, tag};
use crate::region::PyRegion;
use crate::unended;
use crate::walk::{DEEP, MOST_SAME};
use maniple_engine::pool::ReceivedPacket;
use maniple_engine::shm::region::Region;
use pyo3::exceptions::{PyMemoryError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// The decoder of one payload.
pub struct Decoder<'a> {
    rest: &'a [u8],
    regions: std::slice::Iter<'a, Arc<Region>>,
    // The objects of the current value or sequence that were kept so far.
    kept: Vec<Py<PyAny>>,
}

/// A payload that arrived. It can be read more than once, because a signal handler may interrupt the reading.
pub struct Payload {
    content: ReceivedPacket,
    regions: Vec<Arc<Region>>,
}

impl From<ReceivedPacket> for Payload {
    fn from(mut content: ReceivedPacket) -> Self {
        let regions = std::mem::take(&mut content.regions).into_iter().map(Arc::new).collect();
        Payload { content, regions }
    }
}

impl Payload {
    /// Returns a decoder at the beginning of the payload. Values share its regions.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self.content.bytes(), &self.regions)
    }
}

/// Rejects a key whose hash would take seconds or overflow the stack: a tuple that has one tuple as many of its items, several levels
/// deep, or that refers to earlier tuples in a long chain. `seen` counts the items.
fn check_parts(tuple: &Bound<'_, PyTuple>, depth: u32, seen: &mut usize) -> PyResult<()> {
    const MOST: usize = 1 << 24;
    // As deep as the interpreter's own limit lets pickle go.
    const DEEPEST: u32 = 1000;
    *seen += tuple.len();
    if depth > DEEPEST || *seen > MOST {
        return Err(damaged());
    }
    let parts = tuple.iter_borrowed().filter_map(|item| item.to_owned().cast_into_exact::<PyTuple>().ok());
    parts.into_iter().try_for_each(|part| check_parts(&part, depth + 1, seen))
}

fn damaged() -> PyErr {
    PyRuntimeError::saying(
        "a payload is shorter than the length that it states; sender and receiver must use the same version of maniple",
    )
}

impl<'a> Decoder<'a> {
    /// Reads bytes and the large buffers that arrived with them, which values share.
    pub fn new(rest: &'a [u8], regions: &'a [Arc<Region>]) -> Self {
        Decoder { rest, regions: regions.iter(), kept: Vec::new() }
    }

    /// Returns the next byte, which says what follows.
    pub fn mark(&mut self) -> PyResult<u8> {
        Ok(self.take(1)?[0])
    }

    /// Returns the soft limit in nanoseconds, and the pickle of exception classes, of a call with terms.
    pub fn terms(&mut self) -> PyResult<(u64, &'a [u8])> {
        let soft_limit = u64::from_le_bytes(self.array()?);
        let len = u32::from_le_bytes(self.array()?) as usize;
        Ok((soft_limit, self.take(len)?))
    }

    /// Returns the seed of a seeded call, and the index of the task's first item.
    pub fn seed(&mut self) -> PyResult<([u8; 24], u64)> {
        Ok((self.array()?, u64::from_le_bytes(self.array()?)))
    }

    fn take(&mut self, n: usize) -> PyResult<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(damaged)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn count(&mut self) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// Returns the number of items that follow. Each item takes at least a byte, unless all are one object.
    fn length(&mut self) -> PyResult<usize> {
        let len = self.count()?;
        let are_same = self.rest.first() == Some(&items::SAME);
        if len <= if are_same { MOST_SAME } else { self.rest.len() } { Ok(len) } else { Err(damaged()) }
    }

    fn keep(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.kept
            .try_reserve(1)
            .map_err(|_| PyMemoryError::saying("there is no memory for a payload that has arrived"))?;
        self.kept.push(value.clone().unbind());
        Ok(())
    }

    fn again<'py>(&self, py: Python<'py>, place: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.kept.get(place).ok_or_else(damaged)?.bind(py).clone())
    }

    /// Reads any value.
    pub fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.get_ready(py)?;
        if self.rest.first() == Some(&tag::PICKLE) {
            self.mark()?;
            return self.pickle(py);
        }
        self.kept.clear();
        let _uncollected = made::Uncollected::new(py);
        self.value_at(py, 0)
    }

    fn value_at<'py>(&mut self, py: Python<'py>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        match self.mark()? {
            container @ (tag::LIST | tag::TUPLE | tag::DICT) => self.container(py, container, false, depth),
            tag::KEPT => match self.mark()? {
                container @ (tag::LIST | tag::TUPLE | tag::DICT) => self.container(py, container, true, depth),
                leaf => {
                    let leaf = self.leaf(py, leaf)?;
                    self.keep(&leaf)?;
                    Ok(leaf)
                }
            },
            leaf => self.leaf(py, leaf),
        }
    }

    fn leaf<'py>(&mut self, py: Python<'py>, tag: u8) -> PyResult<Bound<'py, PyAny>> {
        Ok(match tag {
            tag::INT1 => made::integer(py, i8::from_le_bytes(self.array()?).into())?,
            tag::INT4 => made::integer(py, i32::from_le_bytes(self.array()?).into())?,
            tag::INT => made::integer(py, i64::from_le_bytes(self.array()?))?,
            tag::STR1 => {
                let [len] = self.array()?;
                self.text(py, len.into())?
            }
            tag::STR => {
                let len = self.count()?;
                self.text(py, len)?
            }
            tag::AGAIN1 => {
                let [place] = self.array()?;
                self.again(py, place.into())?
            }
            tag::AGAIN => {
                let place = self.count()?;
                self.again(py, place)?
            }
            tag::NONE => py.None().into_bound(py),
            tag::TRUE => true.into_pyobject(py)?.to_owned().into_any(),
            tag::FALSE => false.into_pyobject(py)?.to_owned().into_any(),
            tag::FLOAT => made::float(py, f64::from_le_bytes(self.array()?))?,
            tag::BYTES => {
                let len = self.count()?;
                made::bytes(py, self.take(len)?)?.into_any()
            }
            tag::BLOB => made::bytes(py, self.regions.next().ok_or_else(damaged)?.as_slice())?.into_any(),
            tag::ARRAY => self.array_of(py)?,
            tag::NUMBER => {
                let [kind, len] = self.array()?;
                arrays::known(py).ok_or_else(damaged)?.number(py, kind, self.take(len.into())?)?
            }
            _ => return Err(damaged()),
        })
    }

    fn array_of<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let numpy = arrays::known(py).ok_or_else(damaged)?;
        let [layout, dimensions] = self.array()?;
        let layout = arrays::Layout::of(layout);
        let mut lengths = [0; arrays::MOST_DIMENSIONS];
        let shape = lengths.get_mut(..usize::from(dimensions)).ok_or_else(damaged)?;
        for len in &mut *shape {
            *len = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| damaged())?;
        }
        match self.mark()? {
            tag::BYTES => {
                let len = self.count()?;
                numpy.filled(py, layout, shape, self.take(len)?)
            }
            tag::BLOB => {
                let region = self.regions.next().ok_or_else(damaged)?;
                numpy.over(layout, shape, Bound::new(py, PyRegion(region.clone()))?.as_any(), region.len())
            }
            _ => Err(damaged()),
        }
    }

    /// Prepares for the arrays that follow: no Python code may run while lists are being filled.
    fn get_ready(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.rest.first() == Some(&tag::NUMPY) {
            self.mark()?;
            arrays::need(py)?;
        }
        Ok(())
    }

    fn text<'py>(&mut self, py: Python<'py>, len: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(made::utf8(py, self.take(len)?)?.into_any())
    }

    fn container<'py>(&mut self, py: Python<'py>, kind: u8, kept: bool, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        if depth > DEEP {
            return Err(damaged());
        }
        let len = self.length()?;
        if kind == tag::DICT {
            let dict = made::dict(py)?;
            if kept {
                self.keep(&dict)?;
            }
            for _ in 0..len {
                let key = self.value_at(py, depth + 1)?;
                if let Ok(tuple) = key.cast_exact::<PyTuple>() {
                    check_parts(tuple, 0, &mut 0)?;
                }
                dict.set_item(key, self.value_at(py, depth + 1)?)?;
            }
            return Ok(dict.into_any());
        }
        let filling = if kind == tag::LIST { made::Filling::list(py, len)? } else { made::Filling::tuple(py, len)? };
        if kept && kind == tag::LIST {
            self.keep(filling.object())?;
        }
        self.items(py, len, depth, |place, item| filling.set(place, item))?;
        if kept && kind == tag::TUPLE {
            self.keep(filling.object())?;
        }
        Ok(filling.done())
    }

    /// Reads `len` items, and passes them to `each` with their places.
    fn items<'py>(
        &mut self,
        py: Python<'py>,
        len: usize,
        depth: u32,
        mut each: impl FnMut(usize, Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        match self.mark()? {
            items::MIXED => (0..len).try_for_each(|place| each(place, self.value_at(py, depth + 1)?)),
            items::SAME => {
                let item = self.value_at(py, depth + 1)?;
                (0..len).try_for_each(|place| each(place, item.clone()))
            }
            items::FLOATS => self.block(len, &mut each, |eight| made::float(py, f64::from_le_bytes(eight))),
            1 => self.block(len, &mut each, |one| made::integer(py, i8::from_le_bytes(one).into())),
            2 => self.block(len, &mut each, |two| made::integer(py, i16::from_le_bytes(two).into())),
            4 => self.block(len, &mut each, |four| made::integer(py, i32::from_le_bytes(four).into())),
            8 => self.block(len, &mut each, |eight| made::integer(py, i64::from_le_bytes(eight))),
            _ => Err(damaged()),
        }
    }

    /// Reads `len` numbers of `N` bytes each.
    fn block<'py, const N: usize>(
        &mut self,
        len: usize,
        each: &mut impl FnMut(usize, Bound<'py, PyAny>) -> PyResult<()>,
        number: impl Fn([u8; N]) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let (numbers, _) = self.take(len.checked_mul(N).ok_or_else(damaged)?)?.as_chunks();
        numbers.iter().enumerate().try_for_each(|(place, bytes)| each(place, number(*bytes)?))
    }

    fn pickle<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static LOAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let len = usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| damaged())?;
        let stream = made::bytes(py, self.take(len)?)?;
        let load = helper(py, &LOAD, "load")?;
        if self.regions.len() == 0 {
            return unended::call(load, (stream,), None);
        }
        let regions = self.regions.by_ref().map(|r| Bound::new(py, PyRegion(r.clone())));
        let regions = regions.collect::<PyResult<Vec<_>>>()?;
        let regions = made::list(py, regions)?;
        unended::call(load, (stream, regions), None)
    }

    /// Reads the items of a sequence, and passes them to `each` in order.
    pub fn sequence<'py>(
        &mut self,
        py: Python<'py>,
        mut each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        self.get_ready(py)?;
        if self.rest.first() == Some(&tag::LEAN) {
            self.mark()?;
            self.kept.clear();
            let len = self.length()?;
            let _uncollected = made::Uncollected::new(py);
            return self.items(py, len, 0, |_, item| each(item));
        }
        for item in self.value(py)?.try_iter()? {
            each(item?)?;
        }
        Ok(())
    }
}
