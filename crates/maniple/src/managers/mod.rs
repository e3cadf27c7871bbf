//! Objects that live in a server process, and are used from any process by proxies.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `mod`, `builder` | [`Manager`] and its builder |
//! | `proxy` | [`Proxy`]: a reference that can be sent anywhere, and calls through it |
//! | `containers/`, `namespace` | [`Dict`], [`List`], [`Set`], [`Value`], [`Namespace`] |
//! | `queue`, `locks`, `semaphore`, `event`, `condition`, `barrier` | what processes of any machines wait at |
//! | `protocol` | what client and server say to each other |
//! | `rpc` | functions that are called in the server, and what they answer |
//! | `client` | the server as a client process sees it |
//! | `server`, `registry` | the server: connections; objects, and the references to them |
//! | `wait_queue` | waiting in the server, until the caller is gone at most |
//!
//! # When something dies
//! The server: waiting and later calls return [`Error::ManagerLost`] at once. A client: its
//! waiting calls end, its references go, its locks and semaphores are released, and the next owner of a
//! lock gets an error that says so. The process that made the manager: its server ends with it. The machine of a client: the system
//! notices that after some hours.
//!
//! # What a manager is not
//! It serves this program only: functions are identified by their place in the executable, so a client on another
//! machine runs the same one. Managers of Python's `multiprocessing` speak in pickles of Python's objects and are out
//! of reach. To exchange messages with a Python process, use a listener.

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

/// How long a server may take to drop what it holds before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the drop of a guard waits for the server's answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Whether the process for which this thread works is gone. For functions that wait in a manager's server: no
/// caller receives what they return then.
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
/// Its server ends with it: when it is dropped, on [`shutdown`](Manager::shutdown), or when this process ends, however
/// that happens.
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
    /// One at an address of its own choice, with a key of its own.
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
    /// [`ProcessError::Start`](crate::ProcessError::Start) if there is no process to be had.
    pub fn new() -> Result<Manager> {
        Manager::builder().build()
    }

    /// One at a certain address, with a certain key.
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

    /// Connects to a manager that another process has made, here or, if it has a network address, on another machine. This program
    /// must be the same executable. What there is to be found, its maker has put into its [`names`](Manager::names).
    /// Dropping it ends nothing.
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
    /// [`Error::System`] if there is no listener, [`ChannelError::Authentication`](crate::ChannelError::Authentication) if the key is
    /// another.
    pub fn connect(address: impl TryInto<Address, Error: Into<Error>>, key: impl Into<Authkey>) -> Result<Manager> {
        let address = address.try_into().map_err(Into::into)?;
        Ok(Manager { remote: RemoteServer::open(&address, &key.into(), None)?, own: None })
    }

    /// Where others [`connect`](Manager::connect) to it.
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

    /// What they need for that.
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

    /// The number of its server's process, if that is a child of this one.
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

    /// Ends the server: its objects are dropped, and waiting calls return an error. Returns how it ended, if
    /// that is known here.
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
    /// [`Error::ManagerLost`] if it was gone before.
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

    /// Calls `function(argument)` in the server and serves what it returns there.
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

    /// The namespace that each manager has from its beginning: where those who connect to it find things.
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
        // At its end it may have been asked nicely already; and there is no more time.
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
