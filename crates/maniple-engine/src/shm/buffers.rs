//! Plain memory for received buffers and for buffers that wait to be sent. It is used again while it is warm.
//!
//! The allocator of the system returns such memory as soon as it is freed, and each fresh page costs a fault, which
//! takes many times as long as the copy that fills it. So buffers of middling size are cut from *chunks*: a few
//! megabytes each, for which the system is asked for huge pages. A fresh chunk then costs one fault instead of
//! hundreds, and a chunk whose buffers were dropped is used again without any. Longer buffers have separate memory,
//! also in huge pages.
//!
//! A chunk has a *map*, one bit for each unit, of the units in use. Only one thread at a time cuts, which holds the
//! pool's lock. Any thread frees units by a store, and waits for nothing. A chunk without room leaves the list until
//! half of it is free again. [`trim`] returns free memory to the system, also between buffers that stay.
//!
//! The memory of the last long buffers is kept for a second or two, and so are chunks without a buffer, except a few,
//! which stay until the next [`trim`].
//!
//! A forked child begins with new chunks: writing to its parent's chunks would copy them page by page.
#![allow(unsafe_code)]

mod chunks;
mod long;

use crate::error::{Error, Result};
use chunks::{Cut, LONGEST, POOL, Pool, UNIT};
use long::Own;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// Shorter buffers come from the allocator, which keeps memory of that size.
pub const LEAST: usize = 16 * 1024;

/// Memory that is filled from the front: a `Buffer`, or a plain vector.
pub trait Part: Default {
    /// Returns room for `len` bytes behind the content.
    ///
    /// # Errors
    /// No memory.
    fn room(&mut self, len: usize) -> Result<NonNull<u8>>;

    /// Makes it longer by `len` bytes.
    ///
    /// # Safety
    /// They were written where [`room`](Self::room) said, after it said so.
    unsafe fn filled(&mut self, len: usize);
}

impl Part for Vec<u8> {
    fn room(&mut self, len: usize) -> Result<NonNull<u8>> {
        self.try_reserve_exact(len).map_err(|_| no_memory())?;
        Ok(NonNull::from(self.spare_capacity_mut()).cast())
    }

    unsafe fn filled(&mut self, len: usize) {
        // SAFETY: there is room, and the caller has written to it.
        unsafe { self.set_len(self.len() + len) };
    }
}

impl Part for Buffer {
    fn room(&mut self, len: usize) -> Result<NonNull<u8>> {
        self.reserve(len)?;
        // SAFETY: inside what was just made sure of.
        Ok(unsafe { self.start().add(self.len) })
    }

    unsafe fn filled(&mut self, len: usize) {
        self.len += len;
        if let Room::Allocated(bytes) = &mut self.room {
            // SAFETY: there is room, and the caller has written to it.
            unsafe { bytes.set_len(self.len) };
        }
    }
}

fn no_memory() -> Error {
    Error::out_of_memory("copy a large buffer")
}

/// Bytes, and the room that they have.
#[derive(Debug)]
pub struct Buffer {
    room: Room,
    len: usize,
}

#[derive(Debug)]
enum Room {
    Allocated(Vec<u8>),
    Cut(Cut),
    Own(Own),
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer::from_vec(Vec::new())
    }
}

impl Buffer {
    /// Empty, with room for `len` bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn with_capacity(len: usize) -> Result<Buffer> {
        Buffer::from_pool(&POOL, len)
    }

    fn from_pool(pool: &'static Pool, len: usize) -> Result<Buffer> {
        let room = match len {
            LEAST..=LONGEST => pool.cut(len).map(Room::Cut),
            0..LEAST => None,
            _ => Own::new(len).map(Room::Own),
        };
        let room = match room {
            Some(room) => room,
            None => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(len).map_err(|_| no_memory())?;
                Room::Allocated(bytes)
            }
        };
        Ok(Buffer { room, len: 0 })
    }

    /// These bytes.
    pub fn from_vec(bytes: Vec<u8>) -> Buffer {
        Buffer { len: bytes.len(), room: Room::Allocated(bytes) }
    }

    fn start(&self) -> NonNull<u8> {
        match &self.room {
            // Its own pointer, which may be used for the spare room, too; a slice's may not.
            Room::Allocated(bytes) => NonNull::new(bytes.as_ptr().cast_mut()).unwrap_or(NonNull::dangling()),
            Room::Cut(cut) => cut.start(),
            Room::Own(memory) => memory.start(),
        }
    }

    fn capacity(&self) -> usize {
        match &self.room {
            Room::Allocated(bytes) => bytes.capacity(),
            Room::Cut(cut) => cut.units * UNIT,
            Room::Own(memory) => memory.len(),
        }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are this buffer's own, and initialised.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }

    fn reserve(&mut self, more: usize) -> Result<()> {
        let len = self.len.checked_add(more).ok_or_else(no_memory)?;
        if len > self.capacity() {
            let mut longer = Buffer::with_capacity(len)?;
            longer.extend(self.bytes())?;
            *self = longer;
        }
        Ok(())
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// No memory, where there was not enough room.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<()> {
        let to = self.room(bytes.len())?;
        // SAFETY: there is room for them, in memory of this buffer's own.
        unsafe {
            to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
            self.filled(bytes.len());
        }
        Ok(())
    }

    /// Makes it `len` bytes long, with arbitrary content, and returns them, to be filled.
    ///
    /// # Errors
    /// No memory, where there was not enough room.
    pub fn fill(&mut self, len: usize) -> Result<&mut [u8]> {
        if len > self.capacity() {
            *self = Buffer::with_capacity(len)?;
        }
        if let Room::Allocated(bytes) = &mut self.room {
            bytes.resize(len, 0);
        }
        // Memory from the system is always initialised: with zeros, or with the content of an earlier buffer.
        self.len = len;
        Ok(self.bytes_mut())
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Room::Allocated(bytes) = &mut self.room {
            bytes.truncate(len);
        }
    }
}

