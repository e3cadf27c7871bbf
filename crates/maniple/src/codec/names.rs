//! The names that stand behind a value: what the fields and variants in it are called, and which fields were left out.
//!
//! A *list of keys* is that of one kind of struct: all of its fields, in order, those included that serde's `skip_serializing_if` left out
//! of some value. Values tell which list is theirs, so that reading goes by names where writer and reader do not have the same fields.
//! Fields are counted as they come, throughout the value; which of them were left out is told by these counts.

use super::refusal::Refused;
use serde::{Deserialize, Serialize};

/// Results are what a pool's workers answer with, so these have numbers that need no entry.
const KNOWN: [(u32, &str); 2] = [(0, "Ok"), (1, "Err")];

/// How many lists of keys one value can have.
const MOST: usize = 1 << 15;

/// What is noted while a value is written.
#[derive(Debug, Default)]
pub(super) struct Written {
    keys: Vec<&'static str>,
    lists: Vec<List>,
    // The list that was looked for last.
    last: usize,
    // Those of structs under way whose list is not known yet, one behind the other.
    gathered: Vec<&'static str>,
    variants: Vec<(u32, &'static str)>,
    left_out: Vec<u32>,
    /// Fields and variants so far.
    pub events: u32,
}

#[derive(Debug)]
struct List {
    name: &'static str,
    start: usize,
    len: usize,
}

/// The keys of a struct under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    name: &'static str,
    // The list that it seems to have, and how many keys were as they are there; or where its own begin in `gathered`.
    expected: Result<(usize, usize), usize>,
}

/// How it is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Section<'a> {
    events: u32,
    lengths: Vec<u32>,
    #[serde(borrow)]
    keys: Vec<&'a str>,
    #[serde(borrow)]
    variants: Vec<(u32, &'a str)>,
    left_out: Vec<u32>,
}

impl Written {
    pub(super) fn begin(&mut self, name: &'static str) -> Keys {
        let is = |list: &List| std::ptr::eq(list.name, name);
        if !self.lists.get(self.last).is_some_and(is)
            && let Some(found) = self.lists.iter().rposition(is)
        {
            self.last = found;
        }
        let expected = match self.lists.get(self.last).is_some_and(is) {
            true => Ok((self.last, 0)),
            false => Err(self.gathered.len()),
        };
        Keys { name, expected }
    }

    #[inline]
    pub(super) fn key(&mut self, keys: &mut Keys, key: &'static str) {
        self.events += 1;
        if let Ok((list, at)) = &mut keys.expected {
            let List { start, len, .. } = self.lists[*list];
            if *at < len && same(self.keys[start + *at], key) {
                *at += 1;
                return;
            }
        }
        self.gather(keys);
        self.gathered.push(key);
    }

    /// The struct's keys are not those of the list that it seemed to have.
    #[cold]
    fn gather(&mut self, keys: &mut Keys) {
        if let Ok((list, at)) = keys.expected {
            let start = self.lists[list].start;
            keys.expected = Err(self.gathered.len());
            self.gathered.extend_from_slice(&self.keys[start..start + at]);
        }
    }

    pub(super) fn left_out(&mut self, keys: &mut Keys, key: &'static str) {
        self.left_out.push(self.events);
        self.key(keys, key);
    }

    /// The number of its list.
    pub(super) fn end(&mut self, mut keys: Keys) -> Result<u16, Refused> {
        if let Ok((list, at)) = keys.expected
            && at == self.lists[list].len
        {
            return Ok(list as u16);
        }
        self.gather(&mut keys);
        let from = keys.expected.err().unwrap_or_default();
        let mine = &self.gathered[from..];
        let known = self.lists.iter().position(|list| self.keys[list.start..list.start + list.len] == *mine);
        let number = match known {
            Some(number) => number,
            None => {
                if self.lists.len() == MOST {
                    return Err(Refused::new("it has 32768 kinds of structs; send it in parts"));
                }
                self.lists.push(List { name: keys.name, start: self.keys.len(), len: mine.len() });
                self.keys.extend_from_slice(mine);
                self.lists.len() - 1
            }
        };
        self.gathered.truncate(from);
        Ok(number as u16)
    }

    fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.variants.is_empty()
    }

    /// The number of a variant.
    pub(super) fn variant(&mut self, index: u32, name: &'static str) -> u32 {
        self.events += 1;
        let is = |of: &(u32, &str)| of.0 == index && same(of.1, name);
        let known = KNOWN.len();
        if let Some(found) = self.variants.iter().position(is) {
            return (known + found) as u32;
        }
        if let Some(found) = KNOWN.iter().position(is) {
            return found as u32;
        }
        self.variants.push((index, name));
        (known + self.variants.len()) as u32 - 1
    }

    /// Appends what a reader needs of it, if there is any, and forgets all. Gives whether there was.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<bool, Refused> {
        let any = !self.is_empty();
        if any {
            let start = out.len();
            let section = Section {
                events: self.events,
                lengths: self.lists.iter().map(|list| list.len as u32).collect(),
                keys: std::mem::take(&mut self.keys),
                variants: std::mem::take(&mut self.variants),
                left_out: std::mem::take(&mut self.left_out),
            };
            postcard::serialize_with_flavor(&section, super::Append(out)).map_err(Refused::from)?;
            let len = (out.len() - start) as u32;
            out.extend_from_slice(&len.to_le_bytes());
        }
        *self = Written::default();
        Ok(any)
    }
}

#[inline]
fn same(a: &str, b: &str) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// What is known while a value is read.
#[derive(Debug, Default)]
pub(super) struct Read<'de> {
    lists: Vec<Names<'de>>,
    variants: Vec<(u32, &'de str)>,
    left_out: std::vec::IntoIter<u32>,
    /// Fields and variants so far.
    pub events: u32,
    expected: Option<u32>,
}

/// A list of keys.
#[derive(Debug)]
struct Names<'de> {
    keys: Box<[&'de str]>,
    // What it was last compared with, and the outcome.
    compared: Option<(*const &'static str, bool)>,
}

impl<'de> Read<'de> {
    pub(super) fn open(section: &'de [u8]) -> Result<Self, Refused> {
        let Section { events, lengths, keys, variants, left_out } = postcard::from_bytes(section)?;
        let mut keys = keys.into_iter();
        let mut lists = Vec::with_capacity(lengths.len());
        for len in lengths {
            let list: Box<[&str]> = keys.by_ref().take(len as usize).collect();
            lists.push(Names { keys: list, compared: None });
        }
        Ok(Read { lists, variants, left_out: left_out.into_iter(), events: 0, expected: Some(events) })
    }

    /// How many keys the list has, and whether they are `fields`, in this order.
    #[inline]
    pub(super) fn compare(&mut self, list: u16, fields: &'static [&'static str]) -> Result<(usize, bool), Refused> {
        let Some(list) = self.lists.get_mut(usize::from(list)) else { return Err(damaged()) };
        let alike = match list.compared {
            Some((with, alike)) if std::ptr::eq(with, fields.as_ptr()) && list.keys.len() == fields.len() => alike,
            _ => {
                let alike = *list.keys == *fields;
                list.compared = Some((fields.as_ptr(), alike));
                alike
            }
        };
        Ok((list.keys.len(), alike))
    }

    /// Key number `at` of the list; `None`: this one was left out. It counts as read.
    pub(super) fn key(&mut self, list: u16, at: usize) -> Result<Option<&'de str>, Refused> {
        let key = self.lists.get(usize::from(list)).and_then(|list| list.keys.get(at)).ok_or_else(damaged)?;
        let event = self.events;
        self.events += 1;
        let left_out = self.left_out.as_slice().first() == Some(&event);
        if left_out {
            self.left_out.next();
        }
        Ok((!left_out).then_some(*key))
    }

    /// Index and name of the variant with this number.
    pub(super) fn variant(&mut self, number: u32) -> Result<(u32, &'de str), Refused> {
        self.events += 1;
        let number = number as usize;
        let known = KNOWN.get(number).or_else(|| self.variants.get(number.wrapping_sub(KNOWN.len())));
        known.copied().ok_or_else(damaged)
    }

    /// Whether as much was read as was written.
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

fn damaged() -> Refused {
    Refused::new(
        "its bytes do not belong to such a value; its Serialize and Deserialize do not agree, or it was damaged",
    )
}
