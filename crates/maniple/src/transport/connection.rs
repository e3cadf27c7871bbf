//! An end that sends and receives.

use super::endpoint::{self, Endpoint};
use crate::codec::{Codec, Postcard};
use crate::error::{ChannelError, Error, InTime, Result};
use maniple_engine::channel::frame::Until;
use maniple_sys::{AsHandle, IntoHandle, OwnedHandle, RawHandle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

const WHAT: &str = "a Connection";

/// One end of a pipe or socket over which values of one type go in both directions.
///
/// [`pipe`] makes two of them; a socket becomes one by [`Connection::from_stream`]. An end can be sent to another process: as (a part
/// of) a [`Process`](crate::Process)'s argument, through another connection, or through a queue. What is sent is a copy: drop
/// one's own, so that the other end notices when the process is gone.
///
/// ```
/// use maniple::{Connection, Process, pipe};
///
/// # fn main() -> maniple::Result<()> {
/// let (ours, theirs) = pipe::<String>()?;
/// let process = Process::new(
///     |line: Connection<String>| {
///         while let Ok(text) = line.recv() {
///             line.send(&text.to_uppercase())?;
///         }
///         Ok::<_, maniple::Error>(())
///     },
///     theirs,
/// )?;
/// process.start()?;
/// ours.send(&"hello".to_string())?;
/// assert_eq!(ours.recv()?, "HELLO");
/// drop(ours);
/// process.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # What travels how
/// A value is encoded by the codec `C`. Large [`Bulk`](crate::Bulk)s go beside it in shared memory, which costs the sender one copy and the
/// receiver none; descriptors go with it. That takes [`Postcard`], and ends of [`pipe`] or a local socket.
///
/// Messages between the ends of a [`pipe`] are packets of this crate's. Over a stream ([`from_stream`](Connection::from_stream)) they are
/// frames as Python's `multiprocessing.connection` has them, so a Python program can be at the other end.
///
/// # The other end
/// [`recv`](Connection::recv) returns [`ChannelError::Closed`] when every copy of the other end is closed, or its process has ended,
/// and everything that it sent was received; [`send`](Connection::send) returns it at once. A message of a pipe arrives whole or not at
/// all: a process that was killed has sent it or not.
/// Over a stream, [`ChannelError::UnexpectedEof`] reports that the sender was killed in the middle of a message; and all calls, also
/// futures and those with a time limit, wait for the end of a message that has begun.
///
/// # When both ends send
/// As long as no process receives, `send` waits once the pipe or socket is full. A [`pipe`] holds some 270 small messages in each
/// direction, and fewer of more than 200 bytes: 200 kB in all. A message longer than 48 KiB lies in shared memory and counts as a small message there. A
/// socket holds what its buffers do. [`try_send`](Connection::try_send) and [`send_timeout`](Connection::send_timeout) wait
/// less.
///
/// Two ends that each send more than that before they receive anything would wait for each other forever. Once both directions have
/// been full for some seconds and nothing moves, `send` is an [`ChannelError::Deadlock`] instead, as a rule
/// at both ends. A message that is not
/// sent yet can be sent later, after what has come was received. (Of a stream, an end that was in the middle of a message is closed for
/// sending.) A slow receiver is none of that: where another thread or a future receives from this end, `send` waits as long as it takes.
/// Where the system does not say how full the other end is, or a copy of this end has gone to another process, it takes a minute.
/// Between other machines too.
///
/// Several threads may use one end, and so may several processes that have copies of a pipe's end. Over a stream these have to agree
/// whose turn it is to receive, because a message does not arrive as one.
pub struct Connection<T, C: Codec = Postcard> {
    pub(super) endpoint: Endpoint,
    types: PhantomData<fn(T, C) -> T>,
}

/// Two ends of a new pipe. What is sent into one is received from the other.
///
/// Each direction holds some 270 small messages that were not received yet, 200 kB at most; then [`send`](Connection::send) waits. Both ends
/// have to receive now and then: [when both only send](Connection#when-both-ends-send), that is an error.
///
/// ```
/// use maniple::Bytes;
///
/// # fn main() -> maniple::Result<()> {
/// let (a, b) = maniple::pipe::<(u32, Bytes)>()?;
/// a.send(&(1, Bytes::from(vec![7; 1_000_000])))?;
/// b.send(&(2, Bytes::new()))?;
/// let (number, mut bytes) = b.recv()?;
/// bytes[0] = 8;
/// assert_eq!((number, bytes.len()), (1, 1_000_000));
/// assert_eq!(a.recv()?.0, 2);
///
/// drop(a);
/// assert!(matches!(b.recv(), Err(maniple::Error::Channel(maniple::ChannelError::Closed))));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The system's: no descriptor left.
pub fn pipe<T>() -> Result<(Connection<T>, Connection<T>)> {
    let (a, b) = Endpoint::pair()?;
    Ok((Connection::over(a), Connection::over(b)))
}

impl<T> Connection<T> {
    /// An end over a socket or a pipe, which is made blocking. The other side may be any program that speaks the same frames.
    ///
    /// ```
    /// use maniple::Connection;
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let (a, b) = (TcpStream::connect(listener.local_addr()?)?, listener.accept()?.0);
    /// let (a, b) = (Connection::<u64>::from_stream(a), Connection::<u64>::from_stream(b));
    /// a.send(&7)?;
    /// assert_eq!(b.recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_stream(stream: impl IntoHandle) -> Self {
        Connection::over(Endpoint::over(stream.into_handle(), false))
    }
}

