//! What the systems of the Unix family share.

pub mod atfork;
pub mod epoch;
