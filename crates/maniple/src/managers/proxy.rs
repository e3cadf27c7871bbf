//! Proxies: references to objects in a manager's server.
//!
//! # How a proxy travels
//! Encoding a proxy notifies the server, and the object exists at least until the proxy has arrived (or, if the message
//! is never received, until ten minutes after the end of the process that sent it). If bytes are decoded more than
//! once, such as a pool's state, another proxy must exist after the first decoding.
//!
//! The manager's key is sent only in maniple's own encoding, and only where the bytes cannot leave the machine: in the
//! memory and the private connections of its processes. Elsewhere (other codecs, a network connection, the values in
//! another manager) a proxy is an address and a number, which are usable only with the key: in a process that has
//! itself connected to that manager.

use super::ManagerError;
use super::client::RemoteServer;
use super::protocol::{Ask, Note};
use super::registry::{Content, Object, current_line};
use super::rpc::{Answer, Changing, Door, Looking, read, send_call};
use super::server;
use crate::chunk::Output;
use crate::error::Result;
use crate::payload::Payload;
use crate::sideband;
use crate::transport::{Address, Authkey};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

/// The number that says that a reference is not in transit.
pub(super) const NOT_IN_TRANSIT: u64 = u64::MAX;

/// A reference to an object.
pub(super) struct Reference {
    id: u64,
    home: Home,
    // The process for which the server counts it.
    process: AtomicU32,
}

enum Home {
    /// A server in another process.
    There(Arc<RemoteServer>),
    /// This process is the server.
    Here(Arc<Object>),
}

impl Reference {
    /// Returns a reference that the server has counted already.
    pub(super) fn counted(remote: Arc<RemoteServer>, id: u64) -> Reference {
        Reference { id, home: Home::There(remote), process: AtomicU32::new(std::process::id()) }
    }

    fn here(object: Arc<Object>) -> Reference {
        Reference { id: object.id, home: Home::Here(object), process: AtomicU32::new(std::process::id()) }
    }

    /// Claims a reference to the object of that number.
    pub(super) fn claim(remote: &Arc<RemoteServer>, object: u64, passage: u64) -> Result<Reference> {
        remote.note(Note::Claim { object, passage })?;
        Ok(Reference::counted(remote.clone(), object))
    }

    /// In a forked child, requests that the server counts it for this process. (Only this process's own threads write
    /// or read the number.)
    fn settle(&self, remote: &RemoteServer) -> Result<()> {
        let me = std::process::id();
        if self.process.load(Ordering::Relaxed) != me {
            remote.note(Note::Claim { object: self.id, passage: NOT_IN_TRANSIT })?;
            if self.process.swap(me, Ordering::Relaxed) == me {
                // Another thread was faster.
                remote.release(self.id);
            }
        }
        Ok(())
    }

    /// Calls `door` with the object's content.
    pub(super) fn ask<C: 'static, A: DeserializeOwned, R: DeserializeOwned>(
        &self,
        door: Door<C, A>,
        argument: &impl Serialize,
    ) -> Result<R> {
        self.ask_within(door, argument, None)
    }

    /// As above, with a time limit for the answer, for drops. A server that is late receives no more over this thread's
    /// line, and releases the locks that the thread held.
    pub(super) fn ask_within<C: 'static, A: DeserializeOwned, R: DeserializeOwned>(
        &self,
        door: Door<C, A>,
        argument: &impl Serialize,
        limit: Option<Duration>,
    ) -> Result<R> {
        let private = match &self.home {
            Home::There(remote) => remote.address.is_local(),
            Home::Here(_) => true,
        };
        let mut output = Output::private(private);
        output.item(&Ask::Call(self.id))?;
        send_call(&mut output, door, argument)?;
        match &self.home {
            Home::There(remote) => {
                remote.check_build()?;
                self.settle(remote)?;
                remote.ask(output.bytes(), limit)
            }
            Home::Here(_) => {
                let server = server::here().ok_or(ManagerError::NotServer)?;
                let mut answer = server.answer(output.bytes());
                let value = read(answer.bytes());
                answer.sent(value.is_ok());
                value
            }
        }
    }

    fn address(&self) -> Option<&Address> {
        match &self.home {
            Home::There(remote) => Some(&remote.address),
            Home::Here(_) => server::here().map(|server| &server.address),
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if let Home::There(remote) = &self.home
            && self.process.load(Ordering::Relaxed) == std::process::id()
        {
            remote.release(self.id);
        }
    }
}

