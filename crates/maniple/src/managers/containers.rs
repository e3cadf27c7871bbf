//! Collections and single values in a manager's server.
//!
//! Each method is one call, during which nobody else has the collection. What goes beyond a method is done by
//! `with`: a function of one's own, run in the server with the whole collection.

use super::Manager;
use super::calling::{Answer, Changing};
#[cfg(doc)]
use super::proxy::Proxy;
use super::proxy::unpoisoned;
use super::registry::Content;
use crate::call::Payload;
use crate::error::Result;
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Mutex;

/// What every typed proxy is, besides its methods.
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

/// The methods that all collections and the single value have.
macro_rules! whole {
    ($name:ident<$($type:ident),+>($whole:ty)) => {
        /// Calls `function(&mut all, argument)` in the server, while nobody else has it. If it panics, all calls fail
        /// with [`Refusal::Poisoned`](crate::managers::Refusal::Poisoned) until `clear_poison`.
        ///
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let list = manager.list::<u32>()?;
        /// list.extend(&[3, 1, 2])?;
        /// // One call, so nobody comes in between.
        /// let take = |list: &mut Vec<u32>, count| list.drain(..count).min();
        /// assert_eq!(list.with(take, 2)?, Some(1));
        /// assert_eq!(list.to_vec()?, [2]);
        /// # Ok(())
        /// # }
        /// ```
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

        /// Makes it usable again after a panic in [`with`](Self::with).
        ///
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let list = manager.list::<u32>()?;
        /// // Divides by zero, in the server.
        /// assert!(list.with(|list, by| list.push(10 / by), 0).is_err());
        /// assert!(list.len().is_err());
        /// list.clear_poison()?;
        /// assert_eq!(list.len()?, 0);
        /// # Ok(())
        /// # }
        /// ```
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

typed_proxy!(
    /// A map in a [`Manager`]'s server.
    ///
    /// Where a key is asked for, any borrowed form of it will do: `&str` for `String`.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// assert_eq!(ages.insert("Ann", &33)?, None);
    /// assert_eq!(ages.get("Ann")?, Some(33));
    /// assert_eq!(ages.with(|ages, by| ages.values_mut().map(|age| { *age += by; *age }).sum::<u32>(), 1)?, 34);
    /// assert_eq!(ages.to_map()?.into_iter().collect::<Vec<_>>(), [("Ann".to_string(), 34)]);
    /// # Ok(())
    /// # }
    /// ```
    Dict<K, V>(Mutex<HashMap<K, V>>)
);

impl<K: Payload + Eq + Hash, V: Payload> Dict<K, V> {
    whole!(Dict<K, V>(HashMap<K, V>));

    /// The value of that key.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!((ages.get("Ann")?, ages.get("Bob")?), (Some(33), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`], like all methods.
    pub fn get<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let door =
            |all: &Mutex<HashMap<K, V>>, key: K, answer: &mut Answer| answer.give(&unpoisoned(all)?.get::<K>(&key));
        self.0.reference().ask(door, &key)
    }

    /// Puts a value there. Gives the one before.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// assert_eq!(ages.insert("Ann", &33)?, None);
    /// assert_eq!(ages.insert("Ann", &34)?, Some(33));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn insert<Q: Serialize + ?Sized>(&self, key: &Q, value: &V) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let door = |all: &Mutex<HashMap<K, V>>, (key, value): (K, V), answer: &mut Answer| {
            let before = unpoisoned(all)?.insert(key, value);
            answer.give(&before)
        };
        self.0.reference().ask(door, &(key, value))
    }

    /// Takes a value out.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!((ages.remove("Ann")?, ages.remove("Ann")?), (Some(33), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn remove<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        let door = |all: &Mutex<HashMap<K, V>>, key: K, answer: &mut Answer| {
            let before = unpoisoned(all)?.remove::<K>(&key);
            answer.give(&before)
        };
        self.0.reference().ask(door, &key)
    }

    /// Whether the key has a value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert!(ages.contains_key("Ann")? && !ages.contains_key("Bob")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn contains_key<Q: Serialize + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        let door = |all: &Mutex<HashMap<K, V>>, key: K, answer: &mut Answer| {
            answer.give(&unpoisoned(all)?.contains_key::<K>(&key))
        };
        self.0.reference().ask(door, &key)
    }

    /// How many there are.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!(ages.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn len(&self) -> Result<usize> {
        self.with(|all, ()| all.len(), ())
    }

    /// Whether there are none.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.dict::<String, u32>()?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn is_empty(&self) -> Result<bool> {
        self.with(|all, ()| all.is_empty(), ())
    }

    /// Forgets all.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// ages.clear()?;
    /// assert_eq!(ages.get("Ann")?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn clear(&self) -> Result<()> {
        self.with(|all, ()| all.clear(), ())
    }

    /// All keys, in no particular order.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!(ages.keys()?, ["Ann"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn keys(&self) -> Result<Vec<K>> {
        let door = |all: &Mutex<HashMap<K, V>>, (): (), answer: &mut Answer| {
            answer.give(&unpoisoned(all)?.keys().collect::<Vec<_>>())
        };
        self.0.reference().ask(door, &())
    }

    /// A copy of the whole.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let ages = manager.dict::<String, u32>()?;
    /// ages.insert("Ann", &33)?;
    /// assert_eq!(ages.to_map()?["Ann"], 33);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn to_map(&self) -> Result<HashMap<K, V>> {
        let door = |all: &Mutex<HashMap<K, V>>, (): (), answer: &mut Answer| answer.give(&*unpoisoned(all)?);
        self.0.reference().ask(door, &())
    }
}

