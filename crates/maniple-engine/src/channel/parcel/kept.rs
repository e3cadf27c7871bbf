//! The blocks of a process that senders have under way, and those that they keep to use again.
#![allow(unsafe_code)]

use super::{FREE, PAGE, SPENT, USED};
use crate::error::{Doing, Result};
use crate::idle;
use crate::shm::blocks::LONG;
use maniple_sys::epoch::{self, Epoch, Since};
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, atfork};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
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
    since: Instant,
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
        let block = match KeptBlocks::get().take(len) {
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
                // The blocks that are kept for later may be what is missing now.
                let made = make().or_else(|error| if KeptBlocks::get().clear() { make() } else { Err(error) });
                let handle = made.doing("make a shared-memory block")?;
                Block { state: State::of(&handle, room)?, handle, room, mapping: None, since: Instant::now() }
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
    let since = Instant::now();
    KeptBlocks::keep(KeptBlocks::get(), blocks.map(|block| Block { since, ..block }));
}

/// The blocks that the senders of this process have under way, or keep to use again.
#[derive(Debug)]
struct KeptBlocks {
    // The longest unused first.
    blocks: Mutex<(Vec<Block>, Option<Epoch>)>,
    is_watched: AtomicBool,
    // A sender has waited for readers without success.
    is_stalled: AtomicBool,
}

impl KeptBlocks {
    fn get() -> &'static Arc<KeptBlocks> {
        static KEPT: OnceLock<Arc<KeptBlocks>> = OnceLock::new();
        KEPT.get_or_init(|| {
            Arc::new(KeptBlocks {
                blocks: Mutex::default(),
                is_watched: AtomicBool::new(false),
                is_stalled: AtomicBool::new(false),
            })
        })
    }

    /// Calls the function on the blocks. No fork happens meanwhile, so a child finds the lock free.
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Block>) -> T) -> T {
        atfork::making(|| {
            let mut guard: MutexGuard<'_, _> = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            let (blocks, epoch) = &mut *guard;
            if epoch.is_some_and(|epoch| epoch.since() == Since::Born) {
                blocks.clear();
            }
            *epoch = Some(Epoch::now());
            work(blocks)
        })
    }

    /// Whether a buffer finds a block that was used before, or few are under way.
    fn is_open_to(&self, len: usize) -> bool {
        let is_free = |b: &Block| b.state.word().load(Ordering::Acquire) == FREE;
        let (free, used) = self.with(|blocks| {
            let free = blocks.iter().any(|b| b.room >= len && b.room / 2 <= rounded(len) && is_free(b));
            (free, blocks.iter().filter(|b| !is_free(b)).count())
        });
        if free {
            self.is_stalled.store(false, Ordering::Relaxed);
        }
        free || used < if len <= SHORT { SHORT_AT_ONCE } else { AT_ONCE }
    }

    /// Waits until readers have caught up. Returns false if they do not.
    fn wait_for_room(&self, len: usize) -> bool {
        let since = Instant::now();
        while !self.is_open_to(len) {
            if since.elapsed() > PATIENCE {
                self.is_stalled.store(true, Ordering::Relaxed);
            }
            if self.is_stalled.load(Ordering::Relaxed) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// Takes the free block that fits best, if there is a free block.
    fn take(&self, len: usize) -> Option<Block> {
        self.with(|blocks| {
            // Partner: `PutBack::drop` in `arrived`; the reader's last access to the data comes before.
            blocks.retain(|b| b.state.word().load(Ordering::Acquire) != SPENT);
            let fits = |b: &Block| {
                b.room >= len && b.room / 2 <= rounded(len) && b.state.word().load(Ordering::Acquire) == FREE
            };
            let best = (0..blocks.len()).filter(|&i| fits(&blocks[i])).min_by_key(|&i| blocks[i].room)?;
            Some(blocks.remove(best))
        })
    }

    fn keep(this: &Arc<KeptBlocks>, new: impl Iterator<Item = Block>) {
        let mut gone = Vec::new();
        this.with(|blocks| {
            blocks.extend(new);
            let mut bytes = blocks.iter().map(|b| b.room).sum::<usize>();
            while blocks.len() > MOST || bytes > KEEP {
                let oldest = blocks.remove(0);
                bytes -= oldest.room;
                gone.push(oldest);
            }
        });
        // Freeing memory takes a while: not under the lock.
        drop(gone);
        let weak: Weak<dyn idle::Kept> = Arc::downgrade(this) as Weak<dyn idle::Kept>;
        if !this.is_watched.swap(true, Ordering::Relaxed) && !idle::watch(weak) {
            this.is_watched.store(false, Ordering::Relaxed);
            this.clear();
        }
    }

    fn clear(&self) -> bool {
        !self.with(std::mem::take).is_empty()
    }
}

impl idle::Kept for KeptBlocks {
    fn trim(&self, unused: Duration) -> bool {
        let now = Instant::now();
        // A fork waits for the lock: its holder releases it in a moment.
        let guard = if unused.is_zero() { self.blocks.lock().ok() } else { self.blocks.try_lock().ok() };
        let Some(mut guard) = guard else { return true };
        let blocks = &mut guard.0;
        let stay = blocks.iter().position(|b| now.duration_since(b.since) < unused).unwrap_or(blocks.len());
        let gone: Vec<Block> = blocks.drain(..stay).collect();
        let has_more = !blocks.is_empty();
        self.is_watched.store(has_more, Ordering::Relaxed);
        drop(guard);
        drop(gone);
        has_more
    }
}

fn rounded(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 16).max(PAGE)).next_multiple_of(PAGE)
}

/// Waits a moment for a block that was used before. Returns whether a buffer of so many bytes is better sent in a block
/// than among the bytes of its message.
pub fn is_worth_a_block(len: usize) -> bool {
    KeptBlocks::get().wait_for_room(len) || len >= LONG
}
