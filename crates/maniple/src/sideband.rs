//! The buffers and descriptors that travel beside the encoded bytes.
//!
//! serde's traits have no parameter for a side channel. So an encoder puts its *sink* (and a decoder its *source*) into
//! a thread-local while it runs. A value that has a buffer or a descriptor puts it into the sink, and writes its
//! number; its `Deserialize` takes it from the source by that number. The transport decides how the content of a sink
//! reaches the other side: in blocks of a pool's link, in parcels of a connection, as handles that a child inherits.
//!
//! If another crate serializes a value, there is no sink: a `Bulk` is then written as an ordinary sequence, and a value
//! with a descriptor is refused.

use crate::codec::{self, Codec};
use crate::error::{Error, Result};
use maniple_engine::channel::parcel::{self, Load};
use maniple_engine::pool::{Packer, policy};
use maniple_engine::shm::blocks::Blob;
use maniple_engine::shm::region::Region;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, RawHandle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::type_name;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::LocalKey;

/// The number of bytes from which on a buffer of a message leaves the encoded bytes: in a pipe for a block, in a queue for
/// a part of its own. In a pipe a shorter buffer costs less as a copy than as a block with its descriptor: measured, a
/// round trip of 16 KiB takes 14 us in the message and 17 us in a block, and of 32 KiB 18 us and 15 us. (For a pool
/// [`policy::BLOB_FROM`] decides: its blocks need no new descriptor.)
const APART_FROM: usize = 32 * 1024;
/// The greatest number of large buffers of a message that travel beside it. Further buffers go into the bytes.
const MOST: usize = maniple_engine::pool::MOST_BLOBS;

/// The buffers and descriptors beside the bytes of an encoder.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    large: Large,
    // None: the transport takes no descriptors.
    handles: Option<Vec<Sent>>,
    // Whether the bytes go to processes of this machine, by a way on which no other process can read them.
    private: bool,
}

/// The place of large buffers.
#[derive(Debug, Default)]
enum Large {
    /// In the bytes, in one piece.
    #[default]
    Inside,
    /// In blocks of a pool's link.
    Blocks(Packer, Vec<Blob>),
    /// In blocks that travel with a connection's message.
    Parcel(Load),
    /// In copies, which are further parts of a queue's message.
    Parts(Vec<Vec<u8>>),
}

/// A descriptor beside the bytes.
#[derive(Debug)]
struct Sent {
    copy: OwnedHandle,
    // The descriptor that was copied, if values may refer to it again.
    shared: Option<RawHandle>,
}

/// The content of a sink at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    large: usize,
    handles: usize,
}

impl Mark {
    /// Large buffers and descriptors.
    pub(crate) fn total(self) -> usize {
        self.large + self.handles
    }
}

/// The buffers and descriptors beside the bytes of a decoder.
#[derive(Debug, Default)]
pub(crate) struct Source {
    large: Vec<Option<Region>>,
    handles: Vec<Option<OwnedHandle>>,
}

thread_local! {
    static SINK: RefCell<Option<Sink>> = const { RefCell::new(None) };
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// Moves `*value` into `place` while `work` runs. Takes it out again, also after a panic.
fn lend<V: Default, R>(place: &'static LocalKey<RefCell<Option<V>>>, value: &mut V, work: impl FnOnce() -> R) -> R {
    struct Back<'a, V: Default + 'static> {
        place: &'static LocalKey<RefCell<Option<V>>>,
        value: &'a mut V,
        before: Option<V>,
    }
    impl<V: Default> Drop for Back<'_, V> {
        fn drop(&mut self) {
            *self.value = self.place.replace(self.before.take()).unwrap_or_default();
        }
    }
    let before = place.replace(Some(std::mem::take(value)));
    let _back = Back { place, value, before };
    work()
}

/// Appends the value to `bytes`, and its large buffers and descriptors to `sink`. After an error both are unchanged.
pub(crate) fn encode<C: Codec, T: Serialize + ?Sized>(value: &T, bytes: &mut Vec<u8>, sink: &mut Sink) -> Result<()> {
    let (start, mark) = (bytes.len(), sink.mark());
    let work = AssertUnwindSafe(|| match C::BESIDE {
        true => lend(&SINK, sink, || C::encode(value, bytes)),
        false => C::encode(value, bytes),
    });
    let encoded = catch_unwind(work).unwrap_or_else(|_| Err(panicked::<T>("encoded")));
    if encoded.is_err() {
        bytes.truncate(start);
        sink.rewind(mark);
    }
    encoded
}

