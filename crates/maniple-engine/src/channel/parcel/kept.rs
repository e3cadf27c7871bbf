//! The blocks of a process that senders have under way, and those that they keep to use again.
#![allow(unsafe_code)]

use super::{FREE, PAGE, SPENT, USED};
use crate::error::{Doing, Result};
use crate::idle::{Limits, Shelf};
use crate::shm::blocks::LONG;
use crate::shm::region::PutBack;
use maniple_sys::atfork::OnceLock;
use maniple_sys::epoch;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Blocks that the senders of a process keep.
pub const MOST: usize = 16;
/// How many buffers are under way at once before a sender lets its readers catch up: a fresh block costs several times
/// as much as a block that was used before. More short buffers are allowed, because a sender sleeps longer than a
/// reader takes for a few of them.
const AT_ONCE: usize = 6;
const SHORT_AT_ONCE: usize = 14;
const SHORT: usize = 400_000;
/// For how long a sender waits, and how often it checks. If readers keep their blocks, no sender waits again before a
/// reader has released a block.
const PATIENCE: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_micros(50);
/// Bytes of blocks that they keep.
pub const KEEP: usize = 256 << 20;

/// The word behind a block's data.
#[derive(Debug)]
pub(super) struct State(Mapping);

impl State {
    pub(super) fn of(handle: &OwnedHandle, room: usize) -> Result<State> {
        let mapping = Mapping::at(handle, room as u64, PAGE, Share::All).doing("map a shared-memory block")?;
        Ok(State(mapping))
    }

    /// Reader: what sets it when the buffer is gone.
    pub(super) fn put_back(self) -> PutBack {
        PutBack::of(self.0, FREE, SPENT)
    }

    pub(super) fn word(&self) -> &AtomicU32 {
        // SAFETY: a page's first word, only ever accessed as an atomic, mapped as long as `self`.
        unsafe { AtomicU32::from_ptr(self.0.start().cast().as_ptr()) }
    }
}

/// A block that this process made.
#[derive(Debug)]
pub(super) struct Block {
    handle: OwnedHandle,
    state: State,
    room: usize,
    // The mapping, from the block's second use on. Copying into mapped memory is several times faster than writing to
    // the handle, but mapping fresh memory is slower than writing.
    mapping: Option<Mapping>,
}

impl Block {
    /// A block that holds a copy of `buffer`, used.
    pub(super) fn filled(buffer: &[u8]) -> Result<Block> {
        let block = Block::with_room(buffer.len())?;
        match &block.mapping {
            // SAFETY: the block has room for it, and only this process writes to it: its last reader no longer uses it.
            Some(room) => unsafe { room.start().copy_from_nonoverlapping(NonNull::from(buffer).cast(), buffer.len()) },
            None => {
                memory::write_at(block.handle.as_handle(), buffer, 0)
                    .doing("copy a large buffer into shared memory")?;
            }
        }
        Ok(block)
    }

    fn with_room(len: usize) -> Result<Block> {
        epoch::count_forks().doing("watch for forks")?;
        let block = match take(len) {
            Some(mut block) => {
                if block.mapping.is_none() {
                    // If it cannot be mapped, it is written to as before.
                    block.mapping = Mapping::new(&block.handle, block.room, Share::All).ok();
                    if let Some(mapping) = &block.mapping {
                        mapping.prepare(0, len).doing("make a shared-memory block")?;
                        mapping.map_in(len);
                    }
                }
                block
            }
            None => {
                let room = rounded(len);
                let make = || memory::create("maniple-parcel", room + PAGE);
                // What is kept for later may be what is missing now.
                let made = make().or_else(|error| if clear() { make() } else { Err(error) });
                let handle = made.doing("make a shared-memory block")?;
                Block { state: State::of(&handle, room)?, handle, room, mapping: None }
            }
        };
        // Ordered by the sending of the frame.
        block.state.word().store(USED, Ordering::Relaxed);
        Ok(block)
    }

    /// Bytes that it has room for.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// No reader looks at it.
    fn is_free(&self) -> bool {
        // Partner: as in `take`.
        self.state.word().load(Ordering::Acquire) == FREE
    }

    /// Whether it is free, and neither too short for a buffer nor much too long.
    fn fits(&self, len: usize) -> bool {
        self.room >= len && self.room / 2 <= rounded(len) && self.is_free()
    }

    /// No other process has seen its content.
    pub(super) fn free(&self) {
        self.state.word().store(FREE, Ordering::Relaxed);
    }

    pub(super) fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}

/// Keeps blocks to use them again.
pub(super) fn keep(blocks: impl Iterator<Item = Block>) {
    Shelf::keep(shelf(), blocks);
}

/// What the senders of this process have under way, and keep to use again.
fn shelf() -> &'static Arc<Shelf<Block>> {
    static SHELF: OnceLock<Arc<Shelf<Block>>> = OnceLock::new();
    SHELF.get_or_init(|| Shelf::new(Limits { things: MOST, bytes: KEEP, size: Block::room }))
}

/// Readers were waited for without success.
static IS_STALLED: AtomicBool = AtomicBool::new(false);

/// Whether a buffer finds a block that was used before, or few are under way.
fn is_open_to(len: usize) -> bool {
    let (free, used) = shelf().with(|blocks| {
        let free = blocks.iter().any(|(block, _)| block.fits(len));
        (free, blocks.iter().filter(|(block, _)| !block.is_free()).count())
    });
    if free {
        IS_STALLED.store(false, Ordering::Relaxed);
    }
    free || used < if len <= SHORT { SHORT_AT_ONCE } else { AT_ONCE }
}

/// Lets readers catch up. False: they do not.
fn wait_for_room(len: usize) -> bool {
    let since = Instant::now();
    while !is_open_to(len) {
        if since.elapsed() > PATIENCE {
            IS_STALLED.store(true, Ordering::Relaxed);
        }
        if IS_STALLED.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Takes the block that fits best, if one is free.
fn take(len: usize) -> Option<Block> {
    shelf().with(|blocks| {
        // Partner: the end of a `PutBack`; the reader's last access to the data comes before.
        blocks.retain(|(block, _)| block.state.word().load(Ordering::Acquire) != SPENT);
        let best = (0..blocks.len()).filter(|&i| blocks[i].0.fits(len)).min_by_key(|&i| blocks[i].0.room)?;
        Some(blocks.remove(best).0)
    })
}

/// Drops all that is kept; returns whether there was any.
fn clear() -> bool {
    !shelf().with(std::mem::take).is_empty()
}

fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(PAGE)).next_multiple_of(PAGE)
}

/// Waits a moment for a block that was used before. Returns whether a buffer of so many bytes is better sent in a block
/// than among the bytes of its message.
pub(super) fn is_worth_a_block(len: usize) -> bool {
    wait_for_room(len) || len >= LONG
}
