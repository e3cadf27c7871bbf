//! Memory for one long buffer each. The memory of the last long buffers is kept for a second or two.

use crate::idle::{Limits, Shelf};
use maniple_sys::atfork::OnceLock;
use maniple_sys::plain::Plain;
use std::ptr::NonNull;
use std::sync::Arc;

/// The greatest number of bytes of long buffers' memory that are kept for a second or two.
const KEPT_LONG: usize = 128 << 20;

/// Memory for one long buffer.
#[derive(Debug)]
pub(super) struct Own(Option<Plain>);

impl Own {
    pub(super) fn new(len: usize) -> Option<Own> {
        let fits = |memory: &Plain| (len..=len + len / 2).contains(&memory.len());
        // Not waited for, as with chunks.
        shelf().try_take(fits).or_else(|| Plain::new(len).ok()).map(|memory| Own(Some(memory)))
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.0.as_ref().map_or(NonNull::dangling(), Plain::start)
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Plain::len)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(memory) = self.0.take() {
            Shelf::try_keep(shelf(), memory);
        }
    }
}

/// The memory of longer buffers that are gone.
fn shelf() -> &'static Arc<Shelf<Plain>> {
    static SHELF: OnceLock<Arc<Shelf<Plain>>> = OnceLock::new();
    SHELF.get_or_init(|| Shelf::new(Limits { things: usize::MAX, bytes: KEPT_LONG, size: Plain::len }))
}
