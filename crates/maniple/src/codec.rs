//! How values become bytes and back. Everything that travels goes through the [`Codec`] trait; [`Postcard`] is the one used unless
//! another is asked for.

use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Values to bytes and back. A connection that is to speak with programs of another kind is given a codec that they know.
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
pub trait Codec: 'static {
    /// Whether large buffers and descriptors in values go beside the bytes. Not where the other side may be something other than
    /// this crate: then a `Bulk` goes as a sequence of its bytes, and descriptors are refused.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// assert!(Postcard::BESIDE);
    /// # #[cfg(feature = "json")]
    /// assert!(!maniple::Json::BESIDE);
    /// ```
    const BESIDE: bool = false;

    /// Appends `value` to `out`. After an error `out` may end in a part of it.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let mut out = b"before".to_vec();
    /// Postcard::encode(&7u8, &mut out)?;
    /// assert_eq!(out, b"before\x07");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::codec`] if the value has no form in this codec.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()>;

    /// Takes a value from the front of `bytes`.
    ///
    /// ```
    /// use maniple::{Codec, Postcard};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let mut bytes = &[7u8, 8][..];
    /// assert_eq!(Postcard::decode::<u8>(&mut bytes)?, 7);
    /// assert_eq!(bytes, [8]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::codec`] if the bytes are no such value.
    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T>;
}

/// The compact binary form of the `postcard` crate: numbers of variable length, no names, no type information.
///
/// ```
/// use maniple::{Codec, Postcard};
///
/// # fn main() -> maniple::Result<()> {
/// let mut out = Vec::new();
/// Postcard::encode(&(7u64, "seven"), &mut out)?;
/// assert_eq!(out, b"\x07\x05seven");
/// assert_eq!(Postcard::decode::<(u64, String)>(&mut &out[..])?, (7, "seven".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

impl Codec for Postcard {
    const BESIDE: bool = true;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        postcard::serialize_with_flavor(value, Append(out)).map_err(|e| codec_error::<T>("encoded", e))
    }

    fn decode<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| codec_error::<T>("decoded", e))?;
        *bytes = rest;
        Ok(value)
    }
}

/// Text that nearly every language can read and write. With the feature `json`.
///
/// One value to a message. A [`Bulk`](crate::Bulk) is a list of its bytes there.
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

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cold]
fn codec_error<T: ?Sized>(what: &'static str, error: postcard::Error) -> Error {
    // serde hands an error of our own types on as text, which postcard drops; it was noted on the way.
    let why = crate::baggage::take_error().unwrap_or_else(|| match error {
        postcard::Error::WontImplement => "its form depends on what the input says (an untagged enum, a \
            `serde_json::Value`, a skipped field), which a format without type information cannot carry"
            .to_owned(),
        postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom => {
            "its own Serialize or Deserialize implementation refused".to_owned()
        }
        other => other.to_string(),
    });
    Error::Codec { what, type_name: std::any::type_name::<T>(), why }
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
    fn values_follow_each_other_in_one_buffer() {
        let mut out = Vec::new();
        Postcard::encode(&7u64, &mut out).unwrap();
        Postcard::encode("seven", &mut out).unwrap();
        let mut bytes = &out[..];
        assert_eq!(Postcard::decode::<u64>(&mut bytes).unwrap(), 7);
        assert_eq!(Postcard::decode::<String>(&mut bytes).unwrap(), "seven");
        assert!(bytes.is_empty());
        assert!(matches!(Postcard::decode::<u64>(&mut bytes), Err(Error::Codec { what: "decoded", .. })));
    }
}
