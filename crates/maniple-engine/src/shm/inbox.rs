//! The reader's side of large buffers: what came over the wire or lies in the bay.
//!
//! A block is mapped as soon as its handle has come, and the handle is closed: what is kept costs memory alone.
#![allow(unsafe_code)]

use super::bay::BayReader;
use super::buffers::Buffer;
use super::region::Region;
use super::seen::Seen;
use super::slots::{BAY, BlobRef, HANDLES, NO_SLOT, Slots};
use crate::error::{Doing, Error, Result};
use maniple_sys::memory::{self, Mapping};
use maniple_sys::wire::{Note, Wire, out_of_handles};
use maniple_sys::{self as sys, AsHandle, OwnedHandle};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// The tags of a wire's notes.
pub mod tag {
    /// A wake-up of the hub's keeper.
    pub const BELL: u64 = 0;
    /// The handle of a block, in the batch whose number is in the low half.
    pub const BLOCK: u64 = 1 << 32;
    /// Handles of the front, in the batch whose number is in the low half; many handles take several notes.
    pub const HANDLES: u64 = 3 << 32;
}

/// Notes that are read from a wire at once.
const AT_ONCE: usize = 1024;
/// The greatest number of items that have arrived and are not named yet. Far fewer fit into a ring's longest frame, and
/// into a wire.
const MOST_UNNAMED: usize = 16 * 1024;

/// Blocks that are mapped and that no frame has named yet, in all links of this process: usually a quarter of the
/// mappings of a process. So a peer that sends blocks and never a frame does not use up the mappings of others.
const MOST_MAPPED: usize = 16 * 1024;

/// How many there are, below the number of the process that has counted them.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// One of them.
#[derive(Debug)]
struct Counted(());