/// The encoded form of a reference.
#[derive(Serialize, Deserialize)]
struct Travelling {
    address: Address,
    token: u64,
    object: u64,
    passage: u64,
    key: Option<Vec<u8>>,
}

impl Reference {
    fn set_out(&self) -> Result<Travelling> {
        let (address, token, passage, key) = match &self.home {
            Home::There(remote) => {
                self.settle(remote)?;
                (&remote.address, remote.token, remote.note(Note::Pass(self.id))?, &remote.key)
            }
            Home::Here(object) => {
                let server = server::here().ok_or(ManagerError::NotServer)?;
                let passage = server.registry.pass(object.clone(), current_line().session.number);
                (&server.address, server.token, passage, &server.key)
            }
        };
        let key = sideband::stays_on_this_machine().then(|| key.as_bytes().to_owned());
        Ok(Travelling { address: address.clone(), token, object: self.id, passage, key })
    }

    fn arrive(from: Travelling) -> Result<Reference> {
        let Travelling { address, token, object, passage, key } = from;
        if let Some(server) = server::here().filter(|server| server.token == token) {
            return Ok(Reference::here(server.registry.claim(object, passage)?));
        }
        let remote = match (RemoteServer::known(token), key) {
            (Some(remote), _) => remote,
            (None, Some(key)) => RemoteServer::open(&address, &Authkey::from(key), Some(token))?,
            (None, None) => {
                return Err(ManagerError::MissingKey.into());
            }
        };
        Reference::claim(&remote, object, passage)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let travelling = self.set_out().map_err(serde::ser::Error::custom)?;
        travelling.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let travelling = Travelling::deserialize(deserializer)?;
        Reference::arrive(travelling).map_err(D::Error::custom)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}", self.id)?;
        self.address().map_or(Ok(()), |address| write!(f, " of the manager at {address}"))
    }
}

/// A reference to a `T` in a [`Manager`](super::Manager)'s server. Any process that has (a clone of) this proxy can
/// call functions on the `T`. A proxy can be sent in any value; `T` itself need not be serializable.
///
/// The `T` exists as long as any process or any message under way has a proxy for it.
///
/// ```
/// use maniple::{Exit, Manager, Process, Proxy};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// struct Account {
///     balance: AtomicU64,
/// }
///
/// impl Account {
///     fn deposit(&self, amount: u64) -> u64 {
///         self.balance.fetch_add(amount, Ordering::Relaxed) + amount
///     }
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let manager = Manager::new()?;
/// let account = manager.serve(|balance| Account { balance: AtomicU64::new(balance) }, 100)?;
/// assert_eq!(account.call(Account::deposit, 20)?, 120);
///
/// let child = Process::new(|account: Proxy<Account>| account.call(Account::deposit, 3).map(drop), account.clone())?;
/// child.start()?;
/// assert_eq!(child.join()?, Exit::Code(0));
/// assert_eq!(account.call(|account, ()| account.balance.load(Ordering::Relaxed), ())?, 123);
/// # Ok(())
/// # }
/// ```
pub struct Proxy<T> {
    reference: Arc<Reference>,
    of: PhantomData<fn() -> T>,
}

