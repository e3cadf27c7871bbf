//! The objects that a walk has written and may meet again, each with the place by which the form refers to it.
#![allow(unsafe_code)]

use super::Object;
use super::texts::{SPREAD, Texts, Written};
use pyo3::ffi;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;

/// Texts of up to this many bytes are found by their content, too; longer texts only by their identity.
const SHORT: usize = 32;
/// The number of objects that are kept apart from the map, since most values have no more.
const FEW: usize = 8;
/// After this many short texts the walk knows whether equal texts occur.
const ENOUGH: u32 = 64;

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

/// The first objects of a kind. Most walks have no more, and need no map.
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
        // SAFETY: `add` has written the first `len` places.
        self.things[..self.len].iter().map(|thing| unsafe { thing.assume_init() })
    }

    /// Adds an object. Returns false if there is no place left.
    fn add(&mut self, thing: T) -> bool {
        let Some(place) = self.things.get_mut(self.len) else { return false };
        place.write(thing);
        self.len += 1;
        true
    }
}

/// The objects and texts that a walk has written so far.
#[derive(Default)]
pub(super) struct Seen {
    /// The number of objects that were kept.
    places: u32,
    /// The number of texts that were met for the first time, and of those that were met again.
    new: u32,
    known: u32,
    /// The number of references to each item of a sequence that are not part of any item.
    pub(super) others: isize,
    /// The objects that may have further references, each with its place: the first objects, and the rest.
    first: Few<(usize, u32)>,
    shared: HashMap<usize, u32, BuildHasherDefault<OfAddress>>,
    few: Few<Written>,
    texts: Option<Texts>,
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(texts) = self.texts.take() {
            texts.release();
        }
    }
}

/// Returns whether the walk may meet an object twice: it has more references than the reference of its container and
/// `others`, which are not part of the walk.
#[inline]
unsafe fn may_recur(value: Object, others: isize) -> bool {
    // SAFETY: the caller passes a live object, which has a count. If the count contains flags, the answer is yes.
    unsafe { ffi::Py_REFCNT(value) != 1 + others }
}

impl Seen {
    /// Returns the place where an equal text or byte string was kept. `Err` if none was; it says whether this text is
    /// kept from now on.
    #[inline]
    pub(super) unsafe fn place_of(
        &mut self,
        value: Object,
        bytes: &[u8],
        is_text: bool,
        depth: u32,
    ) -> Result<u32, bool> {
        if bytes.is_empty() {
            return Err(false);
        }
        // SAFETY: the caller passes a live object.
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

    /// Returns the place of an equal short text. If there is none, this text is kept under the next place.
    #[inline]
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

    /// Returns the place of an object that was kept. `Err` if it was not; it says whether the walk may meet the object
    /// again.
    #[inline]
    pub(super) unsafe fn met(&self, value: Object, depth: u32) -> Result<u32, bool> {
        // SAFETY: the caller passes a live object.
        if unsafe { !may_recur(value, if depth == 0 { self.others } else { 0 }) } {
            return Err(false);
        }
        self.kept(value).ok_or(true)
    }

    #[inline]
    pub(super) fn kept(&self, value: Object) -> Option<u32> {
        let address = value as usize;
        let first = self.first.iter().find(|(other, _)| *other == address).map(|(_, place)| place);
        first.or_else(|| self.shared.get(&address).copied())
    }

    /// Keeps a container under the next place. Returns false if there is no memory for that.
    #[inline]
    pub(super) fn keep(&mut self, value: Object) -> bool {
        let is_noted = self.note(value);
        self.places += u32::from(is_noted);
        is_noted
    }

    /// Notes that an object has the next place.
    #[inline]
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
}
