//! Waiting: time limits, spinning or sleeping, and what ends a wait early.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`until`](Until) | the limit of a wait |
//! | `spin` | a short spin before sleep, for news in memory: pools and queues |
//! | `adaptive_spin` | a spin in which each check is a system call: connections |
//! | [`word`] | sleep on a word that another process changes: pools, queues, locks |
//! | `turn` | the turns of the threads of a process that use the same thing |
//! | `retry` | repeats a step of a starting process after a shortage |
//!
//! No other module of the engine sleeps on a word. `maniple_sys::ready` waits for descriptors. This module does not
//! know what its callers wait for.

#[cfg(not(loom))]
pub(crate) mod adaptive_spin;
pub(crate) mod retry;
#[cfg(not(loom))]
pub(crate) mod spin;
#[cfg(not(loom))]
mod turn;
mod until;
pub mod word;

#[cfg(not(loom))]
pub use adaptive_spin::AdaptiveSpin;
#[cfg(not(loom))]
pub use turn::{Held, Taken, Turn};
pub use until::Until;
pub use word::Interrupt;
