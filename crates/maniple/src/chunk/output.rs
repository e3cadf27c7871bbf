//! Payloads that are being written.

use super::numbers::{bytes_of, bytes_of_all, is_number, number_of};
use super::{FAILED, LENGTH, NUMBERS, WHOLE, cut_short};
use crate::codec::{Codec, Part, Postcard, fingerprint_of};
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::identity::Identity;
use crate::sideband::{self, Mark, Sink};
use maniple_engine::pool::{Packer, Packet};
use maniple_sys::OwnedHandle;
use serde::Serialize;
use std::any::type_name;
use std::mem::needs_drop;

/// Bytes of memory kept for the next payload.
const KEPT: usize = 1 << 20;

/// A payload that is being written.
#[derive(Debug)]
pub(crate) struct Output {
    packer: Option<Packer>,
    bytes: Vec<u8>,
    sink: Sink,
    count: u32,
    // Where the count goes.
    counted: Option<usize>,
    // What has been added are numbers, as they lie in memory.
    numbers: bool,
}

impl Output {
    pub(crate) fn new(packer: &Packer) -> Output {
        let sink = Sink::blocks(packer);
        Output { packer: Some(packer.clone()), bytes: Vec::new(), sink, count: 0, counted: None, numbers: false }
    }

    /// One for bytes alone, to be read with [`Input::plain`].
    pub(crate) fn plain() -> Output {
        Output { packer: None, bytes: Vec::new(), sink: Sink::default(), count: 0, counted: None, numbers: false }
    }

    /// The same; `private`: the bytes stay on this machine.
    pub(crate) fn private(private: bool) -> Output {
        Output { sink: Sink::bytes(private), ..Output::plain() }
    }

    /// One for bytes and descriptors, to be read with [`Input::plain`] and [`Input::supply`].
    pub(crate) fn with_handles() -> Output {
        Output { packer: None, bytes: Vec::new(), sink: Sink::handles(), count: 0, counted: None, numbers: false }
    }

    /// Says which of two things follows.
    pub(crate) fn choice(&mut self, first: bool) {
        self.bytes.push(first.into());
    }

    pub(crate) fn identity(&mut self, identity: Identity) {
        self.bytes.extend_from_slice(&identity.encode());
    }

    /// Forgets all that is in it: what is written next belongs to the task of this number.
    pub(crate) fn begin_task(&mut self, task: u64) {
        self.clear();
        self.bytes.extend_from_slice(&task.to_le_bytes());
    }

    /// From here on there are the values of a chunk.
    pub(crate) fn begin_chunk(&mut self) {
        self.counted = Some(self.bytes.len());
        self.count = 0;
        self.numbers = false;
        self.bytes.extend_from_slice(&[0; 2 * LENGTH]);
    }

