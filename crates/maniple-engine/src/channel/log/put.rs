//! Putting messages into a log.

use super::order::{Span, in_order};
use super::sides::Sides;
use super::{Interrupted, KEEP, LAP, LONG_PART, Log, MOST_PARTS, START_OVER, WORTH_IT, hold_writers, local};
use crate::channel::layout::HEAD;
use crate::channel::window::{Ring, Window, write_by_handle};
use crate::error::{Error, Result};
use crate::wait::spin::Spin;
use crate::wait::word::{self, Woken};
use maniple_sys::memory;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// Pages for small messages are allocated so many bytes at a time.
const AHEAD: u64 = 64 * 1024;
/// Messages of a page and more keep pace with the readers: fresh memory for them costs more than their copy.
const PACED: usize = 4096;
/// How long a reader may take over one message while a writer waits for it.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a writer waits in total. If readers need longer for the content, fresh memory is the smaller part of a
/// message's cost.
const IN_ALL: Duration = Duration::from_millis(50);

/// How a message is put.
#[derive(Default)]
pub struct Terms<'a, 'b> {
    /// It is to be reported done ([`View::done`](super::View::done)).
    pub counted: bool,
    /// It does not wait for readers, even if it is large.
    pub hurried: bool,
    /// Called with the message's position before it is published. If it returns false, the message is not published.
    #[allow(clippy::type_complexity)]
    pub before: Option<&'a mut (dyn FnMut(u64) -> Result<bool> + 'b)>,
}

impl std::fmt::Debug for Terms<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("counted", &self.counted).field("hurried", &self.hurried).finish_non_exhaustive()
    }
}

/// The result of putting a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in.
    Done,
    /// The put would have to wait for another writer, or for readers, and must not.
    Busy,
    /// The log has as many messages as its bound allows ([`View::limit`](super::View::limit)).
    Full,
    /// The log's memory, which is limited ([`View::is_limited`](super::View::is_limited)), has no room for so many more
    /// bytes now.
    Cramped,
    /// The log was closed ([`Log::close`]).
    Closed,
    /// [`Terms::before`] rejected it.
    Refused,
}

impl Log {
    /// Puts a message in, its parts one after the other. Without `interrupted` it returns false if it would have to
    /// wait. `counted` says that the message has to be reported done ([`View::done`](super::View::done)).
    pub fn put(&self, parts: &[&[u8]], counted: bool, interrupted: Option<Interrupted<'_, '_>>) -> Result<bool> {
        Ok(self.put_on(parts, Terms { counted, ..Terms::default() }, interrupted)? == Put::Done)
    }

    /// The same on any terms.
    pub fn put_on(
        &self,
        parts: &[&[u8]],
        terms: Terms<'_, '_>,
        mut interrupted: Option<Interrupted<'_, '_>>,
    ) -> Result<Put> {
        let header = self.header();
        let total = parts.iter().map(|p| p.len()).sum::<usize>();
        if total >= PACED && !terms.hurried && self.is_ahead(total as u64) {
            let Some(interrupted) = interrupted.as_deref_mut() else { return Ok(Put::Busy) };
            self.keep_pace(total as u64, interrupted)?;
        }
        let Some(held) = hold_writers(header, interrupted)? else { return Ok(Put::Busy) };
        if self.is_closed() {
            return Ok(Put::Closed);
        }
        let ring = self.ring();
        let tail = header.writers.at.load(Ordering::Relaxed);
        // Partner: the reader's `advance`: the reader has read the bytes before this writer overwrites them.
        let head = header.readers.at.load(Ordering::Acquire);
        in_order(Span { base: header.base.load(Ordering::Relaxed), head, tail }, ring.size)?;
        let empty = head == tail;
        if self.is_full() {
            return Ok(Put::Full);
        }
        let length = length_of(parts)?;
        if length > ring.size {
            return Err(Error::Os { doing: "put a message into a queue that is limited", source: memory::too_long() });
        }
        if length > ring.size - (tail - head) {
            return Ok(Put::Cramped);
        }
        let mut base = header.base.load(Ordering::Relaxed);
        if empty && tail - base > START_OVER {
            self.shared.start_over(ring, tail, KEEP);
            base = tail;
        }
        self.write(ring, tail - base, length, parts)?;
        let end = tail + length;
        if let Some(before) = terms.before
            && !before(tail)?
        {
            return Ok(Put::Refused);
        }
        if terms.counted {
            header.count(tail);
        }
        if empty && header.calls.watched.load(Ordering::Relaxed) != 0 {
            self.shared.event.kick();
        }
        header.writers.advance(end);
        if terms.counted {
            header.calls.counting.store(0, Ordering::Release);
        }
        drop(held);
        header.calls.readers.call(|bell| word::wake(bell, 1));
        if end - base > WORTH_IT {
            Sides::watch(&self.sides);
        }
        Ok(Put::Done)
    }

