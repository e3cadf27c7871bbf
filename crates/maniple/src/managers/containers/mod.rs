//! Collections and single values in a manager's server.
//!
//! Each method is one call, during which no other call has the collection. `with` runs any function of the program in
//! the server with the whole collection.

mod dict;
mod list;
mod set;
mod value;

pub use dict::Dict;
pub use list::List;
pub use set::Set;
pub use value::Value;

use super::Manager;
#[cfg(doc)]
use super::proxy::Proxy;
use super::registry::Content;
use crate::error::Result;
use crate::payload::Payload;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Mutex;

/// The methods that every typed proxy has, besides its own.
macro_rules! typed_proxy {
    ($(#[$doc:meta])* $name:ident $(<$($type:ident),+>)? ($content:ty)) => {
        $(#[$doc])*
        pub struct $name $(<$($type),+>)? (pub(super) $crate::managers::proxy::Proxy<$content>);

        impl $(<$($type),+>)? Clone for $name $(<$($type),+>)? {
            fn clone(&self) -> Self {
                $name(self.0.clone())
            }
        }

        impl $(<$($type),+>)? std::fmt::Debug for $name $(<$($type),+>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0.reference())
            }
        }

        impl $(<$($type),+>)? serde::Serialize for $name $(<$($type),+>)? {
            fn serialize<Ser: serde::Serializer>(&self, serializer: Ser) -> Result<Ser::Ok, Ser::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de $(, $($type),+)?> serde::Deserialize<'de> for $name $(<$($type),+>)? {
            fn deserialize<De: serde::Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
                serde::Deserialize::deserialize(deserializer).map($name)
            }
        }
    };
}
pub(super) use typed_proxy;

/// The methods that all collections and the single value have; each type has its own examples of them.
macro_rules! whole {
    (
        $name:ident<$($type:ident),+>($whole:ty);
        $(#[$with:meta])* with;
        $(#[$clear_poison:meta])* clear_poison;
    ) => {
        /// Calls `function(&mut all, argument)` in the server, while no other call has the object. If `function`
        /// panics, all calls fail with [`ManagerError::Poisoned`](crate::managers::ManagerError::Poisoned) until
        /// `clear_poison`.
        ///
        $(#[$with])*
        ///
        /// # Errors
        /// As [`Proxy::call_mut`].
        pub fn with<A: Payload, R: Payload>(&self, function: fn(&mut $whole, A) -> R, argument: A) -> Result<R> {
            let door = |all: &Mutex<$whole>, (function, argument): (Changing<$whole, A, R>, A), answer: &mut Answer| {
                let mut all = unpoisoned(all)?;
                answer.give(&(function.0)(&mut all, argument))
            };
            self.0.reference().ask(door, &(Changing(function), &argument))
        }

        /// Makes the object usable again after a panic in [`with`](Self::with).
        ///
        $(#[$clear_poison])*
        ///
        /// # Errors
        /// [`Error::ManagerLost`](crate::Error::ManagerLost).
        pub fn clear_poison(&self) -> Result<()> {
            let door = |all: &Mutex<$whole>, (): (), answer: &mut Answer| {
                all.clear_poison();
                answer.give(&())
            };
            self.0.reference().ask(door, &())
        }
    };
}
use whole;

impl Manager {
    /// Creates an empty map.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!(ages.get("Ann")?, Some(33));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn dict<K: Payload + Eq + Hash, V: Payload>(&self) -> Result<Dict<K, V>> {
        self.make(|()| Content::new(Mutex::new(HashMap::<K, V>::new())), &()).map(Dict)
    }

    /// Creates an empty list.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.push(&1)?;
    /// assert_eq!(list.get(0)?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn list<T: Payload>(&self) -> Result<List<T>> {
        self.make(|()| Content::new(Mutex::new(Vec::<T>::new())), &()).map(List)
    }

    /// Creates an empty set.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<u32>()?;
    /// assert!(seen.insert(&1)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn set<T: Payload + Eq + Hash>(&self) -> Result<Set<T>> {
        self.make(|()| Content::new(Mutex::new(HashSet::<T>::new())), &()).map(Set)
    }

    /// Creates a single value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let greeting = manager.value(&"hello".to_string())?;
    /// assert_eq!(greeting.get()?, "hello");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn value<T: Payload>(&self, value: &T) -> Result<Value<T>> {
        self.make(|value: T| Content::new(Mutex::new(value)), value).map(Value)
    }
}
