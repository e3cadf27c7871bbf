//! Bulk data: large lists of plain numbers, which travel beside the encoded bytes instead of inside them.
//!
//! serde walks a `Vec<u8>` element by element. A [`Bulk`] is copied as a whole, and into shared memory if it is large.
//! A small `Bulk` travels inside the encoded bytes, also in one piece.
//!
//! The module `sideband` puts it beside the bytes. Outside of maniple, for example in `serde_json`, a `Bulk` is
//! serialized as an ordinary sequence.

use crate::sideband;
use bytemuck::Pod;
use maniple_engine::shm::region::Region;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A list of bytes that travels as a whole.
///
/// ```
/// use maniple::{Bytes, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let reversed = Pool::new(1)?.apply(
///     |mut bytes: Bytes| {
///         bytes.reverse();
///         bytes
///     },
///     Bytes::from(vec![1, 2, 3]),
/// )?;
/// assert_eq!(*reversed, [3, 2, 1]);
/// # Ok(())
/// # }
/// ```
pub type Bytes = Bulk<u8>;

/// A list of plain numbers (or anything else that is [`Pod`]) that travels to a worker and back as a whole, through
/// shared memory if it is large: a `Vec<u8>` or `Vec<f64>` that is cheap to send. It dereferences to a slice.
///
/// ```
/// use maniple::{Bulk, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let image = Bulk::from(vec![1.5f32; 1_000_000]);
/// let mut brighter = Pool::new(1)?.apply(
///     |mut image: Bulk<f32>| {
///         image.iter_mut().for_each(|pixel| *pixel *= 2.0);
///         image
///     },
///     image,
/// )?;
/// assert_eq!(brighter[999_999], 3.0);
/// brighter[0] = 0.0;
/// # Ok(())
/// # }
/// ```
pub struct Bulk<T: Pod>(Store<T>);

enum Store<T: Pod> {
    Owned(Vec<T>),
    /// A block of the other side's that is ours alone until it is dropped.
    Lent(Region, PhantomData<T>),
}

impl<T: Pod> Bulk<T> {
    /// Creates an empty list.
    ///
    /// ```
    /// static NOTHING: maniple::Bytes = maniple::Bulk::new();
    ///
    /// assert!(NOTHING.is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Bulk(Store::Owned(Vec::new()))
    }

    /// Converts the list into a `Vec`, which copies the data if it lies in shared memory.
    ///
    /// ```
    /// let bulk: maniple::Bulk<u16> = (1..4).collect();
    /// assert_eq!(bulk.into_vec(), [1, 2, 3]);
    /// ```
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Store::Owned(vec) => vec,
            Store::Lent(..) => self.to_vec(),
        }
    }

    fn from_lent(lent: Region) -> Result<Self, &'static str> {
        if !lent.as_slice().len().is_multiple_of(size_of::<T>()) {
            return Err("its shared memory is not a whole number of elements");
        }
        // Blocks start on a page, so the alignment fits every existing element type. If it does not fit, the bytes are
        // copied.
        if bytemuck::try_cast_slice::<u8, T>(lent.as_slice()).is_ok() {
            return Ok(Bulk(Store::Lent(lent, PhantomData)));
        }
        Ok(Bulk(Store::Owned(bytemuck::pod_collect_to_vec(lent.as_slice()))))
    }
}

impl<T: Pod> Deref for Bulk<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Store::Owned(vec) => vec,
            Store::Lent(lent, _) => bytemuck::cast_slice(lent.as_slice()),
        }
    }
}

impl<T: Pod> DerefMut for Bulk<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Store::Owned(vec) => vec,
            Store::Lent(lent, _) => bytemuck::cast_slice_mut(lent.as_mut_slice()),
        }
    }
}

impl<T: Pod> From<Vec<T>> for Bulk<T> {
    fn from(vec: Vec<T>) -> Self {
        Bulk(Store::Owned(vec))
    }
}

impl<T: Pod> From<&[T]> for Bulk<T> {
    fn from(slice: &[T]) -> Self {
        Bulk(Store::Owned(slice.to_vec()))
    }
}

impl<T: Pod> From<Bulk<T>> for Vec<T> {
    fn from(bulk: Bulk<T>) -> Self {
        bulk.into_vec()
    }
}

impl<T: Pod> FromIterator<T> for Bulk<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Bulk(Store::Owned(items.into_iter().collect()))
    }
}

impl<T: Pod> AsRef<[T]> for Bulk<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Pod> Clone for Bulk<T> {
    fn clone(&self) -> Self {
        Bulk(Store::Owned(self.to_vec()))
    }
}

