//! A list of mixed values in shared memory, which Rust and Python programs can share.
//!
//! The layout is that of Python's `multiprocessing.shared_memory.ShareableList`, in native byte order:
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | how many items, *n* |
//! | 8 (*n* + 1) | the position at which each item begins, counted from the first, and at which the last ends |
//! | … | the items, each in a slot of a multiple of 8 bytes |
//! | 8 *n* | the form of each item as text, padded with zeros: `q`, `d`, `xxxxxxx?`, `xxxxxx?x` (None), `16s` |
//! | *n* | 0, or the type of the bytes: 1 text, 2 bytes, 3 None |
//!
//! A text or bytes that end in a zero have a form of their exact length with a blank behind it, `3s `, which says that
//! the zeros are part of the item. Python's own class reads such an item without its zeros, and replaces the form when
//! it sets another item. From a million bytes on there is no room for the blank; then a length that differs from the
//! slot's says so.
//!
//! All parts but the last lie at multiples of 8, and are read and written by atomic words, so a reader never sees half
//! of a number. A longer item does not change at once: a process that changes items while others read them guards the
//! list with a lock.

use super::memory::SharedMemory;
use super::value::no_element;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

const WORD: usize = 8;
const TEXT: u8 = 1;
const BYTES: u8 = 2;
const NONE: u8 = 3;
/// The longest slot: its length has to fit into a form of eight characters.
const LONGEST: usize = 9_999_992;

/// A value that a [`ShareableList`] can contain. Numbers, texts and so on convert to it.
///
/// ```
/// use maniple::{ShareableItem, ShareableList};
///
/// let list = ShareableList::new([ShareableItem::from("idle"), 1.into(), 0.5.into(), None::<bool>.into()])?;
/// match list.get(0)? {
///     ShareableItem::Text(text) => assert_eq!(text, "idle"),
///     other => panic!("{other:?}"),
/// }
/// assert_eq!(list.get(3)?, ShareableItem::None);
/// # Ok::<(), maniple::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum ShareableItem {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($type:ty => $variant:ident($value:ident) $made:expr;)*) => {$(
        impl From<$type> for ShareableItem {
            fn from($value: $type) -> ShareableItem {
                ShareableItem::$variant($made)
            }
        }
    )*};
}

from! {
    bool => Bool(value) value;
    i64 => Int(value) value;
    i32 => Int(value) value.into();
    u32 => Int(value) value.into();
    f64 => Float(value) value;
    String => Text(value) value;
    &str => Text(value) value.to_owned();
    Vec<u8> => Bytes(value) value;
    &[u8] => Bytes(value) value.to_vec();
}

impl<T: Into<ShareableItem>> From<Option<T>> for ShareableItem {
    fn from(value: Option<T>) -> ShareableItem {
        value.map_or(ShareableItem::None, Into::into)
    }
}

impl ShareableItem {
    /// Returns the bytes that go into a slot, if the item is not a number.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            ShareableItem::Text(text) => Some(text.as_bytes()),
            ShareableItem::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the length of a new slot for the item. As in Python, a text is followed by at least one zero.
    fn slot(&self) -> usize {
        self.bytes().map_or(WORD, |bytes| WORD * (bytes.len() / WORD + 1))
    }

    fn code(&self) -> u8 {
        match self {
            ShareableItem::None => NONE,
            ShareableItem::Text(_) => TEXT,
            ShareableItem::Bytes(_) => BYTES,
            _ => 0,
        }
    }

    /// Returns the name of the form for a slot of this length: at most eight characters.
    fn form(&self, slot: usize) -> String {
        match self {
            ShareableItem::None => "xxxxxx?x".into(),
            ShareableItem::Bool(_) => "xxxxxxx?".into(),
            ShareableItem::Int(_) => "q".into(),
            ShareableItem::Float(_) => "d".into(),
            ShareableItem::Text(_) | ShareableItem::Bytes(_) => match self.bytes() {
                Some(bytes @ [.., 0]) => {
                    let mut exact = format!("{}s ", bytes.len());
                    exact.truncate(WORD);
                    exact
                }
                _ => format!("{slot}s"),
            },
        }
    }
}

