//! Reads payloads.

use super::numbers::{is_number, number_of};
use super::{FAILED, LENGTH, NUMBERS, WHOLE, cut_short};
use crate::codec::{Part, Postcard, check_type};
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::identity::Identity;
use crate::sideband::{self, Source};
use maniple_engine::pool::ReceivedPacket;
use maniple_sys::OwnedHandle;
use serde::de::DeserializeOwned;

/// A payload that arrived.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    source: Source,
    // Whether the next values are numbers as they lie in memory.
    numbers: bool,
}

/// Opens a received payload while `read` runs.
pub(crate) fn open<R>(mut incoming: ReceivedPacket, read: impl FnOnce(&mut Input<'_>) -> R) -> R {
    let source = Source::with(std::mem::take(&mut incoming.regions), std::mem::take(&mut incoming.handles));
    read(&mut Input { bytes: incoming.bytes(), source, numbers: false })
}

impl<'a> Input<'a> {
    /// Reads the bytes of an [`Output::plain`](super::Output::plain).
    pub(crate) fn plain(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, source: Source::default(), numbers: false }
    }

    /// Reads the bytes of an [`Output::with_handles`](super::Output::with_handles), with the descriptors that arrived beside them.
    pub(crate) fn with_handles(bytes: &'a [u8], handles: Vec<OwnedHandle>) -> Input<'a> {
        Input { bytes, source: Source::new(handles), numbers: false }
    }

    /// Returns the bytes that were not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads which of two alternatives follows.
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

    /// Reads the number of the task that the payload was made for.
    pub(crate) fn task(&mut self) -> Result<u64> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// Reads the head of a chunk, and returns the number of its `T`s.
    pub(crate) fn chunk<T>(&mut self) -> Result<u32> {
        let (count, fingerprint) = (self.number()?, self.number()?);
        self.numbers = count & NUMBERS != 0;
        let count = count & !NUMBERS;
        if count > 0 {
            check_type::<T>(fingerprint)?;
        }
        Ok(count)
    }

    /// Reads the next value of a chunk. An outer error: the payload is damaged, and no further value can be read. An
    /// inner error: this value cannot be decoded.
    #[inline]
    pub(crate) fn part<T: DeserializeOwned + 'static>(&mut self) -> Result<Result<T>> {
        self.outcome()
    }

    /// Reads the next value of an answer, or the failure in its place. The errors are those of [`part`](Input::part).
    #[inline]
    pub(crate) fn outcome<T: DeserializeOwned + 'static>(&mut self) -> Result<Result<T>> {
        if self.numbers {
            let (number, rest) = self.bytes.split_at_checked(size_of::<T>()).ok_or_else(cut_short)?;
            self.bytes = rest;
            return number_of(number).map(Ok).ok_or_else(cut_short);
        }
        let (&mark, rest) = self.bytes.split_first().ok_or_else(cut_short)?;
        self.bytes = rest;
        match mark {
            WHOLE => {
                let mut value = self.next()?;
                Ok(sideband::decode::<Part, T>(&mut value, &mut self.source))
            }
            FAILED => {
                let mut value = self.next()?;
                let failure = sideband::decode::<Part, Failure>(&mut value, &mut self.source);
                Ok(Err(failure.map_or_else(|error| error, Error::from)))
            }
            len => {
                let (value, rest) = self.bytes.split_at_checked(len.into()).ok_or_else(cut_short)?;
                self.bytes = rest;
                Ok(sideband::decode_plainly(value))
            }
        }
    }

    /// Reads the next `count` values, if they are numbers; `None` if they are not.
    #[inline]
    pub(crate) fn numbers<T: 'static>(&mut self, count: usize) -> Option<impl Iterator<Item = T> + use<'a, T>> {
        if !self.numbers || !is_number::<T>() {
            return None;
        }
        let (numbers, rest) = self.bytes.split_at_checked(size_of::<T>().checked_mul(count)?)?;
        self.bytes = rest;
        Some(numbers.chunks_exact(size_of::<T>()).filter_map(number_of))
    }

    /// Reads the next separate value. The errors are those of [`part`](Input::part).
    pub(crate) fn item<T: DeserializeOwned>(&mut self) -> Result<Result<T>> {
        let mut value = self.next()?;
        Ok(sideband::decode::<Postcard, T>(&mut value, &mut self.source))
    }

    fn next(&mut self) -> Result<&'a [u8]> {
        let len = self.number()? as usize;
        let (value, rest) = self.bytes.split_at_checked(len).ok_or_else(cut_short)?;
        self.bytes = rest;
        Ok(value)
    }

    /// Sets the descriptors that the next values find beside their bytes.
    pub(crate) fn supply(&mut self, handles: Vec<OwnedHandle>) {
        self.source = Source::new(handles);
    }
}
