//! Payloads back to Python values. The form is described in [`encode`](crate::encode).

use crate::encode::{DEEP, tag};
use crate::error::helper;
use crate::made;
use crate::region::PyRegion;
use maniple_engine::pool::Incoming;
use maniple_engine::shm::inbox::Region;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::Arc;

/// Reads one payload.
pub struct Decoder<'a> {
    rest: &'a [u8],
    regions: std::slice::Iter<'a, Arc<Region>>,
}

/// What arrived. It can be read more than once: reading may be interrupted.
pub struct Payload {
    content: Incoming,
    regions: Vec<Arc<Region>>,
}

impl From<Incoming> for Payload {
    fn from(mut content: Incoming) -> Self {
        let regions = std::mem::take(&mut content.regions).into_iter().map(Arc::new).collect();
        Payload { content, regions }
    }
}

impl Payload {
    /// Reads it from its beginning. Values share its regions.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self.content.bytes(), &self.regions)
    }
}

fn damaged() -> PyErr {
    PyRuntimeError::new_err(
        "a payload is shorter than it says; sender and receiver must use the same version of maniple",
    )
}

impl<'a> Decoder<'a> {
    /// Reads bytes and the large buffers that came with them, which values share.
    pub fn new(rest: &'a [u8], regions: &'a [Arc<Region>]) -> Self {
        Decoder { rest, regions: regions.iter() }
    }

    /// The next byte, which says what follows.
    pub fn mark(&mut self) -> PyResult<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, n: usize) -> PyResult<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn eight(&mut self) -> PyResult<[u8; 8]> {
        self.take(8)?.try_into().map_err(|_| damaged())
    }

    fn count(&mut self) -> PyResult<usize> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().map_err(|_| damaged())?) as usize)
    }

    /// Any value.
    pub fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.value_at(py, 0)
    }

    fn value_at<'py>(&mut self, py: Python<'py>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.mark()? {
            tag::NONE => py.None().into_bound(py),
            tag::TRUE => true.into_pyobject(py)?.to_owned().into_any(),
            tag::FALSE => false.into_pyobject(py)?.to_owned().into_any(),
            tag::INT => made::integer(py, i64::from_le_bytes(self.eight()?))?,
            tag::FLOAT => made::float(py, f64::from_le_bytes(self.eight()?))?,
            tag::STR => {
                let len = self.count()?;
                let text = std::str::from_utf8(self.take(len)?).map_err(|_| damaged())?;
                made::text(py, text)?.into_any()
            }
            tag::BYTES => {
                let len = self.count()?;
                made::bytes(py, self.take(len)?)?.into_any()
            }
            tag::BLOB => made::bytes(py, self.regions.next().ok_or_else(damaged)?.as_slice())?.into_any(),
            tag::TUPLE if depth < DEEP => {
                let len = self.count()?;
                let items = (0..len).map(|_| self.value_at(py, depth + 1)).collect::<PyResult<Vec<_>>>()?;
                made::tuple(py, items)?.into_any()
            }
            tag::PICKLE => {
                static LOAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
                let len = usize::try_from(u64::from_le_bytes(self.eight()?)).map_err(|_| damaged())?;
                let stream = made::bytes(py, self.take(len)?)?;
                let load = helper(py, &LOAD, "load")?;
                if self.regions.len() == 0 {
                    load.call1((stream,))?
                } else {
                    let regions = self.regions.by_ref().map(|r| Bound::new(py, PyRegion(r.clone())));
                    let regions = regions.collect::<PyResult<Vec<_>>>()?;
                    load.call1((stream, made::list(py, regions)?))?
                }
            }
            _ => return Err(damaged()),
        })
    }

    /// The items of a sequence, handed to `each` in order.
    pub fn sequence<'py>(
        &mut self,
        py: Python<'py>,
        mut each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<()> {
        if self.rest.first() == Some(&tag::LEAN) {
            self.mark()?;
            for _ in 0..self.count()? {
                each(self.value(py)?)?;
            }
            return Ok(());
        }
        for item in self.value(py)?.try_iter()? {
            each(item?)?;
        }
        Ok(())
    }
}
