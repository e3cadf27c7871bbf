//! Messages and values one by one, until no more can come.

use super::channel::Receiver;
use super::queue::Queue;
use crate::codec::{Codec, Postcard};
use crate::error::{ChannelError, Error, Result};
use serde::de::DeserializeOwned;
use std::fmt;

/// An iterator over the messages of a [`Receiver`]. [`Receiver::iter`] returns it.
///
/// Each `next` waits for a message. The iterator ends when every sender is gone.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::channel::<u8>()?;
/// sender.send(&1)?;
/// drop(sender);
/// for message in &receiver {
///     assert_eq!(message?, 1);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "messages are received as they are asked for"]
pub struct ReceiverIter<'a, T, C: Codec = Postcard>(&'a Receiver<T, C>);

/// An iterator over the messages of a [`Receiver`] that it owns.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = maniple::channel::<u8>()?;
/// sender.send(&1)?;
/// drop(sender);
/// assert_eq!(receiver.into_iter().sum::<maniple::Result<u8>>()?, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "messages are received as they are asked for"]
pub struct ReceiverIntoIter<T, C: Codec = Postcard>(Receiver<T, C>);

/// An iterator over the values of a [`Queue`]. [`Queue::iter`] returns it.
///
/// Each `next` waits for a value and removes it. The iterator ends when the queue is closed and empty.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let queue = maniple::Queue::new()?;
/// queue.put(&1)?;
/// queue.close()?;
/// for value in &queue {
///     assert_eq!(value?, 1);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "values are taken as they are asked for"]
pub struct QueueIter<'a, T>(&'a Queue<T>);

pub(super) fn until_closed<T>(got: Result<T>) -> Option<Result<T>> {
    match got {
        Err(Error::Channel(ChannelError::Closed | ChannelError::QueueClosed)) => None,
        other => Some(other),
    }
}

impl<T: DeserializeOwned, C: Codec> Receiver<T, C> {
    /// Returns an iterator over the messages until every sender is gone.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u32>()?;
    /// (1..=3).try_for_each(|n| sender.send(&n))?;
    /// drop(sender);
    /// assert_eq!(receiver.iter().sum::<maniple::Result<u32>>()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> ReceiverIter<'_, T, C> {
        ReceiverIter(self)
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Returns an iterator over the values until the queue is closed and empty. Each `next` waits for a value and
    /// removes it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// (1..=3).try_for_each(|n| queue.put(&n))?;
    /// queue.close()?;
    /// assert_eq!(queue.iter().sum::<maniple::Result<i32>>()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> QueueIter<'_, T> {
        QueueIter(self)
    }
}

impl<T: DeserializeOwned, C: Codec> Iterator for ReceiverIter<'_, T, C> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        until_closed(self.0.recv())
    }
}

impl<T: DeserializeOwned, C: Codec> Iterator for ReceiverIntoIter<T, C> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        until_closed(self.0.recv())
    }
}

impl<T: DeserializeOwned> Iterator for QueueIter<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        until_closed(self.0.get())
    }
}

impl<'a, T: DeserializeOwned, C: Codec> IntoIterator for &'a Receiver<T, C> {
    type Item = Result<T>;
    type IntoIter = ReceiverIter<'a, T, C>;

    fn into_iter(self) -> ReceiverIter<'a, T, C> {
        self.iter()
    }
}

impl<T: DeserializeOwned, C: Codec> IntoIterator for Receiver<T, C> {
    type Item = Result<T>;
    type IntoIter = ReceiverIntoIter<T, C>;

    fn into_iter(self) -> ReceiverIntoIter<T, C> {
        ReceiverIntoIter(self)
    }
}

impl<'a, T: DeserializeOwned> IntoIterator for &'a Queue<T> {
    type Item = Result<T>;
    type IntoIter = QueueIter<'a, T>;

    fn into_iter(self) -> QueueIter<'a, T> {
        self.iter()
    }
}

impl<T, C: Codec> fmt::Debug for ReceiverIter<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiverIter").field(self.0).finish()
    }
}

impl<T, C: Codec> fmt::Debug for ReceiverIntoIter<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiverIntoIter").field(&self.0).finish()
    }
}

impl<T> fmt::Debug for QueueIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueIter").field(self.0).finish()
    }
}
