//! Blocks of middling size that have arrived more than once.
//!
//! A sender uses its blocks again and again. Data in a block that this process has already mapped is copied out without
//! a fault, a mapping, or another system call. So a block that arrives for the second time is mapped, and stays mapped
//! for a second or two. A block is identified by its file, not by its sender. A block whose size may change is not
//! kept.
#![allow(unsafe_code)]

use crate::idle::{Limits, Shelf};
use crate::shm::buffers::Buffer;
use maniple_sys::OwnedHandle;
use maniple_sys::atfork::OnceLock;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::own::File;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The greatest number of known blocks, and of their mapped bytes.
const MOST: usize = 32;
const MOST_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Block {
    file: File,
    /// None: the block has arrived once.
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
        // SAFETY: the mapping is longer than `room`, and the memory keeps its size. The sender does not touch the data
        // until the word says so; a sender that does not wait damages only its own message. The word is the first of a
        // page, and is accessed only as an atomic.
        unsafe {
            mapping.start().copy_to_nonoverlapping(NonNull::from(to).cast(), len);
            AtomicU32::from_ptr(mapping.start().add(room).cast().as_ptr()).store(free, Ordering::Release);
        }
        Some(bytes)
    });
    Shelf::try_keep(known(), block);
    copied
}
