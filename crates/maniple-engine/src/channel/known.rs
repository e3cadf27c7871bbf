//! Blocks of middling size that have come more than once.
//!
//! A sender uses its blocks again and again. What comes in one that is mapped here already is copied out without a fault, a mapping, or
//! another call of the system. So a block that comes for the second time is mapped, and stays so for a second or two. A block is known by
//! its file, not by its sender. A block whose size may change is not kept.
#![allow(unsafe_code)]

use crate::idle::{Limits, Shelf};
use crate::shm::buffers::Buffer;
use maniple_sys::OwnedHandle;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// Blocks that are known, and bytes of them that are mapped, at most.
const MOST: usize = 32;
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Block {
    file: File,
    /// None: it came once.
    mapping: Option<Mapping>,
}

impl Block {
    fn bytes(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::len)
    }
}

fn known() -> &'static Arc<Shelf<Block>> {
    static KNOWN: OnceLock<Arc<Shelf<Block>>> = OnceLock::new();
    KNOWN.get_or_init(|| Shelf::new(Limits { things: MOST, bytes: MOST_BYTES, size: Block::bytes }))
}

/// Copies the first `len` bytes of a block out, and then writes `free` into the word at `room`, if the block is mapped here. `whole`: its
/// length, which is more than `room`. `None`: it is not, and nothing has happened.
pub(super) fn copy(
    handle: &OwnedHandle,
    file: File,
    len: usize,
    room: usize,
    whole: usize,
    free: u32,
) -> Option<Buffer> {
    // Not waited for: another thread is at it, or was when this process was forked.
    let Some(mut block) = known().try_take(|block| block.file == file) else {
        Shelf::try_keep(known(), Block { file, mapping: None });
        return None;
    };
    if block.mapping.is_none() && memory::is_fixed(handle) && !memory::is_narrow() {
        block.mapping = Mapping::new(handle, whole, Share::All).ok();
    }
    let copied = block.mapping.as_ref().filter(|mapping| mapping.len() == whole && len <= room).and_then(|mapping| {
        let mut bytes = Buffer::with_capacity(len).ok()?;
        let to = bytes.fill(len).ok()?;
        // SAFETY: the mapping is longer than `room`, and the memory keeps its size. The sender leaves the data alone until the word says
        // so; a sender that does not wait spoils its own message. The word is a page's first, which is touched as an atomic alone.
        unsafe {
            mapping.start().copy_to_nonoverlapping(NonNull::from(to).cast(), len);
            AtomicU32::from_ptr(mapping.start().add(room).cast().as_ptr()).store(free, Ordering::Release);
        }
        Some(bytes)
    });
    Shelf::try_keep(known(), block);
    copied
}
