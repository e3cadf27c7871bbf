//! The caller's handle on an `_async` call.

use super::Shared;
use super::results::Reader;
use crate::error::{CallError, Error, InTime, Result};
use maniple_engine::pool::{self as engine, Settled};
use serde::de::DeserializeOwned;
use std::fmt;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A handle on an `_async` call. Its outcome can be waited for without a limit, with a time limit, or by `.await` on
/// any executor.
///
/// Dropping it does not stop the call; the results are discarded. [`JobHandle::cancel`] and [`JobHandle::abort`] stop
/// the call, and a handle with [`JobHandle::abort_on_drop`] does so when it is dropped.
///
/// ```
/// use std::time::Duration;
///
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(1)?;
/// let mut nap = pool.apply_async(|ms| std::thread::sleep(Duration::from_millis(ms)), 300)?;
/// assert!(matches!(nap.get_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
/// nap.get()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a call that nobody waits for may fail unseen"]
pub struct JobHandle<T> {
    pool: Arc<Shared>,
    job: engine::Ticket,
    reader: Option<Reader>,
    finish: Finish<T>,
    aborts: bool,
}

/// A function that makes the value of a call from the engine's outcomes.
pub(super) type Finish<T> = fn(Vec<Settled>, Reader, &Shared) -> Result<T>;

/// Returns the value of a call with one item.
pub(super) fn one<R: DeserializeOwned + 'static>(
    settled: Vec<Settled>,
    mut reader: Reader,
    pool: &Shared,
) -> Result<R> {
    let mut value = None;
    for one in settled {
        let _ = reader.read(one, pool, |result| value = Some(result));
    }
    // A job that was terminated before it was accepted has no outcome at all.
    value.unwrap_or_else(|| Err(reader.error_of_rest(pool)))
}

/// Returns the values of a call with many items, or its first error.
pub(super) fn all<R: DeserializeOwned + 'static>(
    settled: Vec<Settled>,
    mut reader: Reader,
    pool: &Shared,
) -> Result<Vec<R>> {
    let items = settled.iter().map(|s| s.items).sum();
    let mut values = Vec::with_capacity(items);
    let mut failed = None;
    for one in settled {
        let panic = reader.read(one, pool, |result| match result {
            Ok(value) if failed.is_none() => values.push(value),
            Ok(_) => {}
            Err(error) => failed = failed.take().or(Some(error)),
        });
        if let (Some(panic), None) = (panic, &failed) {
            resume_unwind(panic.0);
        }
    }
    match failed {
        Some(error) => Err(error),
        None if reader.items_left() == 0 => Ok(values),
        None => Err(reader.error_of_rest(pool)),
    }
}

/// Returns the outcome of each item of a call with many items. A call that ends early keeps the results that it has.
pub(super) fn each<R: DeserializeOwned + 'static>(
    settled: Vec<Settled>,
    mut reader: Reader,
    pool: &Shared,
) -> Result<Vec<Result<R>>> {
    let items = settled.iter().map(|s| s.items).sum();
    let mut outcomes = Vec::with_capacity(items);
    for one in settled {
        if let Some(panic) = reader.read(one, pool, |result| outcomes.push(result)) {
            resume_unwind(panic.0);
        }
    }
    outcomes.extend((0..reader.items_left()).map(|_| Err(reader.error_of_rest(pool))));
    Ok(outcomes)
}

impl<T> JobHandle<T> {
    pub(super) fn new(pool: Arc<Shared>, job: engine::Ticket, reader: Reader, finish: Finish<T>) -> JobHandle<T> {
        JobHandle { pool, job, reader: Some(reader), finish, aborts: false }
    }

