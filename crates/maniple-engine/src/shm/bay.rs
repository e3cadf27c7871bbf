//! A bay: memory for the bodies of one direction of a link that are too long for its ring and too short for a block.
//!
//! It is a part of the link's memory, whose pages are allocated when they are first used. The sender copies a body in,
//! and a frame contains its position; the reader copies it out. Frames are read in order, so space is freed in order:
//! the reader publishes one number, the position up to which it has read.
#![allow(unsafe_code)]

use super::buffers::Buffer;
use crate::error::{Error, Result};
use maniple_sys::memory::Mapping;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The position of a bay in a piece of shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Bay {
    /// Offset of the number that the reader publishes, a multiple of 8.
    pub word: usize,
    /// Offset of the bodies, a multiple of the page size.
    pub data: usize,
    /// Bytes for bodies.
    pub capacity: usize,
}

#[derive(Debug)]
struct Memory {
    memory: Arc<Mapping>,
    bay: Bay,
}

impl Memory {
    fn new(memory: &Arc<Mapping>, bay: Bay) -> Memory {
        assert!(bay.word.is_multiple_of(8) && bay.word + 8 <= memory.len() && bay.capacity > 0);
        assert!(bay.data + bay.capacity <= memory.len());
        Memory { memory: memory.clone(), bay }
    }

    fn published(&self) -> &AtomicU64 {
        // SAFETY: aligned and inside the memory (checked in `new`), and accessed only as an atomic.
        unsafe { AtomicU64::from_ptr(self.memory.start().add(self.bay.word).cast().as_ptr()) }
    }

    /// The two pieces of `len` bytes at `position`, as addresses and lengths: the bytes may continue at the beginning.
    fn pieces(&self, position: u64, len: usize) -> [(*mut u8, usize); 2] {
        let at = (position % self.bay.capacity as u64) as usize;
        let first = len.min(self.bay.capacity - at);
        // SAFETY: both lie inside the memory (checked in `new`).
        unsafe {
            let data = self.memory.start().as_ptr().add(self.bay.data);
            [(data.add(at), first), (data, len - first)]
        }
    }
}

/// The sender's side.
#[derive(Debug)]
pub struct BayWriter {
    memory: Memory,
    tail: u64,
    // Nothing before this position is in use, regardless of what the reader last published.
    floor: u64,
    /// Bytes were written since the last trim.
    touched: bool,
}

/// The reader's side.
#[derive(Debug)]
pub struct BayReader {
    memory: Memory,
    head: u64,
}

impl BayWriter {
    /// The sender's side of a fresh bay.
    pub fn new(memory: &Arc<Mapping>, bay: Bay) -> BayWriter {
        BayWriter { memory: Memory::new(memory, bay), tail: 0, floor: 0, touched: false }
    }

    /// The longest body for the bay.
    pub fn longest(&self) -> usize {
        self.memory.bay.capacity / 2
    }

    /// Bytes for bodies.
    pub fn capacity(&self) -> usize {
        self.memory.bay.capacity
    }

    /// Bytes that are in use.
    fn used(&mut self) -> Result<u64> {
        // Partner: `BayReader::release`; the reader's copy happened before.
        let head = self.memory.published().load(Ordering::Acquire).max(self.floor);
        match self.tail.checked_sub(head) {
            Some(0) => {
                // Everything has been read: begin again at the front, whose pages are warm.
                self.tail = self.tail.next_multiple_of(self.capacity() as u64);
                self.floor = self.tail;
                Ok(0)
            }
            Some(used) => Ok(used),
            None => Err(Error::Damaged("more was read from a bay than was written")),
        }
    }

    /// Whether so many bytes have room now.
    pub fn has_room(&mut self, len: usize) -> Result<bool> {
        Ok(self.used()? + len as u64 <= self.capacity() as u64)
    }

    /// Whether half of it is in use.
    pub fn is_half_full(&self) -> bool {
        let head = self.memory.published().load(Ordering::Relaxed).max(self.floor);
        self.tail.saturating_sub(head) > self.capacity() as u64 / 2
    }

    /// Copies `bytes` in, for which there is room, and returns their position.
    pub fn write(&mut self, bytes: &[u8]) -> u32 {
        let position = self.tail;
        let mut rest = bytes;
        for (to, len) in self.memory.pieces(position, bytes.len()) {
            let (piece, after) = rest.split_at(len);
            // SAFETY: the piece lies inside the bay, and `has_room` has checked that the reader no longer uses these
            // bytes.
            unsafe { to.copy_from_nonoverlapping(piece.as_ptr(), len) };
            rest = after;
        }
        self.tail += bytes.len() as u64;
        self.touched = true;
        (position % self.capacity() as u64) as u32
    }

    /// Removes the bytes from the position `tail` on, which no frame names.
    pub fn rewind(&mut self, tail: u64) {
        self.tail = tail.max(self.floor);
    }

    /// The number of bytes ever written.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Whether it has memory that `trim` may return.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// Returns the memory to the system, if nothing is in use.
    pub fn trim(&mut self) {
        if self.touched && self.used().is_ok_and(|used| used == 0) {
            self.touched = false;
            self.memory.memory.release(self.memory.bay.data, self.memory.bay.capacity);
        }
    }
}

