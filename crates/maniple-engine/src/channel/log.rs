//! A first-in first-out queue in shared memory, for any number of writers and readers, whoever of them dies when.
//!
//! The memory is a log: messages lie one behind the other at positions that only grow, and no message is ever split. A
//! writer copies its message behind the tail and then publishes it by moving the tail; a reader copies the message at the head
//! out and then takes it by moving the head. Each move is one store, so a death leaves a message either as if never put or
//! wholly there, either not taken or taken by the dead. Writers exclude each other by one lock, readers by another; the kernel
//! hands the lock of a dead holder on, and there is nothing half done to repair but a count (`layout`).
//!
//! **Space.** There is no end to wait for: the memory is a ring that is larger than any machine's, of which pages are taken when they are
//! written to. So putting never waits for a reader, and what a process has put stays when it ends. Its size never changes, and is sealed:
//! nobody can make it shorter under those who map it. Only where file sizes are limited when it is made ([`View::is_limited`]) the ring is
//! so small that it can be full. When a writer finds the log empty (head = tail) it may start over at the front of
//! the memory: it moves `base`, and the pages there, still warm, are used again. No reader can be at work then, for a
//! reader moves the head only when it has copied everything; and none begins before the tail moves. While the log does not run
//! empty, the reader gives pages behind the head back, but for the first lap (see *Pace*). It does so before it moves the head,
//! since the writer may not start over until then.
//!
//! **Access.** Through a window, a mapping of a piece of the log that each side keeps. Only large messages into memory that was
//! never used before are written through the handle: that makes the pages without a fault for each. For small ones pages are made ahead,
//! some at a time: where there is no memory for them, that is an error of the `put`, and not the end of the process.
//!
//! **Idleness.** What an empty log keeps to use again goes back when it has not been used for a second ([`idle`](crate::idle)).
//!
//! **Pace.** Memory that was used a moment ago is several times faster than fresh memory. So a writer of a message of a page or more that would
//! go beyond a lap's length waits until readers have emptied the log, as long as they take something every `PATIENCE`; where they
//! do not, it goes on at once, and does not wait again before they have. It waits for `IN_ALL` at most, and then no more until the
//! log has been empty; and not at all in a process that takes messages itself.
//!
//! **Waiting.** A reader that finds nothing joins the [`wait_count`](crate::shm::wait_count), looks again and sleeps; a writer publishes, then calls
//! one of them. If that one dies before it takes the message the others have been told nothing; so sleep comes in slices,
//! after which a sleeper looks by itself.
//!
//! **Waiting by descriptor.** Some wait for the queue along with other things, by poll() or select(). As long as nobody does,
//! nothing is done for it. The first who asks for the descriptor sets `watched`; from then on the descriptor is to be
//! readable whenever there is a message. A writer that finds the log empty makes it readable *before* it publishes; a reader
//! that finds the log empty makes it quiet while it holds both locks. Deaths can leave it readable over an empty log, never
//! quiet over a full one; the next reader that looks in vain puts it right.
//!
//! **Beside the messages.** A front may have something of its own that goes with a message by another way, in the same order. A
//! writer's is called under the writers' lock, before it publishes; a reader's under the readers' lock, after it has taken. A writer
//! killed in between leaves a stray there, and a reader what it should have taken: both are told from what belongs to the next
//! message by the position, which only grows, and what the front adds to it.
#![allow(unsafe_code)]

mod limit;
mod order;
mod sides;
mod view;
mod wait;

pub use view::View;

use order::{Span, in_order};

use super::layout::{HEAD, Header, MAGIC, Side};
use super::window::{Ring, Window, write_by_handle};
use crate::error::{Doing, Error, Result};
use crate::shm::buffers::Buffer;
use crate::wait::spin::Spin;
use crate::wait::word::{self, Woken};
use maniple_sys::epoch;
use maniple_sys::mutex::{Found, Mutex as Lock};
use maniple_sys::own::Own;
use maniple_sys::ready::Kick;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, memory};
use sides::Sides;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of data at most, and from how many on no machine fills it.
const WHOLE: u64 = 1 << 42;
const BOUNDLESS: u64 = 1 << 38;
/// Pages for small messages are made so many bytes at a time.
const AHEAD: u64 = 64 * 1024;
/// Messages of a page and more keep pace with the readers: what they would take of fresh memory costs more than their copy.
const PACED: usize = 4096;
/// Larger messages are written by the handle where the memory is fresh.
const LARGE: usize = 64 * 1024;
/// Bytes that large messages may take before a writer would rather start over.
const LAP: u64 = 8 << 20;
/// How long a reader may take over one message while a writer waits for it.
const PATIENCE: Duration = Duration::from_millis(10);
/// How long a writer waits in all. Where readers need longer for what is there, fresh memory is the smaller part of what a message costs.
const IN_ALL: Duration = Duration::from_millis(50);
/// A writer starts over once so much of the memory lies behind it.
const START_OVER: u64 = 64 * 1024;
/// Memory that is kept for use when the log has run empty.
const KEEP: u64 = 80 << 20;
/// A log that has used so much is looked at when it is idle.
const WORTH_IT: u64 = 2 * START_OVER;
/// Pages behind the head are given back in pieces of at least so many bytes.
const GIVE_BACK: u64 = 4 << 20;
/// Parts of one message at most.
pub const MOST_PARTS: usize = 1024;
const SLICE: Duration = Duration::from_millis(500);

