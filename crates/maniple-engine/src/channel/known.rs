//! Blocks of middling size that have arrived more than once.
//!
//! A sender uses its blocks again and again. Data in a block that this process has already mapped is copied out without
//! a fault, a mapping, or another system call. So a block that arrives for the second time is mapped, and stays mapped
//! for a second or two. A block is identified by its file, not by its sender. A block whose size may change is not
//! kept.
#![allow(unsafe_code)]

use crate::idle;
use crate::shm::buffers::Buffer;
use maniple_sys::OwnedHandle;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

/// The greatest number of known blocks, and of their mapped bytes.
const MOST: usize = 32;
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Block {
    file: File,
    /// None: the block has arrived once.
    mapping: Option<Mapping>,
    since: Instant,
}

impl Block {
    fn bytes(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::len)
    }
}

#[derive(Debug, Default)]
struct Known {
    // The longest unused first.
    blocks: Mutex<Vec<Block>>,
    is_watched: AtomicBool,
}

impl Known {
    fn get() -> &'static Arc<Known> {
        static KNOWN: OnceLock<Arc<Known>> = OnceLock::new();
        KNOWN.get_or_init(Arc::default)
    }

    fn take(&self, file: File) -> Option<Block> {
        // Does not wait: another thread uses it, or did when this process was forked.
        let mut blocks = self.blocks.try_lock().ok()?;
        let at = blocks.iter().rposition(|block| block.file == file)?;
        Some(blocks.remove(at))
    }

    fn keep(&self, block: Block) {
        let mut gone = Vec::new();
        if let Ok(mut blocks) = self.blocks.try_lock() {
            blocks.push(block);
            while blocks.len() > MOST || blocks.iter().map(Block::bytes).sum::<usize>() > MOST_BYTES {
                gone.push(blocks.remove(0));
            }
        }
        drop(gone);
        if !self.is_watched.swap(true, Ordering::Relaxed) {
            let weak: Weak<dyn idle::Kept> = Arc::downgrade(Known::get()) as Weak<dyn idle::Kept>;
            if !idle::watch(weak) {
                self.is_watched.store(false, Ordering::Relaxed);
                idle::Kept::trim(self, Duration::ZERO);
            }
        }
    }
}

impl idle::Kept for Known {
    fn trim(&self, unused: Duration) -> bool {
        // A fork waits for the lock: its holder releases it in a moment.
        let guard = if unused.is_zero() { self.blocks.lock().ok() } else { self.blocks.try_lock().ok() };
        let Some(mut blocks) = guard else { return true };
        let now = Instant::now();
        let stay = blocks.iter().position(|b| now.duration_since(b.since) < unused).unwrap_or(blocks.len());
        let gone: Vec<_> = blocks.drain(..stay).collect();
        let has_more = !blocks.is_empty();
        self.is_watched.store(has_more, Ordering::Relaxed);
        drop(blocks);
        drop(gone);
        has_more
    }
}

/// If the block is mapped here, copies its first `len` bytes out, and then writes `free` into the word at `room`.
/// `whole` is the block's length, which is more than `room`. Returns `None`, and does nothing, if it is not mapped.
pub(super) fn copy(
    handle: &OwnedHandle,
    file: File,
    len: usize,
    room: usize,
    whole: usize,
    free: u32,
) -> Option<Buffer> {
    let known = Known::get();
    let mut block = match known.take(file) {
        Some(block) => block,
        None => {
            known.keep(Block { file, mapping: None, since: Instant::now() });
            return None;
        }
    };
    if block.mapping.is_none() && memory::is_fixed(handle) && !memory::is_narrow() {
        block.mapping = Mapping::new(handle, whole, Share::All).ok();
    }
    let copied = block.mapping.as_ref().filter(|mapping| mapping.len() == whole && len <= room).and_then(|mapping| {
        let mut bytes = Buffer::with_capacity(len).ok()?;
        let to = bytes.fill(len).ok()?;
        // SAFETY: the mapping is longer than `room`, and the memory keeps its size. The sender does not touch the data
        // until the word says so; a sender that does not wait damages only its own message. The word is the first of a
        // page, and is accessed only as an atomic.
        unsafe {
            mapping.start().copy_to_nonoverlapping(NonNull::from(to).cast(), len);
            AtomicU32::from_ptr(mapping.start().add(room).cast().as_ptr()).store(free, Ordering::Release);
        }
        Some(bytes)
    });
    block.since = Instant::now();
    known.keep(block);
    copied
}