impl<T: Pod> Default for Bulk<T> {
    fn default() -> Self {
        Bulk::new()
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Bulk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Pod + PartialEq> PartialEq for Bulk<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for Bulk<T> {}

/// A list of plain numbers that can travel as a [`Bulk`] does, by `#[serde(with = "maniple::bulk")]`.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Photo {
///     name: String,
///     #[serde(with = "maniple::bulk")]
///     pixels: Vec<u8>,
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let photo = Photo { name: "sky".into(), pixels: vec![200; 1_000_000] };
/// let mean = maniple::Pool::new(1)?.apply(
///     |photo: Photo| photo.pixels.iter().map(|&p| u64::from(p)).sum::<u64>() / photo.pixels.len() as u64,
///     photo,
/// )?;
/// assert_eq!(mean, 200);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of plain values that can be sent in one piece",
    note = "it can be a `Vec<T>`, a `Box<[T]>` or a `maniple::Bulk<T>`, where `T` is `maniple::Pod`"
)]
pub trait List: Sized {
    /// The type of the items.
    type Item: Pod;

    /// Returns the items.
    ///
    /// ```
    /// use maniple::bulk::List;
    ///
    /// assert_eq!(vec![1u8, 2].items(), [1, 2]);
    /// ```
    fn items(&self) -> &[Self::Item];

    /// Creates a list of these items.
    ///
    /// ```
    /// use maniple::{Bulk, bulk::List};
    ///
    /// let boxed: Box<[u8]> = List::from_bulk(Bulk::from(vec![1, 2]));
    /// assert_eq!(*boxed, [1, 2]);
    /// ```
    fn from_bulk(bulk: Bulk<Self::Item>) -> Self;
}

impl<T: Pod> List for Vec<T> {
    type Item = T;

    fn items(&self) -> &[T] {
        self
    }

    fn from_bulk(bulk: Bulk<T>) -> Self {
        bulk.into_vec()
    }
}

impl<T: Pod> List for Box<[T]> {
    type Item = T;

    fn items(&self) -> &[T] {
        self
    }

    fn from_bulk(bulk: Bulk<T>) -> Self {
        bulk.into_vec().into()
    }
}

#[cfg(feature = "bytes")]
impl List for bytes::Bytes {
    type Item = u8;

    fn items(&self) -> &[u8] {
        self
    }

    /// Converts without a copy.
    fn from_bulk(bulk: Bulk<u8>) -> Self {
        bytes::Bytes::from_owner(bulk)
    }
}

#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Bulk<u8> {
    /// Converts without a copy if these bytes have no other owner.
    fn from(bytes: bytes::Bytes) -> Self {
        Bulk::from(Vec::from(bytes))
    }
}

#[cfg(feature = "bytes")]
impl From<Bulk<u8>> for bytes::Bytes {
    /// Without a copy.
    fn from(bulk: Bulk<u8>) -> Self {
        bytes::Bytes::from_owner(bulk)
    }
}

/// For `#[serde(with = "maniple::bulk")]`: see [`List`].
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Photo(#[serde(deserialize_with = "maniple::bulk::deserialize")] Vec<u8>);
///
/// impl serde::Serialize for Photo {
///     fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
///         maniple::bulk::serialize(&self.0, serializer)
///     }
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::pipe::<Photo>()?;
/// sender.send(&Photo(vec![7; 3]))?;
/// assert_eq!(receiver.recv()?.0, [7; 3]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The errors of the serializer, and a lack of shared memory.
pub fn serialize<L: List, S: Serializer>(list: &L, serializer: S) -> Result<S::Ok, S::Error> {
    serialize_slice(list.items(), serializer)
}

/// For `#[serde(with = "maniple::bulk")]`: see [`List`].
///
/// ```
/// #[derive(serde::Serialize)]
/// struct Photo(#[serde(serialize_with = "maniple::bulk::serialize")] Vec<u8>);
///
/// impl<'de> serde::Deserialize<'de> for Photo {
///     fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
///         maniple::bulk::deserialize(deserializer).map(Photo)
///     }
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::pipe::<Photo>()?;
/// sender.send(&Photo(vec![7; 3]))?;
/// assert_eq!(receiver.recv()?.0, [7; 3]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The errors of the deserializer.
pub fn deserialize<'de, L: List, D: Deserializer<'de>>(deserializer: D) -> Result<L, D::Error> {
    Bulk::deserialize(deserializer).map(L::from_bulk)
}

/// The form in maniple's own messages: a number, which is 0 if the bytes follow, or else the number of a large buffer,
/// counted from 1; then the bytes, or nothing.
/// Outside: the bytes.
fn serialize_slice<T: Pod, S: Serializer>(items: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    const { assert!(size_of::<T>() > 0, "a Bulk needs elements that have a size") };
    let bytes: &[u8] = bytemuck::cast_slice(items);
    let Some(stored) = sideband::send_large(bytes)? else { return serializer.serialize_bytes(bytes) };
    let mut pair = serializer.serialize_tuple(2)?;
    pair.serialize_element(&stored)?;
    pair.serialize_element(&AsBytes(if stored == 0 { bytes } else { &[] }))?;
    pair.end()
}

impl<T: Pod> Serialize for Bulk<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_slice(self, serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Bulk<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const { assert!(size_of::<T>() > 0, "a Bulk needs elements that have a size") };
        let visitor = Numbers(PhantomData);
        if sideband::is_decoding() {
            deserializer.deserialize_tuple(2, visitor)
        } else {
            deserializer.deserialize_bytes(visitor)
        }
    }
}

