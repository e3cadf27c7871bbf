//! What this process knows of its handles beyond their numbers, by number.
//!
//! The system tells most of a handle's properties, but not cheaply, and not all: that it is a socket (which is closed
//! in another way), the shared part of a line, and what keeps a name in use. An entry begins with the handle and ends
//! with its [`OwnedHandle`](crate::OwnedHandle). If other code closes the number, the entry stays until this crate
//! opens a handle under the same number.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What is known of a handle.
#[derive(Clone, Debug)]
pub enum Known {
    /// It is a socket of the network.
    Socket,
    /// It is an end of a line.
    Line(Arc<dyn Any + Send + Sync>),
    /// It leads to memory under a name; the entry of the name exists as long as the handle in this value.
    Named(#[expect(dead_code, reason = "held, not used")] Arc<dyn Any + Send + Sync>),
}

impl Known {
    /// Returns whether it is a socket.
    pub fn is_socket(&self) -> bool {
        matches!(self, Known::Socket)
    }
}

static TABLE: RwLock<BTreeMap<isize, Known>> = RwLock::new(BTreeMap::new());

/// Returns what is known of a number.
pub fn of(number: isize) -> Option<Known> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
}

/// Returns whether this is so for any entry.
pub fn any(is: impl FnMut(&Known) -> bool) -> bool {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).values().any(is)
}

/// Records what is known of a number.
pub fn note(number: isize, known: Known) {
    let before = TABLE.write().unwrap_or_else(PoisonError::into_inner).insert(number, known);
    // Its destructor may close handles, which takes the lock.
    drop(before);
}

/// Removes the entry of a number that is closed next, or that was just opened.
pub fn forget(number: isize) -> Option<Known> {
    if !TABLE.read().unwrap_or_else(PoisonError::into_inner).contains_key(&number) {
        return None;
    }
    TABLE.write().unwrap_or_else(PoisonError::into_inner).remove(&number)
}

/// Records that the second number is a copy of the first.
pub fn copy(from: isize, to: isize) {
    match of(from) {
        Some(known) => note(to, known),
        None => drop(forget(to)),
    }
}
