//! The window of a log's side on its memory: a mapping of the piece that it uses, which moves with its position.
//!
//! The data is a ring: position `at` lies `at % size` bytes behind the head. A first window is small, because most
//! queues hold little; a window that has to move is large from then on. If the system maps nothing more (its limit on
//! mappings or on addresses is reached), bytes are read and written through the handle.
#![allow(unsafe_code)]

use super::layout::HEAD;
use crate::error::{Doing, Error, Result};
use crate::shm::buffers::Part;
use maniple_sys::AsHandle;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::own::Own;
use maniple_sys::{OwnedHandle, memory};
use std::mem::ManuallyDrop;

/// Bytes of a window: at first, later, and for messages that are longer than a window.
const FIRST: u64 = 1 << 20;
const WINDOW: u64 = 16 << 20;
const LONGEST: u64 = 128 << 20;

/// A log's memory: its handle, and how many bytes of data it has (a multiple of `memory::PAGES`).
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    pub memory: &'a Own,
    pub size: u64,
}

impl Ring<'_> {
    /// Returns how many bytes behind the head position `at` lies. Most rings are so large that positions never wrap, and
    /// a division costs more than all else that is done to find a small message.
    fn inside(&self, at: u64) -> u64 {
        if at < self.size { at } else { at % self.size }
    }

    /// Its handle.
    ///
    /// # Errors
    /// The program has closed it, and may have opened another file under the number.
    fn handle(&self) -> Result<&OwnedHandle> {
        self.memory.found().doing("access a queue's memory, whose descriptor the program has closed")
    }

    /// Frees the pages of `len` bytes from position `at` on (whole pages, not more than the ring has).
    pub fn release(&self, at: u64, len: u64) -> Result<()> {
        let handle = self.handle()?;
        let from = self.inside(at);
        let first = len.min(self.size - from);
        for (from, len) in [(from, first), (0, len - first)] {
            if len > 0 {
                memory::release(handle.as_handle(), HEAD as u64 + from, len).doing("free a queue's memory")?;
            }
        }
        Ok(())
    }
}

/// A mapping of a piece of the log.
#[derive(Debug)]
pub struct Window {
    offset: u64,
    mapping: ManuallyDrop<Option<memory::Mapping>>,
    // Bytes at its start of which the pages are mapped already.
    mapped_in: usize,
    epoch: Epoch,
}

impl Default for Window {
    fn default() -> Self {
        Window { offset: 0, mapping: ManuallyDrop::new(None), mapped_in: 0, epoch: Epoch::now() }
    }
}

impl Window {
    /// Moves the window over the byte at position `at` of the data, and over the next `len` bytes if they are so many
    /// that moving would cost more. Returns false if the system maps nothing more.
    fn move_to(&mut self, ring: Ring<'_>, at: u64, len: u64) -> Result<bool> {
        let at = ring.inside(at);
        let end = at.saturating_add(len).min(ring.size);
        if let Some(mapping) = &*self.mapping {
            let after = self.offset + mapping.len() as u64;
            let is_short = len > WINDOW && end > after && (mapping.len() as u64) < LONGEST;
            if (self.offset..after).contains(&at) && (!is_short || memory::is_narrow()) {
                return Ok(true);
            }
        }
        let lengths = match len {
            _ if self.mapping.is_none() && end <= FIRST => &[FIRST][..],
            0..=WINDOW => &[WINDOW, FIRST][..],
            _ if memory::is_narrow() => &[WINDOW, FIRST][..],
            _ => &[LONGEST, WINDOW, FIRST][..],
        };
        let handle = ring.handle()?;
        for &len in lengths {
            let offset = at - at % len;
            let len = len.min(ring.size - offset);
            match memory::Mapping::at(handle, HEAD as u64 + offset, len as usize, memory::Share::All) {
                Ok(new) => {
                    (self.offset, self.mapped_in) = (offset, 0);
                    *self.mapping = Some(new);
                    return Ok(true);
                }
                Err(error) if memory::is_scarce(&error) => *self.mapping = None,
                Err(error) => return Err(error).doing("map a queue's memory"),
            }
        }
        Ok(false)
    }

