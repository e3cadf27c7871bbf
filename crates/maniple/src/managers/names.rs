//! What a namespace holds in the server, which makes one for itself when it starts.

use super::ManagerError;
use super::protocol::Trouble;
use super::registry::Content;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The number of the namespace that each manager has.
pub(super) const NAMES: u64 = 0;

/// A value with its type's name.
pub(super) struct Entry {
    pub value: Box<dyn Any + Send>,
    pub type_name: &'static str,
}

/// What a namespace holds.
pub(super) type Entries = BTreeMap<String, Entry>;

impl Entry {
    /// That it is of another type than the one asked for.
    pub fn holds(&self) -> Trouble {
        ManagerError::WrongType(self.type_name.into()).into()
    }
}

/// An empty one.
pub(super) fn names() -> Content {
    Content::new(Mutex::new(Entries::new()))
}