impl<T, C: Codec> Connection<T, C> {
    fn over(endpoint: Endpoint) -> Self {
        Connection { endpoint, types: PhantomData }
    }

    /// The same end for values of another type, or in another codec. What is on its way is received as what it was sent as, so both ends
    /// have to change together; where they do not, there is an error, [what is borrowed](Postcard#types) excepted.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// let (a, b) = (a.cast::<String, maniple::Postcard>(), b.cast::<String, maniple::Postcard>());
    /// a.send(&"no number".to_string())?;
    /// assert_eq!(b.recv()?, "no number");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cast<U, D: Codec>(self) -> Connection<U, D> {
        Connection { endpoint: self.endpoint, types: PhantomData }
    }

    /// Whether a message has come (or the other end is closed), without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// assert!(!b.poll()?);
    /// a.send(&1)?;
    /// assert!(b.poll()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&self) -> Result<bool> {
        self.endpoint.poll(Until::Now)
    }

    /// Whether a message has come (or the other end is closed), waiting for that at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// assert!(!b.poll()?);
    /// a.send(&1)?;
    /// assert!(b.poll_timeout(Duration::from_secs(1))?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The system's.
    pub fn poll_timeout(&self, timeout: Duration) -> Result<bool> {
        self.endpoint.poll(Until::after(timeout))
    }

    /// The descriptor's number.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<()>()?;
    /// assert_ne!(a.fileno(), b.fileno());
    /// # Ok(())
    /// # }
    /// ```
    pub fn fileno(&self) -> RawHandle {
        self.endpoint.as_handle().as_raw()
    }
}

impl<T: Serialize, C: Codec> Connection<T, C> {
    /// Sends a value. Waits while there is no room for it, but not for an end that waits for this one (see
    /// [above](Connection#when-both-ends-send)).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<Vec<u8>>()?;
    /// a.send(&vec![1, 2])?;
    /// assert_eq!(b.recv()?, [1, 2]);
    /// drop(b);
    /// assert!(matches!(a.send(&vec![3]), Err(maniple::Error::Channel(maniple::ChannelError::Closed))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if no process can receive it, [`Error::Codec`] if it cannot be encoded,
    /// [`ChannelError::Deadlock`] if both ends send and
    /// neither receives; nothing was sent then.
    pub fn send(&self, value: &T) -> Result<()> {
        self.endpoint.send::<C, T>(value, Until::Ever).map(|_| ())
    }

    /// Sends a value if there is room for it now. False: there is none, and nothing was sent.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u32>()?;
    /// let mut held = 0;
    /// while a.try_send(&held)? {
    ///     held += 1;
    /// }
    /// assert!(held > 100);
    /// assert_eq!(b.recv()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Connection::send).
    pub fn try_send(&self, value: &T) -> Result<bool> {
        self.endpoint.send::<C, T>(value, Until::Now)
    }

