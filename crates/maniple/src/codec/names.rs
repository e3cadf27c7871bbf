//! The names behind a value: the names of its fields and variants, and the fields that were left out.
//!
//! A *list of keys* belongs to one kind of struct. It contains all of its fields, in order, with those that serde's
//! `skip_serializing_if` left out of a value. A value says which list it has, so reading goes by names if writer and
//! reader do not have the same fields. Fields and variants are counted throughout the value; these counts identify the
//! fields that were left out.
//!
//! ```text
//! names     events · count (length in bytes · count of keys · key …) … · count (index · name) … · count event …
//! ```
//! with lists of keys, variants, and fields that were left out, all in postcard's encoding.

use super::Append;
use super::error::Refused;
use postcard::de_flavors::Slice;
use serde::{Deserialize, Serializer};
use std::cell::Cell;

/// A pool's workers answer with results, so these have numbers that need no entry.
const KNOWN: [(u32, &str); 2] = [(0, "Ok"), (1, "Err")];

/// The greatest number of lists of keys in one value.
const MOST: usize = 1 << 15;
/// The number of lists and variants that are remembered from one value to the next.
const KEPT: usize = 1 << 10;

thread_local! {
    // None while it is in use, or before it is needed.
    static SPARE: Cell<Option<Box<Written>>> = const { Cell::new(None) };
}

type Out<'a> = postcard::Serializer<Append<'a>>;

/// The record of a value that is being written. Its knowledge of types stays for the next value of this thread.
#[derive(Debug, Default)]
pub(super) struct Written {
    keys: Vec<&'static str>,
    lists: Vec<List>,
    variants: Vec<Variant>,
    // The list or variant of such a name that was found last.
    list_hints: [u16; HINTS],
    variant_hints: [u16; HINTS],
    // The structs that are being written, the innermost last.
    open: Vec<Keys>,
    // The keys of those structs whose list is not known yet, adjacent.
    gathered: Vec<&'static str>,
    // For this value: the lists and variants in it, by their numbers; the fields that were left out; the numbers of
    // fields and variants.
    used_lists: Vec<u16>,
    used_variants: Vec<u16>,
    left_out: Vec<u32>,
    events: u32,
}

const HINTS: usize = 16;
/// The mark of a list that the current value does not contain.
const UNUSED: u16 = u16::MAX;

#[derive(Debug)]
struct List {
    name: &'static str,
    start: u32,
    len: u32,
    // The encoded form: the count of keys, and the keys.
    bytes: Box<[u8]>,
    number: u16,
}

#[derive(Debug)]
struct Variant {
    index: u32,
    name: &'static str,
    number: u16,
}

/// The keys of a struct that is being written. They are kept here, because the serializer of its fields is moved often,
/// which would cost more.
#[derive(Clone, Copy, Debug)]
struct Keys {
    name: &'static str,
    // The list that the struct seems to have, or NONE.
    list: u32,
    // The next key of the list and its end; or the position in `gathered` where the struct's own keys begin.
    at: u32,
    end: u32,
    // The position of its head in the bytes.
    head: usize,
    left_out: bool,
}

const NONE: u32 = u32::MAX;

#[inline]
fn hint(name: &'static str) -> usize {
    (name.as_ptr().addr() ^ name.len()) % HINTS
}

#[inline]
fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

impl Written {
    pub(super) fn take() -> Box<Written> {
        SPARE.take().unwrap_or_default()
    }

    /// Begins a struct of that name, whose head is at that position of the bytes.
    #[inline]
    pub(super) fn begin(&mut self, name: &'static str, head: usize) {
        let at = usize::from(self.list_hints[hint(name)]);
        match self.lists.get(at) {
            Some(&List { name: other, start, len, .. }) if std::ptr::eq(other, name) => {
                self.open.push(Keys { name, list: at as u32, at: start, end: start + len, head, left_out: false });
            }
            _ => self.find(name, head),
        }
    }

