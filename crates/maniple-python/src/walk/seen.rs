//! The objects that a walk has written and may meet again, each with the place by which the form refers to it.
#![allow(unsafe_code)]

use super::Object;
use super::texts::{SPREAD, Texts, Written};
use pyo3::ffi;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::MaybeUninit;

/// Up to here texts are compared by what they say, too; longer ones only by which object they are.
const SHORT: usize = 32;
/// So many are kept apart first, since most values have no more.
const FEW: usize = 8;
/// After so many short texts it is known whether there are equal ones among them.
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

/// What one walk has written so far.
#[derive(Default)]
pub(super) struct Seen {
    /// How much was kept so far.
    places: u32,
    /// How many texts were not met before, and how many were.
    new: u32,
    known: u32,
    /// What refers to each item of a sequence besides, and is no part of any.
    pub(super) others: isize,
    /// Objects that others may refer to, each with its place: the first of them, and the rest.
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

/// Whether an object may be met twice: more refer to it than its container and `others`, which are known not to be part of the walk.
#[inline]
unsafe fn may_recur(value: Object, others: isize) -> bool {
    // SAFETY: a live object has a count. Where it says something else besides (flags), the answer is yes.
    unsafe { ffi::Py_REFCNT(value) != 1 + others }
}

impl Seen {
    /// Where a text or byte string like this was kept. `Err`: nowhere; whether it is kept from now on.
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

    /// Where an object was kept that may be met twice. `Err`: it was not; whether it may be met again.
    #[inline]
    pub(super) unsafe fn met(&self, value: Object, depth: u32) -> Result<u32, bool> {
        // SAFETY: live.
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

    /// Has a container be the next that is kept. False: there is no memory for it.
    #[inline]
    pub(super) fn keep(&mut self, value: Object) -> bool {
        let is_noted = self.note(value);
        self.places += u32::from(is_noted);
        is_noted
    }

    /// Notes that an object is the next that is kept.
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