    /// Waits for the call's end and returns its value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.apply_async(u32::count_ones, 7)?.get()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// With the panic of an item's `Drop`, if an item panicked when the pool dropped it after its encoding.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn get(mut self) -> Result<T> {
        self.until(None)?;
        self.take()
    }

    /// Waits for at most `timeout`. The call continues after that, and the handle can be waited on again.
    ///
    /// ```
    /// use maniple::Error;
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let mut job = pool.apply_async(u32::count_ones, 7)?;
    /// let ones = loop {
    ///     match job.get_timeout(Duration::from_millis(20)) {
    ///         Err(Error::Timeout(_)) => eprintln!("still at it"),
    ///         value => break value?,
    ///     }
    /// };
    /// assert_eq!(ones, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], or any other; [`CallError::Taken`] if the value has already been returned.
    pub fn get_timeout(&mut self, timeout: Duration) -> Result<T> {
        self.until(Some(timeout))?.in_time("the job to end", timeout)?;
        self.take()
    }

    /// Waits for the call's end, without taking its value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let job = pool.apply_async(u32::count_ones, 7)?;
    /// job.wait();
    /// assert!(job.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self) {
        let _ = self.until(None);
    }

    /// Waits for the call's end for at most `timeout`, without taking its value.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(matches!(endless.wait_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.until(Some(timeout)).unwrap_or(true).in_time("the job to end", timeout)
    }

    /// Returns whether the call has ended.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(!endless.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_finished(&self) -> bool {
        self.job.is_ready()
    }

    /// Returns whether a worker runs an item of the call, as far as this process knows.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// let next = pool.apply_async(u32::count_ones, 7)?;
    /// while !endless.is_running() {
    ///     std::thread::yield_now();
    /// }
    /// assert!(!next.is_running());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_running(&self) -> bool {
        self.job.is_running()
    }

    /// Returns whether the call has ended, and an item of it was cancelled. The end of the pool does not cancel.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let job = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(!job.is_cancelled());
    /// job.abort();
    /// job.wait();
    /// assert!(job.is_cancelled());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.job.has_cancelled() && self.job.is_ready()
    }

    /// Cancels the items that no worker has begun. Their outcome is [`CallError::Cancelled`]. Items that run continue.
    /// Returns whether an item was cancelled, now or before.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// let next = pool.apply_async(u32::count_ones, 7)?;
    /// assert!(next.cancel());
    /// assert!(matches!(next.get(), Err(maniple::Error::Call(maniple::CallError::Cancelled))));
    /// # assert!(!endless.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel(&self) -> bool {
        self.job.cancel(false)
    }

    /// As [`JobHandle::cancel`], and also ends the workers that run items of the call. Only these items end with them;
    /// new workers take their places.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(endless.abort());
    /// assert!(matches!(endless.get(), Err(maniple::Error::Call(maniple::CallError::Cancelled))));
    /// assert_eq!(pool.apply(u32::count_ones, 7)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort(&self) -> bool {
        self.job.cancel(true)
    }

    /// Makes the drop of this handle [abort](JobHandle::abort) the call. By default a call whose handle is dropped
    /// continues. A future that a time limit or a `select` drops then ends the work as well.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// drop(pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?.abort_on_drop());
    /// assert_eq!(pool.apply(u32::count_ones, 7)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort_on_drop(mut self) -> Self {
        self.aborts = true;
        self
    }

    fn until(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        // The wait continues after a signal that does not end the program.
        Ok(self.job.wait(deadline, &mut || true)?)
    }

    fn take(&mut self) -> Result<T> {
        let reader = self.reader.take().ok_or(Error::Call(CallError::Taken))?;
        let (settled, _) = self.job.take(usize::MAX);
        (self.finish)(settled, reader, &self.pool)
    }
}

impl<T> fmt::Debug for JobHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        this.job.poll_ready(context).map(|()| this.take())
    }
}

impl<T> Drop for JobHandle<T> {
    fn drop(&mut self) {
        // Without a reader the outcome was taken. A forked child must not use the hub.
        if self.aborts && self.reader.is_some() && self.pool.hub.check().is_ok() {
            self.job.cancel(true);
        }
    }
}
