//! Lines: connections of this machine for both directions, which carry bytes or packets, and handles with them.
//!
//! The system's pipes cannot close one direction, do not tell whether they have room, and carry no handles. A line is
//! therefore a *ring* for each direction in shared memory, four events that say which end can read or has room, and a
//! named pipe **without data**: its ends are the line's handles. It tells an end when the other is closed, also by a crash.
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
//! **Handles** are duplicated into the process that used the other end last, or, if the sender has both ends (as all users
//! of a queue have), into the process that made the line. If another process receives them, it takes them from there.
#![allow(unsafe_code)]

pub mod place;
mod shared;

use super::nt::{self, Closing};
use super::{holder, pipe};
use crate::handle::known::{self, Known};
use crate::mutex;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use shared::{ENTRY, EndState, HEADER, LEAST, Line, PREFIX, ROOM, Shared, Way};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use windows_sys::Win32::System::Pipes::{GetNamedPipeInfo, PIPE_SERVER_END};
use windows_sys::Win32::System::Threading::{PROCESS_DUP_HANDLE, PROCESS_QUERY_LIMITED_INFORMATION};

/// The longest packet.
pub const LONGEST: usize = (ROOM - LEAST) as usize;
/// The most handles of a record.
pub const MOST: usize = 253;

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

/// Creates a line, and returns its two ends. With a name, both ends find the same listener.
pub fn pair(for_packets: bool) -> io::Result<(OwnedHandle, OwnedHandle)> {
    let id = nt::random_name()?;
    let (a, b) = pipe::ends(&format!("{PREFIX}{id}"), true)?;
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
        way.used() > 0 || self.is_over(shared, way) || pipe::is_closed(handle)
    }

    /// Whether a write would not wait.
    pub fn has_room(&self, handle: isize) -> bool {
        let shared = self.line.shared();
        let way = &shared.ways[self.side];
        way.has_room() || self.is_over(shared, way) || pipe::is_closed(handle)
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
        if pipe::is_closed(handle) {
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
                let is_over = way.is_ended.load(Relaxed) != 0 || pipe::is_closed(handle);
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

    /// Whether the other end is here, too.
    fn has_both(&self) -> bool {
        let is_other = |end: &End| end.side != self.side && end.line.id == self.line.id;
        known::any(|known| matches!(known, Known::Line(end) if end.downcast_ref().is_some_and(is_other)))
    }

    /// Duplicates handles for the process at the other end, or within this one.
    fn give(&self, handles: &[BorrowedHandle<'_>]) -> io::Result<Vec<Entry>> {
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        const ACCESS_DENIED: i32 = 5;
        let (shared, has_both, me) = (self.line.shared(), self.has_both(), mutex::me());
        let user = if has_both { &shared.maker } else { &self.other_state().user }.load(Relaxed);
        let other = (user != 0 && user != me).then(|| of_user(user)).flatten();
        let copy = |number: isize| match &other {
            Some(process) => match nt::push(process, number) {
                // It is ending: this process has them instead, if another can read them.
                Err(error) if error.raw_os_error() == Some(ACCESS_DENIED) => match has_both {
                    true => nt::duplicate(number).map(|copy| (me, copy)),
                    false => Err(io::ErrorKind::BrokenPipe.into()),
                },
                pushed => pushed.map(|copy| (user, copy)),
            },
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

    /// Announces whether this end waits for room.
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
        assert!(!pipe::is_closed(c.as_raw()));
        let end = of(c.as_handle()).unwrap();
        end.write(c.as_raw(), &[IoSlice::new(b"there")], &[], false).unwrap();
        assert_eq!(text(&of(d.as_handle()).unwrap(), &d, 100), b"there");
        drop(d);
        assert!(pipe::is_closed(c.as_raw()));
    }

    #[test]
    fn the_writing_end_of_a_pipe_tells_that_no_reader_is_left() {
        let (reader, writer) = pipe::ends(&format!("maniple-t-{}", nt::random_name().unwrap()), false).unwrap();
        assert!(!pipe::is_closed(writer.as_raw()));
        drop(reader);
        assert!(pipe::is_closed(writer.as_raw()));
    }
}