/// Bytes as one piece of a format.
struct AsBytes<'a>(&'a [u8]);

impl Serialize for AsBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Numbers<T>(PhantomData<T>);

impl<T: Pod> Numbers<T> {
    fn copied<E: serde::de::Error>(bytes: &[u8]) -> Result<Vec<T>, E> {
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(E::custom("its bytes are not a whole number of elements"));
        }
        Ok(bytemuck::pod_collect_to_vec(bytes))
    }
}

impl<'de, T: Pod> Visitor<'de> for Numbers<T> {
    type Value = Bulk<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of plain numbers")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bulk<T>, E> {
        Self::copied(bytes).map(Bulk::from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bulk<T>, A::Error> {
        if !sideband::is_decoding() {
            // Formats without a form for bytes (JSON) write them as a list of numbers.
            let mut bytes = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1 << 20));
            while let Some(byte) = seq.next_element::<u8>()? {
                bytes.push(byte);
            }
            return self.visit_bytes(&bytes);
        }
        let number = seq.next_element::<u32>()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let inline = seq.next_element::<Inline<T>>()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        if number == 0 {
            return Ok(Bulk::from(inline.0));
        }
        Bulk::from_lent(sideband::take_large(number)?).map_err(A::Error::custom)
    }
}

struct Inline<T>(Vec<T>);

impl<'de, T: Pod> Deserialize<'de> for Inline<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole<T>(PhantomData<T>);
        impl<T: Pod> Visitor<'_> for Whole<T> {
            type Value = Inline<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Inline<T>, E> {
                Numbers::copied(bytes).map(Inline)
            }
        }
        deserializer.deserialize_bytes(Whole(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Postcard};

    #[test]
    fn lists_of_other_kinds_travel_the_same_way() {
        #[derive(Serialize, Deserialize)]
        struct Lists {
            #[serde(with = "crate::bulk")]
            numbers: Vec<f32>,
            #[serde(with = "crate::bulk")]
            boxed: Box<[u16]>,
        }
        let (mut bytes, mut sink) = (Vec::new(), sideband::Sink::default());
        let sent = Lists { numbers: vec![0.5; 3], boxed: [1, 2].into() };
        sideband::encode::<Postcard, _>(&sent, &mut bytes, &mut sink).unwrap();
        let came: Lists = sideband::decode::<Postcard, _>(&mut &bytes[..], &mut Default::default()).unwrap();
        assert_eq!((came.numbers, came.boxed), (sent.numbers, sent.boxed));
    }

    #[cfg(feature = "bytes")]
    #[test]
    fn it_becomes_bytes_and_comes_of_them_without_a_copy() {
        let bytes = bytes::Bytes::from(vec![1u8, 2, 3]);
        let at = bytes.as_ptr();
        let bulk = Bulk::from(bytes);
        assert_eq!(bulk.as_ptr(), at);
        assert_eq!(bytes::Bytes::from(bulk).as_ptr(), at);
    }

    #[test]
    fn outside_of_maniple_it_is_plain_bytes() {
        let mut out = Vec::new();
        Postcard::encode(&Bulk::from(vec![0x0102u16]), &mut out).unwrap();
        assert!(out.starts_with(&[2, 2, 1]));
        assert_eq!(*Postcard::decode::<Bulk<u16>>(&mut &out[..]).unwrap(), [0x0102]);
    }

    #[test]
    fn bytes_that_are_no_whole_number_of_elements_are_an_error() {
        let mut out = Vec::new();
        // As if the other end had elements of one byte.
        Postcard::encode::<Mislabelled>(&Mislabelled, &mut out).unwrap();
        let error = Postcard::decode::<Mislabelled>(&mut &out[..]).unwrap_err();
        assert!(error.to_string().contains("whole number"), "{error}");
    }

    #[derive(Debug)]
    struct Mislabelled;

    impl Serialize for Mislabelled {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            Bytes::from(vec![1, 2, 3]).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Mislabelled {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Bulk::<u16>::deserialize(deserializer).map(|_| Mislabelled)
        }
    }
}
