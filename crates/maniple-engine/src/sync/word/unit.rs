//! One of several equal units, and its holder.
//!
//! ```text
//!   63 ─── 32   31 ─── 0
//!   born        pid         all zero: free
//! ```
//!
//! As a lock's word, but without a mark for sleepers: they do not wait for a certain unit but for any
//! ([`NewsWord`](super::NewsWord)).

use super::lock::Holder;
use crate::shm::atomic::{AtomicU64, Ordering};

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct UnitWord(pub(super) AtomicU64);

impl UnitWord {
    /// Its holder.
    pub fn holder(&self) -> Option<Holder> {
        let now = self.0.load(Ordering::Relaxed);
        (now != 0).then(|| Holder::from_bits(now))
    }

    /// Whether it is free. If so, what its last holder did is seen from here on.
    pub fn is_free(&self) -> bool {
        // Acquire: partner is the Release in `give`.
        self.0.load(Ordering::Acquire) == 0
    }

    fn exchange(&self, from: u64, to: Holder) -> bool {
        // Acquire: partner is the Release in `give`. (What a dead holder wrote is seen because its end was.)
        self.0.compare_exchange(from, to.bits(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes it if it is free.
    #[inline]
    pub fn take(&self, me: Holder) -> bool {
        self.holder().is_none() && self.exchange(0, me)
    }

    /// Takes it from a holder that has ended.
    pub fn take_over(&self, from: Holder, me: Holder) -> bool {
        self.exchange(from.bits(), me)
    }

    /// Frees it if this process holds it.
    #[inline]
    pub fn give(&self, me: Holder) -> bool {
        // Release: partner is the Acquire in `exchange`.
        self.0.compare_exchange(me.bits(), 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}
