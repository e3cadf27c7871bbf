//! Looks into arrays of numbers by the buffer protocol.
#![allow(unsafe_code)]

use super::gather::gathered;
use super::view::{Content, View};
use super::{KINDS, MOST_DIMENSIONS, known};
use crate::made::name;
use crate::message::has_reducer;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;

/// The kind and the order of an array's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub kind: u8,
    /// The first index varies fastest, as in Fortran, instead of the last index.
    pub is_fortran: bool,
}

impl Layout {
    /// Returns both fields in one byte.
    pub fn code(self) -> u8 {
        self.kind | if self.is_fortran { FORTRAN } else { 0 }
    }

    pub fn of(code: u8) -> Layout {
        Layout { kind: code & !FORTRAN, is_fortran: code & FORTRAN != 0 }
    }
}

const FORTRAN: u8 = 0x80;

/// The description and the bytes of an array.
pub struct Array {
    pub layout: Layout,
    dimensions: usize,
    shape: [usize; MOST_DIMENSIONS],
    pub content: Content,
}

impl Array {
    /// Looks into an array. Returns `None` if the array is left to pickle.
    ///
    /// # Safety
    /// The object is a live array, and the interpreter lock is held.
    pub unsafe fn of(value: *mut ffi::PyObject) -> Option<Array> {
        // SAFETY: the caller holds the interpreter lock.
        let py = unsafe { Python::assume_attached() };
        let numpy = known(py)?;
        if has_reducer(py, numpy.array.as_ptr()) {
            return None;
        }
        let view = View::of(value)?;
        let of = &view.0;
        let dimensions = usize::try_from(of.ndim).ok().filter(|n| *n <= MOST_DIMENSIONS)?;
        if of.format.is_null() || !of.suboffsets.is_null() {
            return None;
        }
        // SAFETY: the format of a buffer is a string that ends with a null, which the view keeps alive.
        let format = unsafe { CStr::from_ptr(of.format) };
        let kind = KINDS.iter().position(|(name, _)| *name == format)?;
        let dtype = numpy.dtypes.get(kind).filter(|dtype| dtype.is_read_so)?;
        if usize::try_from(of.itemsize) != Ok(dtype.item) || !is_plain(py, value, dtype.object.as_ptr()) {
            return None;
        }
        let mut shape = [0; MOST_DIMENSIONS];
        for (place, len) in shape[..dimensions].iter_mut().enumerate() {
            // SAFETY: the buffer protocol provides `dimensions` lengths.
            *len = usize::try_from(unsafe { *of.shape.add(place) }).ok()?;
        }
        let follows = |places: &mut dyn Iterator<Item = usize>| {
            let mut step = of.itemsize;
            for place in places {
                // SAFETY: the buffer protocol provides as many strides as lengths, or none.
                let stride = if of.strides.is_null() { step } else { unsafe { *of.strides.add(place) } };
                if shape[place] > 1 && stride != step {
                    return false;
                }
                let Some(next) = isize::try_from(shape[place]).ok().and_then(|len| step.checked_mul(len)) else {
                    return false;
                };
                step = next;
            }
            step == of.len
        };
        let is_c = follows(&mut (0..dimensions).rev());
        let is_fortran = !is_c && !of.strides.is_null() && follows(&mut (0..dimensions));
        let content = if is_c || is_fortran {
            Content::View(view)
        } else {
            // SAFETY: the buffer protocol provides as many strides as lengths. They lead to numbers of the array, which
            // the view keeps alive.
            unsafe {
                let strides = std::slice::from_raw_parts(of.strides, dimensions);
                Content::Copy(gathered(of.buf.cast::<u8>(), &shape[..dimensions], strides, dtype.item)?)
            }
        };
        Some(Array { layout: Layout { kind: kind as u8, is_fortran }, dimensions, shape, content })
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.dimensions]
    }
}

/// Returns whether the dtype of an array says no more than the kind of its numbers.
fn is_plain(py: Python<'_>, array: *mut ffi::PyObject, kind: *mut ffi::PyObject) -> bool {
    let (Ok(dtype), Ok(metadata)) = (name!(py, "dtype"), name!(py, "metadata")) else { return false };
    // SAFETY: the caller passes live objects. Reading attributes of NumPy's own types runs no Python code.
    // `PyObject_GetAttr` returns an owned reference, or null with an exception set.
    unsafe {
        let found = Bound::from_owned_ptr_or_opt(py, ffi::PyObject_GetAttr(array, dtype.as_ptr()));
        let is_plain = found.is_some_and(|found| {
            found.as_ptr() == kind
                || Bound::from_owned_ptr_or_opt(py, ffi::PyObject_GetAttr(found.as_ptr(), metadata.as_ptr()))
                    .is_some_and(|metadata| metadata.is_none())
        });
        ffi::PyErr_Clear();
        is_plain
    }
}
