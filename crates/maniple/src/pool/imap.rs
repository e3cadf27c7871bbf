//! The results of `imap`, returned one by one.

use super::Shared;
use super::results::{CallersPanic, Reader};
use super::source::Feeder;
use crate::error::Result;
use maniple_engine::pool as engine;
use maniple_engine::pool::policy::{report_after, take_at_once};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
#[cfg(feature = "async")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The results of [`Pool::imap`](crate::Pool::imap) and [`Pool::imap_unordered`](crate::Pool::imap_unordered). Dropping
/// it cancels the calls that have not begun.
///
/// ```
/// use maniple::{Imap, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(2)?;
/// let mut lengths: Imap<usize> = pool.imap(|word: String| word.len(), ["a".into(), "bcd".into()])?;
/// assert_eq!(lengths.next().transpose()?, Some(1));
/// assert_eq!(lengths.next().transpose()?, Some(3));
/// assert!(lengths.next().is_none());
/// # Ok(())
/// # }
/// ```
#[must_use = "results that nobody takes stop the call when its buffer is full"]
pub struct Imap<R> {
    pool: Arc<Shared>,
    job: engine::Ticket,
    // The greatest number of items under way.
    window: usize,
    reader: Reader,
    // Results with the positions of their items in the input.
    ready: VecDeque<(usize, Result<R>)>,
    // The number of results that the caller has taken, and that are not reported yet.
    consumed: usize,
    over: bool,
    // The panic of the input, which has ended it.
    panic: Option<CallersPanic>,
    feeder: Arc<Feeder>,
    results: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned + 'static> Imap<R> {
    pub(super) fn new(
        pool: Arc<Shared>,
        job: engine::Ticket,
        window: usize,
        reader: Reader,
        feeder: Arc<Feeder>,
    ) -> Imap<R> {
        let ready = VecDeque::new();
        Imap { pool, job, window, reader, ready, consumed: 0, over: false, panic: None, feeder, results: PhantomData }
    }

    /// Waits until a result can be taken. Checks from time to time whether a late input delays items.
    fn wait(&self) -> Result<()> {
        let mut patience = Duration::from_millis(1);
        while !self.job.is_ready() {
            let input_over = self.feeder.flush();
            let deadline = (!input_over).then(|| Instant::now() + patience);
            // The wait continues after a signal that does not end the program.
            self.job.wait(deadline, &mut || true)?;
            patience = (patience * 2).min(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Reports room for more items to the hub. Called before every wait; otherwise the wait could be for items that
    /// have no room.
    fn report(&mut self) {
        if self.consumed > 0 {
            self.job.consumed(std::mem::take(&mut self.consumed));
        }
    }

    /// Returns the same results, each with the index of its item in the input: for
    /// [`Pool::imap_unordered`](crate::Pool::imap_unordered), whose order does not show it.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let words = ["a", "bcd", "ef"].map(String::from);
    /// let mut lengths = [0; 3];
    /// for (index, length) in pool.imap_unordered(|word: String| word.len(), words)?.indexed() {
    ///     lengths[index] = length?;
    /// }
    /// assert_eq!(lengths, [1, 3, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn indexed(self) -> Indexed<R> {
        Indexed(self)
    }

    /// Cancels the calls that have not begun, and ends the workers that run the others. Only these calls end with them;
    /// new workers take their places. Returns whether a call was cancelled.
    ///
    /// The iterator then returns the results that were ready, and [`CallError::Cancelled`](crate::CallError::Cancelled)
    /// for each cancelled call, or once for those whose items were not read yet.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let mut naps = pool.imap(|ms| std::thread::sleep(Duration::from_millis(ms)), [0, 60_000])?;
    /// assert!(matches!(naps.next(), Some(Ok(()))));
    /// assert!(naps.abort());
    /// assert!(naps.all(|nap| matches!(nap, Err(maniple::Error::Call(maniple::CallError::Cancelled)))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&self) -> bool {
        self.job.cancel(true)
    }

    fn next_indexed(&mut self) -> Option<(usize, Result<R>)> {
        while self.ready.is_empty() && !self.over {
            self.report();
            if let Err(error) = self.wait() {
                self.over = true;
                return Some((self.reader.next_item(), Err(error)));
            }
            self.take();
        }
        self.next_ready()
    }

    /// Returns the next result, if there is one. Otherwise the task is woken when there may be one.
    #[cfg(feature = "async")]
    pub(super) fn poll_indexed(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<R>)>> {
        while self.ready.is_empty() && !self.over {
            self.report();
            if let Err(error) = self.pool.hub.check() {
                self.over = true;
                return Poll::Ready(Some((self.reader.next_item(), Err(error.into()))));
            }
            // Neither the collected items nor the next ones wait for an input that is late.
            self.feeder.be_quick();
            if self.job.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
            self.take();
        }
        Poll::Ready(self.next_ready())
    }

    /// Takes the outcomes of the hub.
    fn take(&mut self) {
        let (settled, over) = self.job.take(take_at_once(self.window));
        self.over = over;
        let ready = &mut self.ready;
        for one in settled {
            if let Some(first) = self.feeder.first_item(one.index) {
                self.reader.go_to(first);
            }
            let mut index = self.reader.next_item();
            let panic = self.reader.read(one, &self.pool, |result| {
                ready.push_back((index, result));
                index += 1;
            });
            self.panic = self.panic.take().or(panic);
        }
    }

    fn next_ready(&mut self) -> Option<(usize, Result<R>)> {
        let Some(next) = self.ready.pop_front() else {
            return self.panic.take().and_then(|panic| std::panic::resume_unwind(panic.0));
        };
        self.consumed += 1;
        if self.consumed >= report_after(self.window) {
            self.report();
        }
        Some(next)
    }
}

impl<R: DeserializeOwned + 'static> Iterator for Imap<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_indexed().map(|(_, result)| result)
    }
}

/// Results with the indices of their items. [`Imap::indexed`] returns it.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(1)?;
/// let mut ones = pool.imap(u32::count_ones, [7])?.indexed();
/// assert!(matches!(ones.next(), Some((0, Ok(3)))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "results that are not taken stop the call when its buffer is full"]
pub struct Indexed<R>(Imap<R>);

impl<R: DeserializeOwned + 'static> Iterator for Indexed<R> {
    type Item = (usize, Result<R>);

    fn next(&mut self) -> Option<(usize, Result<R>)> {
        self.0.next_indexed()
    }
}

impl<R: DeserializeOwned + 'static> std::iter::FusedIterator for Indexed<R> {}

impl<R: DeserializeOwned + 'static> std::iter::FusedIterator for Imap<R> {}

impl<R> fmt::Debug for Imap<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("received", &self.ready.len()).field("over", &self.over).finish_non_exhaustive()
    }
}

impl<R> Drop for Imap<R> {
    fn drop(&mut self) {
        // A forked child must not use the hub.
        if self.pool.hub.check().is_ok() {
            self.job.cancel(false);
        }
    }
}
