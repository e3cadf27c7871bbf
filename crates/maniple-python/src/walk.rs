//! Walks over plain values: those built of None, bool, int, float, str, bytes, tuple, list, dict and [arrays](crate::arrays) of numbers
//! alone.
//!
//! Pickle treats these types the same with every set of registered reducers (except arrays, for which it is checked), and reading
//! them runs no Python code. So they are written here without pickle. An object that is in a value twice is written once: as with pickle, two references to one list arrive as two references to
//! one list, and two references to one string as two to one string. Where short strings are often equal, equal ones arrive as one, too.
//!
//! How things are written is a [`Form`]'s affair: a payload's ([`encode`](crate::encode)), or a pickle's ([`pickle`](crate::pickle)).
#![allow(unsafe_code)]

use crate::arrays::{Array, is_array, single};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;
use std::sync::Mutex;

/// Containers that lie within each other.
pub const DEEP: u32 = 40;
/// Up to here texts are compared by what they say, too; longer ones only by which object they are.
const SHORT: usize = 32;
/// Numbers in a list or tuple from which on they are written as a block.
pub const BLOCK: usize = 8;

#[derive(Clone, Copy)]
pub enum Container {
    List,
    Tuple,
    Dict,
}

/// So many times the same object are written at once at most: a reader makes room for them before it sees what they are.
pub const MOST_SAME: usize = 1 << 20;

/// How plain values are written. What returns a bool returns false to leave the whole value to pickle.
pub trait Form {
    fn none(&mut self) -> bool;
    fn truth(&mut self, is: bool) -> bool;
    fn int(&mut self, number: i64) -> bool;
    fn float(&mut self, number: f64) -> bool;
    /// `kept`: [`Form::again`] may refer to it.
    fn text(&mut self, utf8: &[u8], kept: bool) -> bool;
    fn bytes(&mut self, bytes: &[u8], kept: bool) -> bool;
    fn array(&mut self, array: Array, kept: bool) -> bool;
    /// One of NumPy's single numbers.
    fn number(&mut self, kind: u8, bytes: &[u8], kept: bool) -> bool;
    /// What was kept as number `place`.
    fn again(&mut self, place: u32) -> bool;
    /// A list of `len` items follows.
    fn list(&mut self, len: usize, kept: bool) -> bool;
    /// A tuple of `len` items follows. If it is kept, it is at its end.
    fn tuple(&mut self, len: usize, kept: bool) -> bool;
    /// A dict of `len` pairs follows.
    fn dict(&mut self, len: usize, kept: bool) -> bool;
    /// So it ends.
    fn end(&mut self, container: Container, len: usize, kept: bool) -> bool;
    /// The items of the list or tuple that has begun, all at once. False: they are to be written one by one.
    fn ints(&mut self, numbers: &[i64]) -> bool;
    fn floats(&mut self, numbers: &[f64]) -> bool;
    /// They are one object again and again, which follows. False: as above.
    fn same(&mut self) -> bool;
    /// They are written one by one.
    fn mixed(&mut self) -> bool;
}

/// Hashes addresses.
#[derive(Default)]
struct OfAddress(u64);

impl Hasher for OfAddress {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte) << 4));
    }
    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64 >> 4).wrapping_mul(SPREAD).rotate_left(20);
    }
}

/// An odd number with bits all over (2**64 by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A short text or byte string that was written, in an object that outlives the walk.
#[derive(Clone, Copy)]
struct Written {
    /// The walk that wrote it, where a slot may be an earlier one's.
    walk: u32,
    place: u32,
    is_text: bool,
    bytes: *const [u8],
}

impl Written {
    const NOTHING: Written = Written { walk: 0, place: 0, is_text: false, bytes: &[] };

    fn is(&self, other: &Written) -> bool {
        self.walk == other.walk
            && self.is_text == other.is_text
            // SAFETY: both were met in the current walk, so their objects exist.
            && unsafe { *self.bytes == *other.bytes }
    }

    fn slot(&self) -> usize {
        let len = self.bytes.len();
        let mut hash = len as u64;
        let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(SPREAD).rotate_left(29);
        // SAFETY: as above.
        let (words, rest) = unsafe { &*self.bytes }.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            mix(u64::from_le_bytes(last));
        }
        hash as usize % SLOTS
    }
}