impl BayReader {
    /// The reader's side of a fresh bay.
    pub fn new(memory: &Arc<Mapping>, bay: Bay) -> BayReader {
        BayReader { memory: Memory::new(memory, bay), head: 0 }
    }

    /// Bytes for bodies.
    pub fn capacity(&self) -> usize {
        self.memory.bay.capacity
    }

    /// The position of the body for which a frame names `place`: the next such position.
    fn position(&self, place: u32) -> u64 {
        let capacity = self.memory.bay.capacity as u64;
        self.head + (u64::from(place) % capacity + capacity - self.head % capacity) % capacity
    }

    /// Returns a copy of the body of `len` bytes at `place`, and frees its space.
    ///
    /// # Errors
    /// It is longer than a bay; or this process has no memory for it, and then its space is freed nevertheless.
    pub fn take(&mut self, place: u32, len: usize) -> Result<Buffer> {
        if len > self.memory.bay.capacity {
            return Err(Error::Damaged("a body is longer than its bay"));
        }
        let copy = self.copy(place, len);
        self.release(place, len)?;
        copy
    }

    fn copy(&self, place: u32, len: usize) -> Result<Buffer> {
        let mut buffer = Buffer::default();
        let mut to: *mut u8 = buffer.fill(len)?.as_mut_ptr();
        for (from, piece) in self.memory.pieces(self.position(place), len) {
            // SAFETY: the piece lies inside the bay, the buffer has room for it, and the writer does not touch these
            // bytes until they are freed. If the writer breaks this rule, the reader gets a mixture of bytes, no more.
            unsafe {
                to.copy_from_nonoverlapping(from, piece);
                to = to.add(piece);
            }
        }
        Ok(buffer)
    }

    /// Frees the space of a body that will not be read, and of all bodies before it.
    ///
    /// # Errors
    /// It is longer than a bay.
    pub fn release(&mut self, place: u32, len: usize) -> Result<()> {
        if len > self.memory.bay.capacity {
            return Err(Error::Damaged("a body is longer than its bay"));
        }
        self.head = self.position(place) + len as u64;
        // Partner: `BayWriter::used`.
        self.memory.published().store(self.head, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const CAPACITY: usize = 64 * 1024;

    fn pair() -> (BayWriter, BayReader) {
        let memory = Arc::new(crate::shm::segment::create_mapped("bay-test", 4096 + CAPACITY).unwrap().0);
        let bay = Bay { word: 8, data: 4096, capacity: CAPACITY };
        (BayWriter::new(&memory, bay), BayReader::new(&memory, bay))
    }

    #[test]
    fn an_empty_bay_begins_again_at_its_front() {
        let (mut writer, mut reader) = pair();
        for round in 0..5u8 {
            assert!(writer.has_room(CAPACITY).unwrap());
            let place = writer.write(&[round; 30_000]);
            assert_eq!(place, 0);
            assert_eq!(reader.take(place, 30_000).unwrap().bytes(), &[round; 30_000]);
        }
    }

    #[test]
    fn numbers_that_no_healthy_side_says_are_reported() {
        let (mut writer, mut reader) = pair();
        writer.write(b"abc");
        assert!(matches!(reader.take(0, CAPACITY + 1), Err(Error::Damaged(_))));
        assert_eq!(reader.take(u32::MAX, CAPACITY).unwrap().bytes().len(), CAPACITY);
        reader.memory.published().store(1 << 40, Ordering::Relaxed);
        assert!(matches!(writer.has_room(1), Err(Error::Damaged(_))));
    }

    #[test]
    fn a_trimmed_bay_works_on() {
        let (mut writer, mut reader) = pair();
        let place = writer.write(&[7; 5000]);
        writer.trim();
        assert_eq!(reader.take(place, 5000).unwrap().bytes(), &[7; 5000]);
        writer.trim();
        assert!(writer.has_room(CAPACITY).unwrap());
        let place = writer.write(&[8; 5000]);
        assert_eq!(reader.take(place, 5000).unwrap().bytes(), &[8; 5000]);
    }

    proptest! {
        #[test]
        fn bodies_come_out_as_they_went_in(steps in prop::collection::vec((1usize..40_000, 0u8..4), 1..200)) {
            let (mut writer, mut reader) = pair();
            let mut waiting = VecDeque::new();
            for (number, (len, what)) in steps.into_iter().enumerate() {
                if writer.has_room(len).unwrap() {
                    let before = writer.tail();
                    let place = writer.write(&vec![number as u8; len]);
                    if what == 3 {
                        writer.rewind(before);
                    } else {
                        waiting.push_back((place, len, number as u8));
                    }
                } else {
                    prop_assert!(!waiting.is_empty());
                }
                if what > 0 && let Some((place, len, number)) = waiting.pop_front() {
                    if what == 2 {
                        reader.release(place, len).unwrap();
                    } else {
                        prop_assert!(reader.take(place, len).unwrap().bytes().iter().all(|&b| b == number));
                    }
                }
            }
        }
    }
}
