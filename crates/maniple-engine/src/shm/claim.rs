//! The word that decides which side owns a published frame: the consumer, which claims it before it acts on it, or the
//! producer, which revokes it. The side whose compare-exchange succeeds owns the frame, and the other never does.

use super::atomic::{AtomicU32, Ordering};

/// A frame that is neither claimed nor revoked.
pub const WAITING: u32 = 0;
/// The consumer acts, or has acted, on the frame.
pub const CLAIMED: u32 = 1;
/// The producer has revoked the frame; the consumer skips it.
pub const REVOKED: u32 = 2;

/// A frame's state, in shared memory.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Claim(AtomicU32);

impl Claim {
    /// For the consumer, before it acts on the frame. Returns false if the producer has revoked it.
    pub fn claim(&self) -> bool {
        // Partner: `revoke`; the winner owns the frame.
        self.0.compare_exchange(WAITING, CLAIMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the producer. Returns false if the consumer has claimed it first.
    pub fn revoke(&self) -> bool {
        // Partner: `claim`.
        self.0.compare_exchange(WAITING, REVOKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether the consumer was first.
    pub fn is_claimed(&self) -> bool {
        self.0.load(Ordering::Acquire) == CLAIMED
    }
}