/// A list in shared memory with a fixed length and a fixed room for each text. Python's class of the same name has the
/// same layout, so either side may be `multiprocessing.shared_memory.ShareableList(name="...")`. A standard Python before
/// 3.13 that opens a list removes its name when it ends, see [`SharedMemory`].
///
/// ```
/// use maniple::{Process, ShareableItem, ShareableList};
///
/// # fn main() -> maniple::Result<()> {
/// let list = ShareableList::new([ShareableItem::from("idle"), 0.into(), 0.5.into(), None::<bool>.into()])?;
/// let work = |list: ShareableList| -> maniple::Result<()> {
///     list.set(0, "busy")?;
///     list.set(1, 17)
/// };
/// let process = Process::new(work, list.clone())?;
/// process.start()?;
/// process.join()?;
/// assert_eq!(list.get(0)?, "busy".into());
/// assert_eq!(list.get(1)?, ShareableItem::Int(17));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ShareableList {
    memory: SharedMemory,
    len: usize,
}

impl ShareableList {
    /// Creates a list of these items in nameless memory.
    ///
    /// ```
    /// let list = maniple::ShareableList::new(["one", "two"])?;
    /// assert_eq!((list.len(), list.memory().name()), (2, None));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if an item is too long, [`Error::System`] if there is no memory or descriptor left.
    pub fn new<I: IntoIterator<Item: Into<ShareableItem>>>(items: I) -> Result<ShareableList> {
        ShareableList::make(items, SharedMemory::new)
    }

    /// Creates a list of these items under a name. [`SharedMemory`] says how long the name exists.
    ///
    /// ```
    /// use maniple::ShareableList;
    ///
    /// # let name = format!("maniple-doc-list-create-{}", std::process::id());
    /// # let name = name.as_str();
    /// let made = ShareableList::create(name, [1, 2])?;
    /// assert!(ShareableList::create(name, [3]).is_err());
    /// assert_eq!(made.memory().name(), Some(name));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if an item is too long, or the name is in use or invalid.
    pub fn create<I: IntoIterator<Item: Into<ShareableItem>>>(name: &str, items: I) -> Result<ShareableList> {
        ShareableList::make(items, |len| SharedMemory::create(name, len))
    }

    /// Opens the list of the name, which another process or program made.
    ///
    /// ```
    /// use maniple::ShareableList;
    ///
    /// # let name = format!("maniple-doc-list-open-{}", std::process::id());
    /// # let name = name.as_str();
    /// let made = ShareableList::create(name, [1, 2])?;
    /// made.set(0, 17)?;
    /// assert_eq!(ShareableList::open(name)?.get(0)?, 17.into());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there is none, or if the memory does not contain a list.
    pub fn open(name: &str) -> Result<ShareableList> {
        ShareableList::over(SharedMemory::open(name)?)
    }

    fn make<I: IntoIterator<Item: Into<ShareableItem>>>(
        items: I,
        memory: impl FnOnce(usize) -> Result<SharedMemory>,
    ) -> Result<ShareableList> {
        let items: Vec<ShareableItem> = items.into_iter().map(Into::into).collect();
        let slots: usize = items.iter().map(ShareableItem::slot).sum();
        let len = items.len();
        let memory = memory(WORD * (len + 2) + slots + (WORD + 1) * len)?;
        // All of it is written now. Without room in the file system, a write would end the process (SIGBUS).
        memory.reserve()?;
        memory.word(0)?.store(len as u64, Ordering::Relaxed);
        let mut end = 0;
        for (place, item) in (1..).zip(&items) {
            end += item.slot();
            memory.word(WORD * (place + 1))?.store(end as u64, Ordering::Relaxed);
        }
        let list = ShareableList { memory, len };
        for (index, item) in items.into_iter().enumerate() {
            list.set(index, item)?;
        }
        Ok(list)
    }

