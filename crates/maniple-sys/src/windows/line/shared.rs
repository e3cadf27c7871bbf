//! The shared part of a line: its lock, its rings and the events that say what they have.
#![allow(unsafe_code)]

use crate::OwnedHandle;
use crate::terms::Share;
use crate::windows::memory::Mapping;
use crate::windows::mutex::{self, Found, Mutex};
use crate::windows::nt::{self, Closing};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

pub(super) const PREFIX: &str = "maniple-l-";

/// The bytes of a ring.
pub(super) const ROOM: u64 = 256 * 1024;
/// An end has room if a ring has so many bytes free: enough for any handles and some bytes.
pub(super) const LEAST: u64 = 16 * 1024;
pub(super) const HEADER: u64 = 8;
pub(super) const ENTRY: u64 = 24;
/// One direction: from an end to the other.
#[repr(C)]
pub(super) struct Way {
    /// Where the next record is read, and where it is written: counts of all bytes so far.
    pub(super) head: AtomicU64,
    pub(super) tail: AtomicU64,
    /// The bytes of the records, without their headers.
    pub(super) content: AtomicU64,
    /// How much a writer without room needs.
    pub(super) wanted: AtomicU64,
    /// A reader is giving the rest of a record a header.
    pub(super) is_splitting: AtomicU32,
    /// The writing end writes no more; the reading end reads no more.
    pub(super) is_ended: AtomicU32,
    pub(super) is_refused: AtomicU32,
    /// Whether the events are signalled: something to read, room to write.
    pub(super) says_readable: AtomicU32,
    pub(super) says_room: AtomicU32,
}

#[repr(C)]
pub(super) struct EndState {
    /// The process that used the end last: its number (low half) and birth.
    pub(super) user: AtomicU64,
    pub(super) is_marked: AtomicU32,
    pub(super) waits: AtomicU32,
}

#[repr(C)]
pub(super) struct Shared {
    pub(super) lock: Mutex,
    pub(super) ways: [Way; 2],
    pub(super) ends: [EndState; 2],
    /// The process that made the line, as `user`.
    pub(super) maker: AtomicU64,
    pub(super) is_broken: AtomicU32,
    pub(super) for_packets: AtomicU32,
    /// Of a listener: how many clients may wait. Of a client's line: whether it was accepted (1: not yet; 2: yes).
    pub(super) backlog: AtomicU32,
    pub(super) acceptance: AtomicU32,
}

pub(super) const START: usize = 4096;
pub(super) const LEN: usize = START + 2 * ROOM as usize;

/// The shared part of a line in this process.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: Box<str>,
    pub(super) mapping: Mapping,
    pub(super) section: OwnedSection,
    /// Readable at end 0, readable at end 1, room at end 0, room at end 1.
    pub(super) events: [Closing; 4],
}

/// A handle on the section, which goes with handles that travel.
#[derive(Debug)]
pub(super) struct OwnedSection(pub(super) Closing);

