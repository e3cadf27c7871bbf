//! What is inside of the engine's opaque payloads.
//!
//! ```text
//! definition   identity of `make` · what the call wrote of itself
//! chunk        count: u32 · type: u32 · value …                      values: the items
//!            | NUMBERS + count: u32 · type: u32 · numbers            as they lie in memory
//! answer       task: u64 · chunk                                     values: those of the type, or failures
//! value        length: u8, 253 at most · plainly encoded value
//!            | WHOLE · length: u32 · encoded value
//!            | FAILED · length: u32 · encoded Failure                 in answers alone
//! failure      task: u64 · length: u32 · encoded Failure
//! ```
//! `task` is the number of the task that an answer was made for; an answer to another one is an error. `type` is the fingerprint of the
//! values' type (`codec`); values elsewhere bring it with them.
//!
//! Every value has its length before it, so that one that cannot be decoded does not take those behind it along. What owns nothing and
//! is short, as numbers are, is encoded plainly: without names, and with nothing beside the bytes. Large buffers
//! in values go beside the bytes, as blobs, and so do descriptors.
#![allow(unsafe_code)]

use crate::codec::{Codec, Part, Postcard, check_type, fingerprint_of};
use crate::error::{CallError, Error, Result};
use crate::failure::Failure;
use crate::identity::Identity;
use crate::sideband::{self, Mark, Sink, Source};
use maniple_engine::pool::{Packer, Packet, ReceivedPacket};
use maniple_sys::OwnedHandle;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::{TypeId, type_name};
use std::mem::{MaybeUninit, needs_drop};

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

const LENGTH: usize = 4;
/// In the place of a value's length.
const WHOLE: u8 = 254;
const FAILED: u8 = 255;
/// In a chunk's count: all its values are numbers.
const NUMBERS: u32 = 1 << 31;

/// Whether a type is one of the numbers that lie in memory as bytes, any of which are a value.
#[inline]
fn is_number<T: 'static>() -> bool {
    let of = TypeId::of::<T>();
    macro_rules! is_any {
        ($($kind:ty)*) => { $(of == TypeId::of::<$kind>())||* };
    }
    cfg!(target_endian = "little") && is_any!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64)
}

/// A number's bytes.
#[inline]
fn bytes_of<T: 'static>(number: &T) -> &[u8] {
    assert!(is_number::<T>());
    // SAFETY: the type is a number's, as was just seen: it has no bytes that are not part of its value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(number).cast(), size_of::<T>()) }
}

/// The number that these bytes are.
#[inline]
fn number_of<T: 'static>(bytes: &[u8]) -> Option<T> {
    if !is_number::<T>() || bytes.len() != size_of::<T>() {
        return None;
    }
    let mut number = MaybeUninit::<T>::uninit();
    // SAFETY: there are as many bytes as the type has, which is a number's: any bytes are a valid number.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), number.as_mut_ptr().cast(), bytes.len());
        Some(number.assume_init())
    }
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
        // SAFETY: the type is a number's, as was just seen: it has no bytes that are not part of its value.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        self.bytes.extend_from_slice(bytes);
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

/// Bytes of memory kept for the next payload.
const KEPT: usize = 1 << 20;

/// A payload that arrived.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    source: Source,
    // What follows are numbers, as they lie in memory.
    numbers: bool,
}

/// Opens what arrived, for the time that `read` takes.
pub(crate) fn open<R>(mut incoming: ReceivedPacket, read: impl FnOnce(&mut Input<'_>) -> R) -> R {
    let source = Source::with(std::mem::take(&mut incoming.regions), std::mem::take(&mut incoming.handles));
    read(&mut Input { bytes: incoming.bytes(), source, numbers: false })
}

impl<'a> Input<'a> {
    /// What an [`Output::plain`] wrote.
    pub(crate) fn plain(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, source: Source::default(), numbers: false }
    }

    /// What an [`Output::with_handles`] wrote, and the descriptors beside it.
    pub(crate) fn with_handles(bytes: &'a [u8], handles: Vec<OwnedHandle>) -> Input<'a> {
        Input { bytes, source: Source::new(handles), numbers: false }
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
        self.numbers = count & NUMBERS != 0;
        let count = count & !NUMBERS;
        if count > 0 {
            check_type::<T>(fingerprint)?;
        }
        Ok(count)
    }

    /// The next of them. The outer error: there is none, and nothing can follow. The inner one: this one cannot be decoded.
    #[inline]
    pub(crate) fn part<T: DeserializeOwned + 'static>(&mut self) -> Result<Result<T>> {
        self.outcome()
    }

    /// The next of them, or why there is none.
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

    /// The next `count` of them, if they are numbers; `None` if they are not.
    #[inline]
    pub(crate) fn numbers<T: 'static>(&mut self, count: usize) -> Option<impl Iterator<Item = T> + use<'a, T>> {
        if !self.numbers || !is_number::<T>() {
            return None;
        }
        let (numbers, rest) = self.bytes.split_at_checked(size_of::<T>().checked_mul(count)?)?;
        self.bytes = rest;
        Some(numbers.chunks_exact(size_of::<T>()).filter_map(number_of))
    }

    /// The next value. The errors are as those of a part.
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

    /// From here on, values find these descriptors beside their bytes.
    pub(crate) fn supply(&mut self, handles: Vec<OwnedHandle>) {
        self.source = Source::new(handles);
    }
}