/// Takes a value from the front of `bytes`, with the buffers and descriptors that arrived beside them.
pub(crate) fn decode<C: Codec, T: DeserializeOwned>(bytes: &mut &[u8], source: &mut Source) -> Result<T> {
    let work = AssertUnwindSafe(|| match C::BESIDE {
        true => lend(&SOURCE, source, || C::decode(bytes)),
        false => C::decode(bytes),
    });
    catch_unwind(work).unwrap_or_else(|_| Err(panicked::<T>("decoded")))
}

/// Appends a value without names and without anything beside the bytes. Returns false if that is impossible; part of it
/// may have been appended.
///
/// # Errors
/// Its `Serialize` panicked.
#[inline]
pub(crate) fn encode_plainly<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<bool> {
    // Within the encoding of another value, its sink would receive the buffers of this value.
    if SINK.with_borrow(Option::is_some) {
        return Ok(false);
    }
    let work = AssertUnwindSafe(|| codec::write_plainly(value, bytes));
    catch_unwind(work).map_err(|_| panicked::<T>("encoded"))
}

/// Decodes a value that [`encode_plainly`] wrote.
#[inline]
pub(crate) fn decode_plainly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    catch_unwind(|| codec::read_plainly(bytes)).unwrap_or_else(|_| Err(panicked::<T>("decoded")))
}

fn panicked<T: ?Sized>(what: &'static str) -> Error {
    Error::Codec { what, type_name: type_name::<T>(), why: "its own Serialize or Deserialize panicked".into() }
}

impl Sink {
    /// Returns a sink for a pool's link.
    pub(crate) fn blocks(packer: &Packer) -> Sink {
        Sink { large: Large::Blocks(packer.clone(), Vec::new()), handles: Some(Vec::new()), private: true }
    }

    /// Returns a sink for a transport that takes descriptors, and large buffers in the bytes.
    pub(crate) fn handles() -> Sink {
        Sink { large: Large::Inside, handles: Some(Vec::new()), private: true }
    }

    /// Returns a sink for a connection whose other end takes parcels.
    pub(crate) fn parcel() -> Sink {
        Sink { large: Large::Parcel(Load::default()), handles: Some(Vec::new()), private: true }
    }

    /// Returns a sink for a queue.
    pub(crate) fn parts() -> Sink {
        Sink { large: Large::Parts(Vec::new()), handles: Some(Vec::new()), private: true }
    }

    /// Takes the large buffers that went into a connection's blocks.
    pub(crate) fn take_load(&mut self) -> Load {
        match &mut self.large {
            Large::Parcel(load) => std::mem::take(load),
            _ => Load::default(),
        }
    }

    /// Takes the large buffers that became parts, in order.
    pub(crate) fn take_parts(&mut self) -> Vec<Vec<u8>> {
        match &mut self.large {
            Large::Parts(parts) => std::mem::take(parts),
            _ => Vec::new(),
        }
    }

    /// Returns a sink for bytes alone. `private`: they stay on this machine.
    pub(crate) fn bytes(private: bool) -> Sink {
        Sink { large: Large::Inside, handles: None, private }
    }

    /// Returns the present content as a mark.
    pub(crate) fn mark(&self) -> Mark {
        let large = match &self.large {
            Large::Inside => 0,
            Large::Blocks(_, blobs) => blobs.len(),
            Large::Parcel(load) => load.len(),
            Large::Parts(parts) => parts.len(),
        };
        Mark { large, handles: self.handles.as_ref().map_or(0, Vec::len) }
    }

