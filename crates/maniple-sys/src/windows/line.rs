//! Lines: connections of this machine for both directions, which carry bytes or packets, and handles with them.
//!
//! The system's pipes cannot close one direction, do not tell whether they have room, and carry no handles. A line is
//! therefore a *ring* for each direction in shared memory, four events that say which end can read or has room, and a
//! named pipe **without data**: its ends are the line's handles, and it tells each end when the last handle on the
//! other end is closed, even by a crash.
//!
//! ```text
//! handle ── name of the pipe ──▶ section `maniple-l-<name>`   lock, two rings, states of the ends
//!                           └──▶ events  `maniple-l-<name>-0…3`
//! ```
//! Everything is found by the pipe's name, so a handle is enough, in every process. The section and the events exist as
//! long as a process uses the line; a handle that travels takes the section with it.
//!
//! **A record** in a ring: its length (4 bytes), the number of its handles (4 bytes), for each handle three numbers (the
//! process that has it, its number there, the number of the line's section or 0), and the bytes. All words of the shared
//! part change under the lock. If a holder of the lock dies, the records stay, unless it was splitting one: then the line
//! is *broken*, and both ends find it closed.
//!
//! **Handles** are duplicated into the process that used the other end last. If another process receives them, it
//! takes them from there.
#![allow(unsafe_code)]

use super::holder;
use super::memory::Mapping;
use super::mutex::{self, Found, Mutex};
use super::nt::{self, Closing};
use crate::handle::known::{self, Known};
use crate::terms::Share;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io::{self, IoSlice};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;
use windows_sys::Win32::Foundation::{GENERIC_READ, GENERIC_WRITE};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_FIRST_PIPE_INSTANCE, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, PIPE_ACCESS_DUPLEX,
    PIPE_ACCESS_INBOUND,
};
use windows_sys::Win32::System::Pipes::{
    CreateNamedPipeW, GetNamedPipeInfo, PIPE_REJECT_REMOTE_CLIENTS, PIPE_SERVER_END, PIPE_TYPE_BYTE, PeekNamedPipe,
};
use windows_sys::Win32::System::Threading::{PROCESS_DUP_HANDLE, PROCESS_QUERY_LIMITED_INFORMATION};

const PREFIX: &str = "maniple-l-";

/// The bytes of a ring.
const ROOM: u64 = 256 * 1024;
/// An end has room if a ring has so many bytes free: enough for any handles and some bytes.
const LEAST: u64 = 16 * 1024;
const HEADER: u64 = 8;
const ENTRY: u64 = 24;
/// The longest packet.
pub const LONGEST: usize = (ROOM - LEAST) as usize;
/// The most handles of a record.
pub const MOST: usize = 253;

/// One direction: from an end to the other.
#[repr(C)]
struct Way {
    /// Where the next record is read, and where it is written: counts of all bytes so far.
    head: AtomicU64,
    tail: AtomicU64,
    /// The bytes of the records, without their headers.
    content: AtomicU64,
    /// How much a writer without room needs.
    wanted: AtomicU64,
    /// A reader is giving the rest of a record a header.
    is_splitting: AtomicU32,
    /// The writing end writes no more; the reading end reads no more.
    is_ended: AtomicU32,
    is_refused: AtomicU32,
    /// Whether the events are signalled: something to read, room to write.
    says_readable: AtomicU32,
    says_room: AtomicU32,
}

#[repr(C)]
struct EndState {
    /// The process that used the end last: its number (low half) and birth.
    user: AtomicU64,
    is_marked: AtomicU32,
    waits: AtomicU32,
}

#[repr(C)]
struct Shared {
    lock: Mutex,
    ways: [Way; 2],
    ends: [EndState; 2],
    is_broken: AtomicU32,
    for_packets: AtomicU32,
    /// Of a listener: how many clients may wait. Of a client's line: whether it was accepted (1: not yet; 2: yes).
    backlog: AtomicU32,
    acceptance: AtomicU32,
}

const START: usize = 4096;
const LEN: usize = START + 2 * ROOM as usize;

/// The shared part of a line in this process.
#[derive(Debug)]
struct Line {
    mapping: Mapping,
    section: OwnedSection,
    /// Readable at end 0, readable at end 1, room at end 0, room at end 1.
    events: [Closing; 4],
}