    #[inline(never)]
    fn find(&mut self, name: &'static str, head: usize) {
        let found = self.lists.iter().rposition(|list| std::ptr::eq(list.name, name));
        let (list, at, end) = match found {
            Some(at) => {
                self.list_hints[hint(name)] = at as u16;
                let List { start, len, .. } = self.lists[at];
                (at as u32, start, start + len)
            }
            None => (NONE, self.gathered.len() as u32, 0),
        };
        self.open.push(Keys { name, list, at, end, head, left_out: false });
    }

    /// Notes the next field of the innermost struct.
    #[inline]
    pub(super) fn key(&mut self, key: &'static str) {
        self.events += 1;
        match self.open.last_mut() {
            Some(keys) if keys.at < keys.end && same(self.keys[keys.at as usize], key) => keys.at += 1,
            _ => self.gather(Some(key)),
        }
    }

    /// Notes the innermost struct's own keys from now on, because they differ from those of the list that it seemed to
    /// have.
    #[inline(never)]
    fn gather(&mut self, key: Option<&'static str>) {
        if let Some(keys) = self.open.last_mut()
            && keys.list != NONE
        {
            let from = self.gathered.len() as u32;
            let start = self.lists[keys.list as usize].start;
            self.gathered.extend_from_slice(&self.keys[start as usize..keys.at as usize]);
            (keys.list, keys.at, keys.end) = (NONE, from, 0);
        }
        self.gathered.extend(key);
    }

    /// As above, for a field that is left out.
    pub(super) fn left_out(&mut self, key: &'static str) {
        self.left_out.push(self.events);
        self.key(key);
        if let Some(keys) = self.open.last_mut() {
            keys.left_out = true;
        }
    }

    /// Ends the innermost struct. Returns its head, and the head's position.
    #[inline]
    pub(super) fn end(&mut self) -> Result<(u16, usize), Refused> {
        let at = match self.open.last() {
            Some(keys) if keys.list != NONE && keys.at == keys.end => keys.list as usize,
            _ => self.settle()?,
        };
        let number = match self.lists[at].number {
            UNUSED => self.first_use(at)?,
            number => number,
        };
        let Some(Keys { head, left_out, .. }) = self.open.pop() else { return Err(too_many()) };
        Ok((2 * number + u16::from(left_out), head))
    }

    #[inline(never)]
    fn first_use(&mut self, at: usize) -> Result<u16, Refused> {
        if self.used_lists.len() == MOST {
            return Err(too_many());
        }
        let number = self.used_lists.len() as u16;
        self.used_lists.push(at as u16);
        self.lists[at].number = number;
        Ok(number)
    }

    /// Finds the list of a struct that had none, or makes it.
    #[inline(never)]
    fn settle(&mut self) -> Result<usize, Refused> {
        self.gather(None);
        let (name, from) = self.open.last().map_or(("", 0), |keys| (keys.name, keys.at as usize));
        let mine = &self.gathered[from..];
        let range = |list: &List| list.start as usize..(list.start + list.len) as usize;
        let at = match self.lists.iter().position(|list| self.keys[range(list)] == *mine) {
            Some(at) => at,
            None => {
                if self.lists.len() == MOST {
                    return Err(too_many());
                }
                let mut bytes = Vec::new();
                let mut out = Out { output: Append(&mut bytes) };
                (&mut out).serialize_u32(mine.len() as u32)?;
                for key in mine {
                    (&mut out).serialize_str(key)?;
                }
                let (start, len) = (self.keys.len() as u32, mine.len() as u32);
                self.lists.push(List { name, start, len, bytes: bytes.into(), number: UNUSED });
                self.keys.extend_from_slice(mine);
                self.lists.len() - 1
            }
        };
        self.gathered.truncate(from);
        self.list_hints[hint(name)] = at as u16;
        Ok(at)
    }

