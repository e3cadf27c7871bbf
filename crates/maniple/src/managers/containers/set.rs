//! A set in a manager's server.

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
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Mutex;

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
    whole!(
        Set<T>(HashSet<T>);
        /// ```
        /// use std::collections::HashSet;
        ///
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let free = manager.set::<u32>()?;
        /// free.insert(&7)?;
        /// // One call, so no other takes the same number.
        /// let take = |free: &mut HashSet<u32>, ()| {
        ///     let number = free.iter().next().copied()?;
        ///     free.take(&number)
        /// };
        /// assert_eq!((free.with(take, ())?, free.with(take, ())?), (Some(7), None));
        /// # Ok(())
        /// # }
        /// ```
        with;
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let set = manager.set::<u32>()?;
        /// // Divides by zero, in the server.
        /// assert!(set.with(|set, by| set.insert(10 / by), 0).is_err());
        /// assert!(set.len().is_err());
        /// set.clear_poison()?;
        /// assert_eq!(set.len()?, 0);
        /// # Ok(())
        /// # }
        /// ```
        clear_poison;
    );

    /// Adds an item. Returns false if the set already had it.
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

    /// Removes an item. Returns false if the set did not have it.
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

    /// Returns whether the set has the item.
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

    /// Returns the number of items.
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

    /// Returns whether the set is empty.
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

    /// Removes all items.
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

    /// Returns a copy of the set.
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