    /// The list that lies in `memory`.
    fn over(memory: SharedMemory) -> Result<ShareableList> {
        let len = number(&memory, 0)?;
        // The tables must fit into the memory, so that no multiplication below overflows.
        if len > memory.len() / WORD {
            return Err(no_list(&memory));
        }
        let list = ShareableList { memory, len };
        let mut before = 0;
        for index in 0..=len {
            let at = number(&list.memory, WORD * (index + 1))?;
            if at < before || (index == 0 && at != 0) {
                return Err(no_list(&list.memory));
            }
            before = at;
        }
        let end = list.codes()?.checked_add(len);
        if end.is_none_or(|end| end > list.memory.len()) {
            return Err(no_list(&list.memory));
        }
        Ok(list)
    }

    /// Where an item lies, and how long its slot is.
    fn slot(&self, index: usize) -> Result<(usize, usize)> {
        if index >= self.len {
            return Err(no_element(index, self.len));
        }
        let (start, end) = (number(&self.memory, WORD * (index + 1))?, number(&self.memory, WORD * (index + 2))?);
        let len = end.checked_sub(start).ok_or_else(|| no_list(&self.memory))?;
        let at = start.checked_add(WORD * (self.len + 2)).filter(|at| at.checked_add(len).is_some());
        Ok((at.ok_or_else(|| no_list(&self.memory))?, len))
    }

    /// Where the forms begin.
    fn forms(&self) -> Result<usize> {
        let end = number(&self.memory, WORD * (self.len + 1))?;
        end.checked_add(WORD * (self.len + 2)).ok_or_else(|| no_list(&self.memory))
    }

    fn codes(&self) -> Result<usize> {
        self.forms()?.checked_add(WORD * self.len).ok_or_else(|| no_list(&self.memory))
    }

    /// Returns the number of items.
    ///
    /// ```
    /// assert_eq!(maniple::ShareableList::new([0.5, 1.5])?.len(), 2);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the list is empty.
    ///
    /// ```
    /// assert!(!maniple::ShareableList::new([0.5, 1.5])?.is_empty());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the item at `index`.
    ///
    /// ```
    /// use maniple::{ShareableItem, ShareableList};
    ///
    /// let list = ShareableList::new(["one", "two"])?;
    /// assert_eq!(list.get(1)?, ShareableItem::Text("two".into()));
    /// assert!(list.get(2).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there is none, or if the memory does not contain a valid item, or if the item is
    /// being changed.
    pub fn get(&self, index: usize) -> Result<ShareableItem> {
        let (at, len) = self.slot(index)?;
        let mut code = [0];
        self.memory.read(self.codes()? + index, &mut code)?;
        let form = self.memory.word(self.forms()? + WORD * index)?.load(Ordering::Relaxed).to_ne_bytes();
        let form = trimmed(&form);
        let word = || Ok::<_, Error>(self.memory.word(at)?.load(Ordering::Acquire));
        Ok(match (form, code[0]) {
            (_, NONE) => ShareableItem::None,
            (b"q", _) => ShareableItem::Int(word()?.cast_signed()),
            (b"d", _) => ShareableItem::Float(f64::from_bits(word()?)),
            (b"xxxxxxx?", _) => ShareableItem::Bool(word()?.to_ne_bytes()[7] != 0),
            ([digits @ .., b's'] | [digits @ .., b's', b' '], TEXT | BYTES) => {
                let told = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                let told = told.filter(|&told: &usize| told <= len).ok_or_else(|| strange(index))?;
                let mut bytes = Vec::with_capacity(told.next_multiple_of(WORD));
                for word in (0..told).step_by(WORD) {
                    bytes.extend(self.memory.word(at + word)?.load(Ordering::Acquire).to_ne_bytes());
                }
                bytes.truncate(told);
                if told == len && form.last() == Some(&b's') {
                    bytes.truncate(trimmed(&bytes).len());
                }
                if code[0] == BYTES {
                    ShareableItem::Bytes(bytes)
                } else {
                    ShareableItem::Text(String::from_utf8(bytes).map_err(|_| strange(index))?)
                }
            }
            _ => return Err(strange(index)),
        })
    }