    /// Whether a message would go beyond a lap's length while readers can be waited for.
    fn is_ahead(&self, total: u64) -> bool {
        let header = self.header();
        let head = header.readers.at.load(Ordering::Acquire);
        let tail = header.writers.at.load(Ordering::Acquire);
        let base = header.base.load(Ordering::Relaxed);
        let lap = tail.saturating_sub(base);
        let is_slow = self.stalled.load(Ordering::Relaxed) == head || self.slow.load(Ordering::Relaxed) == base;
        head != tail && lap + total > LAP && !is_slow && !self.reads.load(Ordering::Relaxed)
    }

    /// Lets readers catch up before a large message is put.
    fn keep_pace(&self, total: u64, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let header = self.header();
        let mut spin = Spin::default();
        let begun = Instant::now();
        let (mut seen_head, mut since) = (None, begun);
        let there = header.writers.at.load(Ordering::Acquire).saturating_sub(header.readers.at.load(Ordering::Acquire));
        loop {
            if begun.elapsed() > IN_ALL + Duration::from_nanos(there) {
                self.slow.store(header.base.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            let head = header.readers.at.load(Ordering::Acquire);
            if seen_head != Some(head) {
                (seen_head, since) = (Some(head), Instant::now());
            }
            let tail = header.writers.at.load(Ordering::Acquire);
            if !self.is_ahead(total) {
                return Ok(());
            }
            if spin.until(self.shared.cores > 1, || self.is_empty()) {
                return Ok(());
            }
            let seen = header.calls.room.load(Ordering::Relaxed);
            header.calls.pacing.store(1, Ordering::Relaxed);
            // Partner: the fence in `take`.
            fence(Ordering::SeqCst);
            if !self.is_empty() {
                // In addition, the time that a slow machine takes to copy the content.
                let patience = PATIENCE + Duration::from_nanos(tail - head.min(tail));
                let woken = word::sleep(&header.calls.room, seen, Some(patience));
                // Not by how the sleep ended: signals may arrive more often than its length.
                if since.elapsed() >= patience && header.readers.at.load(Ordering::Relaxed) == head {
                    self.stalled.store(head, Ordering::Relaxed);
                }
                if woken != Woken::Rung && interrupted() {
                    return Err(Error::Interrupted);
                }
            }
        }
    }

    /// Copies a message of `length` bytes in all to position `at` of the data.
    fn write(&self, ring: Ring<'_>, at: u64, length: u64, parts: &[&[u8]]) -> Result<()> {
        let header = self.header();
        let end = at + length;
        let mut window = local(&self.sides.writing);
        let mut to = at;
        let warm = header.used.load(Ordering::Relaxed);
        if length <= LONG_PART as u64 {
            self.prepare(&mut window, ring, at, end, warm)?;
            if window.write_message(ring, at, length, parts)? {
                header.has_used(end);
                return Ok(());
            }
        }
        self.prepare(&mut window, ring, at, at + 8 + 8 * parts.len() as u64, warm)?;
        window.write(ring, &mut to, &(parts.len() as u64).to_ne_bytes())?;
        for part in parts {
            window.write(ring, &mut to, &(part.len() as u64).to_ne_bytes())?;
        }
        for part in parts {
            let after = to + part.len() as u64;
            if part.len() > LONG_PART && after > warm && within_limit(ring, to, after) {
                // The write allocates its pages.
                write_by_handle(ring, &mut to, part)?;
                header.ready.fetch_max(after, Ordering::Relaxed);
                continue;
            }
            if part.len() > LONG_PART && after <= warm {
                window.map_in(ring, after.max(LAP).min(warm))?;
            }
            self.prepare(&mut window, ring, to, after, warm)?;
            window.write(ring, &mut to, part)?;
        }
        header.has_used(end);
        Ok(())
    }

    /// Allocates the missing pages up to `end`. The caller holds the writers' lock.
    fn prepare(&self, window: &mut Window, ring: Ring<'_>, at: u64, end: u64, warm: u64) -> Result<()> {
        let header = self.header();
        let ready = header.ready.load(Ordering::Relaxed);
        if end <= ready.max(warm) {
            return Ok(());
        }
        let mut from = ready.max(warm).max(at);
        let until = end.max(from + AHEAD);
        while from < until {
            match window.prepare(ring, from, until - from) {
                Ok(len) => from += len,
                // The pages in advance may be what exceeds the limit.
                Err(_) if from >= end => break,
                Err(error) => return Err(error),
            }
        }
        header.ready.store(from, Ordering::Relaxed);
        Ok(())
    }

    // ---- taking ----
}

/// Bytes that a message takes, with the numbers before it.
pub(super) fn length_of(parts: &[&[u8]]) -> Result<u64> {
    if parts.is_empty() || parts.len() > MOST_PARTS {
        return Err(Error::Damaged("a message has at least one part, and not too many"));
    }
    let total = 8 + 8 * parts.len() + parts.iter().map(|p| p.len()).sum::<usize>();
    Ok(total.next_multiple_of(8) as u64)
}

/// Whether this process may write to that place by the handle.
fn within_limit(ring: Ring<'_>, from: u64, to: u64) -> bool {
    let last = if from / ring.size == to / ring.size { to % ring.size } else { ring.size };
    HEAD as u64 + last <= memory::longest()
}