/// Asked now and then while something waits: true breaks the wait off, with [`Error::Interrupted`].
pub type Interrupted<'a, 'b> = &'a mut (dyn FnMut() -> bool + 'b);

/// A queue of messages, each made of one or more parts.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    sides: Arc<Sides>,
    view: View,
    // The head, when it was last waited for in vain; and the base, when it was waited for too long.
    stalled: AtomicU64,
    slow: AtomicU64,
    // Messages are taken in this process, too: it would wait for itself.
    reads: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    memory: Own,
    event: Kick,
    size: u64,
    head: Arc<memory::Mapping>,
    cores: usize,
}

/// How a message is put.
#[derive(Default)]
pub struct Terms<'a, 'b> {
    /// It is to be reported done ([`View::done`]).
    pub counted: bool,
    /// It does not wait for readers, were it large.
    pub hurried: bool,
    /// Called with the message's position before it is published. False: it is not to be.
    #[allow(clippy::type_complexity)]
    pub before: Option<&'a mut (dyn FnMut(u64) -> Result<bool> + 'b)>,
}

impl std::fmt::Debug for Terms<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("counted", &self.counted).field("hurried", &self.hurried).finish_non_exhaustive()
    }
}

/// What has become of a message that was to be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is in.
    Done,
    /// It would have to wait for another writer, or for readers, and is not to.
    Busy,
    /// There are as many as there may be ([`View::limit`]).
    Full,
    /// Its memory, which is limited ([`View::is_limited`]), has no room for so many bytes more now.
    Cramped,
    /// The log was closed ([`Log::close`]).
    Closed,
    /// [`Terms::before`] did not want it.
    Refused,
}

/// Called under the readers' lock with the position of a message that was taken and its first part.
pub type After<'a, 'b> = &'a mut (dyn FnMut(u64, &[u8]) + 'b);

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// The parts after the first.
    pub rest: Vec<Buffer>,
}

/// One side's lock, held.
struct Held<'a>(&'a Lock, PhantomData<*const ()>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SAFETY: a `Held` exists only on the thread that took the lock, and cannot leave it.
        unsafe { self.0.unlock() };
    }
}

fn hold<'a>(side: &'a Side, interrupted: Option<Interrupted<'_, '_>>) -> Result<Option<Held<'a>>> {
    let mut found = side.lock.try_lock().doing("take a queue's lock")?;
    if found == Found::Taken {
        let Some(interrupted) = interrupted else { return Ok(None) };
        loop {
            found = side.lock.lock_within(Duration::from_millis(50)).doing("take a queue's lock")?;
            if found != Found::Taken {
                break;
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
    let held = Held(&side.lock, PhantomData);
    if found == Found::Orphaned {
        side.mend();
    }
    Ok(Some(held))
}

/// The writers' lock.
fn hold_writers<'a>(header: &'a Header, interrupted: Option<Interrupted<'_, '_>>) -> Result<Option<Held<'a>>> {
    let held = hold(&header.writers, interrupted)?;
    if held.is_some() {
        header.mend_counted();
    }
    Ok(held)
}

impl Log {
    /// A new, empty one.
    pub fn create() -> Result<Log> {
        let (memory, size) = Log::memory()?;
        let event = Kick::new().doing("make a queue's event")?;
        let head = memory::Mapping::new(memory.as_handle(), HEAD, memory::Share::All).doing("map a queue's memory")?;
        let header = head.start().cast::<Header>().as_ptr();
        // SAFETY: fresh memory that nobody else knows yet, aligned to a page.
        unsafe {
            Lock::init(&raw mut (*header).writers.lock).doing("make a queue's lock")?;
            Lock::init(&raw mut (*header).readers.lock).doing("make a queue's lock")?;
            (*header).size.store(size, Ordering::Relaxed);
            (*header).magic.store(MAGIC, Ordering::Relaxed);
        }
        Log::over(Own::new(memory), event, size, head)
    }

