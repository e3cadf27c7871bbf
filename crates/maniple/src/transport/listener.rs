//! Connections between unrelated processes: one process listens, others connect.
//!
//! The sockets carry the standard package's protocol, including its authentication: the other end may be Python's
//! `multiprocessing.connection`. The engine implements it (`channel::listener`).

use super::client::deadline;
use super::{Address, Authkey, Connection};
use crate::error::{Error, InTime, Result};
use maniple_engine::channel::listener as engine;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
#[cfg(feature = "async")]
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An address to which other processes connect, by a [`Client`](super::Client) or by Python's
/// `multiprocessing.connection.Client`.
///
/// ```
/// use maniple::{Address, Authkey, Client, Listener, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let key = Authkey::random()?;
/// let listener = Listener::builder().authkey(&key).temporary()?;
/// let process = Process::new(
///     |(address, key): (Address, Vec<u8>)| {
///         let line = Client::builder().authkey(key).connect::<String>(address)?;
///         line.send(&"here I am".to_string())
///     },
///     (listener.address().clone(), key.as_bytes().to_vec()),
/// )?;
/// process.start()?;
/// let line = listener.accept::<String>()?;
/// assert_eq!(line.recv()?, "here I am");
/// process.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # Which clients it accepts
/// With an [`authkey`](ListenerBuilder::authkey) it accepts clients that have the key, and reads no message from other
/// clients. Without a key it accepts every client that can reach the address: this user's processes at a
/// [`temporary`](Listener::temporary) address, processes that may write to a path, and machines that can connect to a
/// port. Apart from the authentication, traffic over a network is neither encrypted nor signed.
///
/// # With Python
/// Bytes pass as they are ([`send_bytes`](Connection::send_bytes) here, `send_bytes` there), and so do values in a
/// format that both sides know: [`cast`](Connection::cast) returns a connection with another codec, `Json` (with the
/// feature `json`) or your own. Python's `send` and `recv` use pickle, which this crate does not support.
///
/// ```
/// use maniple::Listener;
///
/// # fn main() -> maniple::Result<()> {
/// let listener = Listener::builder().authkey("between us").bind("127.0.0.1:0")?;
/// let program = "
/// import sys
/// from multiprocessing.connection import Client
/// with Client(('127.0.0.1', int(sys.argv[1])), authkey=b'between us') as line:
///     line.send_bytes(line.recv_bytes().upper())
/// ";
/// let port = listener.address().port().unwrap().to_string();
/// let Ok(mut python) = std::process::Command::new("python3").args(["-c", program, &port]).spawn() else {
///     return Ok(()) // no Python here
/// };
/// let line = listener.accept::<()>()?;
/// line.send_bytes(b"hello")?;
/// assert_eq!(line.recv_bytes()?, b"HELLO");
/// # python.wait().unwrap();
/// # Ok(())
/// # }
/// ```
///
/// # Closing
/// After a drop no client can connect any more, and the path of the listener is removed. Accepted connections stay
/// open.
pub struct Listener {
    pub(super) accepting: Arc<Accepting>,
    address: Address,
}

/// Accepts clients, for the listener and for the thread that serves its futures.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) engine: engine::Listener,
    authkey: Option<Authkey>,
    // Clients that were accepted for a future that was dropped.
    kept: Mutex<VecDeque<OwnedHandle>>,
    // Whether such a future may have left clients whose authentication has begun.
    #[cfg(feature = "async")]
    pub(super) unfinished: AtomicBool,
}

impl Accepting {
    pub(super) fn next(&self, deadline: Option<Instant>) -> Result<Option<OwnedHandle>> {
        if let Some(kept) = self.kept().pop_front() {
            return Ok(Some(kept));
        }
        Ok(self.engine.accept(self.authkey.as_ref().map(Authkey::as_bytes), deadline, &mut || false)?)
    }