    /// Drops the content that was added after `mark`.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        match &mut self.large {
            Large::Inside => {}
            Large::Blocks(_, blobs) => blobs.truncate(mark.large),
            Large::Parcel(load) => load.split_off(mark.large).unsent(),
            Large::Parts(parts) => parts.truncate(mark.large),
        }
        if let Some(handles) = &mut self.handles {
            handles.truncate(mark.handles);
        }
    }

    /// Returns the number of bytes in large buffers.
    pub(crate) fn volume(&self) -> usize {
        match &self.large {
            Large::Inside => 0,
            Large::Blocks(_, blobs) => blobs.iter().map(Blob::len).sum(),
            Large::Parcel(load) => load.volume(),
            Large::Parts(parts) => parts.iter().map(Vec::len).sum(),
        }
    }

    /// Takes the large buffers that went into blocks, in order.
    pub(crate) fn take_blobs(&mut self) -> Vec<Blob> {
        match &mut self.large {
            Large::Blocks(_, blobs) => std::mem::take(blobs),
            _ => Vec::new(),
        }
    }

    /// Takes the descriptors beside the bytes, in order.
    pub(crate) fn take_handles(&mut self) -> Vec<OwnedHandle> {
        self.handles.as_mut().map(std::mem::take).unwrap_or_default().into_iter().map(|sent| sent.copy).collect()
    }

    fn store(&mut self, bytes: &[u8]) -> Result<u32, maniple_engine::Error> {
        match &mut self.large {
            Large::Blocks(packer, blobs) if bytes.len() >= policy::BLOB_FROM && blobs.len() < MOST => {
                blobs.push(packer.blob(&[bytes])?);
                Ok(blobs.len() as u32)
            }
            Large::Parcel(load) if bytes.len() >= APART_FROM && load.len() < parcel::MOST_BUFFERS => {
                // If there is no memory or descriptor for a block, the buffer goes into the bytes.
                Ok(if load.add(bytes).is_ok() { load.len() as u32 } else { 0 })
            }
            Large::Parts(parts) if bytes.len() >= APART_FROM && parts.len() < MOST => {
                parts.push(bytes.to_vec());
                Ok(parts.len() as u32)
            }
            _ => Ok(0),
        }
    }

    fn carry(&mut self, fd: BorrowedHandle<'_>, shared: bool) -> Result<u32, &'static str> {
        let handles = self.handles.as_mut().ok_or("it holds a descriptor, which cannot be sent this way")?;
        let shared = shared.then(|| fd.as_raw());
        if let Some(place) = handles.iter().position(|sent| shared.is_some() && sent.shared == shared) {
            return Ok(place as u32);
        }
        if matches!(self.large, Large::Parcel(..) | Large::Parts(..)) && handles.len() >= parcel::MOST_OTHERS {
            return Err("one message takes 188 descriptors at most; send them in several");
        }
        let copy = fd.try_clone_to_owned().map_err(|_| "no descriptor is left for the copy to send")?;
        handles.push(Sent { copy, shared });
        Ok(handles.len() as u32 - 1)
    }
}

impl Source {
    /// Returns a source with the received descriptors.
    pub(crate) fn new(handles: Vec<OwnedHandle>) -> Source {
        Source { large: Vec::new(), handles: handles.into_iter().map(Some).collect() }
    }

    /// Returns a source with the large buffers and the descriptors that arrived.
    pub(crate) fn with(large: impl IntoIterator<Item = impl Into<Region>>, handles: Vec<OwnedHandle>) -> Source {
        Source { large: large.into_iter().map(|buffer| Some(buffer.into())).collect(), ..Source::new(handles) }
    }
}

/// Returns whether a decoder runs whose value may have something beside its bytes.
pub(crate) fn is_decoding() -> bool {
    SOURCE.with_borrow(Option::is_some)
}

/// Returns whether an encoder runs for a process of this machine, by a way on which no other process can read the
/// bytes.
pub(crate) fn stays_on_this_machine() -> bool {
    SINK.with_borrow(|sink| sink.as_ref().is_some_and(|sink| sink.private))
}

/// Puts a large buffer beside the bytes. Returns its number; 0 if it must go into the bytes; `None` if no encoder of
/// maniple runs.
pub(crate) fn send_large<E: serde::ser::Error>(bytes: &[u8]) -> Result<Option<u32>, E> {
    let stored = SINK.with_borrow_mut(|sink| sink.as_mut().map(|sink| sink.store(bytes)));
    stored.transpose().map_err(E::custom)
}

/// Takes the large buffer of that number.
pub(crate) fn take_large<E: serde::de::Error>(number: u32) -> Result<Region, E> {
    let place = (number as usize).wrapping_sub(1);
    let found = SOURCE.with_borrow_mut(|source| source.as_mut()?.large.get_mut(place)?.take());
    found.ok_or_else(|| E::custom("its shared memory was not sent with it, or has already been taken"))
}

/// Puts a copy of the descriptor beside the bytes. Returns its number. `what` names the value that has it: "a
/// Connection".
pub(crate) fn send_handle<E: serde::ser::Error>(what: &'static str, fd: BorrowedHandle<'_>) -> Result<u32, E> {
    send(what, fd, false)
}

/// As above, for a descriptor that many values share: it is sent once. [`copy_handle`] copies it.
pub(crate) fn send_shared_handle<E: serde::ser::Error>(what: &'static str, fd: BorrowedHandle<'_>) -> Result<u32, E> {
    send(what, fd, true)
}

