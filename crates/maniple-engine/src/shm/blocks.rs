//! Blocks: shared memory for large buffers, recycled by the side that made them.
//!
//! Life of a block: its owner's [`Arena`] makes it (or takes it from its free list) and fills it: now it is a [`Blob`]. A
//! link sends a reference to it, marks one of its *slots* as used, and holds the blob. The reader maps the block, and when
//! the last user of the reader's [`Region`](super::inbox::Region) is gone, the slot is marked free again, from whatever
//! thread that happens in. The owner notices at its next look at the slots, lets go of its blob, and with the last hold the
//! block goes back to the free list. A reader that dies takes its link, and so its slots, with it.

use crate::error::{Doing, Result};
use crate::sys::{Handle, memory};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Free blocks that are kept at most: each holds a descriptor.
const MOST: usize = 64;
/// Evictions that are remembered.
const REMEMBERED: usize = 1024;

/// Where blocks come from and return to.
#[derive(Debug, Clone)]
pub struct Arena(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    next: AtomicU32,
    limit: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    blocks: Vec<Block>,
    bytes: usize,
    // The latest blocks that were let go of for good: readers may unmap them.
    evicted: VecDeque<u32>,
    evictions: u64,
}

#[derive(Debug)]
struct Block {
    id: u32,
    handle: Handle,
    capacity: usize,
}

/// A filled block, or rather one hold on it.
#[derive(Debug, Clone)]
pub struct Blob {
    hold: Arc<Hold>,
    len: usize,
}

#[derive(Debug)]
struct Hold {
    block: Option<Block>,
    arena: Weak<Inner>,
    given_away: AtomicBool,
}

/// Block sizes go in steps of an eighth of a power of two, so that a block fits many sizes and wastes little.
fn rounded(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(4096);
    len.next_multiple_of(step).max(4096)
}

impl Arena {
    /// An arena that keeps at most `limit` bytes of free blocks for reuse.
    pub fn new(limit: usize) -> Arena {
        Arena(Arc::new(Inner { next: AtomicU32::new(1), limit, free: Mutex::default() }))
    }

    /// Copies `parts`, one after the other, into a block.
    pub fn store(&self, parts: &[&[u8]]) -> Result<Blob> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let block = match self.take(len) {
            Some(block) => block,
            None => self.make(rounded(len))?,
        };
        let mut at = 0;
        for part in parts {
            memory::write_at(block.handle.as_fd(), part, at).doing("copy a large buffer into shared memory")?;
            at += part.len() as u64;
        }
        let hold = Hold { block: Some(block), arena: Arc::downgrade(&self.0), given_away: AtomicBool::new(false) };
        Ok(Blob { hold: Arc::new(hold), len })
    }

    fn take(&self, len: usize) -> Option<Block> {
        let mut free = self.lock();
        let fits = |b: &Block| b.capacity >= len && b.capacity <= rounded(len).saturating_mul(2);
        let best =
            (0..free.blocks.len()).filter(|&i| fits(&free.blocks[i])).min_by_key(|&i| free.blocks[i].capacity)?;
        let block = free.blocks.swap_remove(best);
        free.bytes -= block.capacity;
        Some(block)
    }

    fn make(&self, capacity: usize) -> Result<Block> {
        let handle = memory::create("maniple-block", capacity).doing("make a shared-memory block")?;
        Ok(Block { id: self.0.next.fetch_add(1, Ordering::Relaxed), handle, capacity })
    }

    /// The blocks that were let go of since `seen` evictions, and how many evictions there were up to now. `None` for the blocks: too
    /// many to remember, it may be any.
    pub fn evicted_since(&self, seen: u64) -> (Option<Vec<u32>>, u64) {
        let free = self.lock();
        let unseen = free.evictions.saturating_sub(seen) as usize;
        let blocks = free.evicted.len().checked_sub(unseen).map(|from| free.evicted.range(from..).copied().collect());
        (blocks, free.evictions)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in free blocks.
    pub fn idle_bytes(&self) -> usize {
        self.lock().bytes
    }
}

impl Free {
    fn evict(&mut self, block: u32) {
        if self.evicted.len() == REMEMBERED {
            self.evicted.pop_front();
        }
        self.evicted.push_back(block);
        self.evictions += 1;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (Some(block), Some(arena)) = (self.block.take(), self.arena.upgrade()) else { return };
        let mut free = arena.free.lock().unwrap_or_else(PoisonError::into_inner);
        if block.capacity > arena.limit || *self.given_away.get_mut() {
            free.evict(block.id);
            return;
        }
        free.bytes += block.capacity;
        free.blocks.push(block);
        while free.bytes > arena.limit || free.blocks.len() > MOST {
            let oldest = free.blocks.remove(0);
            free.bytes -= oldest.capacity;
            free.evict(oldest.id);
        }
    }
}

impl Blob {
    /// The block's number, unique in its arena.
    pub fn id(&self) -> u32 {
        self.hold.block.as_ref().map_or(0, |b| b.id)
    }

    /// Bytes of content.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves the block to its reader for good: it is not used again here.
    pub fn give_away(&self) {
        self.hold.given_away.store(true, Ordering::Relaxed);
    }

    /// The block's handle, to be sent to a reader.
    pub fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.hold.block.as_ref().map(|b| b.handle.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_once_nobody_holds_it() {
        let arena = Arena::new(1 << 20);
        let first = arena.store(&[b"abc"]).unwrap();
        let id = first.id();
        let again = first.clone();
        drop(first);
        assert_ne!(arena.store(&[b"x"]).unwrap().id(), id);
        drop(again);
        let ids = [arena.store(&[b"x"]).unwrap(), arena.store(&[b"y"]).unwrap()].map(|b| b.id());
        assert!(ids.contains(&id));
    }

    #[test]
    fn free_blocks_beyond_the_limit_are_let_go_of() {
        let arena = Arena::new(10_000);
        let blobs: Vec<_> = (0..4).map(|_| arena.store(&[&[1; 4096]]).unwrap()).collect();
        drop(blobs);
        assert!(arena.idle_bytes() <= 10_000);
        let (evicted, count) = arena.evicted_since(0);
        assert_eq!((evicted.unwrap().len(), count), (2, 2));
        assert_eq!(arena.evicted_since(2), (Some(vec![]), 2));
    }

    #[test]
    fn evictions_are_not_remembered_for_ever() {
        let arena = Arena::new(0);
        for _ in 0..REMEMBERED + 10 {
            drop(arena.store(&[&[1; 8]]).unwrap());
        }
        let count = REMEMBERED as u64 + 10;
        assert_eq!(arena.evicted_since(0), (None, count));
        assert_eq!(arena.evicted_since(count - 3).0.unwrap().len(), 3);
        assert_eq!(arena.lock().evicted.len(), REMEMBERED);
    }

    #[test]
    fn sizes_waste_at_most_an_eighth() {
        for len in [1, 4096, 5000, 65_537, 1 << 20, (1 << 26) + 1] {
            let size = rounded(len);
            assert!(size >= len && size <= len + (len / 8).max(4096), "{len} -> {size}");
        }
    }
}