typed_proxy!(
    /// A list in a [`Manager`]'s server.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[3, 1])?;
    /// list.push(&2)?;
    /// list.with(|list, ()| list.sort(), ())?;
    /// assert_eq!(list.to_vec()?, [1, 2, 3]);
    /// assert_eq!((list.get(1)?, list.pop()?, list.len()?), (Some(2), Some(3), 2));
    /// # Ok(())
    /// # }
    /// ```
    List<T>(Mutex<Vec<T>>)
);

impl<T: Payload> List<T> {
    whole!(List<T>(Vec<T>));

    /// Adds an item.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.push(&1)?;
    /// assert_eq!(list.to_vec()?, [1]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`], like all methods.
    pub fn push(&self, item: &T) -> Result<()> {
        let door = |all: &Mutex<Vec<T>>, item: T, answer: &mut Answer| {
            unpoisoned(all)?.push(item);
            answer.give(&())
        };
        self.0.reference().ask(door, item)
    }

    /// Adds many.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// list.extend(&[3])?;
    /// assert_eq!(list.to_vec()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn extend(&self, items: &[T]) -> Result<()> {
        let door = |all: &Mutex<Vec<T>>, mut items: Vec<T>, answer: &mut Answer| {
            unpoisoned(all)?.append(&mut items);
            answer.give(&())
        };
        self.0.reference().ask(door, &items)
    }

    /// Takes the last one out.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// assert_eq!((list.pop()?, list.pop()?, list.pop()?), (Some(2), Some(1), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn pop(&self) -> Result<Option<T>> {
        self.with(|all, ()| all.pop(), ())
    }

    /// Takes one out, and those behind move up.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2, 3])?;
    /// assert_eq!((list.remove(0)?, list.remove(2)?), (Some(1), None));
    /// assert_eq!(list.to_vec()?, [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn remove(&self, place: usize) -> Result<Option<T>> {
        self.with(|all, place| (place < all.len()).then(|| all.remove(place)), place)
    }

    /// The item at that place.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// assert_eq!((list.get(1)?, list.get(2)?), (Some(2), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn get(&self, place: usize) -> Result<Option<T>> {
        let door = |all: &Mutex<Vec<T>>, place: usize, answer: &mut Answer| answer.give(&unpoisoned(all)?.get(place));
        self.0.reference().ask(door, &place)
    }

    /// Puts another item at that place; gives the one before. `None`: there is no such place, and nothing was done.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// assert_eq!((list.set(1, &7)?, list.set(2, &7)?), (Some(2), None));
    /// assert_eq!(list.to_vec()?, [1, 7]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn set(&self, place: usize, item: &T) -> Result<Option<T>> {
        let door = |all: &Mutex<Vec<T>>, (place, item): (usize, T), answer: &mut Answer| {
            let before = unpoisoned(all)?.get_mut(place).map(|there| std::mem::replace(there, item));
            answer.give(&before)
        };
        self.0.reference().ask(door, &(place, item))
    }

    /// How many there are.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// assert_eq!(list.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn len(&self) -> Result<usize> {
        self.with(|all, ()| all.len(), ())
    }

    /// Whether there are none.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.list::<u32>()?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn is_empty(&self) -> Result<bool> {
        self.with(|all, ()| all.is_empty(), ())
    }

    /// Forgets all.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// list.clear()?;
    /// assert!(list.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn clear(&self) -> Result<()> {
        self.with(|all, ()| all.clear(), ())
    }

    /// A copy of the whole.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let list = manager.list::<u32>()?;
    /// list.extend(&[1, 2])?;
    /// assert_eq!(list.to_vec()?, [1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let door = |all: &Mutex<Vec<T>>, (): (), answer: &mut Answer| answer.give(&*unpoisoned(all)?);
        self.0.reference().ask(door, &())
    }
}

