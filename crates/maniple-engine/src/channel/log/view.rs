//! The state of a log that its head shows, for which no descriptor has to be open.

use super::super::layout::Header;
use super::{BOUNDLESS, Shared};
use crate::wait::spin::Spin;
use maniple_sys::memory::Mapping;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The number of messages in a log, its bound, and the number of messages that were reported done.
#[derive(Debug)]
pub struct View {
    head: Arc<Mapping>,
    pub(super) cores: usize,
    pub(super) spin: Mutex<Spin>,
    // Messages that were taken in this process and will be taken once more. Only this process knows them.
    held: Arc<AtomicU64>,
}

impl View {
    pub(super) fn of(shared: &Shared) -> View {
        View { head: shared.head.clone(), cores: shared.cores, spin: Mutex::default(), held: Arc::default() }
    }

    /// One for the same process.
    pub(super) fn another(&self) -> View {
        View { head: self.head.clone(), cores: self.cores, spin: Mutex::default(), held: self.held.clone() }
    }

    #[allow(unsafe_code)]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping is as long as the head and lives as long as `self`; all fields are atomics or locks, valid in any state.
        unsafe { self.head.start().cast::<Header>().as_ref() }
    }

    /// Whether nothing can be taken now.
    pub fn is_empty(&self) -> bool {
        let header = self.header();
        // Partner: `Side::advance`.
        header.readers.at.load(Ordering::Acquire) == header.writers.at.load(Ordering::Acquire)
    }

    /// About how many messages there are.
    pub fn len(&self) -> u64 {
        let header = self.header();
        let taken = header.readers.count.load(Ordering::Acquire);
        header.writers.count.load(Ordering::Acquire).saturating_sub(taken)
    }

    /// Returns how many messages were taken in this process and are held back for it
    /// ([`Log::hold_back`](super::Log::hold_back)).
    pub fn held_back(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn set_held_back(&self, messages: u64) -> u64 {
        self.held.swap(messages, Ordering::AcqRel)
    }

    /// Whether the memory is limited, because file sizes were limited when it was made. A message may then be longer
    /// than the memory.
    pub fn is_limited(&self) -> bool {
        self.capacity() < BOUNDLESS
    }

    /// Bytes that have room in it.
    pub fn capacity(&self) -> u64 {
        self.header().size.load(Ordering::Relaxed)
    }
}