    /// Returns whether a client may have connected that has not completed its authentication.
    #[cfg(feature = "async")]
    pub(super) fn authenticates(&self) -> bool {
        self.authkey.is_some()
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, VecDeque<OwnedHandle>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The options of a [`Listener`]. [`Listener::builder`] returns a builder.
///
/// ```
/// use maniple::Listener;
/// use std::time::Duration;
///
/// # fn main() -> maniple::Result<()> {
/// let builder = Listener::builder().authkey("between us").backlog(8).handshake_timeout(Duration::from_secs(5));
/// let listener = builder.bind("127.0.0.1:0")?;
/// assert_ne!(listener.address().port(), None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ListenerBuilder {
    authkey: Option<Authkey>,
    backlog: u32,
    keep_alive: bool,
    patience: Duration,
}

/// An endless iterator over the connections to a [`Listener`]. [`Listener::incoming`] returns it.
///
/// ```
/// use maniple::{Client, Listener};
///
/// # fn main() -> maniple::Result<()> {
/// let listener = Listener::temporary()?;
/// for n in 1..=3 {
///     Client::connect::<u32>(listener.address())?.send(&n)?;
/// }
/// let sum = listener.incoming::<u32>().take(3).map(|line| line?.recv()).sum::<maniple::Result<u32>>()?;
/// assert_eq!(sum, 6);
/// # Ok(())
/// # }
/// ```
pub struct Incoming<'a, T> {
    listener: &'a Listener,
    types: PhantomData<fn() -> T>,
}

impl Listener {
    /// Listens at an address, without a key: `"host:port"` (port 0 selects a free port, see
    /// [`address`](Listener::address)), a path, or an [`Address`].
    ///
    /// ```
    /// use maniple::Listener;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::bind("127.0.0.1:0")?;
    /// assert_ne!(listener.address().port(), Some(0));
    /// let error = Listener::bind(listener.address()).unwrap_err();
    /// assert!(error.to_string().contains("use another port"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Address`](crate::ChannelError::Address) if the text is not an address; [`Error::System`] if the
    /// address is in use or unreachable.
    pub fn bind(address: impl TryInto<Address, Error: Into<Error>>) -> Result<Listener> {
        Listener::builder().bind(address)
    }

    /// Listens at a new path in a folder that only this user can enter, without a key. Dropping the listener removes
    /// the folder.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let listener = maniple::Listener::temporary()?;
    /// let path = listener.address().path().unwrap().to_owned();
    /// assert!(path.exists());
    /// drop(listener);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] if there is no folder for temporary files.
    pub fn temporary() -> Result<Listener> {
        Listener::builder().temporary()
    }

