//! Connecting to a listener.

use super::{Address, Authkey, Connection};
use crate::error::{Error, Result};
use maniple_engine::channel::listener as engine;
use maniple_sys::AsHandle;
use std::time::{Duration, Instant};

/// Connects to a [`Listener`](super::Listener) of this crate or of Python's `multiprocessing.connection`.
///
/// ```
/// use maniple::{Client, Listener};
///
/// # fn main() -> maniple::Result<()> {
/// let listener = Listener::temporary()?;
/// let ours = Client::connect::<u32>(listener.address())?;
/// let theirs = listener.accept::<u32>()?;
/// ours.send(&7)?;
/// assert_eq!(theirs.recv()?, 7);
///
/// let error = Client::connect::<u32>("/nowhere/at/all").unwrap_err();
/// assert!(error.to_string().starts_with("could not connect to /nowhere/at/all: "));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum Client {}

/// The options of a connection. [`Client::builder`] returns a builder.
///
/// ```
/// use maniple::{Client, Listener};
///
/// # fn main() -> maniple::Result<()> {
/// let listener = Listener::builder().authkey("between us").temporary()?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || Client::builder().authkey("between us").connect::<u8>(address)?.send(&7));
/// assert_eq!(listener.accept::<u8>()?.recv()?, 7);
/// client.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    authkey: Option<Authkey>,
    timeout: Option<Duration>,
    keep_alive: bool,
}

pub(super) fn deadline(timeout: Duration) -> Option<Instant> {
    // A time limit that the clock cannot represent is no limit.
    Instant::now().checked_add(timeout)
}

impl Client {
    /// Connects to the listener at an address, without a key.
    ///
    /// ```
    /// use maniple::{Client, Error, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::bind("127.0.0.1:0")?;
    /// let line = Client::connect::<u8>(listener.address())?;
    /// line.send(&7)?;
    /// assert_eq!(listener.accept::<u8>()?.recv()?, 7);
    /// assert!(matches!(Client::connect::<u8>("no address"), Err(Error::Channel(maniple::ChannelError::Address(_)))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Address`](crate::ChannelError::Address) if the text is not an address; [`Error::System`] if
    /// there is no listener.
    pub fn connect<T>(address: impl TryInto<Address, Error: Into<Error>>) -> Result<Connection<T>> {
        Client::builder().connect(address)
    }

    /// Returns a builder for a connection with a key and other options.
    ///
    /// ```
    /// use maniple::{Client, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::bind("127.0.0.1:0")?;
    /// let line = Client::builder().keep_alive(true).connect::<u8>(listener.address())?;
    /// line.send(&7)?;
    /// assert_eq!(listener.accept::<u8>()?.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl ClientBuilder {
    /// Sets the key that the listener knows. A client with a key may wait forever for a listener without a key: see
    /// [`connect_timeout`](ClientBuilder::connect_timeout).
    ///
    /// ```
    /// use maniple::{Client, Error, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::builder().authkey("between us").temporary()?;
    /// let connecting = Client::builder().authkey("a guess");
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| assert!(listener.accept::<()>().is_err()));
    ///     assert!(matches!(connecting.connect::<()>(listener.address()), Err(Error::Channel(maniple::ChannelError::Authentication(_)))));
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn authkey(mut self, key: impl Into<Authkey>) -> Self {
        self.authkey = Some(key.into());
        self
    }

    /// Sets the time limit for the connection and the authentication together. By default there is no limit, because
    /// the listener may be busy. (Looking up a host's name is not counted.)
    ///
    /// ```
    /// use maniple::{Client, Listener};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::temporary()?;
    /// let connecting = Client::builder().authkey("a key").connect_timeout(Duration::from_millis(20));
    /// // The listener does not accept it.
    /// let error = connecting.connect::<()>(listener.address()).unwrap_err();
    /// assert!(error.to_string().contains("the peer did not complete the authentication within"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets the operating system check periodically whether the listener's machine is still reachable.
    ///
    /// ```
    /// use maniple::{Client, Listener};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::bind("127.0.0.1:0")?;
    /// assert!(Client::builder().keep_alive(true).connect::<()>(listener.address()).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Connects to the listener at an address.
    ///
    /// ```
    /// use maniple::{Client, Listener};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = Listener::temporary()?;
    /// let line = Client::builder().connect_timeout(Duration::from_secs(5)).connect::<u8>(listener.address())?;
    /// line.send(&7)?;
    /// assert_eq!(listener.accept::<u8>()?.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Address`](crate::ChannelError::Address) if the text is not an address; [`Error::System`] if
    /// there is no listener, or if it does not answer in time;
    /// [`ChannelError::Authentication`](crate::ChannelError::Authentication) if the two ends do not have the same key.
    pub fn connect<T>(self, address: impl TryInto<Address, Error: Into<Error>>) -> Result<Connection<T>> {
        let address = address.try_into().map_err(Into::into)?;
        let key = self.authkey.as_ref().map(Authkey::as_bytes);
        let end = engine::connect(&address.0, key, self.timeout.and_then(deadline), &mut || false)?;
        if self.keep_alive {
            engine::keep_alive(end.as_handle())?;
        }
        Ok(Connection::from_stream(end))
    }
}