    /// Returns the number of a variant in this value.
    #[inline]
    pub(super) fn variant(&mut self, index: u32, name: &'static str) -> Result<u32, Refused> {
        self.events += 1;
        let at = usize::from(self.variant_hints[hint(name)]);
        match self.variants.get(at) {
            Some(v) if v.number != UNUSED && v.index == index && std::ptr::eq(v.name, name) => {
                Ok(u32::from(v.number) + KNOWN.len() as u32)
            }
            _ => self.find_variant(index, name),
        }
    }

    #[inline(never)]
    fn find_variant(&mut self, index: u32, name: &'static str) -> Result<u32, Refused> {
        if let Some(known) = KNOWN.iter().position(|known| *known == (index, name)) {
            return Ok(known as u32);
        }
        let at = self.variants.iter().position(|v| v.index == index && same(v.name, name)).unwrap_or_else(|| {
            self.variants.push(Variant { index, name, number: UNUSED });
            self.variants.len() - 1
        });
        if at >= MOST {
            return Err(too_many());
        }
        self.variant_hints[hint(name)] = at as u16;
        if self.variants[at].number == UNUSED {
            self.variants[at].number = self.used_variants.len() as u16;
            self.used_variants.push(at as u16);
        }
        Ok(u32::from(self.variants[at].number) + KNOWN.len() as u32)
    }

    /// Appends the names for the reader, and their length, if there are any. Returns whether there are.
    pub(super) fn finish(mut self: Box<Self>, bytes: &mut Vec<u8>) -> Result<bool, Refused> {
        let any = !(self.used_lists.is_empty() && self.used_variants.is_empty());
        if any {
            let from = bytes.len();
            self.write(&mut Out { output: Append(bytes) })?;
            let len = (bytes.len() - from) as u32;
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        self.left_out.clear();
        self.events = 0;
        if self.lists.len().max(self.variants.len()) < KEPT {
            SPARE.set(Some(self));
        }
        Ok(any)
    }

    /// Writes and clears the record of this value.
    fn write(&mut self, out: &mut Out<'_>) -> Result<(), Refused> {
        out.serialize_u32(self.events)?;
        out.serialize_u32(self.used_lists.len() as u32)?;
        for at in self.used_lists.drain(..) {
            let list = &mut self.lists[usize::from(at)];
            list.number = UNUSED;
            out.serialize_bytes(&list.bytes)?;
        }
        out.serialize_u32(self.used_variants.len() as u32)?;
        for at in self.used_variants.drain(..) {
            let variant = &mut self.variants[usize::from(at)];
            variant.number = UNUSED;
            out.serialize_u32(variant.index)?;
            out.serialize_str(variant.name)?;
        }
        out.serialize_u32(self.left_out.len() as u32)?;
        for event in &self.left_out {
            out.serialize_u32(*event)?;
        }
        Ok(())
    }
}

fn too_many() -> Refused {
    Refused::new("it has 32768 kinds of structs or variants; send it in parts")
}

/// The names of a value that is being read.
#[derive(Debug, Default)]
pub(super) struct Read<'de> {
    lists: Vec<Names<'de>>,
    variants: Vec<(u32, &'de str)>,
    left_out: std::vec::IntoIter<u32>,
    /// The numbers of fields and variants that were read.
    pub events: u32,
    expected: Option<u32>,
}

/// A list of keys.
#[derive(Clone, Copy, Debug)]
struct Names<'de> {
    bytes: &'de [u8],
    // The fields that it was last compared with, and the outcome.
    compared: Option<(*const [&'static str], bool)>,
}

/// The keys of a list, in order.
pub(super) struct Walk<'de> {
    bytes: postcard::Deserializer<'de, Slice<'de>>,
    pub left: usize,
}

impl<'de> Walk<'de> {
    fn new(bytes: &'de [u8]) -> Result<Self, Refused> {
        let mut bytes = postcard::Deserializer::from_bytes(bytes);
        let left = u32::deserialize(&mut bytes)? as usize;
        Ok(Walk { bytes, left })
    }

