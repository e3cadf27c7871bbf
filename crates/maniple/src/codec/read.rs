//! The reading half of [`Postcard`](super::Postcard): postcard's own deserializer, extended by names.
//!
//! If the fields of a struct are, by name and order, those of the reader, they are read in order. Otherwise the struct
//! is read like a map from names to values. serde then treats fields that were left out as missing (their default,
//! `None`, or an error).

use super::error::Refused;
use super::names::{Read, Walk};
use serde::Deserialize;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use std::fmt::Display;

/// A deserializer of a value's bytes.
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    names: Read<'de>,
    // The field that is being read by its name.
    field: &'de str,
    depth: u16,
    // The number of items without bytes that may still follow.
    empty: usize,
}

/// The greatest number of items without bytes in a value. A reader counts them in a fraction of a second.
const MOST_EMPTY: usize = if cfg!(fuzzing) { 1 << 16 } else { 1 << 26 };

/// The greatest depth of lists, options and enums within each other. Each takes some hundred bytes of the stack, and
/// some kilobytes without optimization.
const DEEPEST: u16 = 1000;

const UNTYPED: &str = "its type depends on the input (an untagged or internally tagged enum, `flatten`, a \
    `serde_json::Value`), and the bytes do not contain it; use an enum with serde's default representation, or \
    another Codec";

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8], names: Read<'de>) -> Reader<'de> {
        Reader { rest: bytes, names, field: "", depth: 0, empty: MOST_EMPTY }
    }

    /// Checks that all bytes were read.
    pub(super) fn finish(&self) -> Result<(), Refused> {
        let left = self.rest.len();
        if left > 0 {
            return Err(Refused::new(format_args!(
                "{left} bytes are left over; its Serialize and Deserialize do not agree"
            )));
        }
        self.names.finish()
    }

    #[inline]
    fn plain<T: Deserialize<'de>>(&mut self) -> Result<T, Refused> {
        let (value, rest) = postcard::take_from_bytes(self.rest)?;
        self.rest = rest;
        Ok(value)
    }

    /// It makes as few calls as possible: a build without optimization makes each call for each byte.
    #[inline]
    fn byte(&mut self) -> Result<u8, Refused> {
        match self.rest {
            [first, rest @ ..] => {
                self.rest = rest;
                Ok(*first)
            }
            [] => Err(postcard::Error::DeserializeUnexpectedEnd.into()),
        }
    }

    #[inline]
    fn count(&mut self) -> Result<usize, Refused> {
        let count: usize = self.plain()?;
        // Items without a size take no bytes, so there may be more of them than bytes. A limit keeps the time to count
        // them short.
        self.spend(count.saturating_sub(self.rest.len()))?;
        Ok(count)
    }

    #[inline]
    fn spend(&mut self, empty: usize) -> Result<(), Refused> {
        self.empty = self.empty.checked_sub(empty).ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
        Ok(())
    }

    /// Reads the items of a list, of which `count` were counted.
    #[inline]
    fn items<T>(&mut self, count: usize, read: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        let before = self.rest.len();
        let value = self.deeper(read)?;
        // The items beyond `before` were subtracted already.
        self.spend(count.min(before).saturating_sub(before - self.rest.len()))?;
        Ok(value)
    }

    /// Reads a value whose type may contain itself.
    #[inline]
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, Refused> {
        if self.depth == DEEPEST {
            return Err(too_deep());
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    #[inline]
    fn sequence<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Refused> {
        let mut counted = Counted { reader: self, left };
        let value = visitor.visit_seq(&mut counted)?;
        all_read(counted.left, value)
    }

    fn tuple<V: Visitor<'de>>(&mut self, what: impl Display, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let written = self.count()?;
        if written != len {
            return Err(Refused::new(format_args!(
                "{what} was written with {written} fields and is read with {len}; fields without names cannot be left out: \
                 serde's skip_serializing and skip_deserializing go together here (#[serde(skip)]), skip_serializing_if not at all"
            )));
        }
        self.sequence(len, visitor)
    }

    fn fields<V: Visitor<'de>>(&mut self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        let head = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let (list, left_out) = (head / 2, head % 2 == 1);
        if self.names.is(list, fields)? && !left_out {
            let mut plain = Fields { reader: self, left: fields.len() };
            let value = visitor.visit_seq(&mut plain)?;
            return all_read(plain.left, value);
        }
        let keys = self.names.walk(list)?;
        let mut named = Named { reader: self, keys };
        let value = visitor.visit_map(&mut named)?;
        // The keys behind the last requested key were left out.
        match named.reader.names.key(&mut named.keys)? {
            Some(_) => all_read(1 + named.keys.left, value),
            None => Ok(value),
        }
    }
}