const SLOTS: usize = 1024;
/// So many are kept apart first, since most values have no more.
const FEW: usize = 8;
/// After so many short texts it is known whether there are equal ones among them.
const ENOUGH: u32 = 64;

/// The short texts of a walk, most of them: one may take another's slot.
struct Texts {
    walk: u32,
    /// `SLOTS`; none where there was no memory for them.
    slots: Vec<Written>,
}

// SAFETY: a walk follows the pointers of its own entries only: `Written::is` compares the walk's number first.
unsafe impl Send for Texts {}

/// Kept from one walk to the next, so that nothing has to be cleared. Only `try_lock` is used: a thread that meets another one, or
/// the lock of a thread that a fork left behind, makes its own. (It is no thread-local: the C library ends a process that
/// has no memory to note a thread's destructor.)
static TEXTS: Mutex<Option<Texts>> = Mutex::new(None);

impl Texts {
    fn get() -> Texts {
        let kept = TEXTS.try_lock().ok().and_then(|mut kept| kept.take());
        let mut texts = kept.unwrap_or(Texts { walk: 0, slots: Vec::new() });
        texts.walk = texts.walk.wrapping_add(1);
        if texts.walk == 0 || texts.slots.is_empty() {
            texts.walk = 1;
            texts.slots.clear();
            if texts.slots.try_reserve_exact(SLOTS).is_ok() {
                texts.slots.resize(SLOTS, Written::NOTHING);
            }
        }
        texts
    }

    fn slot(&mut self, of: &Written) -> Option<&mut Written> {
        self.slots.get_mut(of.slot())
    }

    fn put(&mut self, new: Written) {
        let new = Written { walk: self.walk, ..new };
        if let Some(slot) = self.slot(&new) {
            *slot = new;
        }
    }
}

/// The first things of a kind. Most walks have no more, and then cost nothing but them.
struct Few<T> {
    len: usize,
    things: [MaybeUninit<T>; FEW],
}

impl<T: Copy> Default for Few<T> {
    fn default() -> Self {
        Few { len: 0, things: [const { MaybeUninit::uninit() }; FEW] }
    }
}

impl<T: Copy> Few<T> {
    fn iter(&self) -> impl Iterator<Item = T> {
        // SAFETY: `add` has put things into the first `len` places.
        self.things[..self.len].iter().map(|thing| unsafe { thing.assume_init() })
    }

    /// False: there is no place for it.
    fn add(&mut self, thing: T) -> bool {
        let Some(place) = self.things.get_mut(self.len) else { return false };
        place.write(thing);
        self.len += 1;
        true
    }
}

/// One walk: over a value, or over several that arrive together. They must live, unchanged, until it ends.
#[derive(Default)]
pub struct Walk {
    /// How much was kept so far.
    places: u32,
    /// How many texts were not met before, and how many were.
    new: u32,
    known: u32,
    /// What refers to each item of a sequence besides, and is no part of any.
    others: isize,
    /// Objects that others may refer to, each with its place: the first of them, and the rest.
    first: Few<(usize, u32)>,
    shared: HashMap<usize, u32, BuildHasherDefault<OfAddress>>,
    few: Few<Written>,
    texts: Option<Texts>,
    ints: Vec<i64>,
    floats: Vec<f64>,
}

impl Drop for Walk {
    fn drop(&mut self) {
        if let Some(texts) = self.texts.take()
            && let Ok(mut kept) = TEXTS.try_lock()
        {
            *kept = Some(texts);
        }
    }
}

/// A live object, met while the interpreter lock is held.
type Object = *mut ffi::PyObject;

/// Whether an object is of this very type.
unsafe fn is(value: Object, kind: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: a live object has a type.
    unsafe { ffi::Py_TYPE(value) == kind }
}

/// Whether an object may be met twice: more refer to it than its container and `others`, which are known not to be part of the walk.
unsafe fn may_recur(value: Object, others: isize) -> bool {
    // SAFETY: a live object has a count. Where it says something else besides (flags), the answer is yes.
    unsafe { ffi::Py_REFCNT(value) != 1 + others }
}