impl<T> Proxy<T> {
    pub(super) fn new(reference: Reference) -> Proxy<T> {
        Proxy { reference: Arc::new(reference), of: PhantomData }
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl<T: Send + Sync + 'static> Proxy<T> {
    /// Calls `function(&object, argument)` in the server, and returns its result. Any number of calls run side by side,
    /// each in a separate thread; a call that waits blocks only its caller. (A waiting [`call_mut`](Proxy::call_mut)
    /// blocks new calls. If calls of an object wait for each other, change the object through `call` alone, with a
    /// mutex inside the object.)
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let greeting = manager.serve(|name: String| format!("Hello {name}"), "Ann".into())?;
    /// assert_eq!(greeting.call(|greeting, mark: String| format!("{greeting}{mark}"), "!".into())?, "Hello Ann!");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Panicked`](crate::Error::Panicked) if `function` panics; the object stays usable.
    /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone. [`ManagerError::Poisoned`]
    /// after a panic in a `call_mut`. [`Error::Codec`](crate::Error::Codec),
    /// [`CallError::Function`](crate::CallError::Function) for values that cannot be sent.
    pub fn call<A: Payload, R: Payload>(&self, function: fn(&T, A) -> R, argument: A) -> Result<R> {
        let door = |content: &RwLock<T>, (function, argument): (Looking<T, A, R>, A), answer: &mut Answer| {
            let object = content.read().map_err(|_| ManagerError::Poisoned)?;
            answer.give(&(function.0)(&object, argument))
        };
        self.reference.ask(door, &(Looking(function), &argument))
    }

    /// Calls `function(&mut object, argument)` in the server, while no other call has the object. If `function` panics,
    /// the object is *poisoned*: it may be half changed, and all calls fail until
    /// [`clear_poison`](Proxy::clear_poison).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let names = manager.serve(|()| Vec::new(), ())?;
    /// names.call_mut(|names, name| names.push(name), "Ann".to_string())?;
    /// assert_eq!(names.call(|names, ()| names.join(" "), ())?, "Ann");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Proxy::call).
    pub fn call_mut<A: Payload, R: Payload>(&self, function: fn(&mut T, A) -> R, argument: A) -> Result<R> {
        let door = |content: &RwLock<T>, (function, argument): (Changing<T, A, R>, A), answer: &mut Answer| {
            let mut object = content.write().map_err(|_| ManagerError::Poisoned)?;
            answer.give(&(function.0)(&mut object, argument))
        };
        self.reference.ask(door, &(Changing(function), &argument))
    }

    /// Makes a poisoned object usable again.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let level = manager.serve(|level| level, 10)?;
    /// // Divides by zero, in the server.
    /// assert!(level.call_mut(|level, by| *level /= by, 0).is_err());
    /// assert!(level.call(|level, ()| *level, ()).is_err());
    /// level.clear_poison()?;
    /// assert_eq!(level.call(|level, ()| *level, ())?, 10);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn clear_poison(&self) -> Result<()> {
        let door = |content: &RwLock<T>, (): (), answer: &mut Answer| {
            content.clear_poison();
            answer.give(&())
        };
        self.reference.ask(door, &())
    }

    /// Serves `object` in this process, which is a manager's server. Functions that run in a server use it to return
    /// further objects.
    ///
    /// ```
    /// use maniple::{Manager, Proxy};
    /// use std::sync::Mutex;
    ///
    /// struct Hotel;
    /// struct Room(u32);
    ///
    /// impl Hotel {
    ///     fn room(&self, number: u32) -> Result<Proxy<Room>, String> {
    ///         Proxy::serve_here(Room(number)).map_err(|e| e.to_string())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = Manager::new()?;
    /// let room = manager.serve(|()| Hotel, ())?.call(Hotel::room, 12)??;
    /// assert_eq!(room.call(|room, ()| room.0, ())?, 12);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::NotServer`] in any other process.
    pub fn serve_here(object: T) -> Result<Proxy<T>> {
        let server = server::here().ok_or(ManagerError::NotServer)?;
        Ok(Proxy::new(Reference::here(server.registry.add(Content::new(RwLock::new(object))))))
    }

    /// The object that [`Manager::serve`](super::Manager::serve) makes.
    pub(super) fn content(object: T) -> Content {
        Content::new(RwLock::new(object))
    }
}

impl<T> Clone for Proxy<T> {
    fn clone(&self) -> Self {
        Proxy { reference: self.reference.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for Proxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy<{}>({:?})", type_name::<T>(), self.reference)
    }
}

impl<T> Serialize for Proxy<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.reference.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Proxy<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reference::deserialize(deserializer).map(Proxy::new)
    }
}

/// Locks content behind a mutex.
pub(super) fn unpoisoned<'a, T>(mutex: &'a Mutex<T>) -> Result<MutexGuard<'a, T>, ManagerError> {
    mutex.lock().map_err(|_| ManagerError::Poisoned)
}
