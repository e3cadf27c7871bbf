//! Large buffers to send: in blocks of shared memory, which the side that made them uses again, or in plain memory.
//!
//! A [`Blob`] is a filled buffer. A short one is plain memory, which a link's [bay](super::bay) carries. A long one is a *block*: its
//! owner's [`Arena`] makes it, or takes it from its free list, and fills it. A link sends its handle with each frame that names it,
//! marks one of its *slots* as used, and holds the blob. The reader maps the block and closes the handle; when the last user of the
//! reader's [`Region`](super::region::Region) is gone, any thread of the reader marks the slot free. The
//! owner notices at its next look at the slots, drops its blob, and with the last hold the block goes back to the free list. A
//! reader that dies takes its link, and so its slots, with it.
//!
//! If file sizes are limited (RLIMIT_FSIZE), a block consists of several *pieces*, each a separate file, which the
//! reader maps one behind the other.
//!
//! Each block costs its owner a descriptor, or one for each piece. If an arena has many blocks, the next buffers wait
//! in plain memory until they are sent.

#![allow(unsafe_code)]

use super::buffers::Buffer;
use crate::error::{Doing, Result};
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle};
use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Buffers from this size on travel in blocks: below it, copying costs less than a mapping.
pub const LONG: usize = (1 << 20) + 1;
/// The smallest number of bytes of a block.
const LEAST: usize = 4096;
/// The greatest number of free blocks that an arena keeps.
const MOST_FREE: usize = 64;
/// Blocks, free and used, take at most one in so many of the descriptors that this process may have, and never more
/// than `MOST`. Beyond that, buffers wait in plain memory.
const SHARE: usize = 4;
/// The greatest number of pieces of a block: as many handles as one note carries.
const MOST_PIECES: usize = sys::wire::MOST;
const MOST: usize = 512;

/// All blocks of this process that have a descriptor.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

/// Whether another block may have a descriptor.
fn is_room() -> bool {
    BLOCKS.load(Ordering::Relaxed) < (sys::most_handles() / SHARE).min(MOST)
}

/// Where blocks come from and return to.
#[derive(Debug, Clone)]
pub struct Arena(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    state: Mutex<State>,
}

/// The blocks that an arena keeps for reuse.
#[derive(Debug, Default)]
pub(crate) struct State {
    // The longest unused first.
    free: Vec<Free>,
    free_bytes: usize,
}

#[derive(Debug)]
struct Free {
    block: Block,
    since: Instant,
}

#[derive(Debug)]
struct Block {
    // All but the last hold `piece` bytes.
    pieces: Vec<OwnedHandle>,
    piece: usize,
    capacity: usize,
    /// Bytes at the front that were written to at some time, and so have pages.
    warm: usize,
    view: Option<View>,
}

/// The owner's mapping of a block, from the block's second use on. If there are pages, copying into it is several times
/// faster than writing by the handle; but mapping fresh pages is slower than writing.
#[derive(Debug)]
struct View {
    mapping: ManuallyDrop<Mapping>,
    epoch: Epoch,
}

impl View {
    /// Of `len` bytes, of which there are pages for the first `warm`.
    fn of(memory: &OwnedHandle, len: usize, warm: usize) -> Option<View> {
        count_forks().ok()?;
        let epoch = Epoch::now();
        let mapping = memory::is_fixed(memory).then(|| Mapping::new(memory, len, Share::All).ok()).flatten()?;
        mapping.map_in(warm);
        // Children would hold the memory for as long as they live.
        mapping.keep_from_children().then(|| View { mapping: ManuallyDrop::new(mapping), epoch })
    }

    /// Copies bytes to `at`, where they have room. Returns false in a forked child, which does not have the mapping.
    fn write(&self, at: usize, bytes: &[u8]) -> bool {
        if self.epoch.since() == Since::Born || self.mapping.len() < at + bytes.len() {
            return false;
        }
        // SAFETY: inside the mapping, whose memory keeps its size, and the block has no other user: its last reader no
        // longer uses it.
        unsafe { self.mapping.start().add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        true
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if self.epoch.since() != Since::Born {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        }
    }
}

impl Block {
    fn make(capacity: usize) -> io::Result<Block> {
        let longest = usize::try_from(memory::longest()).unwrap_or(usize::MAX);
        let piece = if capacity <= longest { capacity } else { longest - longest % memory::PAGES };
        if piece == 0 || capacity.div_ceil(piece) > MOST_PIECES {
            return Err(memory::too_long());
        }
        let mut block = Block { pieces: Vec::with_capacity(1), piece, capacity, warm: 0, view: None };
        for at in (0..capacity).step_by(piece) {
            block.pieces.push(memory::create("maniple-block", piece.min(capacity - at))?);
            BLOCKS.fetch_add(1, Ordering::Relaxed);
        }
        Ok(block)
    }

