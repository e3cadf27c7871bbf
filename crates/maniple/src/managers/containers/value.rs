//! A single value in a manager's server.

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
    whole!(
        Value<T>(T);
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let next = manager.value(&1)?;
        /// // One call, so no other gets the same number.
        /// let take = |next: &mut u32, count| {
        ///     *next += count;
        ///     *next - count
        /// };
        /// assert_eq!((next.with(take, 3)?, next.with(take, 1)?), (1, 4));
        /// # Ok(())
        /// # }
        /// ```
        with;
        /// ```
        /// # fn main() -> maniple::Result<()> {
        /// let manager = maniple::Manager::new()?;
        /// let share = manager.value(&10)?;
        /// // Divides by zero, in the server.
        /// assert!(share.with(|share, by| *share /= by, 0).is_err());
        /// assert!(share.get().is_err());
        /// share.clear_poison()?;
        /// assert_eq!(share.get()?, 10);
        /// # Ok(())
        /// # }
        /// ```
        clear_poison;
    );

    /// Returns a copy of the value.
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

    /// Stores another value, and returns the previous value.
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