    fn next(&mut self) -> Result<Option<&'de str>, Refused> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        Ok(Some(<&str>::deserialize(&mut self.bytes)?))
    }
}

impl<'de> Read<'de> {
    pub(super) fn open(section: &'de [u8]) -> Result<Self, Refused> {
        let mut bytes = postcard::Deserializer::from_bytes(section);
        let mut read = Read { expected: Some(u32::deserialize(&mut bytes)?), ..Read::default() };
        // No count is accepted before as many bytes have arrived.
        let count = |bytes: &mut _| u32::deserialize(bytes).map(|count| (count as usize).min(section.len()));
        let lists = count(&mut bytes)?;
        read.lists.reserve_exact(lists);
        for _ in 0..lists {
            read.lists.push(Names { bytes: <&[u8]>::deserialize(&mut bytes)?, compared: None });
        }
        let variants = count(&mut bytes)?;
        read.variants.reserve_exact(variants);
        for _ in 0..variants {
            read.variants.push((u32::deserialize(&mut bytes)?, <&str>::deserialize(&mut bytes)?));
        }
        let left_out = count(&mut bytes)?;
        if left_out > 0 {
            let events: Result<Vec<u32>, _> = (0..left_out).map(|_| u32::deserialize(&mut bytes)).collect();
            read.left_out = events?.into_iter();
        }
        Ok(read)
    }

    /// Returns whether the keys of the list are `fields`, in this order.
    #[inline]
    pub(super) fn is(&mut self, list: u16, fields: &'static [&'static str]) -> Result<bool, Refused> {
        match self.lists.get(usize::from(list)).ok_or_else(damaged)?.compared {
            Some((with, outcome)) if std::ptr::eq(with, fields) => Ok(outcome),
            _ => self.compare(list, fields),
        }
    }

    #[inline(never)]
    fn compare(&mut self, list: u16, fields: &'static [&'static str]) -> Result<bool, Refused> {
        let mut keys = self.walk(list)?;
        let mut alike = keys.left == fields.len();
        for field in fields {
            alike = alike && keys.next()? == Some(*field);
        }
        self.lists[usize::from(list)].compared = Some((fields, alike));
        Ok(alike)
    }

    pub(super) fn walk(&self, list: u16) -> Result<Walk<'de>, Refused> {
        Walk::new(self.lists.get(usize::from(list)).ok_or_else(damaged)?.bytes)
    }

    /// Returns the next key of a struct that was not left out.
    pub(super) fn key(&mut self, walk: &mut Walk<'de>) -> Result<Option<&'de str>, Refused> {
        while let Some(key) = walk.next()? {
            let event = self.events;
            self.events += 1;
            if self.left_out.as_slice().first() != Some(&event) {
                return Ok(Some(key));
            }
            self.left_out.next();
        }
        Ok(None)
    }

    /// Returns the index and the name of the variant with this number.
    #[inline]
    pub(super) fn variant(&mut self, number: u32) -> Result<(u32, &'de str), Refused> {
        self.events += 1;
        let number = number as usize;
        let known = KNOWN.get(number).or_else(|| self.variants.get(number.wrapping_sub(KNOWN.len())));
        known.copied().ok_or_else(damaged)
    }

    /// Returns whether all that was written has been read.
    pub(super) fn finish(&self) -> Result<(), Refused> {
        match self.expected {
            Some(written) if written != self.events => Err(Refused::new(format_args!(
                "{written} fields and variants were written and {} are read; its Serialize and Deserialize do not agree",
                self.events
            ))),
            _ => Ok(()),
        }
    }
}

#[cold]
fn damaged() -> Refused {
    Refused::new(
        "its bytes do not belong to such a value; its Serialize and Deserialize do not agree, or it was damaged",
    )
}