    /// As much memory as there may be, and how many bytes of data have room in it.
    fn memory() -> Result<(OwnedHandle, u64)> {
        let limit = memory::longest().saturating_sub(HEAD as u64);
        let mut size = if limit >= WHOLE { WHOLE } else { limit - limit % memory::PAGES as u64 };
        loop {
            match memory::create("maniple-queue", HEAD + size.max(memory::PAGES as u64) as usize) {
                Ok(memory) => return Ok((memory, size)),
                // A system that makes no file so large.
                Err(error) if size > LAP && memory::is_too_long(&error) => size /= 2,
                Err(error) => return Err(error).doing("make a queue's memory"),
            }
        }
    }

    /// The one whose handles another process gave.
    pub fn open(memory: OwnedHandle, event: OwnedHandle) -> Result<Log> {
        let len = memory::len(&memory).doing("measure a queue's memory")?;
        if len <= HEAD {
            return Err(Error::BadHandles("the memory is too short for a queue"));
        }
        let head = memory::Mapping::new(memory.as_handle(), HEAD, memory::Share::All).doing("map a queue's memory")?;
        // SAFETY: as in `Shared::header`.
        let header = unsafe { head.start().cast::<Header>().as_ref() };
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Error::BadHandles("the memory is not a queue's, or is that of another version"));
        }
        let size = header.size.load(Ordering::Relaxed);
        if size == 0 || !size.is_multiple_of(memory::PAGES as u64) || size != (len - HEAD) as u64 {
            return Err(Error::BadHandles("the memory of a queue has another size than it says"));
        }
        Log::over(Own::new(memory), Kick::from_handle(event), size, head)
    }

    fn over(memory: Own, event: Kick, size: u64, head: memory::Mapping) -> Result<Log> {
        epoch::count_forks().doing("watch for forks")?;
        Ok(Log::of(Arc::new(Shared { memory, event, size, head: Arc::new(head), cores: sys::cores() })))
    }

    fn of(shared: Arc<Shared>) -> Log {
        let sides = Arc::new(Sides::of(shared.clone()));
        let view = View::of(&shared);
        Log {
            shared,
            sides,
            view,
            stalled: AtomicU64::new(u64::MAX),
            slow: AtomicU64::new(u64::MAX),
            reads: AtomicBool::new(false),
        }
    }

    /// The same queue for a forked child, in which a thread that is not there may have been using this value.
    pub fn again(&self) -> Log {
        Log::of(self.shared.clone())
    }

    /// What can be seen of it without its descriptors.
    pub fn view(&self) -> View {
        self.view.another()
    }

    fn ring(&self) -> Ring<'_> {
        self.shared.ring()
    }

    /// The handles by which another process can open it: memory, event.
    pub fn handles(&self) -> (BorrowedHandle<'_>, BorrowedHandle<'_>) {
        (self.shared.memory.as_handle(), self.shared.event.as_handle())
    }

    /// Whether one that is made now would be limited ([`View::is_limited`]).
    pub fn would_be_limited() -> bool {
        memory::longest() < BOUNDLESS + HEAD as u64
    }

    // ---- putting ----

    /// Puts a message in, its parts one after the other. False, if `interrupted` is not given: it would have to wait.
    /// `counted`: it is to be reported done ([`View::done`]).
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
        // Partner: the reader's `advance`: what it read it has read before we write over it.
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
                // And as long as a slow machine takes to copy what is there.
                let patience = PATIENCE + Duration::from_nanos(tail - head.min(tail));
                let woken = word::sleep(&header.calls.room, seen, Some(patience));
                // Not by how the sleep ended: signals may come more often than it is long.
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
        self.prepare(&mut window, ring, at, at + 8 + 8 * parts.len() as u64, warm)?;
        window.write(ring, &mut to, &(parts.len() as u64).to_ne_bytes())?;
        for part in parts {
            window.write(ring, &mut to, &(part.len() as u64).to_ne_bytes())?;
        }
        for part in parts {
            let after = to + part.len() as u64;
            if part.len() > LARGE && after > warm && within_limit(ring, to, after) {
                // It has its pages made on the way.
                write_by_handle(ring, &mut to, part)?;
                header.ready.fetch_max(after, Ordering::Relaxed);
                continue;
            }
            if part.len() > LARGE && after <= warm {
                window.map_in(ring, after.max(LAP).min(warm))?;
            }
            self.prepare(&mut window, ring, to, after, warm)?;
            window.write(ring, &mut to, part)?;
        }
        header.used.fetch_max(end, Ordering::Relaxed);
        header.recent.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Has pages made up to `end`, where there are none yet. The caller holds the writers' lock.
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
                // What was only for later may be what is too much.
                Err(_) if from >= end => break,
                Err(error) => return Err(error),
            }
        }
        header.ready.store(from, Ordering::Relaxed);
        Ok(())
    }

    // ---- taking ----

    /// Takes the next message: its first part into `first`, which is emptied before, the others apart. None: there is none,
    /// or, if `interrupted` is not given, it would take time: another reader is at it, or it is large.
    pub fn take(&self, first: &mut Vec<u8>, interrupted: Option<Interrupted<'_, '_>>) -> Result<Option<Taken>> {
        self.take_and(first, interrupted, &mut |_, _| {})
    }

    /// The same with something to be done under the lock.
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
                // Where it cannot be had now, whoever looks next does it.
                self.hush(None)?;
            }
            if end == tail && end - base > WORTH_IT {
                Sides::watch(&self.sides);
            }
            return Ok(Some(Taken { rest }));
        }
    }

    /// Copies the message at position `head` out. None: it is large, and only small ones were wanted.
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
        let mut from = at;
        let parts = window.read_number(ring, &mut from)?;
        if parts == 0 || parts > MOST_PARTS as u64 || 8 + 8 * parts > room {
            return Err(damaged());
        }
        let mut content = at + 8 + 8 * parts;
        let mut rest = Vec::new();
        first.clear();
        for index in 0..parts {
            let len = window.read_number(ring, &mut from)?;
            if len > room - (content - at) {
                return Err(damaged());
            }
            if only_small && len > LARGE as u64 {
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
        // The first lap's pages stay: when the writer starts over, fresh ones would cost it several times as much.
        freed = freed.max(LAP);
        let upto = at - at % memory::PAGES as u64;
        // A writer may come round the ring to these pages, if it is small or nearly full.
        if upto.saturating_sub(freed) >= GIVE_BACK
            && (upto - freed).saturating_add(unread) < ring.size / 2
            && !self.is_limited()
        {
            // It is only tidiness: if it fails, the memory stays until the log starts over.
            let _ = ring.release(freed, upto - freed);
            header.freed.store(upto, Ordering::Relaxed);
        }
    }
}

