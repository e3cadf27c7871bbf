//! What a log's side sees of its memory: a mapping of the piece that it works on, moved when the work moves on.
#![allow(unsafe_code)]

use super::layout::HEAD;
use crate::error::{Doing, Error, Result};
use crate::process::epoch::{Epoch, Since};
use crate::sys::{Handle, memory};
use std::mem::ManuallyDrop;

/// Bytes of a window.
const WINDOW: u64 = 16 << 20;

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
    /// Where byte `at` of the data is mapped, and how many bytes follow in the window.
    fn at(&mut self, memory: &Handle, at: u64) -> Result<(*mut u8, usize)> {
        let offset = at - at % WINDOW;
        if self.mapping.is_none() || self.offset != offset {
            let new = memory::Mapping::at(memory, HEAD as u64 + offset, WINDOW as usize, memory::Share::All)
                .doing("map a queue's memory")?;
            self.offset = offset;
            *self.mapping = Some(new);
            self.mapped_in = 0;
        }
        let inside = (at - offset) as usize;
        match &*self.mapping {
            // SAFETY: less than a window's length.
            Some(mapping) => Ok((unsafe { mapping.start().as_ptr().add(inside) }, WINDOW as usize - inside)),
            None => Err(Error::Damaged("a window without a mapping")),
        }
    }

    /// Has the pages of the first `len` bytes of the data mapped at once. They have been written to before.
    pub fn map_in(&mut self, memory: &Handle, len: u64) -> Result<()> {
        self.at(memory, 0)?;
        let len = len.min(WINDOW) as usize;
        if let (true, Some(mapping)) = (len > self.mapped_in, &*self.mapping) {
            mapping.map_in(len);
            self.mapped_in = len;
        }
        Ok(())
    }

    /// Copies bytes to `to`, which moves on. The memory is long enough, and what lies there is the caller's to write.
    pub fn write(&mut self, memory: &Handle, to: &mut u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (start, room) = self.at(memory, *to)?;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            // SAFETY: the window has room for so much there, the memory is as long (`Log::write` sees to it), and only the holder of
            // the writers' lock touches what lies behind the tail.
            unsafe { std::ptr::copy_nonoverlapping(now.as_ptr(), start, now.len()) };
            *to += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Appends `len` bytes from `from` on, which moves on. They lie between head and tail.
    pub fn read(&mut self, memory: &Handle, from: &mut u64, mut len: usize, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.reserve_exact(len);
        while len > 0 {
            let (start, room) = self.at(memory, *from)?;
            let now = len.min(room);
            // SAFETY: the window has so much there, published and left alone until the head moves; `bytes` has the capacity.
            unsafe {
                std::ptr::copy_nonoverlapping(start.cast_const(), bytes.as_mut_ptr().add(bytes.len()), now);
                bytes.set_len(bytes.len() + now);
            }
            *from += now as u64;
            len -= now;
        }
        Ok(())
    }

    /// The number at `from`, which moves on.
    pub fn read_number(&mut self, memory: &Handle, from: &mut u64) -> Result<u64> {
        let (start, _) = self.at(memory, *from)?;
        *from += 8;
        // SAFETY: as in `read`; positions and windows are multiples of 8, so the number is not split.
        Ok(unsafe { start.cast::<u64>().read() })
    }
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