    /// Copies `parts`, one after the other, to the front.
    fn fill(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if let ([memory], None, true) = (&self.pieces[..], &self.view, self.warm > 0) {
            self.view = View::of(memory, self.capacity, self.warm);
        }
        let mut at = 0;
        for part in parts {
            let mut rest = *part;
            if let Some(view) = &self.view {
                let (warm, cold) = rest.split_at(rest.len().min(self.warm.saturating_sub(at)));
                if view.write(at, warm) {
                    at += warm.len();
                    rest = cold;
                }
            }
            while let (false, Some(piece)) = (rest.is_empty(), self.pieces.get(at / self.piece)) {
                let (now, later) = rest.split_at(rest.len().min(self.piece - at % self.piece));
                memory::write_at(piece.as_handle(), now, (at % self.piece) as u64)?;
                at += now.len();
                rest = later;
            }
        }
        self.warm = self.warm.max(at);
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        BLOCKS.fetch_sub(self.pieces.len(), Ordering::Relaxed);
    }
}

/// A filled buffer, or one hold on it.
#[derive(Debug, Clone)]
pub struct Blob(Content);

#[derive(Debug, Clone)]
enum Content {
    Plain(Arc<Buffer>),
    Block(Arc<Hold>, usize),
}

#[derive(Debug)]
struct Hold {
    block: Option<Block>,
    arena: Weak<Inner>,
    given_away: AtomicBool,
}

/// Block sizes go in steps of an eighth of a power of two, so that a block fits many sizes and wastes little.
fn rounded(len: usize) -> usize {
    let step = (len.next_power_of_two() / 16).max(LEAST);
    len.next_multiple_of(step).max(LEAST)
}

impl Arena {
    /// An arena that keeps at most `limit` bytes of free blocks for reuse.
    pub fn new(limit: usize) -> Arena {
        Arena(Arc::new(Inner { limit, state: Mutex::default() }))
    }

    /// Copies `parts`, one after the other, into a buffer.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub fn store(&self, parts: &[&[u8]]) -> Result<Blob> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        // If no block is available now, there may be one when the buffer is sent.
        if len >= LONG
            && (is_room() || !self.lock().free.is_empty())
            && let Ok(block) = self.block(parts)
        {
            return Ok(block);
        }
        let mut buffer = Buffer::with_capacity(len)?;
        parts.iter().try_for_each(|part| buffer.extend(part))?;
        Ok(Blob(Content::Plain(Arc::new(buffer))))
    }

    /// Copies `parts`, one after the other, into a block.
    ///
    /// # Errors
    /// No memory, or no descriptor.
    pub fn block(&self, parts: &[&[u8]]) -> Result<Blob> {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let block = match self.take(len).map(|mut block| (block.fill(parts), block)) {
            Some((Ok(()), block)) => block,
            Some((Err(error), _)) if !memory::is_too_long(&error) => {
                return Err(error).doing("copy a large buffer into shared memory");
            }
            // There is no block, or file sizes have been limited since it was made.
            _ => {
                let mut block = self.make(rounded(len))?;
                block.fill(parts).doing("copy a large buffer into shared memory")?;
                block
            }
        };
        let hold = Hold { block: Some(block), arena: Arc::downgrade(&self.0), given_away: AtomicBool::new(false) };
        Ok(Blob(Content::Block(Arc::new(hold), len)))
    }

    fn take(&self, len: usize) -> Option<Block> {
        let mut state = self.lock();
        let fits = |b: &Free| b.block.capacity >= len && b.block.capacity <= rounded(len).saturating_mul(2);
        let best =
            (0..state.free.len()).filter(|&i| fits(&state.free[i])).min_by_key(|&i| state.free[i].block.capacity)?;
        let free = state.free.remove(best);
        state.free_bytes -= free.block.capacity;
        Some(free.block)
    }

    fn make(&self, capacity: usize) -> Result<Block> {
        match Block::make(capacity) {
            // The blocks that are kept for later may be what is missing now.
            Err(error) if !memory::is_too_long(&error) && self.trim(Duration::ZERO) => Block::make(capacity),
            made => made,
        }
        .doing("make a shared-memory block")
    }