/// A handle on the section, which goes with handles that travel.
#[derive(Debug)]
struct OwnedSection(Closing);

/// An end of a line.
#[derive(Clone, Debug)]
pub struct End {
    line: Arc<Line>,
    side: usize,
    /// Of a listener: the other end of its pipe, which no client opens.
    #[expect(dead_code, reason = "held, not used")]
    keeps: Option<Arc<Closing>>,
}

/// The outcome of a read or write.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// So many bytes.
    Bytes(usize),
    /// Nothing to read, or no room.
    Nothing,
}

/// The two ends of a new pipe; the first is the server's. `both`: for both directions, otherwise from the second to
/// the first.
pub fn pipe_ends(name: &str, both: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    const BUFFER: u32 = 64 * 1024;
    let name = nt::wide(format!("\\\\.\\pipe\\{name}"));
    let access = if both { PIPE_ACCESS_DUPLEX } else { PIPE_ACCESS_INBOUND };
    let flags = FILE_FLAG_FIRST_PIPE_INSTANCE | FILE_FLAG_OVERLAPPED;
    let kind = PIPE_TYPE_BYTE | PIPE_REJECT_REMOTE_CLIENTS;
    // SAFETY: the name ends with NUL, and the attributes are the system's defaults.
    let server = nt::opened(unsafe {
        CreateNamedPipeW(name.as_ptr(), access | flags, kind, 1, BUFFER, BUFFER, 0, std::ptr::null())
    })?;
    let access = if both { GENERIC_READ | GENERIC_WRITE } else { GENERIC_WRITE };
    // SAFETY: as above. The name is unpredictable, and the pipe takes one client.
    let client = nt::opened(unsafe {
        let none = std::ptr::null();
        CreateFileW(name.as_ptr(), access, 0, none, OPEN_EXISTING, FILE_FLAG_OVERLAPPED, std::ptr::null_mut())
    })?;
    Ok((server, client))
}

/// Returns whether the other end of a pipe is closed. False for a handle that leads to no pipe.
pub fn is_pipe_closed(number: isize) -> bool {
    match peek(number) {
        Ok(_) => false,
        Err(error) if is_write_only(&error) => nt::is_pipe_closing(number),
        Err(error) => is_end(&error),
    }
}

/// Returns whether the error of a look into a pipe says that the handle is for writes alone.
pub fn is_write_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Returns how many bytes a pipe has.
pub fn peek(number: isize) -> io::Result<usize> {
    let mut available = 0;
    let none = std::ptr::null_mut();
    // SAFETY: writes to `available` alone.
    nt::check(unsafe {
        PeekNamedPipe(nt::raw(number), none, 0, std::ptr::null_mut(), &mut available, std::ptr::null_mut())
    })?;
    Ok(available as usize)
}

/// Returns whether an error says that the other end of a pipe is closed.
pub fn is_end(error: &io::Error) -> bool {
    const BROKEN_PIPE: i32 = 109;
    const NO_DATA: i32 = 232;
    const PIPE_NOT_CONNECTED: i32 = 233;
    error.raw_os_error().is_some_and(|number| [BROKEN_PIPE, NO_DATA, PIPE_NOT_CONNECTED].contains(&number))
}

/// Creates a line, and returns its two ends. With a name, both ends find the same listener.
pub fn pair(for_packets: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    let id = nt::random_name()?;
    let (a, b) = pipe_ends(&format!("{PREFIX}{id}"), true)?;
    let line = Arc::new(Line::create(&id)?);
    line.shared().for_packets.store(u32::from(for_packets), Relaxed);
    known::note(a.as_raw(), Known::Line(Arc::new(End::new(line.clone(), 0))));
    known::note(b.as_raw(), Known::Line(Arc::new(End::new(line, 1))));
    Ok((a, b))
}

/// Returns the end that a handle leads to.
pub fn of(handle: BorrowedHandle<'_>) -> Option<Arc<End>> {
    match known::of(handle.as_raw()) {
        Some(Known::Line(end)) => return end.downcast().ok(),
        Some(_) => return None,
        None => {}
    }
    let name = nt::pipe_name(handle.as_raw())?;
    let id = name.strip_prefix(PREFIX)?;
    let mut flags = 0;
    let none = std::ptr::null_mut();
    // SAFETY: writes to `flags` alone.
    nt::check(unsafe { GetNamedPipeInfo(nt::raw(handle.as_raw()), &mut flags, none, none, none) }).ok()?;
    let side = usize::from(flags & PIPE_SERVER_END == 0);
    let end = Arc::new(End::new(Arc::new(Line::open(id).ok()?), side));
    known::note(handle.as_raw(), Known::Line(end.clone()));
    Some(end)
}

