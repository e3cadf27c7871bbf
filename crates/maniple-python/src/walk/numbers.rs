//! The items of a list or tuple: numbers of one kind, one object many times, or others.
#![allow(unsafe_code)]

use super::{Form, Object, Walk, is};
use pyo3::ffi;

/// The number of items from which on numbers of one kind are written as a block.
pub const BLOCK: usize = 8;

/// The greatest number of times that one object is written at once. A reader allocates room for all of them before it
/// reads the object.
pub const MOST_SAME: usize = 1 << 20;

/// Returns the number of an int that fits into 64 bits.
pub(super) unsafe fn int_of(value: Object) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: the caller passes a live int.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value, &mut overflow) };
    (overflow == 0).then_some(number)
}

impl Walk {
    /// Writes items: as a block if they are numbers of one kind, otherwise separately.
    pub(super) unsafe fn each(
        &mut self,
        len: usize,
        get: impl Fn(usize) -> Object,
        depth: u32,
        form: &mut impl Form,
    ) -> bool {
        // SAFETY: `get` returns live objects for all places below `len`, as the callers in `walk.rs` say.
        unsafe {
            if len >= BLOCK {
                let first = get(0);
                if first == get(1) && len <= MOST_SAME && (2..len).all(|place| get(place) == first) && form.same() {
                    return self.at(first, depth, form);
                }
                if is(get(0), &raw mut ffi::PyLong_Type) && is(get(len - 1), &raw mut ffi::PyLong_Type) {
                    if self.ints_of(len, &get) && form.ints(&self.ints) {
                        return true;
                    }
                } else if is(get(0), &raw mut ffi::PyFloat_Type)
                    && is(get(len - 1), &raw mut ffi::PyFloat_Type)
                    && self.floats_of(len, &get)
                    && form.floats(&self.floats)
                {
                    return true;
                }
            }
            form.mixed() && (0..len).all(|place| self.at(get(place), depth, form))
        }
    }

    unsafe fn ints_of(&mut self, len: usize, get: &impl Fn(usize) -> Object) -> bool {
        self.ints.clear();
        if self.ints.try_reserve(len).is_err() {
            return false;
        }
        for place in 0..len {
            let item = get(place);
            // SAFETY: `get` returns a live object, and its type is checked before its number is read.
            match unsafe { if is(item, &raw mut ffi::PyLong_Type) { int_of(item) } else { None } } {
                Some(number) => self.ints.push(number),
                None => return false,
            }
        }
        true
    }

    unsafe fn floats_of(&mut self, len: usize, get: &impl Fn(usize) -> Object) -> bool {
        self.floats.clear();
        if self.floats.try_reserve(len).is_err() {
            return false;
        }
        for place in 0..len {
            let item = get(place);
            // SAFETY: as in `ints_of`.
            unsafe {
                if !is(item, &raw mut ffi::PyFloat_Type) {
                    return false;
                }
                self.floats.push(ffi::PyFloat_AsDouble(item));
            }
        }
        true
    }
}
