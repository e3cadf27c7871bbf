//! A line of one direction.

use super::line::{self, Line};
use crate::codec::{Codec, Postcard};
use crate::error::{Error, Result};
use maniple_engine::channel::frame::Until;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The end of a [`channel`] that sends.
pub struct Sender<T, C: Codec = Postcard> {
    line: Line,
    types: PhantomData<fn(T, C)>,
}

/// The end of a [`channel`] that receives.
pub struct Receiver<T, C: Codec = Postcard> {
    line: Line,
    types: PhantomData<fn(C) -> T>,
}

/// A line in one direction. Both ends can be sent to other processes.
///
/// ```
/// use maniple::{Process, Sender, channel};
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = channel::<u64>()?;
/// let process = Process::new(
///     |(sender, count): (Sender<u64>, u64)| (0..count).try_for_each(|n| sender.send(&(n * n))),
///     (sender, 4),
/// )?;
/// process.start()?;
/// let squares: Vec<u64> = receiver.iter().collect::<maniple::Result<_>>()?;
/// assert_eq!(squares, [0, 1, 4, 9]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The system's: no descriptor left.
pub fn channel<T>() -> Result<(Sender<T>, Receiver<T>)> {
    let (a, b) = Line::pair()?;
    Ok((Sender { line: a, types: PhantomData }, Receiver { line: b, types: PhantomData }))
}

impl<T: Serialize, C: Codec> Sender<T, C> {
    /// Sends a value. Waits while there is no room for it.
    ///
    /// # Errors
    /// [`Error::Closed`] if nobody can receive it, [`Error::Codec`] if it cannot be encoded; nothing was sent then.
    pub fn send(&self, value: &T) -> Result<()> {
        self.line.send::<C, T>(value)
    }

    /// The same as a future; see [`Connection::send_async`](crate::Connection::send_async).
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub async fn send_async(&self, value: &T) -> Result<()> {
        self.line.send_async::<C, T>(value).await
    }
}

impl<T: DeserializeOwned, C: Codec> Receiver<T, C> {
    /// Waits for a value.
    ///
    /// # Errors
    /// [`Error::Closed`] if every sender is gone, [`Error::Codec`] if the message is no such value.
    pub fn recv(&self) -> Result<T> {
        self.line.recv::<C, T>(Until::Ever)?.ok_or(Error::Closed)
    }

    /// A value that is there; `None` if there is none now.
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub fn try_recv(&self) -> Result<Option<T>> {
        self.line.recv::<C, T>(Until::Now)
    }

    /// Waits for a value, at most `timeout` for its beginning; `None` if none came.
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.line.recv::<C, T>(Until::after(timeout))
    }

    /// Waits for a value as a future; see [`Connection::recv_async`](crate::Connection::recv_async).
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub async fn recv_async(&self) -> Result<T> {
        self.line.recv_async::<C, T>().await
    }

    /// All values until every sender is gone.
    pub fn iter(&self) -> impl Iterator<Item = Result<T>> {
        std::iter::from_fn(|| match self.recv() {
            Err(Error::Closed) => None,
            other => Some(other),
        })
    }
}

impl<T, C: Codec> Receiver<T, C> {
    /// Whether a message has come (or every sender is gone), waiting for that at most `timeout`.
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&self, timeout: Duration) -> Result<bool> {
        self.line.poll(Until::after(timeout))
    }
}

macro_rules! end {
    ($end:ident, $what:literal) => {
        impl<T, C: Codec> AsFd for $end<T, C> {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.line.as_fd()
            }
        }

        impl<T, C: Codec> fmt::Debug for $end<T, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).field("end", &self.line.as_fd()).finish_non_exhaustive()
            }
        }

        impl<T, C: Codec> Serialize for $end<T, C> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                line::serialize($what, &self.line, serializer)
            }
        }

        impl<'de, T, C: Codec> Deserialize<'de> for $end<T, C> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok($end { line: line::deserialize($what, deserializer)?, types: PhantomData })
            }
        }
    };
}

end!(Sender, "a Sender");
end!(Receiver, "a Receiver");