/// The number of an int of 64 bits.
unsafe fn int_of(value: Object) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: a live int.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value, &mut overflow) };
    (overflow == 0).then_some(number)
}

impl Walk {
    /// Writes a value. False: it is not plain, or the form has refused it; part of it may have been written.
    pub fn value(&mut self, value: Borrowed<'_, '_, PyAny>, form: &mut impl Form) -> bool {
        // SAFETY: a live object, and the interpreter lock is held.
        unsafe { self.at(value.as_ptr(), 0, form) }
    }

    /// Writes the items of a sequence that has begun; false: as above. `others`: what refers to each besides, and is no part of any.
    pub fn items(&mut self, items: &[impl AsObject], others: isize, form: &mut impl Form) -> bool {
        self.others = others;
        // SAFETY: live objects, and the interpreter lock is held.
        unsafe { self.each(items.len(), |place| items[place].object(), 0, form) }
    }

    /// The same of a list's items.
    pub fn items_in(&mut self, list: &Bound<'_, PyList>, form: &mut impl Form) -> bool {
        // SAFETY: a live list, which does not change meanwhile.
        unsafe { self.each(list.len(), |place| ffi::PyList_GetItem(list.as_ptr(), place as _), 0, form) }
    }

    /// The same of a tuple's items.
    pub fn items_of(&mut self, tuple: &Bound<'_, PyTuple>, form: &mut impl Form) -> bool {
        // SAFETY: a live tuple, and the interpreter lock is held.
        unsafe { self.each(tuple.len(), |place| ffi::PyTuple_GetItem(tuple.as_ptr(), place as _), 0, form) }
    }

    /// # Safety
    /// A live object, the interpreter lock is held, and is not released before the walk ends. So for all that follow.
    unsafe fn at(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: each function is called for an object of its type.
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
        // SAFETY: a live array.
        let kept = match unsafe { self.met(value, depth) } {
            Ok(place) => return form.again(place),
            Err(kept) => kept,
        };
        // SAFETY: as above.
        unsafe { Array::of(value) }.is_some_and(|array| (!kept || self.keep(value)) && form.array(array, kept))
    }

