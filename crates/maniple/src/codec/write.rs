//! The writing half of [`Postcard`](super::Postcard): postcard's own serializer, extended by names.

use super::Append;
use super::error::Refused;
use super::names::Written;
use postcard::ser_flavors::Flavor;
use serde::ser::{self, Serialize, Serializer};

/// A serializer of a value.
pub(super) struct Writer<'a> {
    out: postcard::Serializer<Append<'a>>,
    // None: no part of the value has had a name so far.
    names: Option<Box<Written>>,
}

const LENGTH: &str = "its length is not known before its items are (serde's `flatten`, or an iterator); collect it first, or leave \
                      `flatten` out";

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out: postcard::Serializer { output: Append(out) }, names: None }
    }

    /// Appends the names, if there are any. Returns whether there are.
    pub(super) fn finish(self) -> Result<bool, Refused> {
        self.names.map_or(Ok(false), |names| names.finish(self.out.output.0))
    }

    /// Returns whether no part of the value had a name.
    pub(super) fn is_nameless(&self) -> bool {
        self.names.is_none()
    }

    #[inline]
    fn names(&mut self) -> &mut Written {
        self.names.get_or_insert_with(Written::take)
    }

    #[inline]
    fn count(&mut self, len: usize) -> Result<(), Refused> {
        Ok((&mut self.out).serialize_u64(len as u64)?)
    }

    #[inline]
    fn counted(&mut self, left: usize) -> Counted<'_, 'a> {
        Counted { writer: self, left }
    }

    #[inline]
    fn fields(&mut self, name: &'static str) -> Result<Fields<'_, 'a>, Refused> {
        let head = self.out.output.0.len();
        self.out.output.try_extend(&[0; 2])?;
        self.names().begin(name, head);
        Ok(Fields { writer: self })
    }

    #[inline]
    fn variant(&mut self, index: u32, name: &'static str) -> Result<(), Refused> {
        let number = self.names().variant(index, name)?;
        Ok((&mut self.out).serialize_u32(number)?)
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(
            #[inline]
            fn $method(self, value: $type) -> Result<(), Refused> {
                (&mut self.out).$method(value).map_err(Refused::from)
            }
        )*
    };
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Counted<'w, 'a>;
    type SerializeTuple = Counted<'w, 'a>;
    type SerializeTupleStruct = Counted<'w, 'a>;
    type SerializeTupleVariant = Counted<'w, 'a>;
    type SerializeMap = Counted<'w, 'a>;
    type SerializeStruct = Fields<'w, 'a>;
    type SerializeStructVariant = Fields<'w, 'a>;

    plain! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64,
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Refused> {
        Ok(self.out.output.try_push(value)?)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Refused> {
        self.serialize_u8(0)
    }

    #[inline]
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Refused> {
        (&mut *self).serialize_u8(1)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Refused> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<(), Refused> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<(), Refused> {
        self.variant(index, variant)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.variant(index, variant)?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Refused> {
        let len = len.ok_or_else(|| Refused::new(LENGTH))?;
        self.count(len)?;
        Ok(self.counted(len))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, Refused> {
        Ok(self.counted(len))
    }

    /// Writes the count, because serde does not report the fields that it leaves out here.
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, Refused> {
        self.count(len)?;
        Ok(self.counted(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Refused> {
        self.variant(index, variant)?;
        self.count(len)?;
        Ok(self.counted(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Refused> {
        self.serialize_seq(len)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeStruct, Refused> {
        self.fields(name)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Refused> {
        self.variant(index, variant)?;
        self.fields(variant)
    }
}

/// Checks that as many values were written as were announced.
pub(super) struct Counted<'w, 'a> {
    writer: &'w mut Writer<'a>,
    left: usize,
}

impl Counted<'_, '_> {
    #[inline]
    fn next<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Refused> {
        // As few calls as possible, here and for bytes: a build without optimization makes each call for each item.
        if self.left == 0 {
            return Err(miscounted());
        }
        self.left -= 1;
        value.serialize(&mut *self.writer)
    }

    #[inline]
    fn done(self) -> Result<(), Refused> {
        if self.left == 0 { Ok(()) } else { Err(miscounted()) }
    }
}

#[cold]
fn miscounted() -> Refused {
    Refused::new("its Serialize implementation announces a wrong number of items")
}

macro_rules! counted {
    ($($trait:ident $method:ident),*) => {
        $(
            impl ser::$trait for Counted<'_, '_> {
                type Ok = ();
                type Error = Refused;

                #[inline]
                fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Refused> {
                    self.next(value)
                }

                #[inline]
                fn end(self) -> Result<(), Refused> {
                    self.done()
                }
            }
        )*
    };
}

counted!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

impl ser::SerializeMap for Counted<'_, '_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Refused> {
        self.next(key)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Refused> {
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Refused> {
        self.done()
    }
}

/// The fields of a struct, with their names.
pub(super) struct Fields<'w, 'a> {
    writer: &'w mut Writer<'a>,
}

impl Fields<'_, '_> {
    #[inline]
    fn field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
        self.writer.names().key(key);
        value.serialize(&mut *self.writer)
    }

    #[inline]
    fn done(self) -> Result<(), Refused> {
        let (head, at) = self.writer.names().end()?;
        self.writer.out.output.0[at..at + 2].copy_from_slice(&head.to_le_bytes());
        Ok(())
    }
}

macro_rules! fields {
    ($($trait:ident),*) => {
        $(
            impl ser::$trait for Fields<'_, '_> {
                type Ok = ();
                type Error = Refused;

                #[inline]
                fn serialize_field<T: ?Sized + Serialize>(&mut self, key: &'static str, value: &T) -> Result<(), Refused> {
                    self.field(key, value)
                }

                fn skip_field(&mut self, key: &'static str) -> Result<(), Refused> {
                    self.writer.names().left_out(key);
                    Ok(())
                }

                #[inline]
                fn end(self) -> Result<(), Refused> {
                    self.done()
                }
            }
        )*
    };
}

fields!(SerializeStruct, SerializeStructVariant);
