//! Waiting: how long, and awake or asleep.
//!
//! What is waited for is not known here.

pub(crate) mod lookout;
pub(crate) mod spin;
mod until;

pub use lookout::Lookout;
pub use until::Until;
