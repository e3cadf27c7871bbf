//! What both ends of a link see: a segment of shared memory with two rings, two bays, the worker's bell, and slots for blocks under way.
#![allow(unsafe_code)]

use super::counters::{BEGINS, Line};
use super::reader::Reader;
use super::sender::Sender;
use crate::error::{Error, Result};
use crate::shm::bay::Bay;
use crate::shm::bell::Bell;
use crate::shm::cursor::Cursors;
use crate::shm::ring::{Consumer, Place, Producer};
use crate::shm::segment::{create_mapped, open_mapped};
use crate::shm::slots::Slots;
use maniple_sys::OwnedHandle;
use maniple_sys::memory::Mapping;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(super) const RING: usize = 256 * 1024;
const LINE: usize = 128;
const BELL_AT: usize = 0;
const HALFWAY_AT: usize = LINE;
const TERMINATED_AT: usize = HALFWAY_AT + LINE / 2;
/// The worker's counters ([`Line`]).
pub(crate) const COUNTERS_AT: usize = 2 * LINE;
pub(super) const DOWN_AT: usize = 3 * LINE;
pub(super) const UP_AT: usize = DOWN_AT + size_of::<Cursors>();
pub(crate) const DOWN_SLOTS_AT: usize = UP_AT + size_of::<Cursors>();
pub(crate) const UP_SLOTS_AT: usize = DOWN_SLOTS_AT + Slots::BYTES;
pub(crate) const DOWN_BAY_AT: usize = UP_SLOTS_AT + Slots::BYTES;
pub(crate) const UP_BAY_AT: usize = DOWN_BAY_AT + LINE;
pub(crate) const BEGINS_AT: usize = UP_BAY_AT + LINE;
pub(super) const DOWN_DATA_AT: usize = BEGINS_AT + BEGINS * size_of::<u64>();
pub(super) const UP_DATA_AT: usize = DOWN_DATA_AT + RING;
// A multiple of any system's pages.
const BAYS_AT: usize = (UP_DATA_AT + RING).next_multiple_of(BAY_STEP);
const BAY_STEP: usize = 64 * 1024;
/// Bytes in a bay, usually. If a file may not be so large, the smallest sufficient number.
const BAY_BYTES: [usize; 2] = [2 << 20, BAY_STEP];
pub(crate) const DOWN: Place = Place { cursors: DOWN_AT, data: DOWN_DATA_AT, capacity: RING };
pub(crate) const UP: Place = Place { cursors: UP_AT, data: UP_DATA_AT, capacity: RING };

/// A link's segment, as both ends see it.
#[derive(Debug, Clone)]
pub(crate) struct LinkSegment(pub(super) Arc<Mapping>);

impl LinkSegment {
    /// A new one, and the handle by which the worker opens it.
    pub fn create() -> Result<(LinkSegment, OwnedHandle)> {
        let [large, small] = BAY_BYTES.map(|bytes| move || create_mapped("maniple-link", BAYS_AT + 2 * bytes));
        let (memory, handle) = large().or_else(|_| small())?;
        Ok((LinkSegment(Arc::new(memory)), handle))
    }

    pub fn open(handle: &OwnedHandle) -> Result<LinkSegment> {
        let memory = open_mapped(handle)?;
        if !memory.len().checked_sub(BAYS_AT).is_some_and(|bays| bays > 0 && bays.is_multiple_of(2 * BAY_STEP)) {
            return Err(Error::BadHandles("the link has another size; was the worker started by another version?"));
        }
        Ok(LinkSegment(Arc::new(memory)))
    }

    /// All of it.
    #[cfg(any(test, fuzzing))]
    pub fn memory(&self) -> &Arc<Mapping> {
        &self.0
    }

    fn down_bay(&self) -> Bay {
        let capacity = (self.0.len() - BAYS_AT) / 2;
        Bay { word: DOWN_BAY_AT, data: BAYS_AT, capacity }
    }

    fn up_bay(&self) -> Bay {
        let Bay { data, capacity, .. } = self.down_bay();
        Bay { word: UP_BAY_AT, data: data + capacity, capacity }
    }

    /// The worker's bell: level 1 while it sleeps.
    pub fn bell(&self) -> &Bell {
        // SAFETY: aligned, inside the segment, and zeroed memory is a valid bell.
        unsafe { self.0.start().add(BELL_AT).cast().as_ref() }
    }

    /// The number of the task after which a hub that sleeps at a "half" level wants to be woken.
    pub fn halfway(&self) -> &AtomicU64 {
        // SAFETY: aligned, inside the segment, accessed only as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.start().add(HALFWAY_AT).cast().as_ptr()) }
    }

    /// Not 0: the pool was terminated. For code that cannot read the ring, such as a signal handler.
    pub fn terminated(&self) -> &AtomicU64 {
        // SAFETY: aligned, inside the segment, accessed only as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.start().add(TERMINATED_AT).cast().as_ptr()) }
    }

    /// The worker's counters.
    pub fn counters(&self) -> &Line {
        // SAFETY: aligned, inside the segment, and any bytes are valid atomics.
        unsafe { self.0.start().add(COUNTERS_AT).cast().as_ref() }
    }

    /// When the worker began the task with this number, until it begins that with a number greater by [`BEGINS`]; 0: it has not begun
    /// it.
    pub fn begin_of(&self, number: u64) -> &AtomicU64 {
        let at = BEGINS_AT + (number as usize % BEGINS) * size_of::<u64>();
        // SAFETY: aligned, inside the segment, accessed only as an atomic.
        unsafe { AtomicU64::from_ptr(self.0.start().add(at).cast().as_ptr()) }
    }

    pub fn worker_side(&self) -> (Reader, Sender) {
        (
            Reader::new(Consumer::new(&self.0, DOWN), Slots::new(&self.0, DOWN_SLOTS_AT), self.down_bay(), &self.0),
            Sender::new(Producer::new(&self.0, UP), Slots::new(&self.0, UP_SLOTS_AT), self.up_bay(), &self.0),
        )
    }

    pub fn hub_side(&self) -> (Reader, Sender) {
        (
            Reader::new(Consumer::new(&self.0, UP), Slots::new(&self.0, UP_SLOTS_AT), self.up_bay(), &self.0),
            Sender::new(Producer::new(&self.0, DOWN), Slots::new(&self.0, DOWN_SLOTS_AT), self.down_bay(), &self.0),
        )
    }
}
