//! Memory for one long buffer each. The memory of the last long buffers is kept for a second or two.

use crate::idle;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::plain::Plain;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

/// The greatest number of bytes of long buffers' memory that are kept for a second or two.
const KEPT_LONG: usize = 128 << 20;

/// Memory for one long buffer.
#[derive(Debug)]
pub(super) struct Own(Option<Plain>);

impl Own {
    pub(super) fn new(len: usize) -> Option<Own> {
        Long::get().take(len).or_else(|| Plain::new(len).ok()).map(|memory| Own(Some(memory)))
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
            Long::get().keep(memory);
        }
    }
}

/// The memory of dropped long buffers.
#[derive(Debug)]
struct Long {
    // The longest unused first.
    free: Mutex<Vec<(Plain, Instant, Epoch)>>,
    is_watched: AtomicBool,
}

impl Long {
    fn get() -> &'static Arc<Long> {
        static LONG: OnceLock<Arc<Long>> = OnceLock::new();
        LONG.get_or_init(|| Arc::new(Long { free: Mutex::new(Vec::new()), is_watched: AtomicBool::new(false) }))
    }

    fn take(&self, len: usize) -> Option<Plain> {
        // Does not wait, as with chunks.
        let mut free = self.free.try_lock().ok()?;
        // Memory that was kept before a fork belongs to the parent.
        free.retain(|(_, _, epoch)| epoch.since() != Since::Born);
        let at = free.iter().rposition(|(memory, ..)| (len..=len + len / 2).contains(&memory.len()))?;
        Some(free.remove(at).0)
    }

    fn keep(&self, memory: Plain) {
        let mut gone = vec![];
        if let Ok(mut free) = self.free.try_lock() {
            free.push((memory, Instant::now(), Epoch::now()));
            while free.iter().map(|(memory, ..)| memory.len()).sum::<usize>() > KEPT_LONG {
                gone.push(free.remove(0));
            }
        }
        drop(gone);
        if !self.is_watched.swap(true, Ordering::Relaxed) {
            let weak: Weak<dyn idle::Kept> = Arc::downgrade(Long::get()) as Weak<dyn idle::Kept>;
            if !idle::watch(weak) {
                self.is_watched.store(false, Ordering::Relaxed);
                idle::Kept::trim(self, Duration::ZERO);
            }
        }
    }
}

impl idle::Kept for Long {
    fn trim(&self, unused: Duration) -> bool {
        // A fork waits for the lock: its holder releases it in a moment.
        let guard = if unused.is_zero() { self.free.lock().ok() } else { self.free.try_lock().ok() };
        let Some(mut free) = guard else { return true };
        let now = Instant::now();
        let stay = free.iter().position(|(_, since, _)| now.duration_since(*since) < unused).unwrap_or(free.len());
        let gone: Vec<_> = free.drain(..stay).collect();
        let has_more = !free.is_empty();
        self.is_watched.store(has_more, Ordering::Relaxed);
        drop(free);
        drop(gone);
        has_more
    }
}