    /// Drops the free blocks that have not been used for so long. Returns whether there were any.
    pub fn trim(&self, unused: Duration) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        let stay = state.free.iter().position(|f| now.duration_since(f.since) < unused).unwrap_or(state.free.len());
        let gone: Vec<Free> = state.free.drain(..stay).collect();
        state.free_bytes -= gone.iter().map(|f| f.block.capacity).sum::<usize>();
        drop(state);
        !gone.is_empty()
    }

    /// The arena's lock: nothing is waited for while it is held.
    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in free blocks.
    pub fn idle_bytes(&self) -> usize {
        self.lock().free_bytes
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let (Some(block), Some(arena)) = (self.block.take(), self.arena.upgrade()) else { return };
        let mut gone = Vec::new();
        let mut state = arena.state.lock().unwrap_or_else(PoisonError::into_inner);
        if block.capacity > arena.limit || *self.given_away.get_mut() {
            gone.push(block);
        } else {
            state.free_bytes += block.capacity;
            state.free.push(Free { block, since: Instant::now() });
            while state.free_bytes > arena.limit || state.free.len() > MOST_FREE {
                let oldest = state.free.remove(0).block;
                state.free_bytes -= oldest.capacity;
                gone.push(oldest);
            }
        }
        // Freeing memory takes a while: not under the lock.
        drop(state);
    }
}

impl Blob {
    /// A buffer in plain memory.
    pub fn plain(bytes: Vec<u8>) -> Blob {
        Blob(Content::Plain(Arc::new(Buffer::from_vec(bytes))))
    }

    /// Bytes of content.
    pub fn len(&self) -> usize {
        match &self.0 {
            Content::Plain(buffer) => buffer.bytes().len(),
            Content::Block(_, len) => *len,
        }
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The content, if it is in plain memory.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Content::Plain(buffer) => Some(buffer.bytes()),
            Content::Block(..) => None,
        }
    }

    /// Leaves the block to its reader: this process does not use it again.
    pub fn give_away(&self) {
        if let Content::Block(hold, _) = &self.0 {
            hold.given_away.store(true, Ordering::Relaxed);
        }
    }

    /// The handles of the block's pieces, to be sent to a reader. None if it is in plain memory.
    pub fn handles(&self) -> Vec<BorrowedHandle<'_>> {
        match &self.0 {
            Content::Plain(_) => Vec::new(),
            Content::Block(hold, _) => hold.block.iter().flat_map(|b| &b.pieces).map(AsHandle::as_handle).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(arena: &Arena) -> Blob {
        arena.block(&[&[1; 4096]]).unwrap()
    }

    fn identity(blob: &Blob) -> (u64, u64) {
        sys::own::File::of(blob.handles()[0]).unwrap().numbers()
    }

    #[test]
    fn a_block_is_used_again_once_nobody_holds_it() {
        let arena = Arena::new(1 << 20);
        let first = block(&arena);
        let inode = identity(&first);
        let again = first.clone();
        drop(first);
        assert_ne!(identity(&block(&arena)), inode);
        drop(again);
        let inodes = [block(&arena), block(&arena)].map(|b| identity(&b));
        assert!(inodes.contains(&inode));
    }

    #[test]
    fn what_is_in_a_block_is_what_was_stored_last() {
        let arena = Arena::new(1 << 24);
        let mut inodes = std::collections::HashSet::new();
        for (round, len) in [LONG, LONG + 9000, LONG + 5, LONG + 20_000, LONG].into_iter().enumerate() {
            let parts = [vec![round as u8; len / 3], vec![round as u8 + 100; len - len / 3]];
            let blob = arena.block(&[&parts[0], &parts[1]]).unwrap();
            inodes.insert(identity(&blob));
            let mut bytes = vec![0; len];
            memory::read_at(blob.handles()[0], &mut bytes, 0).unwrap();
            assert!(bytes == parts.concat());
        }
        assert_eq!(inodes.len(), 1, "the same block served them all");
    }

    #[test]
    fn free_blocks_are_bounded_and_go_when_they_are_not_used() {
        let arena = Arena::new(10_000);
        let blobs: Vec<_> = (0..4).map(|_| block(&arena)).collect();
        drop(blobs);
        assert!(arena.idle_bytes() > 0 && arena.idle_bytes() <= 10_000);
        assert!(!arena.trim(Duration::from_secs(60)));
        assert!(arena.trim(Duration::ZERO));
        assert_eq!(arena.idle_bytes(), 0);
    }

    #[test]
    fn many_large_buffers_do_not_take_a_descriptor_each() {
        let arena = Arena::new(1 << 30);
        let large = vec![7u8; LONG];
        let blobs: Vec<_> = (0..MOST + 20).map(|_| arena.store(&[&large]).unwrap()).collect();
        let blocks = blobs.iter().filter(|b| !b.handles().is_empty()).count();
        assert!(blocks > 0 && blocks <= (sys::most_handles() / SHARE).min(MOST));
        assert!(blobs.iter().all(|b| b.len() == LONG));
        drop(blobs);
        assert!(arena.lock().free.len() <= MOST_FREE);
    }

    #[test]
    fn sizes_waste_at_most_an_eighth() {
        for len in [1, 4096, 5000, 65_537, 1 << 20, (1 << 26) + 1] {
            let size = rounded(len);
            assert!(size >= len && size <= len + (len / 8).max(4096), "{len} -> {size}");
        }
    }
}
