//! The encoding of values. Every value travels in a [`Codec`]; [`Postcard`] is the default.

mod error;
mod fingerprint;
mod names;
mod read;
mod write;

use crate::error::{Error, Result};
use error::Refused;
pub(crate) use fingerprint::short;
use read::Reader;
use serde::Serialize;
use serde::de::DeserializeOwned;
use write::Writer;

/// Encodes values to bytes and decodes them. A connection to other programs uses a codec that these programs know.
///
/// ```
/// use maniple::{Codec, Error, Postcard, Result};
/// use serde::{Serialize, de::DeserializeOwned};
///
/// /// Says in front of which version it is.
/// struct Second;
///
/// impl Codec for Second {
///     fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
///         out.push(2);
///         Postcard::encode(value, out)
///     }
///
///     fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
///         let Some((2, rest)) = bytes.split_first() else { return Err(Error::codec::<T>("decoded", "another version")) };
///         *bytes = rest;
///         Postcard::decode(bytes)
///     }
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let mut out = Vec::new();
/// Second::encode(&'a', &mut out)?;
/// assert_eq!(Second::decode::<char>(&mut &out[..])?, 'a');
/// assert!(Second::decode::<char>(&mut &[1, 1, 97][..]).is_err());
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a codec",
    note = "use `maniple::Postcard`, `maniple::Json` (feature `json`), or implement `maniple::Codec` for a type that names yours"
)]
pub trait Codec: 'static {
    /// Whether large buffers and descriptors in values go beside the bytes. This is false if the other side may not use
    /// this crate: a `Bulk` is then sent as a sequence of its bytes, and descriptors are refused.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// assert!(Postcard::BESIDE);
    /// # #[cfg(feature = "json")]
    /// assert!(!maniple::Json::BESIDE);
    /// ```
    const BESIDE: bool = false;

    /// Appends the encoded `value` to `out`. After an error `out` may end in a part of it.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let mut out = b"before".to_vec();
    /// Postcard::encode(&7u8, &mut out)?;
    /// assert!(out.starts_with(b"before\x07"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::codec`] if the value has no form in this codec.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Decodes the value at the start of `bytes`, as [`encode`](Codec::encode) wrote it, and leaves the bytes that it
    /// did not read. Bytes that are left at the end of a message are an error of its receiver.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let mut out = Vec::new();
    /// Postcard::encode(&7u8, &mut out)?;
    /// let mut bytes = &out[..];
    /// assert_eq!(Postcard::decode::<u8>(&mut bytes)?, 7);
    /// assert!(bytes.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::codec`] if the bytes do not encode such a value.
    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T>;
}

/// The compact binary format of the `postcard` crate, with additions that detect differences between the two ends'
/// types.
///
/// Numbers have variable lengths, and values follow one another without names or types. They are followed by data that
/// prevents reading a value as another type: a fingerprint of its type, and once for each kind of struct and variant in
/// it the names.
///
/// ```
/// use maniple::{Codec, Postcard};
///
/// # fn main() -> maniple::Result<()> {
/// let mut out = Vec::new();
/// Postcard::encode(&(7u64, "seven"), &mut out)?;
/// assert!(out.starts_with(b"\x07\x05seven"));
/// assert_eq!(Postcard::decode::<(u64, String)>(&mut &out[..])?, (7, "seven".into()));
/// // Another type is an error, also where its bytes would be the same.
/// assert!(Postcard::decode::<(u32, String)>(&mut &out[..]).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # What serde's attributes do
/// The receiver gets the value that was sent, or an error.
///
/// | | |
/// | --- | --- |
/// | `skip`, `default`, `rename`, `alias`, `with`, `from`, `into`, `transparent`, `other`, adjacently tagged enums (`tag` and `content`) | as everywhere |
/// | `skip_serializing_if`, `skip_serializing` | the field is missing for the reader: `None`, its `default`, or an error if it has none |
/// | the same in tuple structs and tuple variants | an error if a field was left out, because it has no name |
/// | `skip_deserializing` without `skip_serializing`; a name to write that is not one to read | an error |
/// | `untagged`, `flatten`, internally tagged enums (`tag` alone); adjacently tagged variants with named fields; `serde_json::Value` | an error |
///
/// # Types
/// Two types are the same for the two ends if they have the same name, apart from the module and from what serde does
/// not write: `&str` and `String`, `[T]` and `Vec<T>`, `Box`, `Rc`, `Arc`, `Cow`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

/// The length of the fingerprint, which is last. Its highest bit says that names precede it, and before it their
/// length.
const TAIL: usize = 4;
const NAMED: u32 = 1 << 31;

impl Codec for Postcard {
    const BESIDE: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        let named = write(value, out)?;
        let tail = fingerprint::of::<T>() | if named { NAMED } else { 0 };
        out.extend_from_slice(&tail.to_le_bytes());
        Ok(())
    }

    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
        let read = || {
            let (body, tail) = bytes.split_last_chunk::<TAIL>().ok_or_else(cut_short)?;
            let tail = u32::from_le_bytes(*tail);
            if tail & !NAMED != fingerprint::of::<T>() {
                return Err(other_type());
            }
            read(body, tail & NAMED != 0)
        };
        let value = read().map_err(|why| Error::codec::<T>("decoded", why))?;
        *bytes = &[];
        Ok(value)
    }
}

