//! Messages, values and clients one by one, as streams (feature `async`).
//!
//! The streams are separate types, and not the iterators: with both traits in scope a call such as `map` would be
//! ambiguous.

use super::Connection;
use super::channel::Receiver;
use super::iter::until_closed;
use super::listener::Listener;
use super::queue::Queue;
use super::reactor::{Watch, poll_some};
use crate::codec::{Codec, Postcard};
use crate::error::Result;
use futures_core::Stream;
use maniple_sys::AsHandle;
use serde::de::DeserializeOwned;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The messages of a [`Receiver`] as a stream. [`Receiver::stream`] returns it. It removes a message only when it
/// returns it, so the stream may be dropped at any moment.
#[must_use = "messages are received as they are asked for"]
pub struct ReceiverStream<'a, T, C: Codec = Postcard> {
    receiver: &'a Receiver<T, C>,
    watch: Watch,
}

/// The values of a [`Queue`] as a stream. [`Queue::stream`] returns it. It removes a value only when it returns it, so
/// the stream may be dropped at any moment.
#[must_use = "values are taken as they are asked for"]
pub struct QueueStream<'a, T> {
    queue: &'a Queue<T>,
    watch: Watch,
}

/// The clients of a [`Listener`] as a stream without an end. [`Listener::incoming_stream`] returns it. The stream may
/// be dropped at any moment.
#[must_use = "clients are accepted as they are asked for"]
pub struct IncomingStream<'a, T> {
    listener: &'a Listener,
    next: Option<Accept<'a, T>>,
}

type Accept<'a, T> = Pin<Box<dyn Future<Output = Result<Connection<T>>> + Send + 'a>>;

impl<T: DeserializeOwned, C: Codec> Receiver<T, C> {
    /// Returns a stream of the messages until every sender is gone. Any executor works.
    ///
    /// ```
    /// # use futures_core::Stream;
    /// # use std::pin::Pin;
    #[doc = include_str!("../block_on.txt")]
    /// // Or `StreamExt::next`, of the crate of your choice.
    /// async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    ///     std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let (sender, receiver) = maniple::channel::<u32>()?;
    /// let thread = std::thread::spawn(move || (1..=3).try_for_each(|n| sender.send(&n)));
    /// let mut stream = receiver.stream();
    /// let mut sum = 0;
    /// while let Some(value) = block_on(next(&mut stream)) {
    ///     sum += value?;
    /// }
    /// assert_eq!(sum, 6);
    /// # thread.join().unwrap()
    /// # }
    /// ```
    pub fn stream(&self) -> ReceiverStream<'_, T, C> {
        ReceiverStream { receiver: self, watch: Watch::default() }
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Returns a stream of the values until the queue is closed and empty. Any executor works.
    ///
    /// ```
    /// # use futures_core::Stream;
    /// # use std::pin::Pin;
    #[doc = include_str!("../block_on.txt")]
    /// // Or `StreamExt::next`, of the crate of your choice.
    /// async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    ///     std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// queue.put(&7)?;
    /// queue.close()?;
    /// let mut stream = queue.stream();
    /// assert_eq!(block_on(next(&mut stream)).transpose()?, Some(7));
    /// assert!(block_on(next(&mut stream)).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(&self) -> QueueStream<'_, T> {
        QueueStream { queue: self, watch: Watch::default() }
    }
}

impl Listener {
    /// Returns a stream of all clients. Any executor works. See [`accept_async`](Listener::accept_async).
    ///
    /// ```
    /// # use futures_core::Stream;
    /// # use std::pin::Pin;
    #[doc = include_str!("../block_on.txt")]
    /// // Or `StreamExt::next`, of the crate of your choice.
    /// async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    ///     std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let listener = maniple::Listener::temporary()?;
    /// let address = listener.address().clone();
    /// let thread = std::thread::spawn(move || maniple::Client::connect::<u8>(address)?.send(&7));
    /// let client = block_on(next(&mut listener.incoming_stream::<u8>())).unwrap()?;
    /// assert_eq!(client.recv()?, 7);
    /// # thread.join().unwrap()
    /// # }
    /// ```
    pub fn incoming_stream<T>(&self) -> IncomingStream<'_, T> {
        IncomingStream { listener: self, next: None }
    }
}

impl<T: DeserializeOwned, C: Codec> Stream for ReceiverStream<'_, T, C> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        let receiver = this.receiver;
        receiver.receives_in_turns();
        poll_some(&mut this.watch, receiver.as_handle(), cx, || receiver.try_recv()).map(until_closed)
    }
}

impl<T: DeserializeOwned> Stream for QueueStream<'_, T> {
    type Item = Result<T>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        let this = self.get_mut();
        let queue = this.queue;
        // Its handle is rung from here on.
        poll_some(&mut this.watch, queue.as_handle(), cx, || queue.try_get()).map(until_closed)
    }
}

impl<T: 'static> Stream for IncomingStream<'_, T> {
    type Item = Result<Connection<T>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let listener = this.listener;
        let next = this.next.get_or_insert_with(|| Box::pin(listener.accept_async()));
        let polled = next.as_mut().poll(cx);
        if polled.is_ready() {
            this.next = None;
        }
        polled.map(Some)
    }
}

impl<T, C: Codec> fmt::Debug for ReceiverStream<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiverStream").field(self.receiver).finish()
    }
}

impl<T> fmt::Debug for QueueStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueStream").field(self.queue).finish()
    }
}

impl<T> fmt::Debug for IncomingStream<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IncomingStream").field(self.listener).finish()
    }
}