/// Returns to the system the memory that no buffer uses.
pub fn trim() {
    POOL.trim();
}

/// Bytes that `trim` may return.
pub fn kept() -> usize {
    POOL.kept.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::chunks::*;
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicUsize;

    fn filled(len: usize, byte: u8) -> Buffer {
        let mut buffer = Buffer::with_capacity(len).unwrap();
        buffer.fill(len).unwrap().fill(byte);
        buffer
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no munmap of a part of a mapping")]
    fn a_chunk_cuts_again_what_was_given_back() {
        let chunk = Chunk::new().unwrap();
        let cuts = [100, 300, 64, 200].map(|units| chunk.cut(units).unwrap());
        assert_eq!((cuts, chunk.used()), ([0, 100, 400, 464], 664));
        assert_eq!(chunk.cut(361), None);
        chunk.give_back(100, 300);
        assert_eq!(chunk.cut(301), Some(664));
        assert_eq!((chunk.cut(300), chunk.cut(60)), (Some(100), None));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no munmap of a part of a mapping")]
    fn what_is_given_back_to_the_system_is_not_what_is_in_use() {
        // A pool of its own: other tests trim the one that the process has.
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        let filled = |byte| {
            let mut buffer = Buffer::from_pool(pool, 100_000).unwrap();
            buffer.fill(100_000).unwrap().fill(byte);
            buffer
        };
        let buffers: Vec<_> = (0..100).map(filled).collect();
        let stay: Vec<_> = buffers.into_iter().step_by(7).collect();
        assert!(pool.kept.load(Ordering::Relaxed) > 0);
        for _ in 0..10 {
            pool.trim();
        }
        assert!(stay.iter().zip((0..100).step_by(7)).all(|(b, number)| b.bytes().iter().all(|&byte| byte == number)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no munmap of a part of a mapping")]
    fn what_is_given_back_during_a_trim_is_counted_for_the_next() {
        let pool: &'static Pool = Box::leak(Box::new(Pool::new()));
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let meet = |which: &AtomicUsize, round| {
            for turn in 0.. {
                if which.load(Ordering::Acquire) >= round {
                    break;
                }
                // Usually they run at the same time; on one processor they cannot.
                if turn < 10_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
            }
        };
        let rounds = 1..=20_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in rounds.clone() {
                    meet(&begun, round);
                    pool.trim();
                    ended.store(round, Ordering::Release);
                }
            });
            for round in rounds.clone() {
                let cut = pool.cut(LONGEST).unwrap();
                begun.store(round, Ordering::Release);
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                drop(cut);
                meet(&ended, round);
                let free = pool.listed.lock().unwrap().chunks.iter().any(|chunk| chunk.used() == 0);
                // The other thread ends with the test where this fails.
                begun.store(
                    if free && pool.kept.load(Ordering::Relaxed) == 0 { usize::MAX } else { round },
                    Ordering::Release,
                );
                assert!(begun.load(Ordering::Relaxed) == round, "the free memory stays kept, in round {round}");
            }
        });
    }

    fn grows_and_shrinks(step: usize) {
        let mut buffer = Buffer::default();
        for number in 0..6u8 {
            buffer.extend(&vec![number; step]).unwrap();
        }
        assert_eq!(buffer.bytes().len(), 6 * step);
        assert!(buffer.bytes().chunks(step).zip(0u8..).all(|(part, number)| part.iter().all(|&b| b == number)));
        buffer.truncate(step);
        buffer.extend(&[9]).unwrap();
        assert_eq!((buffer.bytes()[step - 1], buffer.bytes()[step], buffer.bytes().len()), (0, 9, step + 1));
    }

    #[test]
    fn a_short_buffer_grows_and_shrinks() {
        [10, 100, 1000].into_iter().for_each(grows_and_shrinks);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri knows no munmap of a part of a mapping")]
    fn a_long_buffer_grows_and_shrinks() {
        [20_000, 700_000].into_iter().for_each(grows_and_shrinks);
    }

    #[test]
    fn runs_are_found_wherever_they_lie() {
        let mut map = [u64::MAX; WORDS];
        assert_eq!(runs(&map).count(), 0);
        map[0] = !0b110;
        map[3] = 1;
        map[4] = u64::MAX << 1;
        map[15] = u64::MAX >> 1;
        assert_eq!(runs(&map).collect::<Vec<_>>(), [(1, 2), (3 * 64 + 1, 64), (UNITS - 1, 1)]);
        assert_eq!(runs(&[0; WORDS]).collect::<Vec<_>>(), [(0, UNITS)]);
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "Miri knows no munmap of a part of a mapping")]
        fn no_two_buffers_share_a_byte(steps in prop::collection::vec((1usize..3_000_000, 0usize..8), 1..60)) {
            let mut held: Vec<Buffer> = Vec::new();
            for (number, (len, what)) in steps.into_iter().enumerate() {
                match what {
                    0..5 => held.push(filled(len, number as u8)),
                    5 => trim(),
                    _ if held.is_empty() => {}
                    _ => drop(held.swap_remove(len % held.len())),
                }
                for buffer in &held {
                    let byte = buffer.bytes()[0];
                    prop_assert!(buffer.bytes().iter().step_by(1000).all(|&b| b == byte));
                    prop_assert_eq!(buffer.bytes()[buffer.bytes().len() - 1], byte);
                }
            }
        }
    }
}