    /// Sends a value, waiting at most `timeout` for room.
    ///
    /// Over a stream ([`from_stream`](Connection::from_stream)) that is the limit for the beginning of the message.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// while a.send_timeout(&1, Duration::from_millis(1)).is_ok() {}
    /// while b.try_recv()?.is_some() {}
    /// a.send_timeout(&2, Duration::from_secs(1))?;
    /// assert_eq!(b.recv()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Connection::send), and [`Error::Timeout`]: nothing was sent.
    pub fn send_timeout(&self, value: &T, timeout: Duration) -> Result<()> {
        self.endpoint.send::<C, T>(value, Until::after(timeout))?.in_time("room to send a message", timeout)
    }

    /// The same as [`send`](Connection::send) as a future, with any executor. A future that is dropped has sent nothing.
    ///
    /// Over a socket that the program made ([`from_stream`](Connection::from_stream)) it waits for the first room only: the thread that polls
    /// writes the rest of a long message.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// block_on(a.send_async(&1))?;
    /// assert_eq!(b.recv()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Connection::send).
    pub async fn send_async(&self, value: &T) -> Result<()> {
        self.endpoint.send_async::<C, T>(value).await
    }
}

impl<T: DeserializeOwned, C: Codec> Connection<T, C> {
    /// Waits for a value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// a.send(&1)?;
    /// drop(a);
    /// assert_eq!(b.recv()?, 1);
    /// assert!(matches!(b.recv(), Err(maniple::Error::Channel(maniple::ChannelError::Closed))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if the other end is closed,
    /// [`ChannelError::UnexpectedEof`] if it was so in the middle of the message, [`Error::Codec`] if
    /// the message is no such value. After the last the next message can be received.
    pub fn recv(&self) -> Result<T> {
        self.endpoint.recv::<C, T>(Until::Ever)?.ok_or(Error::Channel(ChannelError::Closed))
    }

    /// A value that is there; `None` if there is none now.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// assert_eq!(b.try_recv()?, None);
    /// a.send(&1)?;
    /// assert_eq!(b.try_recv()?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Connection::recv).
    pub fn try_recv(&self) -> Result<Option<T>> {
        self.endpoint.recv::<C, T>(Until::Now)
    }

    /// Waits for a value, at most `timeout` for its beginning.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// assert_eq!(b.recv_timeout(Duration::from_millis(1))?, None);
    /// a.send(&1)?;
    /// assert_eq!(b.recv_timeout(Duration::from_secs(1))?, Some(1));
    /// assert_eq!(b.try_recv()?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Connection::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.endpoint.recv::<C, T>(Until::after(timeout))
    }

    /// Waits for a value as a future, with any executor. A future that is dropped has taken nothing.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// let thread = std::thread::spawn(move || a.send(&1));
    /// assert_eq!(block_on(b.recv_async())?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Connection::recv).
    pub async fn recv_async(&self) -> Result<T> {
        self.endpoint.recv_async::<C, T>().await
    }
}

impl<T, C: Codec> From<OwnedHandle> for Connection<T, C> {
    fn from(end: OwnedHandle) -> Self {
        Connection::over(Endpoint::over(end, false))
    }
}

impl<T, C: Codec> From<Connection<T, C>> for OwnedHandle {
    fn from(connection: Connection<T, C>) -> OwnedHandle {
        connection.endpoint.into_end()
    }
}

maniple_sys::as_handle!(impl[T, C: Codec] for Connection<T, C>, |this| this.endpoint.as_handle());

impl<T, C: Codec> fmt::Debug for Connection<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("fileno", &self.fileno()).finish_non_exhaustive()
    }
}

impl<T, C: Codec> Serialize for Connection<T, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        endpoint::serialize(WHAT, &self.endpoint, serializer)
    }
}

impl<'de, T, C: Codec> Deserialize<'de> for Connection<T, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        endpoint::deserialize(WHAT, deserializer).map(Connection::over)
    }
}
