//! A list in a manager's server.

use super::{typed_proxy, whole};
use crate::error::Result;
#[cfg(doc)]
use crate::managers::Manager;
#[cfg(doc)]
use crate::managers::proxy::Proxy;
use crate::managers::proxy::unpoisoned;
use crate::managers::rpc::{Answer, Changing};
use crate::payload::Payload;
use std::sync::Mutex;

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
    whole!(
        List<T>(Vec<T>);
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let list = manager.list::<u32>()?;
        /// list.extend(&[3, 1, 2])?;
        /// // One call, so no other comes in between.
        /// let take = |list: &mut Vec<u32>, count| list.drain(..count).min();
        /// assert_eq!(list.with(take, 2)?, Some(1));
        /// assert_eq!(list.to_vec()?, [2]);
        /// # Ok(())
        /// # }
        /// ```
        with;
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
        clear_poison;
    );

    /// Appends an item.
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

    /// Appends all items.
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

    /// Removes the last item, and returns it.
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

    /// Removes the item at `place`, and returns it. The items behind it move up.
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

    /// Returns the item at `place`.
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

    /// Replaces the item at `place`, and returns the previous item. Returns `None`, and changes nothing, if there is no
    /// such place.
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

    /// Returns the number of items.
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

    /// Returns whether the list is empty.
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

    /// Removes all items.
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

    /// Returns a copy of the list.
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
