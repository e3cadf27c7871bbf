//! Writes payloads.

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

/// The greatest number of bytes of memory that are kept for the next payload.
const KEPT: usize = 1 << 20;

/// A payload that is being written.
#[derive(Debug)]
pub(crate) struct Output {
    packer: Option<Packer>,
    bytes: Vec<u8>,
    sink: Sink,
    count: u32,
    // The position of the count.
    counted: Option<usize>,
    // Whether the chunk consists of numbers so far, as they lie in memory.
    numbers: bool,
    // Whether an item has failed.
    failures: bool,
}

impl Output {
    pub(crate) fn new(packer: &Packer) -> Output {
        let sink = Sink::blocks(packer);
        Output {
            packer: Some(packer.clone()),
            bytes: Vec::new(),
            sink,
            count: 0,
            counted: None,
            numbers: false,
            failures: false,
        }
    }

    /// Returns an output for bytes alone, which [`Input::plain`](super::Input::plain) reads.
    pub(crate) fn plain() -> Output {
        Output {
            packer: None,
            bytes: Vec::new(),
            sink: Sink::default(),
            count: 0,
            counted: None,
            numbers: false,
            failures: false,
        }
    }

    /// As `plain`. `private`: the bytes stay on this machine.
    pub(crate) fn private(private: bool) -> Output {
        Output { sink: Sink::bytes(private), ..Output::plain() }
    }

    /// Returns an output for bytes and descriptors, which [`Input::plain`](super::Input::plain) and [`Input::supply`](super::Input::supply) read.
    pub(crate) fn with_handles() -> Output {
        Output {
            packer: None,
            bytes: Vec::new(),
            sink: Sink::handles(),
            count: 0,
            counted: None,
            numbers: false,
            failures: false,
        }
    }

    /// Writes which of two alternatives follows.
    pub(crate) fn choice(&mut self, first: bool) {
        self.bytes.push(first.into());
    }

    pub(crate) fn identity(&mut self, identity: Identity) {
        self.bytes.extend_from_slice(&identity.encode());
    }

    /// Clears the output, and begins the answer to the task of this number.
    pub(crate) fn begin_task(&mut self, task: u64) {
        self.clear();
        self.failures = false;
        self.bytes.extend_from_slice(&task.to_le_bytes());
    }

    /// Whether an item of the task has failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.failures
    }

    /// Begins a chunk. The next values belong to it.
    pub(crate) fn begin_chunk(&mut self) {
        self.counted = Some(self.bytes.len());
        self.count = 0;
        self.numbers = false;
        self.bytes.extend_from_slice(&[0; 2 * LENGTH]);
    }

    /// Adds a value to the chunk. All values of a chunk have one type. After an error the output is unchanged.
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

    /// Adds numbers to the chunk, all at once. Returns false, and adds nothing, if the values are not numbers, or if
    /// the chunk contains other values.
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

    /// Writes the numbers of the chunk again, in the form of other values.
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

    /// Adds a value plainly. Returns false, and adds nothing, if that is impossible.
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

    /// Adds a failure to a chunk of `T`s, in place of a value.
    pub(crate) fn failed<T: Serialize + 'static>(&mut self, why: &Failure) -> Result<()> {
        if self.numbers {
            self.spell_out::<T>()?;
        }
        self.marked::<Failure>(FAILED, why)?;
        self.failures = true;
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

    /// Adds a separate value. After an error the output is unchanged.
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

    /// Returns the number of blobs and descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        self.sink.mark().total()
    }

    /// Returns the number of values.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the number of bytes, with those of the blobs.
    pub(crate) fn volume(&self) -> usize {
        self.bytes.len() + self.sink.volume()
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        if let Some(at) = self.counted {
            let count = self.count | if self.numbers { NUMBERS } else { 0 };
            self.bytes[at..at + LENGTH].copy_from_slice(&count.to_le_bytes());
        }
        &self.bytes
    }

    /// Takes the descriptors beside the bytes.
    pub(crate) fn take_handles(&mut self) -> Vec<OwnedHandle> {
        self.sink.take_handles()
    }

    /// Makes a packet of the content. Clears the output in each case.
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
        // The memory of a huge payload is not kept for small payloads.
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.count = 0;
        self.counted = None;
        self.numbers = false;
    }
}