fn cut_short() -> Error {
    Error::Call(CallError::Remote("a message between pool and worker is shorter than the length that it states".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a worker answers with these outcomes, read again.
    fn there_and_back<T: Serialize + DeserializeOwned + 'static>(values: Vec<Result<T>>) -> Vec<Result<T>> {
        let mut output = Output::plain();
        output.begin_chunk();
        for value in &values {
            match value {
                Ok(value) => output.part(value).unwrap(),
                Err(error) => output.failed::<T>(&Failure::from(error)).unwrap(),
            }
        }
        let mut input = Input::plain(output.bytes());
        let count = input.chunk::<T>().unwrap() as usize;
        assert_eq!(count, values.len());
        let read = (0..count).map(|_| input.outcome().unwrap()).collect();
        assert!(input.outcome::<T>().is_err(), "there is something left");
        read
    }

    fn all<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + Clone + 'static>(values: &[T]) {
        let read = there_and_back(values.iter().cloned().map(Ok).collect());
        assert_eq!(read.into_iter().collect::<Result<Vec<T>>>().unwrap(), values);
    }

    #[test]
    fn numbers_of_all_kinds_come_back() {
        all(&[0u8, 1, 255]);
        all(&[0u16, u16::MAX]);
        all(&[0u32, u32::MAX]);
        all(&[0u64, 1, u64::MAX]);
        all(&[0u128, u128::MAX]);
        all(&[i8::MIN, -1, i8::MAX]);
        all(&[i16::MIN, i16::MAX]);
        all(&[i32::MIN, i32::MAX]);
        all(&[i64::MIN, i64::MAX]);
        all(&[i128::MIN, i128::MAX]);
        all(&[f32::MIN, -0.0, f32::INFINITY]);
        all(&[f64::MIN, -0.0, f64::INFINITY]);
        let nan = f64::from_bits(0x7ff8_0000_0000_1234);
        assert_eq!(there_and_back(vec![Ok(nan)])[0].as_ref().unwrap().to_bits(), nan.to_bits());
        // Others, which are not as they lie in memory.
        all(&[true, false]);
        all(&['a', '\u{10ffff}']);
        all(&[(), ()]);
        all(&[(1u8, -1i64), (2, i64::MIN)]);
        all(&[[7u64; 30], [u64::MAX; 30]]);
        all(&["".to_owned(), "x".repeat(300)]);
        all(&[Some(1u32), None]);
        all(&[Ok(1u8), Err("no".to_owned())]);
        all::<u64>(&[]);
    }

    #[test]
    fn a_failure_among_numbers_leaves_the_others() {
        let failed = || Err(Error::Call(CallError::Remote("why".into())));
        for place in 0..4 {
            let values = (0..4u64).map(|n| if n == place { failed() } else { Ok(n << 40) }).collect::<Vec<_>>();
            let read = there_and_back(values);
            for (n, value) in (0..4).zip(read) {
                match value {
                    Ok(value) => assert_eq!((value, n != place), (n << 40, true)),
                    Err(error) => assert!(error.to_string().ends_with("why") && n == place),
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_cut_short_or_of_another_type_are_refused() {
        let mut output = Output::plain();
        output.begin_chunk();
        (0..3u64).for_each(|n| output.part(&n).unwrap());
        let bytes = output.bytes().to_vec();
        let mut cut = Input::plain(&bytes[..bytes.len() - 1]);
        assert_eq!(cut.chunk::<u64>().unwrap(), 3);
        assert!(cut.outcome::<u64>().is_ok() && cut.outcome::<u64>().is_ok() && cut.outcome::<u64>().is_err());
        assert!(Input::plain(&bytes).chunk::<i64>().is_err());
        // A chunk whose header says that texts are numbers.
        let mut texts = Output::plain();
        texts.begin_chunk();
        texts.part(&"text".to_owned()).unwrap();
        let mut bytes = texts.bytes().to_vec();
        bytes[3] |= 0x80;
        let mut input = Input::plain(&bytes);
        assert_eq!(input.chunk::<String>().unwrap(), 1);
        assert!(input.outcome::<String>().is_err());
    }
}