impl Counted {
    fn new() -> Result<Counted> {
        let own = u64::from(sys::process_id()) << 32;
        let add = |word: u64| {
            let count = if word & !0xffff_ffff == own { word as u32 } else { 0 };
            ((count as usize) < MOST_MAPPED).then(|| own | u64::from(count + 1))
        };
        MAPPED
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map(|_| Counted(()))
            .map_err(|_| Error::out_of_memory("map one more large buffer that nothing has named yet"))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let own = u64::from(sys::process_id()) << 32;
        // Copies in a forked child are not counted.
        let take = |word: u64| (word & !0xffff_ffff == own && word as u32 > 0).then(|| word - 1);
        let _ = MAPPED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

#[derive(Debug)]
enum Arrived {
    Block(Result<Body>),
    /// Also whether some were lost, because this process had no descriptors left.
    Handles(Vec<OwnedHandle>, bool),
}

/// The content of a note.
enum News {
    Nothing,
    Ring,
    Came(u32, Arrived),
}

fn read_note(wire: &Wire) -> Result<News, End> {
    let (tag, handles, cut) = match wire.receive().doing("receive a descriptor from another process") {
        Ok(Note::Tag(tag, handles)) => (tag, handles, false),
        Ok(Note::Cut(tag, handles)) => (tag, handles, true),
        Ok(Note::Nothing) => return Ok(News::Nothing),
        Ok(Note::Closed) => return Err(End::Closed),
        Err(Error::Os { source, .. }) if source.kind() == std::io::ErrorKind::InvalidData => {
            return Err(End::Refused(Error::Damaged("a note of a wrong length arrived over a wire")));
        }
        Err(error) => return Err(End::Refused(error)),
    };
    let arrived = match tag & !0xffff_ffff {
        tag::BLOCK if cut || handles.is_empty() => {
            Arrived::Block(Err(out_of_handles()).doing("receive a large buffer from another process"))
        }
        tag::BLOCK => Arrived::Block(take_in(&handles)),
        tag::HANDLES => Arrived::Handles(handles, cut),
        _ => return Ok(News::Ring),
    };
    Ok(News::Came(tag as u32, arrived))
}

/// The items that arrived over the wire before the frames that name them, in the order of the frames, by the number of
/// their batch.
///
/// A frame's sender may fail to complete a batch, and then begins another. Items that no frame names are dropped when a
/// later batch is taken.
#[derive(Debug, Default)]
pub struct Inbox(VecDeque<(u32, Arrived)>);

impl Inbox {
    /// Reads one note from the wire. Returns false if there is none.
    fn receive(&mut self, wire: &Wire) -> Result<bool, End> {
        // Of a block only a mapping stays.
        match wire.take(|tag| tag & !0xffff_ffff == tag::BLOCK, read_note)? {
            News::Nothing => return Ok(false),
            News::Ring => {}
            News::Came(..) if self.0.len() >= MOST_UNNAMED => {
                return Err(End::Refused(Error::Damaged("more descriptors were sent than frames can name")));
            }
            News::Came(batch, arrived) => self.0.push_back((batch, arrived)),
        }
        Ok(true)
    }

    /// Reads the notes that are on the wire now, up to a limit, so that a peer that never stops sending cannot make it
    /// endless. Returns false if the other end is closed.
    pub fn drain(&mut self, wire: &Wire) -> Result<bool> {
        for _ in 0..AT_ONCE {
            match self.receive(wire) {
                Ok(true) => {}
                Ok(false) => break,
                Err(End::Closed) => return Ok(false),
                Err(End::Refused(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes the next item of a batch, which was sent before the frame that names it.
    fn next(&mut self, batch: u32, wire: &Wire) -> Result<Arrived> {
        const UNSENT: Error = Error::Damaged("a buffer was named but never sent");
        loop {
            match self.0.pop_front() {
                Some((number, arrived)) if number == batch => return Ok(arrived),
                // A batch that was not completed.
                Some((number, _)) if (number.wrapping_sub(batch) as i32) < 0 => {}
                Some(later) => {
                    self.0.push_front(later);
                    return Err(UNSENT);
                }
                None => match self.receive(wire) {
                    Ok(true) => {}
                    Ok(false) | Err(End::Closed) => return Err(UNSENT),
                    Err(End::Refused(error)) => return Err(error),
                },
            }
        }
    }

    /// Returns the handles that `reference` names. The last are missing if this process had no descriptors left for
    /// them.
    pub fn take_handles(&mut self, reference: BlobRef, wire: &Wire) -> Result<Vec<OwnedHandle>> {
        let mut all = Vec::new();
        let mut cut = false;
        while !cut && (all.len() as u64) < reference.len {
            match self.next(reference.place, wire)? {
                Arrived::Handles(mut handles, incomplete) => {
                    all.append(&mut handles);
                    cut = incomplete;
                }
                Arrived::Block(_) => return Err(Error::Damaged("handles were named, and a block was sent")),
            }
        }
        Ok(all)
    }

    /// Returns the buffer that `reference` names, as a region. Even after a failure because of a shortage, the
    /// following frames can be read.
    pub fn open(&mut self, reference: BlobRef, wire: &Wire, slots: &Slots, bay: &mut BayReader) -> Result<Region> {
        // What is longer than an address space is longer than any block, too.
        let len = usize::try_from(reference.len).unwrap_or(usize::MAX);
        if reference.slot == BAY {
            return bay.take(reference.place, len).map(Region::from);
        }
        let back = (reference.slot != NO_SLOT).then(|| slots.on_drop(reference.slot));
        let Arrived::Block(body) = self.next(reference.place, wire)? else {
            return Err(Error::Damaged("a block was named, and handles were sent"));
        };
        const TOO_LONG: Error = Error::Damaged("a buffer is longer than its block");
        match body? {
            Body::Mapped(mapping, _) if len <= mapping.len() => {
                if !Seen::is_room(len) {
                    let mut copy = Buffer::default();
                    // SAFETY: inside the mapping, whose memory its owner does not touch until the slot is freed.
                    if copy.extend(unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), len) }).is_ok() {
                        return Ok(copy.into());
                    }
                }
                Ok(Region::mapped(mapping, len, back))
            }
            Body::Copied(mut bytes) if len <= bytes.bytes().len() => {
                bytes.truncate(len);
                Ok(bytes.into())
            }
            _ => Err(TOO_LONG),
        }
    }

    /// Drops the items for a revoked frame.
    pub fn discard(&mut self, reference: BlobRef, wire: &Wire, bay: &mut BayReader) -> Result<()> {
        match reference.slot {
            BAY => bay.release(reference.place, usize::try_from(reference.len).unwrap_or(usize::MAX)),
            HANDLES => self.take_handles(reference, wire).map(drop),
            _ => self.next(reference.place, wire).map(drop),
        }
    }
}

enum End {
    Closed,
    Refused(Error),
}

/// A block, as this process accesses it.
#[derive(Debug)]
enum Body {
    Mapped(Mapping, Counted),
    /// A copy, because it cannot be mapped, or because its owner could truncate it while it is mapped.
    Copied(Buffer),
}

fn take_in(pieces: &[OwnedHandle]) -> Result<Body> {
    const TAKE: &str = "receive a large buffer from another process";
    let measure = |piece| memory::len(piece).map(|len| (piece, len));
    let pieces = pieces.iter().map(measure).collect::<std::io::Result<Vec<_>>>().doing(TAKE)?;
    let len = pieces.iter().try_fold(0usize, |sum, (_, len)| sum.checked_add(*len));
    let len = len.filter(|&len| len > 0).ok_or(Error::Damaged("a block has no length"))?;
    let mut refused = None;
    if pieces.iter().all(|(piece, _)| memory::is_fixed(piece)) {
        let counted = Counted::new()?;
        match Mapping::joined(&pieces, len, memory::Share::CopyOnWrite) {
            Ok(mapping) => return Ok(Body::Mapped(mapping, counted)),
            Err(error) => refused = Some(error),
        }
    }
    let mut buffer = Buffer::with_capacity(len).map_err(|plain| {
        refused.map_or(plain, |source| Error::Os { doing: "map a large buffer from another process", source })
    })?;
    let mut rest = buffer.fill(len)?;
    for (piece, len) in pieces {
        let (now, later) = rest.split_at_mut(len);
        memory::read_at(piece.as_handle(), now, 0).doing(TAKE)?;
        rest = later;
    }
    Ok(Body::Copied(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use maniple_sys::{AsHandle, testing};
    use std::sync::Arc;

    fn bay() -> BayReader {
        let memory = Arc::new(crate::shm::segment::create_mapped("inbox-test", 8192).unwrap().0);
        BayReader::new(&memory, crate::shm::bay::Bay { word: 0, data: 4096, capacity: 4096 })
    }

    fn batch(number: u32, len: u64) -> BlobRef {
        BlobRef { place: number, slot: HANDLES, len }
    }

    /// Sends a note of a batch with so many write ends of a pipe; returns the read end, which reports the end of the stream once all are closed.
    fn send(wire: &Wire, number: u32, count: usize) -> std::io::PipeReader {
        let (reader, writer) = std::io::pipe().unwrap();
        wire.send(tag::HANDLES | u64::from(number), &vec![writer.as_handle(); count]).unwrap();
        reader
    }

    fn is_closed(reader: &std::io::PipeReader) -> bool {
        matches!(sys::stream::read_available(reader.as_handle(), &mut [0]), Ok(Some(0)))
    }

    #[test]
    fn handles_of_frames_that_were_taken_back_are_closed() {
        let (here, there) = Wire::pair().unwrap();
        let mut inbox = Inbox::default();
        let (revoked, begun, wanted) = (send(&here, 1, 2), send(&here, 2, 3), send(&here, 3, 4));
        inbox.discard(batch(1, 2), &there, &mut bay()).unwrap();
        assert!(is_closed(&revoked) && !is_closed(&begun));
        let handles = inbox.take_handles(batch(3, 4), &there).unwrap();
        assert_eq!(handles.len(), 4);
        // An incomplete batch is dropped when the next is taken.
        assert!(is_closed(&begun) && !is_closed(&wanted));
        drop(handles);
        assert!(is_closed(&wanted));
        assert!(matches!(inbox.take_handles(batch(4, 1), &there), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_batch_of_several_notes_is_waited_for_as_a_whole() {
        let (here, there) = Wire::pair().unwrap();
        let mut inbox = Inbox::default();
        let _first = send(&here, 1, 2);
        inbox.drain(&there).unwrap();
        let _second = send(&here, 1, 3);
        assert_eq!(inbox.take_handles(batch(1, 5), &there).unwrap().len(), 5);
    }

    #[test]
    fn blocks_that_nothing_names_take_no_more_than_their_share_of_the_mappings() {
        let memory = memory::create("flood", memory::PAGES).unwrap();
        let mut links: Vec<_> = (0..2).map(|_| (Wire::pair().unwrap(), Inbox::default())).collect();
        for ((here, there), inbox) in &mut links {
            for number in 0..9000 {
                here.send(tag::BLOCK | number, &[memory.as_handle()]).unwrap();
                assert!(inbox.drain(there).unwrap());
            }
        }
        let mapped = |inbox: &Inbox| inbox.0.iter().filter(|(_, a)| matches!(a, Arrived::Block(Ok(_)))).count();
        let held: usize = links.iter().map(|(_, inbox)| mapped(inbox)).sum();
        assert!(held > 10_000 && held <= MOST_MAPPED, "{held}");
        // A frame that names a block for which there was no place fails with a shortage; other frames are read.
        let ((_, wire), inbox) = &mut links[1];
        let slots = Slots::new(&Arc::new(crate::shm::segment::create_mapped("inbox-test", 8192).unwrap().0), 0);
        let reference = |place| BlobRef { place, slot: NO_SLOT, len: 8 };
        assert!(inbox.open(reference(8999), wire, &slots, &mut bay()).is_err_and(|error| error.is_shortage()));
        drop(links);
        let ((here, there), mut inbox) = (Wire::pair().unwrap(), Inbox::default());
        here.send(tag::BLOCK | 1, &[memory.as_handle()]).unwrap();
        assert_eq!(inbox.open(reference(1), &there, &slots, &mut bay()).unwrap().len(), 8);
    }

    #[test]
    fn a_note_of_another_length_is_damage() {
        let (here, there) = Wire::pair().unwrap();
        testing::send(&here, b"abc");
        assert!(matches!(Inbox::default().drain(&there), Err(Error::Damaged(_))));
    }

    // On Windows no process can change the size of memory.
    #[cfg(not(windows))]
    #[test]
    fn a_block_that_could_be_made_shorter_is_not_looked_at_where_it_lies() {
        let (here, there) = Wire::pair().unwrap();
        let mut inbox = Inbox::default();
        let slots = Slots::new(&Arc::new(crate::shm::segment::create_mapped("inbox-test", 8192).unwrap().0), 0);
        // What a malicious worker may send: neither sealed nor in one piece.
        let loose = testing::unsealed_memory(0);
        memory::write_at(loose.as_handle(), &[7; 300_000], 0).unwrap();
        let sealed = memory::create("sealed", 10).unwrap();
        here.send(tag::BLOCK | 1, &[loose.as_handle(), sealed.as_handle()]).unwrap();
        let reference = BlobRef { place: 1, slot: NO_SLOT, len: 300_005 };
        let region = inbox.open(reference, &there, &slots, &mut bay()).unwrap();
        testing::set_len(&loose, 0);
        assert!(region.as_slice()[..300_000] == [7; 300_000] && region.as_slice()[300_000..] == [0; 5]);
        // Of no length at all, and shorter than the frame says.
        for (batch, len) in [(2, 0), (3, 10)] {
            let short = testing::unsealed_memory(len);
            here.send(tag::BLOCK | batch, &[short.as_handle()]).unwrap();
            let reference = BlobRef { place: batch as u32, slot: NO_SLOT, len: 11 };
            assert!(matches!(inbox.open(reference, &there, &slots, &mut bay()), Err(Error::Damaged(_))));
        }
    }

    #[test]
    fn a_reference_survives_its_encoding() {
        let r = BlobRef { place: 0xdead_beef, slot: 1023, len: (1 << 40) + 7 };
        assert_eq!(BlobRef::decode(&r.encode()), r);
    }
}
