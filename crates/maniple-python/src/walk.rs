//! Walks over plain values: values that consist of None, bool, int, float, str, bytes, tuple, list, dict and
//! [arrays](crate::arrays) of numbers alone.
//!
//! Registered reducers do not change how pickle treats these types (for arrays this is checked), and reading them runs
//! no Python code. So they are written without pickle. An object that occurs twice in a value is written once. As with
//! pickle, two references to one list arrive as two references to one list, and two references to one string as two
//! references to one string. Where short strings are often equal, equal strings arrive as one object, too.
//!
//! A [`Form`] decides how a value is written: as a payload ([`encode`](crate::encode)) or as a pickle
//! ([`pickle`](crate::pickle)).
//!
//! | file | what it is for |
//! | --- | --- |
//! | `form` | the interface between the walk and the format that is written |
//! | `seen`, `texts` | the objects and the short texts that were written before |
//! | `numbers` | the items of lists and tuples: numbers of one kind are written together |
#![allow(unsafe_code)]

mod form;
mod numbers;
mod seen;
mod texts;

pub use form::{Container, Form};
pub use numbers::MOST_SAME;

use crate::arrays::{Array, is_array, single};
use numbers::int_of;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use seen::Seen;

/// The greatest depth of containers within each other. Deeper values are left to pickle.
pub const DEEP: u32 = 40;

/// One walk over a value, or over several values that arrive together. The values must exist, unchanged, until the walk
/// ends.
#[derive(Default)]
pub struct Walk {
    seen: Seen,
    ints: Vec<i64>,
    floats: Vec<f64>,
}

/// A live object. The interpreter lock is held while it is used.
type Object = *mut ffi::PyObject;

/// Returns whether an object is of exactly this type.
#[inline]
unsafe fn is(value: Object, kind: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: the caller passes a live object, which has a type.
    unsafe { ffi::Py_TYPE(value) == kind }
}

impl Walk {
    /// Writes a value. Returns false if the value is not plain or the form has refused it; part of it may have been
    /// written.
    pub fn value(&mut self, value: Borrowed<'_, '_, PyAny>, form: &mut impl Form) -> bool {
        // SAFETY: the borrow keeps the object alive, and shows that the interpreter lock is held.
        unsafe { self.at(value.as_ptr(), 0, form) }
    }

    /// Writes the items of a sequence that has begun. Returns false as `value` does. `others` is the number of
    /// references to each item that are not part of any item.
    pub fn items(&mut self, items: &[impl AsObject], others: isize, form: &mut impl Form) -> bool {
        self.seen.others = others;
        // SAFETY: the slice keeps the objects alive, and shows that the interpreter lock is held.
        unsafe { self.each(items.len(), |place| items[place].object(), 0, form) }
    }

    /// As `items`, for the items of a list.
    pub fn items_in(&mut self, list: &Bound<'_, PyList>, form: &mut impl Form) -> bool {
        // SAFETY: the list is live. It does not change: the walk runs no Python code and keeps the interpreter lock.
        unsafe { self.each(list.len(), |place| ffi::PyList_GetItem(list.as_ptr(), place as _), 0, form) }
    }

    /// As `items`, for the items of a tuple.
    pub fn items_of(&mut self, tuple: &Bound<'_, PyTuple>, form: &mut impl Form) -> bool {
        // SAFETY: the tuple is live and cannot change; its binding shows that the interpreter lock is held.
        unsafe { self.each(tuple.len(), |place| ffi::PyTuple_GetItem(tuple.as_ptr(), place as _), 0, form) }
    }

    /// # Safety
    /// The object is live, and the interpreter lock is held until the walk ends. The same applies to the functions
    /// below.
    unsafe fn at(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the type of the object is checked before each call.
        unsafe {
            if is(value, &raw mut ffi::PyLong_Type) {
                int_of(value).is_some_and(|number| form.int(number))
            } else if is(value, &raw mut ffi::PyUnicode_Type) {
                self.text(value, depth, form)
            } else if is(value, &raw mut ffi::PyFloat_Type) {
                form.float(ffi::PyFloat_AsDouble(value))
            } else if value == ffi::Py_None() {
                form.none()
            } else if is(value, &raw mut ffi::PyBool_Type) {
                form.truth(value == ffi::Py_True())
            } else if is(value, &raw mut ffi::PyTuple_Type) {
                self.tuple(value, depth, form)
            } else if is(value, &raw mut ffi::PyDict_Type) {
                self.dict(value, depth, form)
            } else if is(value, &raw mut ffi::PyList_Type) {
                self.list(value, depth, form)
            } else if is(value, &raw mut ffi::PyBytes_Type) {
                self.bytes(value, depth, form)
            } else if is_array(value) {
                self.array(value, depth, form)
            } else {
                self.number(value, depth, form)
            }
        }
    }

