//! A first-in first-out queue in shared memory, for any number of writers and readers, any of which may die at any time.
//!
//! The memory is a log: messages lie one behind the other at positions that only grow, and no message is ever split. A
//! writer copies its message behind the tail and then publishes it by moving the tail; a reader copies the message at
//! the head out and then takes it by moving the head. Each move is one store. So after a death a message is either not
//! put or completely there, and either not taken or taken by the dead process. Writers exclude each other by one lock,
//! readers by another. The kernel passes on the lock of a dead holder; only a count may need repair (`layout`).
//!
//! **Space.** The memory is a ring that is larger than any machine's memory; the system supplies pages when they are
//! written to. So putting never waits for a reader, and the messages of a process stay when it ends. The size never
//! changes, and is sealed: no process can truncate the memory while others map it. Only if file sizes are limited when
//! the log is made, or addresses have 32 bits ([`View::is_limited`]), the ring is so small that it can be full. When a writer finds the log empty
//! (head = tail) it may start over at the front of the memory: it moves `base`, and uses the warm pages there again. No
//! reader can be at work then, because a reader moves the head only when it has copied everything, and no reader begins
//! before the tail moves. While the log does not run empty, the reader returns pages behind the head to the system,
//! except for the first lap (see *Pace*). It does so before it moves the head, because the writer may not start over
//! until then.
//!
//! **Access.** Each side accesses the log through a window, a mapping of a piece of it. Only large messages are written
//! through the handle, into memory that was never used before: that allocates the pages without a fault for each. For
//! small messages pages are allocated in advance, some at a time: a lack of memory for them is an error of the `put`,
//! and not the end of the process.
//!
//! **Idleness.** The memory that an empty log keeps for reuse returns to the system when it has not been used for a
//! second ([`idle`](crate::idle)).
//!
//! **Pace.** Memory that was used a moment ago is several times faster than fresh memory. So a writer of a message of a
//! page or more that would go beyond a lap's length waits until readers have emptied the log, as long as they take
//! something every `PATIENCE`. If they do not, it continues at once, and does not wait again before they have emptied
//! the log. It waits for `IN_ALL` at most, and then not again until the log has been empty. It does not wait in a
//! process that takes messages itself.
//!
//! **Waiting.** A reader that finds nothing joins the [`wait_count`](crate::shm::wait_count), checks again and sleeps.
//! A writer publishes, then wakes one sleeper. If that sleeper dies before it takes the message, the others have not
//! been woken; so a reader sleeps in slices, after which it checks by itself.
//!
//! **Waiting by descriptor.** Some processes wait for the queue along with other things, by poll() or select(). As long
//! as no process does, the descriptor is not maintained. The first process that requests the descriptor sets `watched`;
//! from then on the descriptor is readable whenever there is a message. A writer that finds the log empty makes it
//! readable *before* it publishes. A reader that finds the log empty makes it quiet while it holds both locks. A death
//! can leave it readable although the log is empty, but never quiet although the log has a message. The next reader
//! that finds no message corrects it.
//!
//! **Beside the messages.** A front may send something along with a message by another channel, in the same order. The
//! log calls the writer's function under the writers' lock, before it publishes, and the reader's function under the
//! readers' lock, after it has taken the message. A killed writer may leave an orphan in that channel, and a killed
//! reader what it should have taken. Both differ from what belongs to the next message in the position, which only
//! grows, and in what the front adds to it.
#![allow(unsafe_code)]

mod limit;
mod order;
mod put;
mod sides;
mod take;
mod view;
mod wait;

pub use put::{Put, Terms};
pub use take::{After, Taken};
pub use view::View;

use super::layout::{HEAD, Header, MAGIC, Side};
use super::window::{Ring, Window};
use crate::error::{Doing, Error, Result};
use maniple_sys::epoch;
use maniple_sys::mutex::{Found, Mutex as Lock};
use maniple_sys::own::Own;
use maniple_sys::ready::Kick;
use maniple_sys::{self as sys, AsHandle, BorrowedHandle, OwnedHandle, memory};
use sides::Sides;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The greatest number of bytes of data; no machine fills it. With addresses of 32 bits no memory is that long: the log is
/// limited, and so short that a log that never runs empty does not keep all of the machine's memory.
const WHOLE: u64 = if cfg!(target_pointer_width = "32") { 256 << 20 } else { 1 << 42 };
const BOUNDLESS: u64 = 1 << 38;
/// Longer parts of a message are written by the handle if the memory is fresh, because mapping fresh pages costs more.
/// A call that never waits leaves a message with such a part to a call that may wait.
const LONG_PART: usize = 64 * 1024;
/// Bytes that large messages may take before a writer would rather start over.
const LAP: u64 = 8 << 20;
/// A writer starts over once it has used so much of the memory.
const START_OVER: u64 = 64 * 1024;
/// Memory that is kept for use when the log has run empty.
const KEEP: u64 = 80 << 20;
/// A log that has used so much is checked when it is idle.
const WORTH_IT: u64 = 2 * START_OVER;
/// Parts of one message at most.
pub const MOST_PARTS: usize = 1024;
const SLICE: Duration = Duration::from_millis(500);

