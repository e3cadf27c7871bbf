//! A pipe in one direction.
//!
//! `Sender` and `Receiver` are typed faces of an `Endpoint`, as `Connection` is: their methods make one call of it each, and have
//! examples of their own.

use super::endpoint::{self, Endpoint};
use crate::codec::{Codec, Postcard};
use crate::error::{ChannelError, Error, InTime, Result};
use maniple_engine::channel::frame::Until;
use maniple_sys::AsHandle;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// The end of a [`channel`] that sends.
///
/// Clones are the same end: the receiver gets [`ChannelError::Closed`] when the last clone
/// and the last copy in another process are gone.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::channel::<String>()?;
/// sender.send(&"one way".to_string())?;
/// assert_eq!(receiver.recv()?, "one way");
/// drop(receiver);
/// assert!(matches!(sender.send(&"in vain".to_string()), Err(maniple::Error::Channel(maniple::ChannelError::Closed))));
/// # Ok(())
/// # }
/// ```
pub struct Sender<T, C: Codec = Postcard> {
    // The clones' too, so that it is closed with the last of them.
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn(T, C)>,
}

/// The end of a [`channel`] that receives.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::channel::<u8>()?;
/// sender.send(&1)?;
/// drop(sender);
/// assert_eq!(receiver.recv()?, 1);
/// assert!(matches!(receiver.recv(), Err(maniple::Error::Channel(maniple::ChannelError::Closed))));
/// # Ok(())
/// # }
/// ```
pub struct Receiver<T, C: Codec = Postcard> {
    endpoint: Endpoint,
    types: PhantomData<fn(C) -> T>,
}

/// Creates a pipe in one direction. Both ends can be sent to other processes.
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
/// The operating system's error: no descriptor left.
pub fn channel<T>() -> Result<(Sender<T>, Receiver<T>)> {
    let (a, b) = Endpoint::pair()?;
    Ok((Sender { endpoint: Arc::new(a), types: PhantomData }, Receiver { endpoint: b, types: PhantomData }))
}

impl<T: Serialize, C: Codec> Sender<T, C> {
    /// Sends a value. Waits while there is no room for it: a channel holds as much as a [`pipe`](crate::pipe).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<(u8, String)>()?;
    /// sender.send(&(1, "one".to_string()))?;
    /// assert_eq!(receiver.recv()?, (1, "one".to_string()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if no process can receive it, [`Error::Codec`] if it cannot be encoded; nothing
    /// was sent then.
    pub fn send(&self, value: &T) -> Result<()> {
        self.endpoint.send::<C, T>(value, Until::Ever).map(|_| ())
    }

    /// Sends a value if there is room for it now. Returns false, and sends nothing, if there is no room.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// while sender.try_send(&1)? {}
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn try_send(&self, value: &T) -> Result<bool> {
        self.endpoint.send::<C, T>(value, Until::Now)
    }

    /// Sends a value, waiting at most `timeout` for room.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// while sender.send_timeout(&1, Duration::from_millis(1)).is_ok() {}
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Sender::send), and [`Error::Timeout`]: nothing was sent.
    pub fn send_timeout(&self, value: &T, timeout: Duration) -> Result<()> {
        self.endpoint.send::<C, T>(value, Until::after(timeout))?.in_time("room to send a message", timeout)
    }

    /// As [`send`](Sender::send), as a future; see [`Connection::send_async`](crate::Connection::send_async).
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// block_on(sender.send_async(&1))?;
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub async fn send_async(&self, value: &T) -> Result<()> {
        self.endpoint.send_async::<C, T>(value).await
    }
}

impl<T: DeserializeOwned, C: Codec> Receiver<T, C> {
    /// Waits for a value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// let thread = std::thread::spawn(move || sender.send(&1));
    /// assert_eq!(receiver.recv()?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Closed`] if every sender is gone, [`Error::Codec`] if the message is not such a value.
    pub fn recv(&self) -> Result<T> {
        self.endpoint.recv::<C, T>(Until::Ever)?.ok_or(Error::Channel(ChannelError::Closed))
    }

    /// Receives a value if there is one now; otherwise returns `None`.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// assert_eq!(receiver.try_recv()?, None);
    /// sender.send(&1)?;
    /// assert_eq!(receiver.try_recv()?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub fn try_recv(&self) -> Result<Option<T>> {
        self.endpoint.recv::<C, T>(Until::Now)
    }

    /// Waits for a value. `timeout` is the limit for the beginning of the message.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// assert_eq!(receiver.recv_timeout(Duration::from_millis(1))?, None);
    /// sender.send(&1)?;
    /// assert_eq!(receiver.recv_timeout(Duration::from_secs(1))?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.endpoint.recv::<C, T>(Until::after(timeout))
    }

    /// Waits for a value as a future; see [`Connection::recv_async`](crate::Connection::recv_async).
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// let thread = std::thread::spawn(move || sender.send(&1));
    /// assert_eq!(block_on(receiver.recv_async())?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv).
    pub async fn recv_async(&self) -> Result<T> {
        self.endpoint.recv_async::<C, T>().await
    }

    /// Tells senders that this end receives, though it does not wait.
    #[cfg(feature = "async")]
    pub(super) fn receives_in_turns(&self) {
        self.endpoint.receives_in_turns();
    }
}

impl<T, C: Codec> Receiver<T, C> {
    /// Returns whether a message has arrived (or every sender is gone), without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// assert!(!receiver.poll()?);
    /// sender.send(&1)?;
    /// assert!(receiver.poll()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn poll(&self) -> Result<bool> {
        self.endpoint.poll(Until::Now)
    }

    /// Waits at most `timeout` until a message has arrived (or every sender is gone), and returns whether it has.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u8>()?;
    /// assert!(!receiver.poll()?);
    /// sender.send(&1)?;
    /// assert!(receiver.poll_timeout(Duration::from_secs(1))?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn poll_timeout(&self, timeout: Duration) -> Result<bool> {
        self.endpoint.poll(Until::after(timeout))
    }
}

impl<T, C: Codec> Clone for Sender<T, C> {
    fn clone(&self) -> Self {
        Sender { endpoint: self.endpoint.clone(), types: PhantomData }
    }
}

macro_rules! end {
    ($end:ident, $what:literal) => {
        maniple_sys::as_handle!(impl[T, C: Codec] for $end<T, C>, |this| this.endpoint.as_handle());

        impl<T, C: Codec> fmt::Debug for $end<T, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($end)).field("end", &self.endpoint.as_handle()).finish_non_exhaustive()
            }
        }

        impl<T, C: Codec> Serialize for $end<T, C> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                endpoint::serialize($what, &self.endpoint, serializer)
            }
        }

        impl<'de, T, C: Codec> Deserialize<'de> for $end<T, C> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok($end { endpoint: endpoint::deserialize($what, deserializer)?.into(), types: PhantomData })
            }
        }
    };
}

end!(Sender, "a Sender");
end!(Receiver, "a Receiver");
