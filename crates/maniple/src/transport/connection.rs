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

/// One end of a pipe or socket that carries values of one type in both directions.
///
/// [`pipe`] creates two connected ends; [`Connection::from_stream`] makes an end from a socket. An end can be sent to
/// another process: as (a part of) a [`Process`](crate::Process)'s argument, through another connection, or through a
/// queue. The other process receives a copy: drop your own end, so that the peer detects when that process has ended.
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
/// # How values travel
/// A value is encoded by the codec `C`. Large [`Bulk`](crate::Bulk)s travel beside the value in shared memory, which
/// costs the sender one copy and the receiver none. Descriptors travel with the value. Both need [`Postcard`], and ends
/// of [`pipe`] or a local socket.
///
/// Messages between the ends of a [`pipe`] are packets of this crate. Over a stream
/// ([`from_stream`](Connection::from_stream)) they are the frames of Python's `multiprocessing.connection`, so the
/// other end may be a Python program.
///
/// # The other end
/// [`recv`](Connection::recv) returns [`ChannelError::Closed`] when every copy of the other end is closed, or its
/// process has ended, and everything that it sent was received; [`send`](Connection::send) returns it at once. A
/// message of a pipe arrives complete or not at all, also if the sender was killed. Over a stream,
/// [`ChannelError::UnexpectedEof`] reports that the sender was killed in the middle of a message; all calls, also
/// futures and calls with a time limit, wait for the end of a message that has begun.
///
/// # When both ends send
/// `send` waits when the pipe or socket is full and no process receives. A [`pipe`] holds some 270 small messages in
/// each direction, and fewer messages of more than 200 bytes: 200 kB in total. A message longer than 48 KiB lies in
/// shared memory and counts as a small message. A socket holds as much as its buffers.
/// [`try_send`](Connection::try_send) and [`send_timeout`](Connection::send_timeout) wait less.
///
/// Two ends that each send more than that before they receive anything would wait for each other forever. Once both
/// directions have been full for some seconds and nothing moves, `send` returns [`ChannelError::Deadlock`], usually at
/// both ends. The message was not sent and can be sent later, after this end has received. (On a stream, an end that
/// was in the middle of a message is closed for sending.) A slow receiver does not cause the error: if another thread
/// or a future receives from this end, `send` waits without a limit. The error takes a minute if the system does not
/// say how full the other end is, if a copy of this end was sent to another process, and between machines.
///
/// Several threads may use one end, and so may several processes that have copies of a pipe's end. Over a stream these
/// processes have to take turns to receive, because a message does not arrive in one piece.
pub struct Connection<T, C: Codec = Postcard> {
    pub(super) endpoint: Endpoint,
    types: PhantomData<fn(T, C) -> T>,
}

/// Creates a pipe, and returns its two ends. Each end receives what the other sends.
///
/// Each direction holds some 270 small messages that were not received yet, 200 kB at most; then
/// [`send`](Connection::send) waits. Both ends have to receive from time to time. [If both only
/// send](Connection#when-both-ends-send), both get an error.
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
/// The operating system's error: no descriptor left.
pub fn pipe<T>() -> Result<(Connection<T>, Connection<T>)> {
    let (a, b) = Endpoint::pair()?;
    Ok((Connection::over(a), Connection::over(b)))
}

impl<T> Connection<T> {
    /// Creates an end over a socket or a pipe, and makes it blocking. The other side may be any program that uses the
    /// same frames.
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

    /// Returns the same end for values of another type, or in another codec. A message that is under way has the type
    /// and codec with which it was sent, so both ends have to change together. Otherwise the receiver gets an error,
    /// except for [types that are borrowed](Postcard#types).
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

    /// Returns whether a message has arrived (or the other end is closed), without waiting.
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
    /// The operating system's error.
    pub fn poll(&self) -> Result<bool> {
        self.endpoint.poll(Until::Now)
    }

    /// Waits at most `timeout` until a message has arrived (or the other end is closed), and returns whether it has.
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
    /// The operating system's error.
    pub fn poll_timeout(&self, timeout: Duration) -> Result<bool> {
        self.endpoint.poll(Until::after(timeout))
    }

    /// Returns the descriptor's number.
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
    /// Sends a value. Waits while there is no room for it, but not for an end that itself waits for this end (see
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

    /// Sends a value if there is room for it now. Returns false, and sends nothing, if there is no room.
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

    /// As [`send`](Connection::send), as a future, with any executor. A future that is dropped has sent nothing.
    ///
    /// Over a socket that the program made ([`from_stream`](Connection::from_stream)) it waits only until there is some
    /// room: the polling thread writes the rest of a long message.
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
    /// [`ChannelError::Closed`] if the other end is closed, [`ChannelError::UnexpectedEof`] if it was closed in the
    /// middle of the message, [`Error::Codec`] if the message is not such a value. After `Error::Codec` the next
    /// message can be received.
    pub fn recv(&self) -> Result<T> {
        self.endpoint.recv::<C, T>(Until::Ever)?.ok_or(Error::Channel(ChannelError::Closed))
    }

    /// Receives a value if there is one now; otherwise returns `None`.
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

    /// Waits for a value. `timeout` is the limit for the beginning of the message.
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

    /// Waits for a value as a future, with any executor. A future that is dropped has received nothing.
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