/// Bytes that a message takes, with the numbers before it.
fn length_of(parts: &[&[u8]]) -> Result<u64> {
    if parts.is_empty() || parts.len() > MOST_PARTS {
        return Err(Error::Damaged("a message has at least one part, and not too many"));
    }
    let total = 8 + 8 * parts.len() + parts.iter().map(|p| p.len()).sum::<usize>();
    Ok(total.next_multiple_of(8) as u64)
}

/// Whether this process may write there by the handle.
fn within_limit(ring: Ring<'_>, from: u64, to: u64) -> bool {
    let last = if from / ring.size == to / ring.size { to % ring.size } else { ring.size };
    HEAD as u64 + last <= memory::longest()
}

impl Deref for Log {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl Shared {
    fn ring(&self) -> Ring<'_> {
        Ring { memory: &self.memory, size: self.size }
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is as long as the head and lives as long as `self`; all fields are atomics or locks, valid in any state.
        unsafe { self.head.start().cast::<Header>().as_ref() }
    }

    /// Moves the front of the data to the tail, keeping the pages of so many bytes. The caller holds the writers' lock, and the log is
    /// empty.
    fn start_over(&self, ring: Ring<'_>, tail: u64, keep: u64) {
        let header = self.header();
        let used = header.used.load(Ordering::Relaxed);
        // Where readers have given something back, there is a hole behind the first lap.
        let has_hole = header.freed_base.load(Ordering::Relaxed) == header.base.load(Ordering::Relaxed)
            && header.freed.load(Ordering::Relaxed) > LAP;
        let keep = if has_hole { keep.min(LAP) } else { keep };
        if used > keep {
            // If it fails, they are used again all the same.
            let _ = ring.release(keep, used.min(ring.size).saturating_sub(keep));
            header.used.store(keep, Ordering::Relaxed);
        }
        header.ready.store(0, Ordering::Relaxed);
        // Published with the tail; nobody uses it before that.
        header.base.store(tail, Ordering::Relaxed);
    }
}

fn local(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    // Never waits: its side's lock is held.
    window.lock().unwrap_or_else(PoisonError::into_inner)
}
