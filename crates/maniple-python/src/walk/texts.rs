//! The short texts and byte strings of a walk, found by their content.
#![allow(unsafe_code)]

use std::sync::Mutex;

/// An odd number with bits in all positions: 2**64 divided by the golden ratio.
pub(super) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A short text or byte string that was written. Its object outlives the walk.
#[derive(Clone, Copy)]
pub(super) struct Written {
    /// The number of the walk that wrote it. A slot may still contain the entry of an earlier walk.
    pub(super) walk: u32,
    pub(super) place: u32,
    pub(super) is_text: bool,
    pub(super) bytes: *const [u8],
}

impl Written {
    const NOTHING: Written = Written { walk: 0, place: 0, is_text: false, bytes: &[] };

    #[inline]
    pub(super) fn is(&self, other: &Written) -> bool {
        self.walk == other.walk
            && self.is_text == other.is_text
            // SAFETY: the comparison above shows that both entries belong to the current walk, whose objects exist
            // until it ends (`Walk`).
            && unsafe { *self.bytes == *other.bytes }
    }

    #[inline]
    fn slot(&self) -> usize {
        let len = self.bytes.len();
        let mut hash = len as u64;
        let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(SPREAD).rotate_left(29);
        // SAFETY: `self` was made for an object of the current walk, which exists until the walk ends.
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

/// Most of the short texts of a walk. A text may replace another in its slot.
pub(super) struct Texts {
    pub(super) walk: u32,
    /// `SLOTS` entries, or none if there was no memory for them.
    slots: Vec<Written>,
}

// SAFETY: a walk follows the pointers of its own entries only, because `Written::is` compares the number of the walk
// first.
unsafe impl Send for Texts {}

/// The table is kept from one walk to the next, so that no walk clears it. Only `try_lock` is used: a thread that finds
/// the table taken, or locked by a thread that a fork left behind, allocates another. (A thread-local would be worse:
/// the C library ends a process that has no memory to register a thread's destructor.)
static TEXTS: Mutex<Option<Texts>> = Mutex::new(None);

impl Texts {
    pub(super) fn get() -> Texts {
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

    #[inline]
    pub(super) fn slot(&mut self, of: &Written) -> Option<&mut Written> {
        self.slots.get_mut(of.slot())
    }

    #[inline]
    pub(super) fn put(&mut self, new: Written) {
        let new = Written { walk: self.walk, ..new };
        if let Some(slot) = self.slot(&new) {
            *slot = new;
        }
    }
}

impl Texts {
    /// Keeps the table for the next walk.
    pub(super) fn release(self) {
        if let Ok(mut kept) = TEXTS.try_lock() {
            *kept = Some(self);
        }
    }
}