impl Line {
    pub(super) fn create(id: &str) -> io::Result<Line> {
        let (section, existed) = nt::create_section(&format!("Local\\{PREFIX}{id}"), LEN)?;
        if existed {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let line = Line::with(id, section)?;
        // SAFETY: the section is fresh; no other process knows its name yet.
        unsafe { Mutex::init((&raw const line.shared().lock).cast_mut())? };
        line.shared().maker.store(mutex::me(), Relaxed);
        line.locked(|shared| line.tell(shared, true));
        Ok(line)
    }

    pub(super) fn open(id: &str) -> io::Result<Line> {
        let section = nt::open_section(&format!("Local\\{PREFIX}{id}"))?;
        let line = Line::with(id, section)?;
        // The events may be new: no process may have had them open.
        line.locked(|shared| line.tell(shared, true));
        Ok(line)
    }

    pub(super) fn with(id: &str, section: OwnedHandle) -> io::Result<Line> {
        let mapping = Mapping::new(&section, LEN, Share::All)?;
        let event = |number: usize| nt::event(Some(&format!("Local\\{PREFIX}{id}-{number}"))).map(Closing::new);
        let events = [event(0)?, event(1)?, event(2)?, event(3)?];
        Ok(Line { id: id.into(), mapping, section: OwnedSection(Closing::new(section)), events })
    }

    pub(super) fn shared(&self) -> &Shared {
        const { assert!(size_of::<Shared>() <= START) };
        // SAFETY: the mapping has `LEN` bytes and lives as long as `self`; it begins with zeros, which are valid words, and
        // all processes use it by atomic operations.
        unsafe { self.mapping.start().cast().as_ref() }
    }

    /// Calls `with` under the lock.
    pub(super) fn locked<T>(&self, with: impl FnOnce(&Shared) -> T) -> T {
        let shared = self.shared();
        loop {
            match shared.lock.lock_within(Duration::from_secs(3600)) {
                Ok(Found::Ours) => break,
                Ok(Found::Orphaned) => {
                    self.mend(shared);
                    break;
                }
                Ok(Found::Taken) | Err(_) => {}
            }
        }
        let done = with(shared);
        // SAFETY: this thread has acquired it above.
        unsafe { shared.lock.unlock() };
        done
    }

    /// After the death of a holder of the lock. A writer moves the tail last and a reader the head, so what is between
    /// them is whole, except while a reader splits a record.
    pub(super) fn mend(&self, shared: &Shared) {
        for (number, way) in shared.ways.iter().enumerate() {
            let (mut head, tail, mut content) = (way.head.load(Relaxed), way.tail.load(Relaxed), 0);
            let mut is_whole = way.is_splitting.load(Relaxed) == 0;
            while is_whole && head != tail {
                let len = u64::from(self.word(number, head));
                let count = u64::from(self.word(number, head + 4));
                content += len;
                head += HEADER + count * ENTRY + len;
                is_whole = head <= tail;
            }
            way.content.store(content, Relaxed);
            if !is_whole {
                shared.is_broken.store(1, Relaxed);
            }
        }
        self.tell(shared, true);
    }

    /// Signals the events, or resets them, by the state of the rings. `anew`: also those that are right already.
    pub(super) fn tell(&self, shared: &Shared, anew: bool) {
        for (number, way) in shared.ways.iter().enumerate() {
            let is_broken = shared.is_broken.load(Relaxed) != 0;
            let over = is_broken || way.is_ended.load(Relaxed) != 0 || way.is_refused.load(Relaxed) != 0;
            for (says, is_now, event) in [
                (&way.says_readable, over || way.used() > 0, 1 - number),
                (&way.says_room, over || way.has_room(), 2 + number),
            ] {
                if anew || (says.load(Relaxed) != 0) != is_now {
                    says.store(u32::from(is_now), Relaxed);
                    nt::set_event(self.events[event].0, is_now);
                }
            }
        }
    }

    pub(super) fn ring(&self, way: usize) -> NonNull<u8> {
        // SAFETY: the rings are behind the first `START` bytes of the mapping, which has `LEN`.
        unsafe { self.mapping.start().add(START + way * ROOM as usize) }
    }

    /// Copies bytes into a ring, or out of it.
    pub(super) fn copy_in(&self, way: usize, at: u64, bytes: &[u8]) {
        let from = (at % ROOM) as usize;
        let first = bytes.len().min(ROOM as usize - from);
        // SAFETY: both parts are in the ring: no write is longer than its free bytes. The lock excludes other writers.
        unsafe {
            self.ring(way).add(from).copy_from_nonoverlapping(NonNull::from(&bytes[..first]).cast(), first);
            self.ring(way).copy_from_nonoverlapping(NonNull::from(&bytes[first..]).cast(), bytes.len() - first);
        }
    }

    pub(super) fn copy_out(&self, way: usize, at: u64, bytes: &mut [u8]) {
        let from = (at % ROOM) as usize;
        let first = bytes.len().min(ROOM as usize - from);
        let rest = bytes.len() - first;
        // SAFETY: both parts are in the ring: `first` and `rest` are at most its length. The lock excludes writers.
        unsafe {
            let to = NonNull::from(&mut *bytes).cast::<u8>();
            to.copy_from_nonoverlapping(self.ring(way).add(from), first);
            to.add(first).copy_from_nonoverlapping(self.ring(way), rest);
        }
    }

    pub(super) fn word(&self, way: usize, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.copy_out(way, at, &mut bytes);
        u32::from_ne_bytes(bytes)
    }

    pub(super) fn number(&self, way: usize, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.copy_out(way, at, &mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

impl Way {
    pub(super) fn used(&self) -> u64 {
        self.tail.load(Relaxed).wrapping_sub(self.head.load(Relaxed))
    }

    pub(super) fn has_room(&self) -> bool {
        ROOM.saturating_sub(self.used()) >= self.wanted.load(Relaxed).max(LEAST)
    }
}
