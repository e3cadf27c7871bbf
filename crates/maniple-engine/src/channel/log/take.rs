//! Taking messages out of a log.

use super::order::{Span, in_order};
use super::sides::Sides;
use super::{BOUNDLESS, Interrupted, LAP, LONG_PART, Log, MOST_PARTS, WORTH_IT, hold, local};
use crate::channel::window::Ring;
use crate::error::{Error, Result};
use crate::shm::buffers::Buffer;
use crate::wait::word;
use maniple_sys::memory;
use std::sync::atomic::{Ordering, fence};

/// Pages behind the head are returned in pieces of at least so many bytes.
const GIVE_BACK: u64 = 4 << 20;

/// Called under the readers' lock with the position of a message that was taken and its first part.
pub type After<'a, 'b> = &'a mut (dyn FnMut(u64, &[u8]) + 'b);

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The parts after the first.
    pub rest: Vec<Buffer>,
}

impl Log {
    /// Takes the next message: its first part into `first`, which is emptied before, the others separately. Returns
    /// None if there is no message. Without `interrupted` it also returns None if taking it would take time, because
    /// another reader is at work or the message is large.
    pub fn take(&self, first: &mut Vec<u8>, interrupted: Option<Interrupted<'_, '_>>) -> Result<Option<Taken>> {
        self.take_and(first, interrupted, &mut |_, _| {})
    }

    /// As [`take`](Log::take), with a function that is called under the lock.
    pub fn take_and(
        &self,
        first: &mut Vec<u8>,
        mut interrupted: Option<Interrupted<'_, '_>>,
        after: After<'_, '_>,
    ) -> Result<Option<Taken>> {
        let header = self.header();
        loop {
            if self.is_empty() {
                if header.calls.watched.load(Ordering::Relaxed) == 0 {
                    return Ok(None);
                }
                // Also waits for a writer that has made the event readable and is about to publish.
                if self.hush(interrupted.as_deref_mut())? {
                    return Ok(None);
                }
            }
            let Some(held) = hold(&header.readers, interrupted.as_deref_mut())? else { return Ok(None) };
            let head = header.readers.at.load(Ordering::Relaxed);
            // Partner: the writer's `advance`.
            let tail = header.writers.at.load(Ordering::Acquire);
            if head == tail {
                continue;
            }
            // As of the tail just seen: it cannot move while the log is not empty.
            let base = header.base.load(Ordering::Relaxed);
            let ring = self.ring();
            in_order(Span { base, head, tail }, ring.size)?;
            let Some((rest, end)) = self.read(ring, head, head - base, tail, first, interrupted.is_none())? else {
                return Ok(None);
            };
            self.give_back(ring, head - base, base, tail - head);
            header.readers.advance(end);
            self.reads.store(true, Ordering::Relaxed);
            after(head, first);
            drop(held);
            if end == tail || header.calls.bound.load(Ordering::Relaxed) != 0 || ring.size < BOUNDLESS {
                // Partner: the fences in `keep_pace` and `wait_for_room`.
                fence(Ordering::SeqCst);
                if header.calls.pacing.load(Ordering::Relaxed) != 0 {
                    header.calls.pacing.store(0, Ordering::Relaxed);
                    header.calls.room.fetch_add(1, Ordering::Relaxed);
                    word::wake(&header.calls.room, u32::MAX >> 1);
                }
            }
            if end == tail && header.calls.watched.load(Ordering::Relaxed) != 0 {
                // If the lock is not free now, the next reader that checks does it.
                self.hush(None)?;
            }
            if end == tail && end - base > WORTH_IT {
                Sides::watch(&self.sides);
            }
            return Ok(Some(Taken { rest }));
        }
    }

    /// Copies the message at position `head` out. Returns None if it is large and only small messages were requested.
    fn read(
        &self,
        ring: Ring<'_>,
        head: u64,
        at: u64,
        tail: u64,
        first: &mut Vec<u8>,
        only_small: bool,
    ) -> Result<Option<(Vec<Buffer>, u64)>> {
        let damaged = || Error::Damaged("a message in a queue is longer than the queue");
        let room = tail - head;
        let mut window = local(&self.sides.reading);
        first.clear();
        if let Some(len) = window.read_message(ring, at, room, LONG_PART, first)? {
            return Ok(Some((Vec::new(), head + (16 + len as u64).next_multiple_of(8))));
        }
        let mut from = at;
        let parts = window.read_number(ring, &mut from)?;
        if parts == 0 || parts > MOST_PARTS as u64 || 8 + 8 * parts > room {
            return Err(damaged());
        }
        let mut content = at + 8 + 8 * parts;
        let mut rest = Vec::new();
        for index in 0..parts {
            let len = window.read_number(ring, &mut from)?;
            if len > room - (content - at) {
                return Err(damaged());
            }
            if only_small && len > LONG_PART as u64 {
                return Ok(None);
            }
            if index == 0 {
                window.read(ring, &mut content, len as usize, first)?;
            } else {
                let mut part = Buffer::default();
                window.read(ring, &mut content, len as usize, &mut part)?;
                rest.push(part);
            }
        }
        Ok(Some((rest, head + (content - at).next_multiple_of(8))))
    }

    /// Frees memory behind the head, `at` bytes into the data. The caller holds the readers' lock.
    fn give_back(&self, ring: Ring<'_>, at: u64, base: u64, unread: u64) {
        let header = self.header();
        let mut freed = header.freed.load(Ordering::Relaxed);
        if header.freed_base.load(Ordering::Relaxed) != base {
            header.freed_base.store(base, Ordering::Relaxed);
            header.freed.store(0, Ordering::Relaxed);
            freed = 0;
        }
        // The first lap's pages stay: when the writer starts over, fresh pages would cost it several times as much.
        freed = freed.max(LAP);
        let upto = at - at % memory::PAGES as u64;
        // A writer may reach these pages again, if the ring is small or nearly full.
        if upto.saturating_sub(freed) >= GIVE_BACK
            && (upto - freed).saturating_add(unread) < ring.size / 2
            && !self.is_limited()
        {
            // This is optional: if it fails, the memory stays until the log starts over.
            let _ = ring.release(freed, upto - freed);
            header.freed.store(upto, Ordering::Relaxed);
        }
    }
}