/// As [`Postcard`], for one of many values of a type, whose fingerprint is elsewhere ([`check_type`]). The last byte
/// says whether there are names.
#[derive(Debug)]
pub(crate) struct Part;

/// The last byte of a [`Part`] with names, which precede it, and before it their length.
const HAS_NAMES: u8 = 1;

impl Codec for Part {
    const BESIDE: bool = true;

    #[inline]
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        let named = write(value, out)?;
        out.push(if named { HAS_NAMES } else { 0 });
        Ok(())
    }

    #[inline]
    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
        let read = || {
            let (mark, body) = bytes.split_last().ok_or_else(cut_short)?;
            read(body, mark & HAS_NAMES != 0)
        };
        let value = read().map_err(|why| Error::codec::<T>("decoded", why))?;
        *bytes = &[];
        Ok(value)
    }
}

pub(crate) use fingerprint::of as fingerprint_of;

/// Checks that the next values have this type.
pub(crate) fn check_type<T>(fingerprint: u32) -> Result<()> {
    if fingerprint == fingerprint::of::<T>() { Ok(()) } else { Err(Error::codec::<T>("decoded", other_type())) }
}

#[cold]
fn other_type() -> Refused {
    Refused::new("the sender sent a value of another type; both ends have to name the same type")
}

#[cold]
fn cut_short() -> Refused {
    Refused::new("its bytes end too early")
}

/// Appends a value and the names in it. Returns whether there are any.
#[inline]
fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<bool> {
    let mut writer = Writer::new(out);
    let written = value.serialize(&mut writer).and_then(|()| writer.finish());
    written.map_err(|why| Error::codec::<T>("encoded", why))
}

/// Appends a value without names. Returns false if it has names, or no such form.
#[inline]
pub(crate) fn write_plainly<T: Serialize>(value: &T, out: &mut Vec<u8>) -> bool {
    let mut writer = Writer::new(out);
    value.serialize(&mut writer).is_ok() && writer.is_nameless()
}

/// Decodes a value that [`write_plainly`] appended.
#[inline]
pub(crate) fn read_plainly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    read(bytes, false).map_err(|why| Error::codec::<T>("decoded", why))
}

#[inline]
fn read<T: DeserializeOwned>(mut body: &[u8], named: bool) -> Result<T, Refused> {
    let mut names = names::Read::default();
    if named {
        let (rest, len) = body.split_last_chunk::<TAIL>().ok_or_else(cut_short)?;
        let at = rest.len().checked_sub(u32::from_le_bytes(*len) as usize).ok_or_else(cut_short)?;
        let (values, section) = rest.split_at(at);
        names = names::Read::open(section)?;
        body = values;
    }
    let mut reader = Reader::new(body, names);
    let value = T::deserialize(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// JSON text, which nearly every language can read and write. With the feature `json`.
///
/// A message has one value. A [`Bulk`](crate::Bulk) is a list of its bytes.
///
/// ```
/// use maniple::{Codec, Json};
///
/// # fn main() -> maniple::Result<()> {
/// let mut out = Vec::new();
/// Json::encode(&("seven", [7]), &mut out)?;
/// assert_eq!(out, br#"["seven",[7]]"#);
/// assert_eq!(Json::decode::<(String, [u8; 1])>(&mut &out[..])?, ("seven".into(), [7]));
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(out, value).map_err(|why| Error::codec::<T>("encoded", why))
    }

    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
        serde_json::from_slice(std::mem::take(bytes)).map_err(|why| Error::codec::<T>("decoded", why))
    }
}

/// postcard's own adapter for a `Vec` takes it by value and extends it item by item.
struct Append<'a>(&'a mut Vec<u8>);

impl Append<'_> {
    /// Makes room. If there is no memory for it, the value is refused; `Vec` itself would end the program.
    #[cold]
    fn grow(&mut self, more: usize) -> postcard::Result<()> {
        self.0.try_reserve(more).map_err(|_| postcard::Error::SerializeBufferFull)
    }
}

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.0.len() == self.0.capacity() {
            self.grow(1)?;
        }
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            self.grow(bytes.len())?;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "json")]
    #[test]
    fn json_is_what_others_read() {
        let mut out = Vec::new();
        Json::encode(&("a", [1, 2]), &mut out).unwrap();
        assert_eq!(out, br#"["a",[1,2]]"#);
        assert_eq!(Json::decode::<(String, [u8; 2])>(&mut &out[..]).unwrap(), ("a".into(), [1, 2]));
        assert!(matches!(Json::decode::<u8>(&mut &out[..]), Err(Error::Codec { what: "decoded", .. })));
    }

    #[test]
    fn what_is_left_of_the_bytes_or_missing_is_an_error() {
        let mut out = Vec::new();
        Postcard::encode(&(7u64, "seven"), &mut out).unwrap();
        assert_eq!(Postcard::decode::<(u64, String)>(&mut &out[..]).unwrap(), (7, "seven".into()));
        for wrong in [&out[1..], &out[..out.len() - 1], &[&[1], &out[..]].concat(), &[]] {
            let result = Postcard::decode::<(u64, String)>(&mut &wrong[..]);
            assert!(matches!(result, Err(Error::Codec { what: "decoded", .. })), "{result:?}");
        }
    }
}
