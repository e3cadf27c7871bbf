//! The protocols, each in one 64-bit word, which lies in zeroed shared memory. This module does not wait: a word says
//! what to sleep on and how many to wake; `lock`, `semaphore` and so on do it.
//!
//! Sleepers sleep on the *low half* of the word: it changes whenever a sleeper may continue.
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

/// What a process has to do after a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Nothing: no thread sleeps.
    Quiet,
    /// Wake a sleeper.
    Wake,
    /// There was nothing to release, or no room for it. Nothing was changed.
    Refused,
}

/// Conversions between a plain word and a protocol's word.
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
