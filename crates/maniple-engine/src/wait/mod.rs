//! Waiting: for how long, awake or asleep, and what ends it early.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`until`](Until) | the limit of a wait |
//! | `spin` | a short spin before sleep, for news that lies in memory: pools and queues |
//! | `adaptive_spin` | the same where each look is a system call: connections |
//! | [`word`] | sleep on a word that another process changes: pools, queues, locks |
//! | `retry` | what a process that is starting does about a shortage |
//!
//! Nothing else in the engine sleeps on a word. Waits for descriptors are the system's own (`maniple_sys::ready`). What is waited for is
//! not known here.

pub(crate) mod adaptive_spin;
pub(crate) mod retry;
pub(crate) mod spin;
mod until;
pub mod word;

pub use adaptive_spin::AdaptiveSpin;
pub use until::Until;
pub use word::Interrupt;
