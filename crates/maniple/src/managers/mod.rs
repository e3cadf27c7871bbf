//! Objects in a server process, which other processes use through proxies.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `mod`, `builder` | [`Manager`] and its builder |
//! | `proxy` | [`Proxy`]: a reference that can be sent anywhere, and calls through it |
//! | `containers/`, `namespace` | [`Dict`], [`List`], [`Set`], [`Value`], [`Namespace`] |
//! | `queue`, `locks`, `semaphore`, `event`, `condition`, `barrier` | synchronization between processes of any machines |
//! | `protocol` | the messages between client and server |
//! | `rpc` | functions that are called in the server, and their answers |
//! | `client` | the server as a client process sees it |
//! | `server`, `registry` | the server: connections; objects, and the references to them |
//! | `wait_queue` | waiting in the server, at most until the caller has ended |
//!
//! # When something dies
//! If the server dies, waiting and later calls return [`Error::ManagerLost`] at once. If a client dies, its waiting
//! calls end, its references are dropped, its locks and semaphores are released, and the guard of a lock's next owner
//! reports that. If the process that made the manager dies, the server ends. If the machine of a client fails, the
//! operating system detects that after some hours.
//!
//! # What a manager is not
//! A manager serves this program only: functions are identified by their place in the executable, so a client on
//! another machine must run the same executable. Managers of Python's `multiprocessing` use pickles of Python objects,
//! so Rust programs cannot use them. To exchange messages with a Python process, use a listener.

mod barrier;
mod builder;
mod client;
mod condition;
mod containers;
mod event;
mod locks;
mod names;
mod namespace;
mod protocol;
mod proxy;
mod queue;
mod registry;
mod rpc;
mod semaphore;
mod server;
mod wait_queue;

use crate::chunk::Output;
pub use crate::error::ManagerError;
use crate::error::{Error, InTime, Result};
use crate::payload::Payload;
use crate::process::Process;
use crate::transport::{Address, Authkey};
pub use barrier::Barrier;
pub use builder::ManagerBuilder;
use client::RemoteServer;
pub use condition::{Condition, ConditionGuard};
pub use containers::{Dict, List, Set, Value};
pub use event::Event;
pub use locks::{Lock, LockGuard, RLock};
use maniple_engine::process::Exit;
use maniple_sys::socket;
pub use namespace::Namespace;
use protocol::Ask;
pub use proxy::Proxy;
use proxy::{NOT_IN_TRANSIT, Reference};
pub use queue::Queue;
use rpc::{Maker, Plain, send_make};
pub use semaphore::{Semaphore, SemaphorePermit};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a server has to drop its objects before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the drop of a guard waits for the server's answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Returns whether the client process for which this thread works has ended. Functions that wait in a manager's server
/// can check it: their result then has no receiver.
///
/// ```
/// use maniple::managers::is_caller_gone;
///
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::new()?;
/// let steps = manager.serve(|()| 3, ())?;
/// // A long function ends early if its caller is gone.
/// let done = steps.call(|&steps, ()| (0..steps).take_while(|_| !is_caller_gone()).count(), ())?;
/// assert_eq!(done, 3);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn is_caller_gone() -> bool {
    registry::is_caller_gone()
}

/// A server process that holds objects for others.
///
/// ```
/// use maniple::{Manager, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let manager = Manager::new()?;
/// let counts = manager.dict::<String, u32>()?;
/// let children: Vec<Process> = ["a", "b", "a"]
///     .into_iter()
///     .map(|word| {
///         let child = Process::new(
///             |(counts, word): (maniple::managers::Dict<String, u32>, String)| {
///                 // One call, so no other comes in between.
///                 counts.with(|counts, word| *counts.entry(word).or_default() += 1, word)
///             },
///             (counts.clone(), word.to_string()),
///         )?;
///         child.start()?;
///         Ok(child)
///     })
///     .collect::<maniple::Result<_>>()?;
/// for child in children {
///     child.join()?;
/// }
/// assert_eq!((counts.get("a")?, counts.get("b")?), (Some(2), Some(1)));
/// # Ok(())
/// # }
/// ```
///
/// The server ends when the `Manager` is dropped, by [`shutdown`](Manager::shutdown), or when this process ends in any
/// way.
pub struct Manager {
    remote: Arc<RemoteServer>,
    own: Option<Own>,
}

/// A manager whose server is our child.
struct Own {
    process: Arc<Process>,
    owner: u32,
    /// Where a killed server leaves its socket.
    path: Option<(socket::File, PathBuf)>,
}

impl Manager {
    /// Starts a manager at a new local address, with a random key.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.list::<u8>()?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::Start`](crate::ProcessError::Start) if the process cannot be started.
    pub fn new() -> Result<Manager> {
        Manager::builder().build()
    }

