//! Messages of a connection as bytes, for ends of other programs and other formats.

use super::connection::Connection;
use crate::codec::Codec;
use crate::error::{ChannelError, Error, InTime, Result};
use maniple_engine::channel::frame::Until;
use std::time::Duration;

impl<T, C: Codec> Connection<T, C> {
    /// Sends bytes as they are. The receiver reads them by [`recv_bytes`](Connection::recv_bytes), in Rust or in
    /// Python.
    ///
    /// Large amounts are faster in a `Connection<Bytes>`, which does not send them through the socket.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<u8>()?;
    /// a.send_bytes(b"as they are")?;
    /// assert_eq!(b.recv_bytes()?, b"as they are");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if no process can receive them,
    /// [`ChannelError::Deadlock`] as with [`send`](Connection::send).
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        self.endpoint.send_bytes(bytes, Until::Ever).map(|_| ())
    }

    /// As [`send_bytes`](Self::send_bytes), waiting at most `timeout` for room.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<()>()?;
    /// while a.send_bytes_timeout(b"more", Duration::from_millis(1)).is_ok() {}
    /// assert_eq!(b.recv_bytes()?, b"more");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send_timeout`](Connection::send_timeout).
    pub fn send_bytes_timeout(&self, bytes: &[u8], timeout: Duration) -> Result<()> {
        self.endpoint.send_bytes(bytes, Until::after(timeout))?.in_time("room to send a message", timeout)
    }

    /// Receives a message as bytes.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<()>()?;
    /// a.send_bytes(&[1, 2, 3])?;
    /// assert_eq!(b.recv_bytes()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`], [`ChannelError::UnexpectedEof`]; [`ChannelError::Message`] if the message is a value
    /// that has large buffers or descriptors beside its bytes.
    pub fn recv_bytes(&self) -> Result<Vec<u8>> {
        self.recv_bytes_max(usize::MAX)
    }

    /// As [`recv_bytes`](Connection::recv_bytes), for a message of at most `max` bytes, from a peer that is not trusted
    /// yet.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<()>()?;
    /// a.send_bytes(&[7; 10])?;
    /// assert_eq!(b.recv_bytes_max(10)?, [7; 10]);
    /// a.send_bytes(&[7; 11])?;
    /// assert!(matches!(b.recv_bytes_max(10), Err(maniple::Error::Channel(maniple::ChannelError::Message(_)))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Message`] if the message is longer; the connection is then unusable.
    pub fn recv_bytes_max(&self, max: usize) -> Result<Vec<u8>> {
        self.endpoint.receive_bytes(Until::Ever, max as u64)?.ok_or(Error::Channel(ChannelError::Closed))
    }

    /// As [`recv_bytes_max`](Self::recv_bytes_max), waiting for the beginning of the message at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (a, b) = maniple::pipe::<()>()?;
    /// assert_eq!(b.recv_bytes_timeout(100, Duration::from_millis(1))?, None);
    /// a.send_bytes(b"here")?;
    /// assert_eq!(b.recv_bytes_timeout(100, Duration::from_secs(1))?.as_deref(), Some(&b"here"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv_bytes_max`](Connection::recv_bytes_max).
    pub fn recv_bytes_timeout(&self, max: usize, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.endpoint.receive_bytes(Until::after(timeout), max as u64)
    }
}