    /// Replaces the item at `index` by an item of any type. A text or bytes have to fit into the slot that was made for
    /// the first item at `index`.
    ///
    /// ```
    /// let list = maniple::ShareableList::new(["short"])?;
    /// list.set(0, 17)?;
    /// list.set(0, "shorter")?;
    /// assert!(list.set(0, "too long for its slot").is_err());
    /// assert_eq!(list.get(0)?, "shorter".into());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if there is no such place or not enough room.
    pub fn set(&self, index: usize, item: impl Into<ShareableItem>) -> Result<()> {
        let item = item.into();
        let (at, room) = self.slot(index)?;
        let bytes = match &item {
            ShareableItem::None => &[0; WORD][..],
            ShareableItem::Bool(value) => &[0, 0, 0, 0, 0, 0, 0, (*value).into()],
            ShareableItem::Int(value) => &value.to_ne_bytes(),
            ShareableItem::Float(value) => &value.to_ne_bytes(),
            ShareableItem::Text(_) | ShareableItem::Bytes(_) => item.bytes().unwrap_or_default(),
        };
        if room > LONGEST {
            return Err(Error::SharedMemory(format!(
                "an item of a list has at most {LONGEST} bytes, and place {index} would need {room}; put it into a \
                 SharedMemory of its own"
            )));
        }
        if bytes.len() > room {
            let needed = bytes.len();
            return Err(Error::SharedMemory(format!(
                "an item of {needed} bytes does not fit into place {index}, which was made with {room} bytes and keeps that \
                 size; make the list with a longer item there"
            )));
        }
        // The whole slot is written, so that no part of a longer text remains.
        let end = if item.bytes().is_some() { room } else { WORD };
        for offset in (0..end).step_by(WORD) {
            let mut word = [0; WORD];
            let part = &bytes[offset.min(bytes.len())..(offset + WORD).min(bytes.len())];
            word[..part.len()].copy_from_slice(part);
            self.memory.word(at + offset)?.store(u64::from_ne_bytes(word), Ordering::Release);
        }
        let mut form = [0; WORD];
        let text = item.form(room);
        form[..text.len()].copy_from_slice(text.as_bytes());
        self.memory.word(self.forms()? + WORD * index)?.store(u64::from_ne_bytes(form), Ordering::Release);
        self.memory.write(self.codes()? + index, &[item.code()])
    }

    /// Returns all items.
    ///
    /// ```
    /// let list = maniple::ShareableList::new([1, 2])?;
    /// assert_eq!(list.to_vec()?, [1.into(), 2.into()]);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// As of [`get`](ShareableList::get).
    pub fn to_vec(&self) -> Result<Vec<ShareableItem>> {
        (0..self.len).map(|index| self.get(index)).collect()
    }

    /// Returns the memory that contains the list, for its name.
    ///
    /// ```
    /// let list = maniple::ShareableList::new([1, 2])?;
    /// assert!(list.memory().len() >= 16);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }
}

fn number(memory: &SharedMemory, offset: usize) -> Result<usize> {
    let number = memory.word(offset).map_err(|_| no_list(memory))?.load(Ordering::Relaxed);
    usize::try_from(number).map_err(|_| no_list(memory))
}

fn no_list(memory: &SharedMemory) -> Error {
    Error::SharedMemory(format!("{:?} does not contain a list", memory.name().unwrap_or("this memory")))
}

fn strange(index: usize) -> Error {
    Error::SharedMemory(format!("item {index} has an unknown form, or is being changed; guard the list with a lock"))
}

/// Without the zeros at the end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
}

impl Serialize for ShareableList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.memory.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShareableList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ShareableList::over(SharedMemory::deserialize(deserializer)?).map_err(<D::Error as serde::de::Error>::custom)
    }
}