    /// Returns a builder for a manager with a given address or key.
    ///
    /// ```
    /// use maniple::Manager;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::builder().address("localhost:0").authkey("s3cret").build()?;
    /// manager.names()?.set("answer", &42)?;
    ///
    /// // Somewhere else:
    /// let there = Manager::connect(manager.address(), "s3cret")?;
    /// assert_eq!(there.names()?.get("answer")?, Some(42));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::new()
    }

    /// Connects to a manager that another process has made, here or, if it has a network address, on another machine.
    /// This program must be the same executable. The maker of the manager puts shared objects into its
    /// [`names`](Manager::names).
    ///
    /// ```
    /// use maniple::Manager;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::new()?;
    /// manager.names()?.set("stock", &manager.list::<String>()?)?;
    ///
    /// // Somewhere else:
    /// let there = Manager::connect(manager.address(), manager.authkey())?;
    /// let stock = there.names()?.get::<maniple::managers::List<String>>("stock")?.unwrap();
    /// stock.push(&"tea".to_string())?;
    /// assert_eq!(stock.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no listener, [`ChannelError::Authentication`](crate::ChannelError::Authentication)
    /// if the keys differ.
    pub fn connect(address: impl TryInto<Address, Error: Into<Error>>, key: impl Into<Authkey>) -> Result<Manager> {
        let address = address.try_into().map_err(Into::into)?;
        Ok(Manager { remote: RemoteServer::open(&address, &key.into(), None)?, own: None })
    }

    /// Returns the address to which other processes [`connect`](Manager::connect).
    ///
    /// ```
    /// use maniple::Manager;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::builder().address("127.0.0.1:0").build()?;
    /// assert_ne!(manager.address().port(), Some(0));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.remote.address
    }

    /// Returns the key that they need for that.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::builder().authkey("s3cret").build()?;
    /// assert_eq!(manager.authkey().as_bytes(), b"s3cret");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn authkey(&self) -> &Authkey {
        &self.remote.key
    }

    /// Returns the number of the server's process, if it is a child of this process.
    ///
    /// ```
    /// use maniple::Manager;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::new()?;
    /// assert!(manager.pid().is_some());
    /// assert_eq!(Manager::connect(manager.address(), manager.authkey())?.pid(), None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.process.pid()
    }

    /// Ends the server. Its objects are dropped, and waiting calls return an error. Returns how the server ended, if
    /// this process knows that.
    ///
    /// ```
    /// use maniple::{Error, Exit, Manager};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = Manager::new()?;
    /// let list = manager.list::<u8>()?;
    /// assert_eq!(manager.shutdown()?, Some(Exit::Code(0)));
    /// assert!(matches!(list.len(), Err(Error::ManagerLost(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`] if the server had ended before.
    pub fn shutdown(mut self) -> Result<Option<Exit>> {
        let Some(own) = self.own.take() else { return self.remote.shut_down().map(|()| None) };
        self.remote.ask_to_end()?;
        own.end().map(Some)
    }

    fn make<A: DeserializeOwned, T>(&self, maker: Maker<A>, argument: &impl Serialize) -> Result<Proxy<T>> {
        self.remote.check_build()?;
        let mut output = Output::private(self.remote.address.is_local());
        output.item(&Ask::Make)?;
        send_make(&mut output, maker, argument)?;
        Ok(Proxy::new(Reference::counted(self.remote.clone(), self.remote.ask(output.bytes(), None)?)))
    }

    /// Calls `function(argument)` in the server, and serves the object that it returns.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let split = |text: String| text.split(' ').map(String::from).collect::<Vec<_>>();
    /// let words = manager.serve(split, "a b c".into())?;
    /// assert_eq!(words.call(|words, place: usize| words[place].clone(), 1)?, "b");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Panicked`] if the function does. [`Error::ManagerLost`], [`Error::Codec`],
    /// [`CallError::Function`](crate::CallError::Function).
    pub fn serve<A: Payload, T: Send + Sync + 'static>(&self, function: fn(A) -> T, argument: A) -> Result<Proxy<T>> {
        let maker = |(function, argument): (Plain<A, T>, A)| Proxy::content((function.0)(argument));
        self.make(maker, &(Plain(function), &argument))
    }

    /// Returns the namespace that each manager has from its start. Processes that connect to the manager find shared
    /// objects in it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// manager.names()?.set("answer", &42)?;
    /// assert_eq!(manager.names()?.get("answer")?, Some(42));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`].
    pub fn names(&self) -> Result<Namespace> {
        Ok(Namespace(Proxy::new(Reference::claim(&self.remote, names::NAMES, NOT_IN_TRANSIT)?)))
    }
}

impl Own {
    /// Waits for its end, and kills it if necessary.
    fn end(self) -> Result<Exit> {
        see_out(&self.process)
    }
}

/// Waits for the end of a server that is about to end, and kills it if necessary.
fn see_out(process: &Process) -> Result<Exit> {
    if let Some(exit) = process.join_timeout(PATIENCE)? {
        return Ok(exit);
    }
    process.kill()?;
    process.join_timeout(PATIENCE)?.in_time("the manager's server to end", PATIENCE)
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.owner != std::process::id() {
            return;
        }
        // The server may have been asked to end already, and there is no more time.
        let _ = self.process.kill();
        let _ = self.process.join_timeout(PATIENCE);
        if let Some((file, path)) = &self.path
            && matches!(socket::file(path), Ok(Some(there)) if there == *file)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(own) = self.own.take()
            && own.owner == std::process::id()
        {
            // A killed server need not be asked.
            if self.remote.ask_to_end().is_ok() {
                let _ = own.end();
            }
        }
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("Manager");
        it.field("address", &format_args!("{}", self.address()));
        if let Some(own) = &self.own {
            it.field("server", &own.process);
        }
        it.finish()
    }
}
