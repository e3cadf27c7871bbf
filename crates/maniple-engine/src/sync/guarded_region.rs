//! Memory with a lock beside it, for a value that processes share.
//!
//! A small value lies in the cells behind its lock's cell, so that a thousand shared numbers need no further
//! descriptor. A larger value has a separate piece of shared memory, whose handle has to be sent with it, because cells
//! that were sent once are not used again as long as their arena exists. The lock's cell contains the number of bytes
//! and their place before any other process has it.
//!
//! The lock does not define the accesses: the code that passes the bytes out defines which accesses are allowed, and
//! when.

#![allow(unsafe_code)]

use super::arena::{CELL, CellRef, Place};
use super::lock::Lock;
use crate::error::{Error, Result};
use crate::shm::segment::Segment;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const KIND: u32 = 7;
/// More bytes than this have separate memory.
const SMALL: usize = 16 * CELL;
/// Every room begins at a multiple of so many bytes.
pub const ALIGNMENT: usize = CELL;

/// How a region's bytes are accessed. All its users agree on it; otherwise one user could change without the lock what
/// another guards by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By the holder of the lock.
    Guarded,
    /// By readers and writers, as a header says ([`rwlock`](super::rwlock)).
    Shared,
    /// By anyone, by atomic accesses of so many bytes.
    Raw(u32),
}

impl Access {
    /// As the cell stores it.
    fn number(self) -> u32 {
        match self {
            Access::Guarded => 0,
            // A value that is not a number of bytes.
            Access::Shared => u32::MAX,
            Access::Raw(bytes) => bytes,
        }
    }
}

/// Shared bytes, and a lock.
#[derive(Debug)]
pub struct GuardedRegion {
    lock: Lock,
    len: usize,
    apart: Option<Segment>,
}

/// How many cells a room of so many bytes takes.
fn cells(len: usize) -> u32 {
    if len > SMALL { 1 } else { 1 + len.div_ceil(CELL) as u32 }
}

fn len_of(place: &Place) -> &AtomicU64 {
    // The previous cell is the lock's.
    &place.more[1]
}

impl GuardedRegion {
    /// So many zeroed bytes, and a free lock.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn create(len: usize, access: Access) -> Result<GuardedRegion> {
        let place = Place::create_span(KIND, cells(len))?;
        place.limit.store(access.number(), Ordering::Relaxed);
        len_of(&place).store(len as u64, Ordering::Relaxed);
        let apart = (len > SMALL).then(|| Segment::create("maniple-value", len)).transpose()?;
        // Cells may have been used before.
        let (start, room) = place.room();
        // SAFETY: no other process knows these cells, and `room` is their size.
        unsafe { start.write_bytes(0, room) };
        Ok(GuardedRegion { lock: Lock::at(place), len, apart })
    }

    /// Opens a region that another process made. `apart` is the handle that was sent with it, if it has separate
    /// memory.
    ///
    /// # Errors
    /// The ticket is for something else, or made for another access, or the memory of another size.
    pub fn open(ticket: CellRef, apart: Option<OwnedHandle>, access: Access) -> Result<GuardedRegion> {
        let place = Place::open(ticket.arena, ticket.number, KIND)?;
        if place.limit.load(Ordering::Relaxed) != access.number() {
            return Err(Error::Lock("the shared value that was sent is of another type"));
        }
        let len = len_of(&place).load(Ordering::Relaxed) as usize;
        let place = place.with_span(cells(len))?;
        let apart = apart.map(Segment::open).transpose()?;
        if apart.as_ref().map_or(0, Segment::len) < if len > SMALL { len } else { 0 } {
            return Err(Error::Lock("the memory of a shared value was not sent with it"));
        }
        Ok(GuardedRegion { lock: Lock::at(place), len, apart })
    }

    /// Its lock.
    #[inline]
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        self.lock.place()
    }

    /// The handle that has to be sent with it, if it has separate memory.
    pub fn apart(&self) -> Option<BorrowedHandle<'_>> {
        self.apart.as_ref().map(Segment::as_handle)
    }

    /// The first byte, at a multiple of [`ALIGNMENT`]. The bytes are valid as long as this region.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        match &self.apart {
            Some(segment) => segment.start(),
            None => self.place().room().0,
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
