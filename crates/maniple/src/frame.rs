//! What is inside of the engine's opaque payloads.
//!
//! ```text
//! definition   identity of `make` · what the call wrote of itself
//! chunk        count: u32 · type: u32 · (length: u32 · encoded value) …     values: the items
//! answer       task: u64 · chunk                                     values: those of the type, or a Failure with a mark
//! failure      task: u64 · length: u32 · encoded Failure
//! ```
//! `task` is the number of the task that an answer was made for; an answer to another one is an error. `type` is the fingerprint of the
//! values' type (`codec`); values elsewhere bring it with them.
//!
//! Every value has its length before it, so that one that cannot be decoded does not take those behind it along. Large buffers
//! in values go beside the bytes, as blobs, and so do descriptors.

use crate::baggage::{self, Mark, Sink, Source};
use crate::call::Failure;
use crate::codec::{Codec, Part, Postcard, check_type, fingerprint_of, marks};
use crate::error::{Error, Result};
use crate::identity::Identity;
use maniple_engine::pool::{Incoming, Packer, Packet};
use maniple_sys::OwnedHandle;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;

/// A payload in the making.
#[derive(Debug)]
pub(crate) struct Output {
    packer: Option<Packer>,
    bytes: Vec<u8>,
    sink: Sink,
    count: u32,
    // Where the count goes.
    counted: Option<usize>,
}

const LENGTH: usize = 4;

impl Output {
    pub(crate) fn new(packer: &Packer) -> Output {
        let sink = Sink::blocks(packer);
        Output { packer: Some(packer.clone()), bytes: Vec::new(), sink, count: 0, counted: None }
    }

    /// One for bytes alone, to be read with [`Input::plain`].
    pub(crate) fn plain() -> Output {
        Output { packer: None, bytes: Vec::new(), sink: Sink::default(), count: 0, counted: None }
    }

    /// The same; `private`: the bytes stay on this machine.
    pub(crate) fn private(private: bool) -> Output {
        Output { sink: Sink::bytes(private), ..Output::plain() }
    }

    /// One for bytes and descriptors, to be read with [`Input::plain`] and [`Input::supply`].
    pub(crate) fn with_handles() -> Output {
        Output { packer: None, bytes: Vec::new(), sink: Sink::handles(), count: 0, counted: None }
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
        self.bytes.extend_from_slice(&[0; 2 * LENGTH]);
    }

    /// Adds a value to the chunk; all of them have one type. After an error all is as it was before.
    pub(crate) fn part<T: Serialize>(&mut self, value: &T) -> Result<()> {
        self.encode::<Part, T>(value)?;
        self.begun::<T>();
        Ok(())
    }

    /// Adds to a chunk of `T`s that there is none.
    pub(crate) fn failed<T>(&mut self, why: &Failure) -> Result<()> {
        self.encode::<Part, Failure>(why)?;
        if let Some(mark) = self.bytes.last_mut() {
            *mark |= marks::OTHER;
        }
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
        let encoded = baggage::encode::<C, T>(value, &mut self.bytes, &mut self.sink).and_then(|()| {
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
            self.bytes[at..at + LENGTH].copy_from_slice(&self.count.to_le_bytes());
        }
        &self.bytes
    }

    /// The descriptors that go along.
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
    }
}

/// Bytes of memory kept for the next payload.
const KEPT: usize = 1 << 20;

/// A payload that arrived.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    source: Source,
}

/// Opens what arrived, for the time that `read` takes.
pub(crate) fn open<R>(mut incoming: Incoming, read: impl FnOnce(&mut Input<'_>) -> R) -> R {
    let source = Source::regions(std::mem::take(&mut incoming.regions), std::mem::take(&mut incoming.handles));
    read(&mut Input { bytes: incoming.bytes(), source })
}

impl<'a> Input<'a> {
    /// What an [`Output::plain`] wrote.
    pub(crate) fn plain(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, source: Source::default() }
    }

    /// What an [`Output::with_handles`] wrote, and the descriptors that came along.
    pub(crate) fn with_handles(bytes: &'a [u8], handles: Vec<OwnedHandle>) -> Input<'a> {
        Input { bytes, source: Source::new(handles) }
    }

    /// Which of two things follows.
    pub(crate) fn choice(&mut self) -> Result<bool> {
        let (&choice, rest) = self.bytes.split_first().ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(choice == 1)
    }

    pub(crate) fn identity(&mut self) -> Result<Identity> {
        Identity::decode(&mut self.bytes)
    }

    fn number(&mut self) -> Result<u32> {
        let (head, rest) = self.bytes.split_first_chunk::<LENGTH>().ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(u32::from_le_bytes(*head))
    }

    /// The number of the task that this was made for.
    pub(crate) fn task(&mut self) -> Result<u64> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// How many `T`s follow, as a chunk.
    pub(crate) fn chunk<T>(&mut self) -> Result<u32> {
        let (count, fingerprint) = (self.number()?, self.number()?);
        if count > 0 {
            check_type::<T>(fingerprint)?;
        }
        Ok(count)
    }

    /// The next of them. The outer error: there is none, and nothing can follow. The inner one: this one cannot be decoded.
    pub(crate) fn part<T: DeserializeOwned>(&mut self) -> Result<Result<T>> {
        let mut value = self.next()?;
        Ok(baggage::decode::<Part, T>(&mut value, &mut self.source))
    }

    /// The next of them, or why there is none.
    pub(crate) fn outcome<T: DeserializeOwned>(&mut self) -> Result<Result<T>> {
        let mut value = self.next()?;
        match value.last() {
            Some(mark) if mark & marks::OTHER != 0 => {
                Ok(Err(baggage::decode::<Part, Failure>(&mut value, &mut self.source).map_or_else(|e| e, Error::from)))
            }
            _ => Ok(baggage::decode::<Part, T>(&mut value, &mut self.source)),
        }
    }

    /// The next value. The errors are as those of a part.
    pub(crate) fn item<T: DeserializeOwned>(&mut self) -> Result<Result<T>> {
        let mut value = self.next()?;
        Ok(baggage::decode::<Postcard, T>(&mut value, &mut self.source))
    }

    fn next(&mut self) -> Result<&'a [u8]> {
        let len = self.number()? as usize;
        let (value, rest) = self.bytes.split_at_checked(len).ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(value)
    }

    /// From here on, values find these descriptors beside their bytes.
    pub(crate) fn supply(&mut self, handles: Vec<OwnedHandle>) {
        self.source = Source::new(handles);
    }
}

fn cut_short() -> Error {
    Error::Remote("a message between pool and worker is shorter than it says".into())
}
