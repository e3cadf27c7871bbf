//! NumPy's classes, the dtypes of its numbers, and its functions that make arrays.
#![allow(unsafe_code)]

use super::view::View;
use super::{KINDS, Layout};
use crate::args::Calls as _;
use crate::error::{Saying as _, python};
use crate::made::{self, Attributes as _, name};
use crate::memory::PyMemory;
use crate::message::find_reducers;
use maniple_engine::shm::buffers::{Buffer, LEAST};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::ptr::null_mut;

/// The parts of NumPy that this module uses.
pub struct Numpy {
    pub(super) array: Py<PyType>,
    empty: Py<PyAny>,
    scalar: Py<PyAny>,
    pub(super) dtypes: Vec<Dtype>,
    /// The pickles of calls that make an array from the values that follow: of an array whose bytes are in the pickle,
    /// and of an array whose bytes are apart.
    pub within: Vec<u8>,
    pub apart: Vec<u8>,
    /// The pickle of the function that makes a single number.
    pub single: Vec<u8>,
}

pub(super) struct Dtype {
    pub(super) object: Py<PyAny>,
    /// The class of single numbers.
    pub(super) class: Py<PyType>,
    pub(super) item: usize,
    /// Whether the pickle of this kind is read as the same kind. C has two names for some kinds, and a pickle knows
    /// only one of them.
    pub(super) is_read_so: bool,
    /// The pickle of a call that returns the dtype.
    pickle: Vec<u8>,
}

impl Numpy {
    /// Returns `None` if the module is not NumPy.
    pub(super) fn of(module: &Bound<'_, PyAny>) -> PyResult<Option<Numpy>> {
        let array = module.attr("ndarray")?.cast_into::<PyType>()?;
        let dtypes = KINDS.iter().map(|(_, name)| Dtype::of(&module.attr("dtype")?, name));
        let dtypes = dtypes.collect::<PyResult<Vec<_>>>()?;
        // SAFETY: a live type. NumPy's own types are static; a type that a class statement made may behave in any way.
        let is_made = |class: &Bound<'_, PyType>| unsafe {
            ffi::PyType_GetFlags(class.as_type_ptr()) & ffi::Py_TPFLAGS_HEAPTYPE != 0
        };
        if is_made(&array) || dtypes.iter().any(|dtype| is_made(dtype.class.bind(module.py()))) {
            return Ok(None);
        }
        find_reducers(module.py())?;
        let empty = module.attr("empty")?;
        let name = |function: &Bound<'_, PyAny>| -> PyResult<(String, String)> {
            Ok((function.attr("__module__")?.extract()?, function.attr("__qualname__")?.extract()?))
        };
        let sample = empty.with((1,))?;
        let within = name(&sample.attr("__reduce__")?.call0()?.get_item(0)?)?;
        let apart = name(&sample.attr("__reduce_ex__")?.with((5,))?.get_item(0)?)?;
        let scalar = sample.get_item(0)?.attr("__reduce__")?.call0()?.get_item(0)?;
        let single = name(&scalar)?;
        Ok(Some(Numpy {
            dtypes,
            scalar: scalar.unbind(),
            single: global(&single.0, &single.1),
            empty: empty.unbind(),
            array: array.unbind(),
            within: [global(&within.0, &within.1), global("numpy", "ndarray"), b"K\0\x85C\x01b\x87R".to_vec()].concat(),
            apart: [global(&apart.0, &apart.1), b"(\x97".to_vec()].concat(),
        }))
    }

    /// Returns the pickle of a call that returns the dtype of this kind.
    pub fn dtype(&self, kind: u8) -> &[u8] {
        self.dtypes.get(usize::from(kind)).map_or(&[], |dtype| &dtype.pickle)
    }

    /// Returns the kind whose pickle these bytes begin with.
    pub fn kind_at(&self, pickle: &[u8]) -> Option<u8> {
        let found = self.dtypes.iter().position(|dtype| pickle.starts_with(&dtype.pickle))?;
        u8::try_from(found).ok()
    }

    fn expect(&self, kind: u8, shape: &[usize], bytes: usize) -> PyResult<&Dtype> {
        let dtype = self.dtypes.get(usize::from(kind));
        let fits = |dtype: &&Dtype| shape.iter().try_fold(dtype.item, |all, n| all.checked_mul(*n)) == Some(bytes);
        dtype
            .filter(fits)
            .ok_or_else(|| PyRuntimeError::saying("an array has arrived whose shape does not fit its bytes"))
    }

    /// Returns an array with a copy of these bytes. The memory of an array of at least [`LEAST`] bytes is reused
    /// after the array is gone.
    pub fn filled<'py>(
        &self,
        py: Python<'py>,
        layout: Layout,
        shape: &[usize],
        bytes: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        if bytes.len() >= LEAST {
            let mut memory = Buffer::default();
            memory.extend(bytes).map_err(python)?;
            return self.over(layout, shape, Bound::new(py, PyMemory::from(memory))?.as_any(), bytes.len());
        }
        let dtype = self.expect(layout.kind, shape, bytes.len())?.object.bind(py);
        let shape = made::shape(py, shape)?;
        let order = if layout.is_fortran { Some(name!(py, "F")?) } else { None };
        let order = order.map_or(null_mut(), |order| order.as_ptr());
        let array = made::called(self.empty.bind(py), [shape.as_ptr(), dtype.as_ptr(), order])?;
        let view = View::of(array.as_ptr()).filter(|view| view.0.len as usize == bytes.len());
        let view = view.ok_or_else(|| PyRuntimeError::saying("a new array has no buffer"))?;
        // SAFETY: the view has as many writable bytes, which the filter above checks. No other reference to the array
        // exists yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), view.0.buf.cast::<u8>(), bytes.len()) };
        Ok(array)
    }

    /// Returns the single number of these bytes.
    pub fn number<'py>(&self, py: Python<'py>, kind: u8, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let dtype = self.expect(kind, &[], bytes.len())?.object.bind(py);
        let bytes = made::bytes(py, bytes)?;
        made::called(self.scalar.bind(py), [dtype.as_ptr(), bytes.as_ptr(), null_mut()])
    }

    /// Returns an array over the bytes of this buffer.
    pub fn over<'py>(
        &self,
        layout: Layout,
        shape: &[usize],
        buffer: &Bound<'py, PyAny>,
        len: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = buffer.py();
        let dtype = self.expect(layout.kind, shape, len)?.object.bind(py);
        let shape = made::shape(py, shape)?;
        if layout.is_fortran {
            return self.array.bind(py).with((shape, dtype, buffer, 0, py.None(), name!(py, "F")?));
        }
        made::called(self.array.bind(py), [shape.as_ptr(), dtype.as_ptr(), buffer.as_ptr()])
    }
}

impl Dtype {
    fn of(class: &Bound<'_, PyAny>, letter: &str) -> PyResult<Dtype> {
        let object = class.with((letter,))?;
        let name: String = object.attr("str")?.extract()?;
        let string = [&[0x8c, name.len() as u8], name.as_bytes()].concat();
        Ok(Dtype {
            is_read_so: class.with((&name,))?.is(&object),
            object: object.clone().unbind(),
            item: object.attr("itemsize")?.extract()?,
            class: object.attr("type")?.extract()?,
            pickle: [global("numpy", "dtype"), string, b"\x85R".to_vec()].concat(),
        })
    }
}

/// Returns the pickle of an object by the names of its module and of itself.
fn global(module: &str, name: &str) -> Vec<u8> {
    let text = |text: &str| [&[0x8c, text.len() as u8], text.as_bytes()].concat();
    [text(module), text(name), vec![0x93]].concat()
}
