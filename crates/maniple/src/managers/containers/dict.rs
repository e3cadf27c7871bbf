//! A map in a manager's server.

use super::{typed_proxy, whole};
use crate::error::Result;
#[cfg(doc)]
use crate::managers::Manager;
#[cfg(doc)]
use crate::managers::proxy::Proxy;
use crate::managers::proxy::unpoisoned;
use crate::managers::rpc::{Answer, Changing};
use crate::payload::Payload;
use serde::Serialize;
use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;

typed_proxy!(
    /// A map in a [`Manager`]'s server.
    ///
    /// Methods accept any borrowed form of a key: `&str` for `String`.
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
    whole!(
        Dict<K, V>(HashMap<K, V>);
        /// ```
        /// use std::collections::HashMap;
        ///
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let counts = manager.dict::<String, u32>()?;
        /// // One call, so no other comes in between.
        /// let add = |counts: &mut HashMap<String, u32>, word| {
        ///     let count = counts.entry(word).or_default();
        ///     *count += 1;
        ///     *count
        /// };
        /// assert_eq!((counts.with(add, "a".to_string())?, counts.with(add, "a".to_string())?), (1, 2));
        /// # Ok(())
        /// # }
        /// ```
        with;
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let shares = manager.dict::<String, u32>()?;
        /// // Divides by zero, in the server.
        /// assert!(shares.with(|shares, by| shares.insert("Ann".into(), 10 / by), 0).is_err());
        /// assert!(shares.len().is_err());
        /// shares.clear_poison()?;
        /// assert_eq!(shares.len()?, 0);
        /// # Ok(())
        /// # }
        /// ```
        clear_poison;
    );

    /// Returns the value of the key.
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

    /// Stores a value under the key. Returns the previous one.
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

    /// Removes the key, and returns its value.
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

    /// Returns whether the key has a value.
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

    /// Returns the number of keys.
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

    /// Returns whether the map is empty.
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

    /// Removes all keys.
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

    /// Returns all keys, in no particular order.
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

    /// Returns a copy of the map.
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