    /// Returns the address of the byte at position `at`, and how many bytes follow in the window. The caller has moved
    /// the window there.
    fn place(&self, ring: Ring<'_>, at: u64) -> Result<(*mut u8, usize)> {
        let inside = ring.inside(at).checked_sub(self.offset).map(|inside| inside as usize);
        match (&*self.mapping, inside) {
            (Some(mapping), Some(inside)) if inside < mapping.len() => {
                // SAFETY: less than the window's length.
                Ok((unsafe { mapping.start().as_ptr().add(inside) }, mapping.len() - inside))
            }
            _ => Err(Error::Damaged("a window without a mapping")),
        }
    }

    /// Maps the pages of the first `len` bytes of the data at once. They have been written to before.
    pub fn map_in(&mut self, ring: Ring<'_>, len: u64) -> Result<()> {
        if self.move_to(ring, 0, len)?
            && let Some(mapping) = &*self.mapping
        {
            let len = len.min(mapping.len() as u64) as usize;
            if len > self.mapped_in {
                mapping.map_in(len);
                self.mapped_in = len;
            }
        }
        Ok(())
    }

    /// Allocates pages for `len` bytes at position `at`, or for as many of them as the window shows; returns how many.
    pub fn prepare(&mut self, ring: Ring<'_>, at: u64, len: u64) -> Result<u64> {
        if !self.move_to(ring, at, len)? {
            return Ok(len);
        }
        let Some(mapping) = &*self.mapping else { return Ok(len) };
        let inside = (ring.inside(at) - self.offset) as usize;
        let len = len.min((mapping.len() - inside) as u64);
        mapping.prepare(inside, len as usize).doing("put a message into a queue")?;
        Ok(len)
    }