    /// Returns a builder for a listener with a key and other options.
    ///
    /// ```
    /// use maniple::Listener;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::builder().authkey("between us").bind("127.0.0.1:0")?;
    /// assert!(listener.address().to_string().starts_with("127.0.0.1:"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ListenerBuilder {
        ListenerBuilder { authkey: None, backlog: 128, keep_alive: false, patience: engine::PATIENCE }
    }

    fn new(engine: engine::Listener, with: ListenerBuilder) -> Listener {
        let mut engine = engine;
        engine.set_keep_alive(with.keep_alive);
        engine.set_patience(with.patience);
        let address = Address(engine.address().clone());
        let accepting = Accepting {
            engine,
            authkey: with.authkey,
            kept: Mutex::default(),
            #[cfg(feature = "async")]
            unfinished: AtomicBool::new(false),
        };
        Listener { accepting: Arc::new(accepting), address }
    }

    fn next(&self, deadline: Option<Instant>) -> Result<Option<OwnedHandle>> {
        self.accepting.next(deadline)
    }

    /// Waits for the next connection. Several threads may call it at a time.
    ///
    /// Clients authenticate side by side: a slow or silent client delays no other.
    ///
    /// ```
    /// use maniple::{Client, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::temporary()?;
    /// let ours = Client::connect::<String>(listener.address())?;
    /// let theirs = listener.accept::<String>()?;
    /// theirs.send(&"welcome".to_string())?;
    /// assert_eq!(ours.recv()?, "welcome");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Authentication`](crate::ChannelError::Authentication) for a client that was rejected. The
    /// listener continues, so call `accept` again. [`Error::System`] if the operating system refuses, for example
    /// because too many descriptors are open.
    pub fn accept<T>(&self) -> Result<Connection<T>> {
        loop {
            if let Some(end) = self.next(None)? {
                return Ok(Connection::from_stream(end));
            }
        }
    }

    /// As [`accept`](Self::accept), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{Error, Listener};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::temporary()?;
    /// assert!(matches!(listener.accept_timeout::<()>(Duration::from_millis(1)), Err(Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Listener::accept), and [`Error::Timeout`].
    pub fn accept_timeout<T>(&self, timeout: Duration) -> Result<Connection<T>> {
        self.next(deadline(timeout))?.map(Connection::from_stream).in_time("a client to connect", timeout)
    }

    /// Returns an iterator over the connections, without an end.
    ///
    /// ```
    /// use maniple::{Client, Error, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::builder().authkey("between us").temporary()?;
    /// let address = listener.address().clone();
    /// let clients = std::thread::spawn(move || {
    ///     let refused = Client::builder().authkey("a guess").connect::<u8>(&address);
    ///     assert!(matches!(refused, Err(Error::Channel(maniple::ChannelError::Authentication(_)))));
    ///     Client::builder().authkey("between us").connect::<u8>(&address)?.send(&1)
    /// });
    /// for connection in listener.incoming::<u8>() {
    ///     match connection {
    ///         Ok(connection) => {
    ///             assert_eq!(connection.recv()?, 1);
    ///             break;
    ///         }
    ///         Err(Error::Channel(maniple::ChannelError::Authentication(why))) => assert!(why.contains("both ends need the same")),
    ///         Err(other) => return Err(other),
    ///     }
    /// }
    /// clients.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn incoming<T>(&self) -> Incoming<'_, T> {
        Incoming { listener: self, types: PhantomData }
    }

    /// Returns the address for clients, with the actual port or path.
    ///
    /// ```
    /// use maniple::{Client, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::bind("127.0.0.1:0")?;
    /// assert!(Client::connect::<()>(listener.address()).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl ListenerBuilder {
    /// Accepts only clients that have this key, and proves to them that the listener has it, too.
    ///
    /// ```
    /// use maniple::{Authkey, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let key = Authkey::random()?;
    /// let listener = Listener::builder().authkey(&key).temporary()?;
    /// assert!(listener.address().path().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn authkey(mut self, key: impl Into<Authkey>) -> Self {
        self.authkey = Some(key.into());
        self
    }

    /// Sets how many clients may wait to be accepted before the operating system delays or refuses others. The default
    /// is 128; 0 is an error.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let listener = maniple::Listener::builder().backlog(1000).temporary()?;
    /// assert!(listener.address().path().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Lets the operating system check periodically whether the machine at the other end of a silent connection is
    /// still reachable. By default it gives up only after hours. Local sockets do not need it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let listener = maniple::Listener::builder().keep_alive(true).bind("127.0.0.1:0")?;
    /// assert!(listener.address().port().is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Sets the time that a client has to prove that it knows the key. The default is 20 seconds.
    ///
    /// ```
    /// use maniple::{Client, Error, Listener};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let builder = Listener::builder().authkey("between us").handshake_timeout(Duration::from_millis(10));
    /// let listener = builder.temporary()?;
    /// // It has no key, and says nothing.
    /// let _silent = Client::connect::<()>(listener.address())?;
    /// assert!(matches!(listener.accept::<()>(), Err(Error::Channel(maniple::ChannelError::Authentication(_)))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// Listens at an address, as [`Listener::bind`].
    ///
    /// ```
    /// use maniple::Listener;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::builder().bind("127.0.0.1:0")?;
    /// let error = Listener::builder().bind(listener.address()).unwrap_err();
    /// assert!(error.to_string().contains("use another port"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind(self, address: impl TryInto<Address, Error: Into<Error>>) -> Result<Listener> {
        self.check()?;
        let address = address.try_into().map_err(Into::into)?;
        Ok(Listener::new(engine::Listener::bind(&address.0, self.backlog)?, self))
    }

    /// Listens at a new path, as [`Listener::temporary`].
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let listener = maniple::Listener::builder().authkey("between us").temporary()?;
    /// assert!(listener.address().path().is_some_and(|path| path.exists()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Listener::temporary`].
    pub fn temporary(self) -> Result<Listener> {
        self.check()?;
        Ok(Listener::new(engine::Listener::temporary(self.backlog)?, self))
    }

    fn check(&self) -> Result<()> {
        match self.backlog {
            0 => Err(Error::InvalidArgument("a backlog of 0 clients; use 1 or more, or leave the option out")),
            _ => Ok(()),
        }
    }
}

impl<T> Iterator for Incoming<'_, T> {
    type Item = Result<Connection<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept())
    }
}

impl<T> fmt::Debug for Incoming<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("address", &self.address)
            .field("authkey", &self.accepting.authkey)
            .finish_non_exhaustive()
    }
}

impl AsHandle for Listener {
    /// Readable while a client waits to be accepted. Waits for several objects can include it.
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.accepting.engine.as_handle()
    }
}
