//! Waiting: for how long, awake or asleep, and what ends it early.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`until`](Until) | the limit of a wait |
//! | `spin` | a short spin before sleep, for news that lies in memory: pools and queues |
//! | `adaptive_spin` | the same where each look is a system call: connections |
//! | [`word`] | sleep on a word that another process changes: pools, queues, locks |
//! | `retry` | repeats what a starting process lacks the resources for |
//!
//! No other module of the engine sleeps on a word. Waits for descriptors are the system's own (`maniple_sys::ready`). This module does not
//! know what its callers wait for.

#[cfg(not(loom))]
pub(crate) mod adaptive_spin;
pub(crate) mod retry;
#[cfg(not(loom))]
pub(crate) mod spin;
mod until;
pub mod word;

#[cfg(not(loom))]
pub use adaptive_spin::AdaptiveSpin;
pub use until::Until;
pub use word::Interrupt;
