//! Names for values of any type.

use super::Manager;
use super::containers::typed_proxy;
use super::names::{Entries, Entry, names};
use super::proxy::unpoisoned;
use super::rpc::{Answer, Changing};
use crate::error::Result;
use crate::payload::Payload;
use std::any::type_name;
use std::sync::Mutex;

typed_proxy!(
    /// Values of any types under names, in a [`Manager`]'s server. Proxies are values, too.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3)?;
    /// settings.set("name", &"Ann".to_string())?;
    /// settings.with::<i32, _, _>("level", |level, by| *level += by, 1)?;
    /// assert_eq!(settings.get("level")?, Some(4));
    /// assert_eq!(settings.get::<String>("nobody")?, None);
    /// assert!(settings.get::<u8>("level").unwrap_err().to_string().contains("i32"));
    /// # Ok(())
    /// # }
    /// ```
    Namespace(Mutex<Entries>)
);

impl Namespace {
    /// Returns the value of the name. `T` must be the type that was set.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3u8)?;
    /// assert_eq!(settings.get::<u8>("level")?, Some(3));
    /// assert!(settings.get::<String>("level").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::WrongType`](super::ManagerError::WrongType) if the value has another type; otherwise as
    /// [`Proxy::call`](super::Proxy::call), like all methods.
    pub fn get<T: Payload>(&self, name: &str) -> Result<Option<T>> {
        let door = |all: &Mutex<Entries>, name: String, answer: &mut Answer| {
            let all = unpoisoned(all)?;
            let Some(entry) = all.get(&name) else { return answer.give(&None::<T>) };
            answer.give(&Some(entry.value.downcast_ref::<T>().ok_or_else(|| entry.holds())?))
        };
        self.0.reference().ask(door, &name)
    }

    /// Assigns a value to a name. The type may differ from that of the previous value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3u8)?;
    /// settings.set("level", &"high".to_string())?;
    /// assert_eq!(settings.get("level")?, Some("high".to_string()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn set<T: Payload>(&self, name: &str, value: &T) -> Result<()> {
        let door = |all: &Mutex<Entries>, (name, value): (String, T), answer: &mut Answer| {
            let entry = Entry { value: Box::new(value), type_name: type_name::<T>() };
            let before = unpoisoned(all)?.insert(name, entry);
            drop(before);
            answer.give(&())
        };
        self.0.reference().ask(door, &(name, value))
    }

    /// Calls `function(&mut value, argument)` in the server, while no other call has the namespace. Returns `None` if
    /// the name has no value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3)?;
    /// let increase = |level: &mut i32, by| { *level += by; *level };
    /// assert_eq!(settings.with("level", increase, 1)?, Some(4));
    /// assert_eq!(settings.with("nothing", increase, 1)?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call_mut`](super::Proxy::call_mut).
    pub fn with<T: Payload, A: Payload, R: Payload>(
        &self,
        name: &str,
        function: fn(&mut T, A) -> R,
        argument: A,
    ) -> Result<Option<R>> {
        type Argument<T, A, R> = (String, Changing<T, A, R>, A);
        let door = |all: &Mutex<Entries>, (name, function, argument): Argument<T, A, R>, answer: &mut Answer| {
            let mut all = unpoisoned(all)?;
            let Some(entry) = all.get_mut(&name) else { return answer.give(&None::<R>) };
            let Some(value) = entry.value.downcast_mut::<T>() else { return Err(entry.holds()) };
            answer.give(&Some((function.0)(value, argument)))
        };
        self.0.reference().ask(door, &(name, Changing(function), &argument))
    }

    /// Removes a name's value. Returns false if the name had no value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3)?;
    /// assert!(settings.remove("level")? && !settings.remove("level")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn remove(&self, name: &str) -> Result<bool> {
        let door = |all: &Mutex<Entries>, name: String, answer: &mut Answer| {
            let before = unpoisoned(all)?.remove(&name);
            answer.give(&before.is_some())
        };
        self.0.reference().ask(door, &name)
    }

    /// Returns all names, in order.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("name", &"Ann".to_string())?;
    /// settings.set("level", &3)?;
    /// assert_eq!(settings.names()?, ["level", "name"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn names(&self) -> Result<Vec<String>> {
        let door = |all: &Mutex<Entries>, (): (), answer: &mut Answer| {
            answer.give(&unpoisoned(all)?.keys().collect::<Vec<_>>())
        };
        self.0.reference().ask(door, &())
    }

    /// Makes the namespace usable again after a panic in [`with`](Namespace::with).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let settings = manager.namespace()?;
    /// settings.set("level", &3)?;
    /// // Divides by zero, in the server.
    /// assert!(settings.with::<i32, _, _>("level", |level, by| *level /= by, 0).is_err());
    /// settings.clear_poison()?;
    /// assert_eq!(settings.get("level")?, Some(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn clear_poison(&self) -> Result<()> {
        let door = |all: &Mutex<Entries>, (): (), answer: &mut Answer| {
            all.clear_poison();
            answer.give(&())
        };
        self.0.reference().ask(door, &())
    }
}

impl Manager {
    /// Creates an empty namespace.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.namespace()?.names()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn namespace(&self) -> Result<Namespace> {
        self.make(|()| names(), &()).map(Namespace)
    }
}