typed_proxy!(
    /// A set in a [`Manager`]'s server.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// assert!(seen.insert("a")? && !seen.insert("a")?);
    /// assert!(seen.contains("a")? && seen.remove("a")? && seen.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    Set<T>(Mutex<HashSet<T>>)
);

impl<T: Payload + Eq + Hash> Set<T> {
    whole!(Set<T>(HashSet<T>));

    /// Adds an item. False: it was there.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// assert!(seen.insert("a")?);
    /// assert!(!seen.insert("a")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`], like all methods.
    pub fn insert<Q: Serialize + ?Sized>(&self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
    {
        let door = |all: &Mutex<HashSet<T>>, item: T, answer: &mut Answer| answer.give(&unpoisoned(all)?.insert(item));
        self.0.reference().ask(door, &item)
    }

    /// Takes an item out. False: it was not there.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// seen.insert("a")?;
    /// assert!(seen.remove("a")? && !seen.remove("a")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn remove<Q: Serialize + ?Sized>(&self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
    {
        let door =
            |all: &Mutex<HashSet<T>>, item: T, answer: &mut Answer| answer.give(&unpoisoned(all)?.remove::<T>(&item));
        self.0.reference().ask(door, &item)
    }

    /// Whether it is there.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// seen.insert("a")?;
    /// assert!(seen.contains("a")? && !seen.contains("b")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn contains<Q: Serialize + ?Sized>(&self, item: &Q) -> Result<bool>
    where
        T: Borrow<Q>,
    {
        let door =
            |all: &Mutex<HashSet<T>>, item: T, answer: &mut Answer| answer.give(&unpoisoned(all)?.contains::<T>(&item));
        self.0.reference().ask(door, &item)
    }

    /// How many there are.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// seen.insert("a")?;
    /// seen.insert("a")?;
    /// assert_eq!(seen.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn len(&self) -> Result<usize> {
        self.with(|all, ()| all.len(), ())
    }

    /// Whether there are none.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.set::<String>()?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn is_empty(&self) -> Result<bool> {
        self.with(|all, ()| all.is_empty(), ())
    }

    /// Forgets all.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// seen.insert("a")?;
    /// seen.clear()?;
    /// assert!(!seen.contains("a")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn clear(&self) -> Result<()> {
        self.with(|all, ()| all.clear(), ())
    }

    /// A copy of the whole.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let seen = manager.set::<String>()?;
    /// seen.insert("a")?;
    /// assert_eq!(seen.to_set()?, ["a".to_string()].into());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn to_set(&self) -> Result<HashSet<T>> {
        let door = |all: &Mutex<HashSet<T>>, (): (), answer: &mut Answer| answer.give(&*unpoisoned(all)?);
        self.0.reference().ask(door, &())
    }
}

typed_proxy!(
    /// A single value in a [`Manager`]'s server.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let total = manager.value(&1.5)?;
    /// total.with(|total, by| *total += by, 1.0)?;
    /// assert_eq!(total.get()?, 2.5);
    /// assert_eq!(total.set(&0.0)?, 2.5);
    /// # Ok(())
    /// # }
    /// ```
    Value<T>(Mutex<T>)
);

impl<T: Payload> Value<T> {
    whole!(Value<T>(T));

    /// A copy of it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert_eq!(manager.value(&1.5)?.get()?, 1.5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`], like all methods.
    pub fn get(&self) -> Result<T> {
        let door = |all: &Mutex<T>, (): (), answer: &mut Answer| answer.give(&*unpoisoned(all)?);
        self.0.reference().ask(door, &())
    }

    /// Puts another in its place; gives the one before.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let level = manager.value(&1)?;
    /// assert_eq!(level.set(&2)?, 1);
    /// assert_eq!(level.get()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`].
    pub fn set(&self, value: &T) -> Result<T> {
        let door = |all: &Mutex<T>, value: T, answer: &mut Answer| {
            let before = std::mem::replace(&mut *unpoisoned(all)?, value);
            answer.give(&before)
        };
        self.0.reference().ask(door, value)
    }
}

impl Manager {
    /// An empty map.
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

    /// An empty list.
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

    /// An empty set.
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

    /// A single value.
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