    /// Adds a value to the chunk; all of them have one type. After an error all is as it was before.
    #[inline]
    pub(crate) fn part<T: Serialize + 'static>(&mut self, value: &T) -> Result<()> {
        if is_number::<T>() && (self.numbers || self.count == 0) {
            self.bytes.extend_from_slice(bytes_of(value));
            self.numbers = true;
            self.count += 1;
            self.begun::<T>();
            return Ok(());
        }
        if needs_drop::<T>() || !self.plainly(value)? {
            self.marked::<T>(WHOLE, value)?;
        }
        self.begun::<T>();
        Ok(())
    }

    /// Adds values to the chunk that are numbers, all at once; returns false, and adds nothing, if they are not, or if others are there.
    #[inline]
    pub(crate) fn numbers<T: Serialize + 'static>(&mut self, values: &[T]) -> bool {
        if !is_number::<T>() || values.is_empty() || !(self.numbers || self.count == 0) {
            return false;
        }
        self.bytes.extend_from_slice(bytes_of_all(values));
        self.numbers = true;
        if self.count == 0 {
            self.count = 1;
            self.begun::<T>();
            self.count = 0;
        }
        self.count += values.len() as u32;
        true
    }

    /// Adds the numbers that are there anew, as other values are.
    #[cold]
    fn spell_out<T: Serialize + 'static>(&mut self) -> Result<()> {
        let from = self.counted.map_or(0, |at| at + 2 * LENGTH);
        let numbers = self.bytes.split_off(from);
        (self.numbers, self.count) = (false, 0);
        for bytes in numbers.chunks_exact(size_of::<T>()) {
            let number = number_of::<T>(bytes).ok_or_else(cut_short)?;
            if !self.plainly(&number)? {
                self.marked::<T>(WHOLE, &number)?;
            }
        }
        Ok(())
    }

    /// Adds a value plainly. False: that cannot be, and nothing is added.
    #[inline]
    fn plainly<T: Serialize>(&mut self, value: &T) -> Result<bool> {
        let start = self.bytes.len();
        self.bytes.push(0);
        let written = sideband::encode_plainly(value, &mut self.bytes);
        match (&written, u8::try_from(self.bytes.len() - start - 1)) {
            (Ok(true), Ok(len)) if len < WHOLE => {
                self.bytes[start] = len;
                self.count += 1;
            }
            _ => {
                self.bytes.truncate(start);
                return written.map(|_| false);
            }
        }
        written
    }

    fn marked<T: Serialize>(&mut self, mark: u8, value: &T) -> Result<()> {
        self.bytes.push(mark);
        let encoded = self.encode::<Part, T>(value);
        if encoded.is_err() {
            self.bytes.pop();
        }
        encoded
    }

    /// Adds to a chunk of `T`s that there is none.
    pub(crate) fn failed<T: Serialize + 'static>(&mut self, why: &Failure) -> Result<()> {
        if self.numbers {
            self.spell_out::<T>()?;
        }
        self.marked::<Failure>(FAILED, why)?;
        self.begun::<T>();
        Ok(())
    }

    #[inline]
    fn begun<T>(&mut self) {
        if self.count == 1
            && let Some(at) = self.counted
        {
            self.bytes[at + LENGTH..at + 2 * LENGTH].copy_from_slice(&fingerprint_of::<T>().to_le_bytes());
        }
    }

    /// Adds a value by itself. After an error all is as it was before.
    pub(crate) fn item<T: Serialize>(&mut self, value: &T) -> Result<()> {
        self.encode::<Postcard, T>(value)
    }

    fn encode<C: Codec, T: Serialize>(&mut self, value: &T) -> Result<()> {
        let (start, mark) = (self.bytes.len(), self.sink.mark());
        self.bytes.extend_from_slice(&[0; LENGTH]);
        let encoded = sideband::encode::<C, T>(value, &mut self.bytes, &mut self.sink).and_then(|()| {
            u32::try_from(self.bytes.len() - start - LENGTH).map_err(|_| Error::Codec {
                what: "encoded",
                type_name: type_name::<T>(),
                why: "it takes 4 GiB or more; put large numbers of plain values into a maniple::Bulk".into(),
            })
        });
        match encoded {
            Ok(len) => {
                self.bytes[start..start + LENGTH].copy_from_slice(&len.to_le_bytes());
                self.count += 1;
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                self.sink.rewind(mark);
                Err(error)
            }
        }
    }

    /// Blobs and descriptors so far.
    pub(crate) fn descriptors(&self) -> usize {
        self.sink.mark().total()
    }

    /// Values so far.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Bytes and blobs so far, in bytes.
    pub(crate) fn volume(&self) -> usize {
        self.bytes.len() + self.sink.volume()
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        if let Some(at) = self.counted {
            let count = self.count | if self.numbers { NUMBERS } else { 0 };
            self.bytes[at..at + LENGTH].copy_from_slice(&count.to_le_bytes());
        }
        &self.bytes
    }

    /// The descriptors beside the bytes.
    pub(crate) fn take_handles(&mut self) -> Vec<OwnedHandle> {
        self.sink.take_handles()
    }

    /// Makes a packet of it, and starts afresh, whether that worked or not.
    pub(crate) fn pack(&mut self) -> Result<Packet> {
        let (blobs, handles) = (self.sink.take_blobs(), self.sink.take_handles());
        self.bytes();
        let packed = match &self.packer {
            Some(packer) => packer.pack(&self.bytes, blobs),
            None => Ok(Packet::default()),
        };
        self.clear();
        Ok(packed?.with_handles(handles))
    }

    fn clear(&mut self) {
        self.sink.rewind(Mark::default());
        // A huge payload's memory is not kept for small ones.
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.count = 0;
        self.counted = None;
        self.numbers = false;
    }
}