#[cold]
fn too_deep() -> Refused {
    Refused::new(format_args!(
        "it has more than {DEEPEST} nested lists, options and enums; send a list of its parts instead"
    ))
}

#[inline]
fn all_read<T>(left: usize, value: T) -> Result<T, Refused> {
    if left == 0 {
        return Ok(value);
    }
    Err(Refused::new(format_args!("its Deserialize implementation leaves {left} of its items unread")))
}

macro_rules! plain {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
                let value: $type = self.plain()?;
                visitor.$visit(value)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Refused;

    plain! {
        deserialize_bool visit_bool bool, deserialize_char visit_char char,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64,
        deserialize_str visit_borrowed_str &'de str, deserialize_string visit_borrowed_str &'de str,
        deserialize_bytes visit_borrowed_bytes &'de [u8], deserialize_byte_buf visit_borrowed_bytes &'de [u8],
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_u8(self.byte()?)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused::new(UNTYPED))
    }

    /// Reads the name of a variant without content, which serde's adjacently tagged enums request.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let number = self.plain()?;
        visitor.visit_borrowed_str(self.names.variant(number)?.1)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        if self.field.is_empty() {
            return Err(Refused::new(UNTYPED));
        }
        Err(Refused::new(format_args!(
            "its field `{}` is written, and not read under this name; serde's skip_deserializing needs skip_serializing beside it \
             (#[serde(skip)]), and `rename` the same name for both",
            self.field
        )))
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => self.deeper(|reader| visitor.visit_some(reader)),
            _ => Err(postcard::Error::DeserializeBadOption.into()),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let len = self.count()?;
        self.items(len, |reader| reader.sequence(len, visitor))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.sequence(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.tuple(name, len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let len = self.count()?;
        self.items(len, |reader| {
            let mut counted = Counted { reader, left: len };
            let value = visitor.visit_map(&mut counted)?;
            all_read(counted.left, value)
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.fields(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let number = self.plain()?;
        let (index, name) = self.names.variant(number)?;
        self.deeper(|reader| visitor.visit_enum(Variant { reader, index, name }))
    }
}

/// A number of values, or of pairs of values.
struct Counted<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Counted<'_, 'de> {
    type Error = Refused;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Ok(Some(seed.deserialize(&mut *self.reader)?))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Counted<'_, 'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The fields of a struct that has all of them in the reader's order.
struct Fields<'r, 'de> {
    reader: &'r mut Reader<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Refused;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.reader.names.events += 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The fields of a struct, by their names.
struct Named<'r, 'de> {
    reader: &'r mut Reader<'de>,
    keys: Walk<'de>,
}

impl<'de> de::MapAccess<'de> for Named<'_, 'de> {
    type Error = Refused;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refused> {
        let Some(key) = self.reader.names.key(&mut self.keys)? else { return Ok(None) };
        self.reader.field = key;
        seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(&mut *self.reader)
    }
}

/// A variant of an enum. Its name identifies it, because serde numbers only those variants that can be read.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
    index: u32,
    name: &'de str,
}

impl<'r, 'de> de::EnumAccess<'de> for Variant<'r, 'de> {
    type Error = Refused;
    type Variant = Content<'r, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Refused> {
        let value = seed.deserialize(Tag { index: self.index, name: self.name })?;
        Ok((value, Content { reader: self.reader, name: self.name }))
    }
}

/// Reads which variant it is: by its name, or by its index if the type requests a number.
struct Tag<'de> {
    index: u32,
    name: &'de str,
}

macro_rules! by_index {
    ($($method:ident),*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
                visitor.visit_u32(self.index)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Tag<'de> {
    type Error = Refused;

    by_index!(
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_borrowed_str(self.name)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_enum(self.name.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// The content of a variant.
struct Content<'r, 'de> {
    reader: &'r mut Reader<'de>,
    name: &'de str,
}

impl<'de> de::VariantAccess<'de> for Content<'_, 'de> {
    type Error = Refused;

    #[inline]
    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refused> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.reader.tuple(format_args!("its variant `{}`", self.name), len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refused> {
        self.reader.fields(fields, visitor)
    }
}