impl Line {
    fn create(id: &str) -> io::Result<Line> {
        let (section, existed) = nt::create_section(&format!("Local\\{PREFIX}{id}"), LEN)?;
        if existed {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let line = Line::with(id, section)?;
        // SAFETY: the section is fresh; no other process knows its name yet.
        unsafe { Mutex::init((&raw const line.shared().lock).cast_mut())? };
        line.locked(|shared| line.tell(shared, true));
        Ok(line)
    }

    fn open(id: &str) -> io::Result<Line> {
        let section = nt::open_section(&format!("Local\\{PREFIX}{id}"))?;
        let line = Line::with(id, section)?;
        // The events may be new: no process may have had them open.
        line.locked(|shared| line.tell(shared, true));
        Ok(line)
    }

    fn with(id: &str, section: OwnedHandle) -> io::Result<Line> {
        let mapping = Mapping::new(&section, LEN, Share::All)?;
        let event = |number: usize| nt::event(Some(&format!("Local\\{PREFIX}{id}-{number}"))).map(Closing::new);
        let events = [event(0)?, event(1)?, event(2)?, event(3)?];
        Ok(Line { mapping, section: OwnedSection(Closing::new(section)), events })
    }

    fn shared(&self) -> &Shared {
        const { assert!(size_of::<Shared>() <= START) };
        // SAFETY: the mapping has `LEN` bytes and lives as long as `self`; it begins with zeros, which are valid words, and
        // all processes use it by atomic operations.
        unsafe { self.mapping.start().cast().as_ref() }
    }

    /// Calls `with` under the lock.
    fn locked<T>(&self, with: impl FnOnce(&Shared) -> T) -> T {
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
    fn mend(&self, shared: &Shared) {
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
    fn tell(&self, shared: &Shared, anew: bool) {
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

    fn ring(&self, way: usize) -> NonNull<u8> {
        // SAFETY: the rings are behind the first `START` bytes of the mapping, which has `LEN`.
        unsafe { self.mapping.start().add(START + way * ROOM as usize) }
    }

    /// Copies bytes into a ring, or out of it.
    fn copy_in(&self, way: usize, at: u64, bytes: &[u8]) {
        let from = (at % ROOM) as usize;
        let first = bytes.len().min(ROOM as usize - from);
        // SAFETY: both parts are in the ring: no write is longer than its free bytes. The lock excludes other writers.
        unsafe {
            self.ring(way).add(from).copy_from_nonoverlapping(NonNull::from(&bytes[..first]).cast(), first);
            self.ring(way).copy_from_nonoverlapping(NonNull::from(&bytes[first..]).cast(), bytes.len() - first);
        }
    }

    fn copy_out(&self, way: usize, at: u64, bytes: &mut [u8]) {
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

    fn word(&self, way: usize, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.copy_out(way, at, &mut bytes);
        u32::from_ne_bytes(bytes)
    }

    fn number(&self, way: usize, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.copy_out(way, at, &mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

impl Way {
    fn used(&self) -> u64 {
        self.tail.load(Relaxed).wrapping_sub(self.head.load(Relaxed))
    }

    fn has_room(&self) -> bool {
        ROOM.saturating_sub(self.used()) >= self.wanted.load(Relaxed).max(LEAST)
    }
}

/// What goes with a record: a process, a number there, the number of a section there.
type Entry = [u64; 3];

impl End {
    fn new(line: Arc<Line>, side: usize) -> End {
        let end = End { line, side, keeps: None };
        end.state().user.store(mutex::me(), Relaxed);
        end
    }

    fn state(&self) -> &EndState {
        &self.line.shared().ends[self.side]
    }

    fn other_state(&self) -> &EndState {
        &self.line.shared().ends[1 - self.side]
    }

    /// The event that says that this end can read, and the one that says that it has room.
    pub fn events(&self) -> (isize, isize) {
        (self.line.events[self.side].0, self.line.events[2 + self.side].0)
    }

    /// Whether a read would not wait.
    pub fn is_readable(&self, handle: isize) -> bool {
        let shared = self.line.shared();
        let way = &shared.ways[1 - self.side];
        way.used() > 0 || self.is_over(shared, way) || is_pipe_closed(handle)
    }

    /// Whether a write would not wait.
    pub fn has_room(&self, handle: isize) -> bool {
        let shared = self.line.shared();
        let way = &shared.ways[self.side];
        way.has_room() || self.is_over(shared, way) || is_pipe_closed(handle)
    }

    fn is_over(&self, shared: &Shared, way: &Way) -> bool {
        [&shared.is_broken, &way.is_ended, &way.is_refused].iter().any(|word| word.load(Relaxed) != 0)
    }

    pub fn is_for_packets(&self) -> bool {
        self.line.shared().for_packets.load(Relaxed) != 0
    }

    /// Writes a record: all of the parts (`whole`), or as much as there is room for. The handles go with the first byte.
    pub fn write(
        &self,
        handle: isize,
        parts: &[IoSlice<'_>],
        handles: &[BorrowedHandle<'_>],
        whole: bool,
    ) -> io::Result<Done> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let whole = whole || self.is_for_packets();
        if handles.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 253 handles in one message"));
        }
        if whole && total > LONGEST {
            let text = format!("a packet of {total} bytes; a connection carries at most {LONGEST} at once");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if is_pipe_closed(handle) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // Outside the lock: the calls take long. They are undone if there is no room.
        let entries = self.give(handles)?;
        let done = self.line.locked(|shared| {
            let way = &shared.ways[self.side];
            if self.is_over(shared, way) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if total == 0 && !whole {
                return Ok(Done::Bytes(0));
            }
            let ahead = HEADER + ENTRY * entries.len() as u64;
            let least = if whole { ahead + total as u64 } else { LEAST };
            let free = ROOM - way.used().min(ROOM);
            if free < least.max(LEAST) {
                way.wanted.store(least, Relaxed);
                self.line.tell(shared, false);
                return Ok(Done::Nothing);
            }
            let len = total.min((free - ahead) as usize);
            let mut at = way.tail.load(Relaxed);
            self.line.copy_in(self.side, at, &(len as u32).to_ne_bytes());
            self.line.copy_in(self.side, at + 4, &(entries.len() as u32).to_ne_bytes());
            at += HEADER;
            for number in entries.iter().flatten() {
                self.line.copy_in(self.side, at, &number.to_ne_bytes());
                at += 8;
            }
            let mut left = len;
            for part in parts {
                let piece = &part[..part.len().min(left)];
                self.line.copy_in(self.side, at, piece);
                at += piece.len() as u64;
                left -= piece.len();
            }
            std::sync::atomic::compiler_fence(SeqCst);
            way.tail.store(at, Relaxed);
            way.content.fetch_add(len as u64, Relaxed);
            way.wanted.store(0, Relaxed);
            self.line.tell(shared, false);
            Ok(Done::Bytes(len))
        });
        if !matches!(done, Ok(Done::Bytes(_))) {
            entries.into_iter().for_each(|entry| drop(take(entry)));
        }
        done
    }

    /// Reads: from a packet, or from as many records as have bytes for it and no more handles. `None` for the handles:
    /// they are closed. `peeks`: everything stays, and no handle is taken.
    pub fn read(
        &self,
        handle: isize,
        bytes: &mut [u8],
        handles: Option<&mut Vec<OwnedHandle>>,
        peeks: bool,
    ) -> io::Result<(Done, bool)> {
        let for_packets = self.is_for_packets();
        let way_number = 1 - self.side;
        if bytes.is_empty() && !for_packets {
            return Ok((Done::Bytes(0), true));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let done = self.line.locked(|shared| {
            let way = &shared.ways[way_number];
            if way.is_refused.load(Relaxed) != 0 || shared.is_broken.load(Relaxed) != 0 {
                return Done::Bytes(0);
            }
            let (mut head, tail, mut got) = (way.head.load(Relaxed), way.tail.load(Relaxed), 0);
            if head == tail {
                // Nothing can come any more: the other end needs the lock to write.
                let is_over = way.is_ended.load(Relaxed) != 0 || is_pipe_closed(handle);
                return if is_over { Done::Bytes(0) } else { Done::Nothing };
            }
            while head != tail {
                let len = u64::from(self.line.word(way_number, head));
                let count = u64::from(self.line.word(way_number, head + 4)).min(MOST as u64);
                if got > 0 && (count > 0 || for_packets || got == bytes.len()) {
                    break;
                }
                let start = head + HEADER + count * ENTRY;
                let end = start + len;
                if end.wrapping_sub(head) > tail.wrapping_sub(head) {
                    // Another process has written nonsense.
                    shared.is_broken.store(1, Relaxed);
                    break;
                }
                let n = (bytes.len() - got).min(len as usize);
                self.line.copy_out(way_number, start, &mut bytes[got..got + n]);
                got += n;
                if peeks {
                    head = end;
                    if for_packets { break } else { continue }
                }
                for number in 0..count {
                    let at = head + HEADER + number * ENTRY;
                    entries.push([0, 8, 16].map(|field| self.line.number(way_number, at + field)));
                }
                let taken = if for_packets { len } else { n as u64 };
                way.content.fetch_sub(taken, Relaxed);
                if taken == len {
                    head = end;
                } else {
                    // The rest becomes a record of its own: its header is where bytes were that are read.
                    head = start + taken - HEADER;
                    way.is_splitting.store(1, Relaxed);
                    std::sync::atomic::compiler_fence(SeqCst);
                    self.line.copy_in(way_number, head, &((len - taken) as u32).to_ne_bytes());
                    self.line.copy_in(way_number, head + 4, &0u32.to_ne_bytes());
                }
                // The death of this process may come between any two of these writes, but not reorder them.
                std::sync::atomic::compiler_fence(SeqCst);
                way.head.store(head, Relaxed);
                std::sync::atomic::compiler_fence(SeqCst);
                way.is_splitting.store(0, Relaxed);
                if for_packets {
                    break;
                }
            }
            self.line.tell(shared, false);
            Done::Bytes(got)
        });
        let count = entries.len();
        let came: Vec<_> = entries.into_iter().filter_map(take).collect();
        let is_whole = came.len() == count;
        if let Some(handles) = handles {
            handles.extend(came);
        }
        Ok((done, is_whole))
    }

    /// Duplicates handles for the process at the other end, or within this one.
    fn give(&self, handles: &[BorrowedHandle<'_>]) -> io::Result<Vec<Entry>> {
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        let user = self.other_state().user.load(Relaxed);
        let me = mutex::me();
        let other = (user != 0 && user != me).then(|| of_user(user)).flatten();
        let copy = |number: isize| match &other {
            Some(process) => nt::push(process, number).map(|copy| (user, copy)),
            None => nt::duplicate(number).map(|copy| (me, copy)),
        };
        let mut entries = Vec::with_capacity(handles.len());
        for handle in handles {
            let section = of(*handle).map(|end| end.line.section.0.0);
            let copied = copy(handle.as_raw()).and_then(|(owner, number)| {
                Ok([owner, number as u64, section.map_or(Ok(0), |it| copy(it).map(|(_, it)| it as u64))?])
            });
            match copied {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    entries.into_iter().for_each(|entry| drop(take(entry)));
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }

    /// Closes one direction: to this end, or from it.
    pub fn shut(&self, incoming: bool) {
        self.line.locked(|shared| {
            let word = if incoming { &shared.ways[1 - self.side].is_refused } else { &shared.ways[self.side].is_ended };
            word.store(1, Relaxed);
            self.line.tell(shared, false);
        });
    }

    /// Marks this end; whether it is marked; whether the other end is.
    pub fn mark(&self) {
        self.state().is_marked.store(1, Relaxed);
    }

    pub fn is_marked(&self) -> bool {
        self.state().is_marked.load(Relaxed) != 0
    }

    pub fn is_peer_marked(&self) -> bool {
        self.other_state().is_marked.load(Relaxed) != 0
    }

    /// Announces that this end waits for room, or no longer.
    pub fn say_waits(&self, waits: bool) {
        self.state().waits.store(u32::from(waits), Relaxed);
    }

    pub fn does_peer_wait(&self) -> bool {
        self.other_state().waits.load(Relaxed) != 0
    }

    /// The unread bytes here and at the other end, and whether the other end has room.
    pub fn unread(&self) -> (u64, u64, bool) {
        self.line.locked(|shared| {
            let (to, from) = (&shared.ways[1 - self.side], &shared.ways[self.side]);
            (to.content.load(Relaxed), from.content.load(Relaxed), to.has_room())
        })
    }

    /// The process that used the other end last.
    pub fn peer(&self) -> u32 {
        self.other_state().user.load(Relaxed) as u32
    }

    /// Of a client's line: it begins without being accepted (false), and is accepted (true).
    pub fn set_accepted(&self, accepted: bool) {
        self.line.shared().acceptance.store(1 + u32::from(accepted), Relaxed);
    }

    pub fn is_accepted(&self) -> Option<bool> {
        match self.line.shared().acceptance.load(Relaxed) {
            0 => None,
            state => Some(state == 2),
        }
    }
}

/// Opens the process that used an end, to duplicate handles. `None`: it has ended, even if its number is used again.
fn of_user(user: u64) -> Option<OwnedHandle> {
    let process = nt::process(user as u32, PROCESS_DUP_HANDLE | PROCESS_QUERY_LIMITED_INFORMATION).ok()?;
    (holder::birth_of(&process)? == (user >> 32) as u32).then_some(process)
}

/// Takes over a handle that came with a record; `None` if it is gone.
fn take(entry: Entry) -> Option<OwnedHandle> {
    let [owner, number, section] = entry;
    let process = if owner == mutex::me() { None } else { Some(of_user(owner)?) };
    let here = |number: u64| match &process {
        None => Some(nt::adopt(number as isize)),
        Some(process) => nt::pull(process, number as isize).ok().map(nt::adopt),
    };
    let handle = here(number)?;
    if section != 0 {
        // It keeps the line's shared part until this process has opened it.
        let keeps = here(section);
        of(handle.as_handle());
        drop(keeps);
    } else if super::network::is_network(handle.as_raw()) {
        known::note(handle.as_raw(), Known::Socket);
    }
    Some(handle)
}

/// The place of a listener, by its name: clients put handles on their lines there.
pub mod place {
    use super::*;

    /// Creates a listener: a line whose second end this process keeps open as well.
    pub fn listen(name: &str, backlog: u32) -> io::Result<OwnedHandle> {
        let (a, b) = pipe_ends(&format!("{PREFIX}{name}"), true).map_err(|error| match error.kind() {
            // Another listener has the name.
            io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy => io::ErrorKind::AddrInUse.into(),
            _ => error,
        })?;
        let line = Arc::new(Line::create(name).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::AddrInUse.into(),
            _ => error,
        })?);
        line.shared().for_packets.store(1, Relaxed);
        line.shared().backlog.store(backlog.max(1), Relaxed);
        let end = End { keeps: Some(Arc::new(Closing::new(b))), ..End::new(line, 0) };
        known::note(a.as_raw(), Known::Line(Arc::new(end)));
        Ok(a)
    }

    /// A client's way to a listener.
    #[derive(Debug)]
    pub struct Way(End);

    /// Opens the way to the listener of a name (`ConnectionRefused`: there is none).
    pub fn find(name: &str) -> io::Result<Way> {
        let line = Line::open(name).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::ErrorKind::ConnectionRefused.into(),
            _ => error,
        })?;
        Ok(Way(End { line: Arc::new(line), side: 1, keeps: None }))
    }

    impl Way {
        /// The event that says that a client was accepted.
        pub fn event(&self) -> isize {
            self.0.events().1
        }

        /// Passes the listener an end of a line. False: too many clients wait.
        pub fn give(&self, handle: &OwnedHandle) -> io::Result<bool> {
            // The listener reads end 0; handles go to its process.
            let end = &self.0;
            let is_full = end.line.locked(|shared| {
                let waiting = shared.ways[1].content.load(Relaxed);
                let is_full = waiting >= u64::from(shared.backlog.load(Relaxed));
                // The room event says when a client was accepted.
                shared.ways[1].wanted.store(if is_full { ROOM } else { 0 }, Relaxed);
                end.line.tell(shared, false);
                is_full
            });
            if is_full {
                return Ok(false);
            }
            end.write_to(handle)
        }
    }

    impl End {
        /// As [`End::write`], without a look at the pipe, of which a client has no end.
        fn write_to(&self, handle: &OwnedHandle) -> io::Result<bool> {
            let written = self.write(-1, &[IoSlice::new(b"c")], &[handle.as_handle()], true)?;
            Ok(written != Done::Nothing)
        }
    }
}

/// Returns a handle on the section of a handle's line.
pub fn section_of(handle: BorrowedHandle<'_>) -> Option<OwnedHandle> {
    nt::duplicate(of(handle)?.line.section.0.0).ok().map(nt::adopt)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(end: &End, handle: &OwnedHandle, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        match end.read(handle.as_raw(), &mut bytes, None, false).unwrap() {
            (Done::Bytes(got), true) => bytes[..got].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_record_is_read_in_pieces_and_records_at_once() {
        let (a, b) = pair(false).unwrap();
        let (writer, reader) = (of(a.as_handle()).unwrap(), of(b.as_handle()).unwrap());
        for part in ["abcdefgh", "ij"] {
            writer.write(a.as_raw(), &[IoSlice::new(part.as_bytes())], &[], false).unwrap();
        }
        assert_eq!(text(&reader, &b, 1), b"a");
        assert_eq!(text(&reader, &b, 2), b"bc");
        assert_eq!(writer.unread().1, 7);
        assert_eq!(text(&reader, &b, 100), b"defghij");
        let mut room = [0; 1];
        assert_eq!(reader.read(b.as_raw(), &mut room, None, false).unwrap().0, Done::Nothing);
    }

    #[test]
    fn a_ring_goes_round_with_every_length() {
        let (a, b) = pair(true).unwrap();
        let (writer, reader) = (of(a.as_handle()).unwrap(), of(b.as_handle()).unwrap());
        let bytes: Vec<u8> = (0..LONGEST).map(|at| at as u8).collect();
        for len in (1..LONGEST).step_by(7919).chain([LONGEST]) {
            assert_eq!(writer.write(a.as_raw(), &[IoSlice::new(&bytes[..len])], &[], true).unwrap(), Done::Bytes(len));
            assert_eq!(text(&reader, &b, LONGEST), &bytes[..len]);
        }
        assert!(writer.write(a.as_raw(), &[IoSlice::new(&[0; LONGEST + 1])], &[], true).is_err());
    }

    #[test]
    fn records_survive_the_death_of_a_holder_of_the_lock_unless_one_was_being_split() {
        let (a, b) = pair(false).unwrap();
        let (writer, reader) = (of(a.as_handle()).unwrap(), of(b.as_handle()).unwrap());
        writer.write(a.as_raw(), &[IoSlice::new(b"whole")], &[], false).unwrap();
        let shared = writer.line.shared();
        shared.ways[0].content.store(0, Relaxed);
        writer.line.mend(shared);
        assert_eq!((writer.unread().1, text(&reader, &b, 100)), (5, b"whole".to_vec()));
        writer.write(a.as_raw(), &[IoSlice::new(b"lost")], &[], false).unwrap();
        shared.ways[0].is_splitting.store(1, Relaxed);
        writer.line.mend(shared);
        assert_eq!(text(&reader, &b, 100), b"");
        let refused = writer.write(a.as_raw(), &[IoSlice::new(b"x")], &[], false);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_end_that_travels_is_an_end() {
        let (a, b) = pair(false).unwrap();
        let (c, d) = pair(false).unwrap();
        let (here, there) = (of(a.as_handle()).unwrap(), of(b.as_handle()).unwrap());
        here.write(a.as_raw(), &[IoSlice::new(b"x")], &[d.as_handle()], false).unwrap();
        drop(d);
        let mut came = Vec::new();
        there.read(b.as_raw(), &mut [0], Some(&mut came), false).unwrap();
        let d = came.pop().unwrap();
        assert!(!is_pipe_closed(c.as_raw()));
        let end = of(c.as_handle()).unwrap();
        end.write(c.as_raw(), &[IoSlice::new(b"there")], &[], false).unwrap();
        assert_eq!(text(&of(d.as_handle()).unwrap(), &d, 100), b"there");
        drop(d);
        assert!(is_pipe_closed(c.as_raw()));
    }

    #[test]
    fn the_writing_end_of_a_pipe_tells_that_no_reader_is_left() {
        let (reader, writer) = pipe_ends(&format!("maniple-t-{}", nt::random_name().unwrap()), false).unwrap();
        assert!(!is_pipe_closed(writer.as_raw()));
        drop(reader);
        assert!(is_pipe_closed(writer.as_raw()));
    }
}
