//! Results one by one, as a stream (feature `async`).

use super::imap::Imap;
use crate::error::Result;
use futures_core::Stream;
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The results of an [`Imap`] as a stream: what [`Imap::into_stream`] returns. Dropping it cancels the calls that have
/// not begun.
#[derive(Debug)]
#[must_use = "results that are not taken stop the call when its buffer is full"]
pub struct ImapStream<R>(Imap<R>);

/// The results of an [`Imap`] as a stream, with the index of each result's item: what [`ImapStream::indexed`] returns.
#[derive(Debug)]
#[must_use = "results that are not taken stop the call when its buffer is full"]
pub struct IndexedStream<R>(Imap<R>);

impl<R: DeserializeOwned + 'static> Imap<R> {
    /// Returns the same results as a stream. It works with any executor.
    ///
    /// A future that takes the next result may be dropped at any time: no result is lost.
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
    /// let pool = maniple::Pool::new(2)?;
    /// let mut lengths = pool.imap(|word: String| word.len(), ["a".into(), "bcd".into()])?.into_stream();
    /// assert_eq!(block_on(next(&mut lengths)).transpose()?, Some(1));
    /// assert_eq!(block_on(next(&mut lengths)).transpose()?, Some(3));
    /// assert!(block_on(next(&mut lengths)).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_stream(self) -> ImapStream<R> {
        ImapStream(self)
    }
}

impl<R> ImapStream<R> {
    /// Returns the same results, each with the index of its item in the input.
    pub fn indexed(self) -> IndexedStream<R> {
        IndexedStream(self.0)
    }
}

impl<R> Unpin for ImapStream<R> {}

impl<R> Unpin for IndexedStream<R> {}

impl<R: DeserializeOwned + 'static> Stream for ImapStream<R> {
    type Item = Result<R>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<R>>> {
        self.get_mut().0.poll_indexed(cx).map(|next| next.map(|(_, result)| result))
    }
}

impl<R: DeserializeOwned + 'static> Stream for IndexedStream<R> {
    type Item = (usize, Result<R>);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.poll_indexed(cx)
    }
}
