//! What can be seen of a log by its head alone, for which no descriptor has to be open.

use super::super::layout::Header;
use super::{BOUNDLESS, Shared};
use crate::wait::spin::Spin;
use maniple_sys::memory::Mapping;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// How much there is in a log, how much may be, and what is reported done.
#[derive(Debug)]
pub struct View {
    head: Arc<Mapping>,
    pub(super) cores: usize,
    pub(super) spin: Mutex<Spin>,
}

impl View {
    pub(super) fn of(shared: &Shared) -> View {
        View { head: shared.head.clone(), cores: shared.cores, spin: Mutex::default() }
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

    /// Whether the memory is limited: file sizes were, when it was made. A message may be longer than there is room for.
    pub fn is_limited(&self) -> bool {
        self.capacity() < BOUNDLESS
    }

    /// Bytes that have room in it.
    pub fn capacity(&self) -> u64 {
        self.header().size.load(Ordering::Relaxed)
    }
}
