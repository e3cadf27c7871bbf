//! The protocols, each in one 64-bit word, which lies in zeroed shared memory. No waiting here: a word says what to sleep on and whom
//! to wake, `lock`, `semaphore` and so on do it.
//!
//! In each the *low half* is what sleepers sleep on: it changes whenever there may be something for them.
#![allow(unsafe_code)]

use crate::shm::atomic::AtomicU64;

pub mod call;
pub mod count;
pub mod flag;
pub mod lock;
pub mod news;
pub mod unit;

pub use call::CallWord;
pub use count::CountWord;
pub use flag::FlagWord;
pub use lock::LockWord;
pub use news::NewsWord;
pub use unit::UnitWord;

/// What a process that has released something has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nothing: no thread sleeps.
    Quiet,
    /// Wake a sleeper.
    Wake,
    /// There was nothing to give back, or no room for it. Nothing was changed.
    Refused,
}

/// A plain word seen as a protocol's, and the other way round.
macro_rules! views {
    ($($word:ident)*) => {$(
        impl $word {
            /// A cell's word under this protocol.
            #[cfg(not(loom))]
            #[inline]
            pub fn of(word: &AtomicU64) -> &$word {
                // SAFETY: the type is a transparent wrapper of the one it is made from, and every value of that is a valid one.
                unsafe { &*std::ptr::from_ref(word).cast() }
            }

            /// The word itself, to sleep on.
            pub fn raw(&self) -> &AtomicU64 {
                &self.0
            }
        }
    )*};
}

views!(CallWord CountWord FlagWord LockWord NewsWord UnitWord);