    unsafe fn array(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live array.
        let kept = match unsafe { self.seen.met(value, depth) } {
            Ok(place) => return form.again(place),
            Err(kept) => kept,
        };
        // SAFETY: as above.
        unsafe { Array::of(value) }.is_some_and(|array| (!kept || self.seen.keep(value)) && form.array(array, kept))
    }

    unsafe fn number(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live object.
        let Some((kind, view)) = (unsafe { single(value) }) else { return false };
        // SAFETY: as above.
        match unsafe { self.seen.met(value, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => (!kept || self.seen.keep(value)) && form.number(kind, view.bytes(), kept),
        }
    }

    unsafe fn text(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        let mut len = 0;
        // SAFETY: the caller passes a live string. It keeps its UTF-8 form as long as it lives, which is until the walk
        // ends.
        let text = unsafe {
            let utf8 = ffi::PyUnicode_AsUTF8AndSize(value, &mut len);
            if utf8.is_null() {
                // A string with lone surrogates has no UTF-8 form.
                ffi::PyErr_Clear();
                return false;
            }
            std::slice::from_raw_parts(utf8.cast::<u8>(), len as usize)
        };
        // SAFETY: the caller passes a live object.
        match unsafe { self.seen.place_of(value, text, true, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => form.text(text, kept),
        }
    }

    unsafe fn bytes(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live `bytes` object, whose bytes never change.
        let bytes = unsafe {
            std::slice::from_raw_parts(ffi::PyBytes_AsString(value).cast::<u8>(), ffi::PyBytes_Size(value) as usize)
        };
        // SAFETY: the caller passes a live object.
        match unsafe { self.seen.place_of(value, bytes, false, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => form.bytes(bytes, kept),
        }
    }

    unsafe fn list(&mut self, list: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live list. It does not change: the walk runs no Python code and keeps the
        // interpreter lock.
        unsafe {
            let kept = match self.seen.met(list, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyList_Size(list) as usize;
            (!kept || self.seen.keep(list))
                && form.list(len, kept)
                && self.each(len, |place| ffi::PyList_GetItem(list, place as _), depth + 1, form)
                && form.end(Container::List, len, kept)
        }
    }

    unsafe fn tuple(&mut self, tuple: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live tuple.
        unsafe {
            let kept = match self.seen.met(tuple, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyTuple_Size(tuple) as usize;
            // The empty tuple is not kept: it is one object, and no longer than a reference.
            let kept = kept && len > 0;
            if !(form.tuple(len, kept)
                && self.each(len, |place| ffi::PyTuple_GetItem(tuple, place as _), depth + 1, form))
            {
                return false;
            }
            if kept {
                // A tuple that contains itself was kept in the meantime. Pickle can write it.
                if self.seen.kept(tuple).is_some() || !self.seen.keep(tuple) {
                    return false;
                }
            }
            form.end(Container::Tuple, len, kept)
        }
    }

    unsafe fn dict(&mut self, dict: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: the caller passes a live dict. It does not change, because the walk runs no Python code and keeps the
        // interpreter lock; so its keys and values live.
        unsafe {
            let kept = match self.seen.met(dict, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyDict_Size(dict) as usize;
            if kept && !self.seen.keep(dict) || !form.dict(len, kept) {
                return false;
            }
            let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(dict, &mut at, &mut key, &mut value) != 0 {
                if !(self.at(key, depth + 1, form) && self.at(value, depth + 1, form)) {
                    return false;
                }
            }
            form.end(Container::Dict, len, kept)
        }
    }
}

/// A reference to an object that lives as long as the reference.
pub trait AsObject {
    fn object(&self) -> Object;
}

impl AsObject for Bound<'_, PyAny> {
    fn object(&self) -> Object {
        self.as_ptr()
    }
}

impl AsObject for Borrowed<'_, '_, PyAny> {
    fn object(&self) -> Object {
        self.as_ptr()
    }
}