    /// Copies bytes to position `to`, and advances `to`. The caller may write to that place.
    pub fn write(&mut self, ring: Ring<'_>, to: &mut u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if !self.move_to(ring, *to, bytes.len() as u64)? {
                return write_by_handle(ring, to, bytes);
            }
            let (start, room) = self.place(ring, *to)?;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            // SAFETY: the window has room for so many bytes there, the memory has this length and keeps it, and only
            // the holder of the writers' lock accesses the bytes behind the tail.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), start, now.len()) };
            *to += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Copies a whole message to position `at`: the number of its parts, the length of each, and the parts, `length`
    /// bytes in all. Returns false, and copies nothing, if the window does not show all of that place. The caller may
    /// write there.
    pub fn write_message(&mut self, ring: Ring<'_>, at: u64, length: u64, parts: &[&[u8]]) -> Result<bool> {
        let is_shown = self.move_to(ring, at, length)?;
        let (start, room) = if is_shown { self.place(ring, at)? } else { return Ok(false) };
        let numbers = std::iter::once(parts.len()).chain(parts.iter().map(|part| part.len()));
        if (room as u64) < length || length < 8 + parts.iter().map(|part| 8 + part.len() as u64).sum::<u64>() {
            return Ok(false);
        }
        // SAFETY: as in `write`, and `length` covers all that is copied.
        unsafe {
            let mut to = start;
            for number in numbers {
                to.cast::<[u8; 8]>().write((number as u64).to_ne_bytes());
                to = to.add(8);
            }
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
        Ok(true)
    }

    /// Copies the message at position `at` to the end of `first`, and returns its length, if it consists of one part of at
    /// most `most` bytes and the window shows all of it. `there` bytes lie between the position and the tail.
    pub fn read_message(
        &mut self,
        ring: Ring<'_>,
        at: u64,
        there: u64,
        most: usize,
        first: &mut Vec<u8>,
    ) -> Result<Option<usize>> {
        let is_shown = self.move_to(ring, at, 16)?;
        let (start, room) = if is_shown { self.place(ring, at)? } else { return Ok(None) };
        let room = room.min(usize::try_from(there).unwrap_or(usize::MAX));
        if room < 16 {
            return Ok(None);
        }
        // SAFETY: as in `read_number`.
        let [parts, len] = unsafe { start.cast::<[[u8; 8]; 2]>().read() }.map(u64::from_ne_bytes);
        if parts != 1 || len > most as u64 || len > (room - 16) as u64 {
            return Ok(None);
        }
        let len = len as usize;
        let to = first.room(len)?;
        // SAFETY: as in `read`.
        unsafe {
            std::ptr::copy_nonoverlapping(start.add(16).cast_const(), to.as_ptr(), len);
            first.filled(len);
        }
        Ok(Some(len))
    }

    /// Appends `len` bytes from position `from` on, and advances `from`. They lie between head and tail.
    pub fn read(&mut self, ring: Ring<'_>, from: &mut u64, len: usize, bytes: &mut impl Part) -> Result<()> {
        let mut to = bytes.room(len)?;
        let mut left = len;
        while left > 0 {
            let to_end = (ring.size - ring.inside(*from)).min(left as u64) as usize;
            let now = if self.move_to(ring, *from, left as u64)? {
                let (start, room) = self.place(ring, *from)?;
                let now = left.min(room);
                // SAFETY: the window has so many bytes there, which are published and not changed until the head moves;
                // there is room for them.
                unsafe { std::ptr::copy_nonoverlapping(start.cast_const(), to.as_ptr(), now) };
                now
            } else {
                let offset = HEAD as u64 + ring.inside(*from);
                // SAFETY: there is room for so much, which is initialised first.
                let piece = unsafe {
                    to.as_ptr().write_bytes(0, to_end);
                    std::slice::from_raw_parts_mut(to.as_ptr(), to_end)
                };
                memory::read_at(ring.handle()?.as_handle(), piece, offset).doing("take a message out of a queue")?;
                to_end
            };
            // SAFETY: not beyond the end of the room.
            to = unsafe { to.add(now) };
            *from += now as u64;
            left -= now;
        }
        // SAFETY: the loop has written to all of it.
        unsafe { bytes.filled(len) };
        Ok(())
    }

    /// Returns the number at position `from`, and advances `from`.
    pub fn read_number(&mut self, ring: Ring<'_>, from: &mut u64) -> Result<u64> {
        let mut number = [0; 8];
        if self.move_to(ring, *from, 8)? {
            let (start, _) = self.place(ring, *from)?;
            // SAFETY: as in `read`; positions and windows are multiples of 8, so the number is not split.
            number = unsafe { start.cast::<[u8; 8]>().read() };
        } else {
            let offset = HEAD as u64 + ring.inside(*from);
            memory::read_at(ring.handle()?.as_handle(), &mut number, offset).doing("take a message out of a queue")?;
        }
        *from += 8;
        Ok(u64::from_ne_bytes(number))
    }

    /// Releases the mapping.
    pub fn shut(&mut self) {
        if self.epoch.since() != Since::Born {
            *self.mapping = None;
        }
    }
}

/// Copies bytes to position `to` without a mapping, and advances `to`.
pub fn write_by_handle(ring: Ring<'_>, to: &mut u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let room = (ring.size - ring.inside(*to)).min(bytes.len() as u64) as usize;
        let (now, later) = bytes.split_at(room);
        let offset = HEAD as u64 + ring.inside(*to);
        memory::write_at(ring.handle()?.as_handle(), now, offset).doing("put a message into a queue")?;
        *to += now.len() as u64;
        bytes = later;
    }
    Ok(())
}

impl Drop for Window {
    fn drop(&mut self) {
        // In a forked child the value may be in the middle of a change that only the parent will finish.
        if self.epoch.since() != Since::Born {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.mapping) };
        }
    }
}