    unsafe fn number(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: live.
        let Some((kind, view)) = (unsafe { single(value) }) else { return false };
        // SAFETY: live.
        match unsafe { self.met(value, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => (!kept || self.keep(value)) && form.number(kind, view.bytes(), kept),
        }
    }

    unsafe fn text(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        let mut len = 0;
        // SAFETY: a live string, which keeps its UTF-8 form.
        let text = unsafe {
            let utf8 = ffi::PyUnicode_AsUTF8AndSize(value, &mut len);
            if utf8.is_null() {
                // There is none for lone surrogates.
                ffi::PyErr_Clear();
                return false;
            }
            std::slice::from_raw_parts(utf8.cast::<u8>(), len as usize)
        };
        // SAFETY: live.
        match unsafe { self.place_of(value, text, true, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => form.text(text, kept),
        }
    }

    unsafe fn bytes(&mut self, value: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: a live `bytes` object.
        let bytes = unsafe {
            std::slice::from_raw_parts(ffi::PyBytes_AsString(value).cast::<u8>(), ffi::PyBytes_Size(value) as usize)
        };
        // SAFETY: live.
        match unsafe { self.place_of(value, bytes, false, depth) } {
            Ok(place) => form.again(place),
            Err(kept) => form.bytes(bytes, kept),
        }
    }

    /// Where a text or byte string like this was kept. `Err`: nowhere; whether it is kept from now on.
    unsafe fn place_of(&mut self, value: Object, bytes: &[u8], is_text: bool, depth: u32) -> Result<u32, bool> {
        if bytes.is_empty() {
            return Err(false);
        }
        // SAFETY: live.
        let recurs = match unsafe { self.met(value, depth) } {
            Ok(place) => return Ok(place),
            Err(recurs) => recurs,
        };
        let mut is_kept = false;
        if bytes.len() <= SHORT && (self.new <= ENOUGH || self.known >= self.new / 8) {
            if let Some(place) = self.equal(bytes, is_text) {
                return Ok(place);
            }
            is_kept = true;
        }
        if recurs {
            is_kept |= self.note(value);
        }
        self.places += u32::from(is_kept);
        Err(is_kept)
    }

    /// Where a short one like this was kept; from now on it is, as the next.
    fn equal(&mut self, bytes: &[u8], is_text: bool) -> Option<u32> {
        let mut new = Written { walk: 0, place: self.places, is_text, bytes };
        if self.texts.is_none() {
            if let Some(old) = self.few.iter().find(|old| old.is(&new)) {
                self.known += 1;
                return Some(old.place);
            }
            if !self.few.add(new) {
                let mut texts = Texts::get();
                for old in self.few.iter() {
                    texts.put(old);
                }
                self.texts = Some(texts);
            }
        }
        if let Some(texts) = &mut self.texts {
            new.walk = texts.walk;
            if let Some(old) = texts.slot(&new)
                && old.is(&new)
            {
                self.known += 1;
                return Some(old.place);
            }
            texts.put(new);
        }
        self.new += 1;
        None
    }

    /// Where an object was kept that may be met twice. `Err`: it was not; whether it may be met again.
    unsafe fn met(&self, value: Object, depth: u32) -> Result<u32, bool> {
        // SAFETY: live.
        if unsafe { !may_recur(value, if depth == 0 { self.others } else { 0 }) } {
            return Err(false);
        }
        self.kept(value).ok_or(true)
    }

    fn kept(&self, value: Object) -> Option<u32> {
        let address = value as usize;
        let first = self.first.iter().find(|(other, _)| *other == address).map(|(_, place)| place);
        first.or_else(|| self.shared.get(&address).copied())
    }

    /// Has a container be the next that is kept. False: there is no memory for it.
    fn keep(&mut self, value: Object) -> bool {
        let is_noted = self.note(value);
        self.places += u32::from(is_noted);
        is_noted
    }

    /// Notes that an object is the next that is kept.
    fn note(&mut self, value: Object) -> bool {
        let new = (value as usize, self.places);
        if self.first.add(new) {
            return true;
        }
        let has_room = self.shared.try_reserve(1).is_ok();
        if has_room {
            self.shared.insert(new.0, new.1);
        }
        has_room
    }

    unsafe fn list(&mut self, list: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: a live list, which does not change meanwhile.
        unsafe {
            let kept = match self.met(list, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyList_Size(list) as usize;
            (!kept || self.keep(list))
                && form.list(len, kept)
                && self.each(len, |place| ffi::PyList_GetItem(list, place as _), depth + 1, form)
                && form.end(Container::List, len, kept)
        }
    }

    unsafe fn tuple(&mut self, tuple: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: a live tuple.
        unsafe {
            let kept = match self.met(tuple, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyTuple_Size(tuple) as usize;
            // There is one empty tuple, which is not kept: it is no longer than a reference.
            let kept = kept && len > 0;
            if !(form.tuple(len, kept)
                && self.each(len, |place| ffi::PyTuple_GetItem(tuple, place as _), depth + 1, form))
            {
                return false;
            }
            if kept {
                // A value that contains itself has been kept meanwhile: pickle can write it.
                if self.kept(tuple).is_some() || !self.keep(tuple) {
                    return false;
                }
            }
            form.end(Container::Tuple, len, kept)
        }
    }

    unsafe fn dict(&mut self, dict: Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: a live dict, which does not change meanwhile, and so its keys and values live.
        unsafe {
            let kept = match self.met(dict, depth) {
                Ok(place) => return form.again(place),
                Err(_) if depth == DEEP => return false,
                Err(kept) => kept,
            };
            let len = ffi::PyDict_Size(dict) as usize;
            if kept && !self.keep(dict) || !form.dict(len, kept) {
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

    /// Items: as a block of numbers, if they are, or one by one.
    unsafe fn each(&mut self, len: usize, get: impl Fn(usize) -> Object, depth: u32, form: &mut impl Form) -> bool {
        // SAFETY: `get` returns live objects for all places below `len`.
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
            // SAFETY: live, and an int where it is asked for its number.
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
            // SAFETY: live, and a float where it is asked for its number.
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

/// What refers to an object that lives as long.
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