fn send<E: serde::ser::Error>(what: &'static str, fd: BorrowedHandle<'_>, shared: bool) -> Result<u32, E> {
    let sent = SINK.with_borrow_mut(|sink| sink.as_mut().map(|sink| sink.carry(fd, shared)));
    match sent {
        Some(Ok(number)) => Ok(number),
        Some(Err(why)) => Err(E::custom(format_args!("{what}: {why}"))),
        None => Err(E::custom(outside(what))),
    }
}

fn outside(what: &'static str) -> String {
    format!(
        "{what} can only be sent to another process by maniple itself (a Process's argument, a pipe, a queue), in its \
            own codec"
    )
}

/// Takes the descriptor of that number. A second call fails.
pub(crate) fn take_handle<E: serde::de::Error>(what: &'static str, number: u32) -> Result<OwnedHandle, E> {
    arrived(what, number, |place| place.take().ok_or("its descriptor has already been taken"))
}

/// Returns a copy of the descriptor of that number.
pub(crate) fn copy_handle<E: serde::de::Error>(what: &'static str, number: u32) -> Result<OwnedHandle, E> {
    let copy = |place: &mut Option<OwnedHandle>| {
        let handle = place.as_ref().ok_or("its descriptor has already been taken")?;
        handle.as_handle().try_clone_to_owned().map_err(|_| "no descriptor is left for it")
    };
    arrived(what, number, copy)
}

fn arrived<E: serde::de::Error>(
    what: &'static str,
    number: u32,
    get: impl FnOnce(&mut Option<OwnedHandle>) -> Result<OwnedHandle, &'static str>,
) -> Result<OwnedHandle, E> {
    let got = SOURCE.with_borrow_mut(|source| {
        let source = source.as_mut().ok_or_else(|| outside(what))?;
        let place = source.handles.get_mut(number as usize);
        place.ok_or("its descriptor was not sent with it").and_then(get).map_err(|why| format!("{what}: {why}"))
    });
    got.map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;
    use crate::codec::Postcard;
    use crate::handle::{Handle, IntoHandle};

    #[test]
    fn a_blob_that_did_not_come_along_is_an_error() {
        let (mut bytes, mut sink) = (Vec::new(), Sink::parts());
        encode::<Postcard, _>(&Bytes::from(vec![7; APART_FROM]), &mut bytes, &mut sink).unwrap();
        assert_eq!(sink.take_parts().len(), 1);
        let error = decode::<Postcard, Bytes>(&mut &bytes[..], &mut Source::default()).unwrap_err();
        assert!(error.to_string().contains("was not sent with it"), "{error}");
    }

    #[test]
    fn what_lay_in_the_place_before_lies_there_again_even_after_a_panic() {
        let mut outer = Source::default();
        lend(&SOURCE, &mut outer, || {
            let inner = catch_unwind(|| lend(&SOURCE, &mut Source::default(), || panic!("in between")));
            assert!(inner.is_err());
            assert!(is_decoding());
        });
        assert!(!is_decoding());
    }

    fn pair() -> Vec<Handle<OwnedHandle>> {
        let (a, b) = std::io::pipe().unwrap();
        vec![Handle::new(a.into_handle()), Handle::new(b.into_handle())]
    }

    #[test]
    fn descriptors_go_along_in_order_and_are_taken_once() {
        let (mut bytes, mut sink) = (Vec::new(), Sink::handles());
        encode::<Postcard, _>(&pair(), &mut bytes, &mut sink).unwrap();
        let mut source = Source::new(sink.take_handles());
        assert_eq!(source.handles.len(), 2);
        assert_eq!(decode::<Postcard, Vec<Handle<OwnedHandle>>>(&mut &bytes[..], &mut source).unwrap().len(), 2);
        let error = decode::<Postcard, Vec<Handle<OwnedHandle>>>(&mut &bytes[..], &mut source).unwrap_err();
        assert!(error.to_string().contains("already been taken"), "{error}");
    }

    #[test]
    fn a_way_without_descriptors_says_so_and_keeps_nothing() {
        let (mut bytes, mut sink) = (b"before".to_vec(), Sink::default());
        let error = encode::<Postcard, _>(&(1u8, pair()), &mut bytes, &mut sink).unwrap_err();
        assert!(error.to_string().contains("cannot be sent this way"), "{error}");
        assert_eq!(bytes, b"before");
        let mut bytes = Vec::new();
        let error = Postcard::encode(&pair(), &mut bytes).unwrap_err();
        assert!(error.to_string().contains("by maniple itself"), "{error}");
    }
}
