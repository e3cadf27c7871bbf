//! The content of a namespace in the server. The server makes one for itself when it starts.

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

/// The content of a namespace.
pub(super) type Entries = BTreeMap<String, Entry>;

impl Entry {
    /// The error that it is of another type than the requested type.
    pub fn holds(&self) -> Trouble {
        ManagerError::WrongType(self.type_name.into()).into()
    }
}

/// Returns an empty namespace.
pub(super) fn names() -> Content {
    Content::new(Mutex::new(Entries::new()))
}
