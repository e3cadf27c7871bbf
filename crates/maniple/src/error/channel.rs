//! Errors of connections and queues.

use super::travel::{self, Fixed};
use serde::{Deserialize, Serialize};
use std::io;

/// Why a message could not be sent or received by a connection, a channel, a queue or a listener:
/// [`Error::Channel`](crate::Error::Channel).
///
/// ```
/// use maniple::{ChannelError, Error, channel};
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = channel::<u8>()?;
/// drop(sender);
/// assert!(matches!(receiver.recv(), Err(Error::Channel(ChannelError::Closed))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other end of a connection is closed, or its process has ended. No message is left to receive, and no process
    /// can receive a message.
    #[error("the other end is closed")]
    Closed,
    /// The other end of a connection was closed in the middle of a message, usually because its process was killed.
    #[error("the other end was closed in the middle of a message; its process was probably killed")]
    UnexpectedEof,
    /// Both ends of a connection send and wait for room, and neither receives: without this error they would wait for each other forever.
    /// The message is not sent.
    #[error(
        "both ends of this connection send and neither receives, so that each waits for the other; receive before you \
            send more, receive in another thread, or send with send_timeout or try_send"
    )]
    Deadlock,
    /// The queue was closed. Nothing can be put into it any more, or it is empty.
    #[error("the queue was closed")]
    QueueClosed,
    /// The queue is full. The process that made it had a limit on file sizes (`ulimit -f`), which also limits the memory
    /// of a queue. Contains the number of bytes that the queue can hold.
    #[error(
        "the queue is full: file sizes were limited (ulimit -f) when it was made, so it holds at most {0} bytes; \
            remove an item first, or make the queue with a higher limit"
    )]
    QueueMemory(u64),
    /// A message cannot be sent or received in this way.
    #[error("this message: {0}")]
    Message(#[serde(deserialize_with = "travel::fixed")] Fixed),
    /// A text is not an address of a [`Listener`](crate::Listener).
    #[error("{0}")]
    Address(String),
    /// The two ends of a new connection did not prove to each other in time that they have the same
    /// [`Authkey`](crate::Authkey). A [`Listener`](crate::Listener) continues after that, because the error concerns
    /// one client.
    #[error("{0}")]
    Authentication(String),
}

impl ChannelError {
    /// Returns the corresponding kind of the standard library.
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            ChannelError::Closed | ChannelError::QueueClosed => io::ErrorKind::BrokenPipe,
            ChannelError::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            ChannelError::Deadlock => io::ErrorKind::Deadlock,
            ChannelError::QueueMemory(_) => io::ErrorKind::FileTooLarge,
            ChannelError::Message(_) => io::ErrorKind::InvalidData,
            ChannelError::Address(_) => io::ErrorKind::InvalidInput,
            ChannelError::Authentication(_) => io::ErrorKind::PermissionDenied,
        }
    }
}