/// Called from time to time during a wait. If it returns true, the wait ends with [`Error::Interrupted`].
pub type Interrupted<'a, 'b> = &'a mut (dyn FnMut() -> bool + 'b);

/// A queue of messages, each made of one or more parts.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    sides: Arc<Sides>,
    view: View,
    // The head at the last unsuccessful wait, and the base at the last wait that was too long.
    stalled: AtomicU64,
    slow: AtomicU64,
    // This process also takes messages, so a writer in it would wait for itself.
    reads: AtomicBool,
    // This process has closed its queue while some of its threads may still wait.
    shut: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    memory: Own,
    event: Kick,
    size: u64,
    head: Arc<memory::Mapping>,
    cores: usize,
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
        let event = Kick::new().doing("make a queue's event (eventfd2)")?;
        let head = memory::Mapping::new(memory.as_handle(), HEAD, memory::Share::All).doing("map a queue's memory")?;
        let header = head.start().cast::<Header>().as_ptr();
        // SAFETY: fresh memory that no other process knows yet, aligned to a page.
        unsafe {
            Lock::init(&raw mut (*header).writers.lock).doing("make a queue's lock")?;
            Lock::init(&raw mut (*header).readers.lock).doing("make a queue's lock")?;
            (*header).size.store(size, Ordering::Relaxed);
            (*header).magic.store(MAGIC, Ordering::Relaxed);
        }
        Log::over(Own::new(memory), event, size, head)
    }

    /// Makes as much memory as is allowed, and returns how many bytes of data have room in it.
    fn memory() -> Result<(OwnedHandle, u64)> {
        let limit = memory::longest().saturating_sub(HEAD as u64);
        let mut size = if limit >= WHOLE { WHOLE } else { limit - limit % memory::PAGES as u64 };
        loop {
            match memory::create("maniple-queue", HEAD + size.max(memory::PAGES as u64) as usize) {
                Ok(memory) => return Ok((memory, size)),
                // A system that makes no file so large.
                Err(error) if size > LAP && memory::is_too_long(&error) => size /= 2,
                Err(error) => return Err(error).doing("make a queue's memory (memfd_create, Linux 3.17 and newer)"),
            }
        }
    }

    /// Opens the log whose handles another process sent.
    pub fn open(memory: OwnedHandle, event: OwnedHandle) -> Result<Log> {
        let len = memory::len(&memory).doing("measure a queue's memory")?;
        if len <= HEAD {
            return Err(Error::BadHandles("the memory is too short for a queue"));
        }
        let head = memory::Mapping::new(memory.as_handle(), HEAD, memory::Share::All).doing("map a queue's memory")?;
        // SAFETY: as in `Shared::header`.
        let header = unsafe { head.start().cast::<Header>().as_ref() };
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Error::BadHandles("the memory does not contain a queue, or a queue of another version"));
        }
        let size = header.size.load(Ordering::Relaxed);
        if size == 0 || !size.is_multiple_of(memory::PAGES as u64) || size != (len - HEAD) as u64 {
            return Err(Error::BadHandles("the memory of a queue does not have the size that it states"));
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
            shut: AtomicBool::new(false),
        }
    }

    /// Returns the same queue for a forked child, in which a thread that the child does not have may have been using
    /// this value.
    pub fn again(&self) -> Log {
        Log::of(self.shared.clone())
    }

    /// What can be seen of it without its descriptors.
    pub fn view(&self) -> View {
        self.view.another()
    }

    /// Records that this process closes its queue. Threads that wait ask [`is_shut`](Log::is_shut) from time to time.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::Relaxed);
    }

    /// Whether this process has closed its queue.
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    fn ring(&self) -> Ring<'_> {
        self.shared.ring()
    }

    /// The handles by which another process can open it: memory, event.
    pub fn handles(&self) -> (BorrowedHandle<'_>, BorrowedHandle<'_>) {
        (self.shared.memory.as_handle(), self.shared.event.as_handle())
    }

    /// Whether a log that is made now would be limited ([`View::is_limited`]).
    pub fn would_be_limited() -> bool {
        memory::longest() < BOUNDLESS + HEAD as u64
    }

    // ---- putting ----
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
        // If readers have returned pages, there is a hole behind the first lap.
        let has_hole = header.freed_base.load(Ordering::Relaxed) == header.base.load(Ordering::Relaxed)
            && header.freed.load(Ordering::Relaxed) > LAP;
        let keep = if has_hole { keep.min(LAP) } else { keep };
        if used > keep {
            // If it fails, they are used again nevertheless.
            let _ = ring.release(keep, used.min(ring.size).saturating_sub(keep));
            header.used.store(keep, Ordering::Relaxed);
        }
        header.ready.store(0, Ordering::Relaxed);
        // Published with the tail; no reader uses it before that.
        header.base.store(tail, Ordering::Relaxed);
    }
}

fn local(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    // Never waits: its side's lock is held.
    window.lock().unwrap_or_else(PoisonError::into_inner)
}
