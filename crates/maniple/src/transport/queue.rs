//! Queues. Any number of processes may put and get.

mod get;
mod message;
mod put;

#[cfg(feature = "async")]
pub(super) use put::Attempt;

use super::fd_queue::FdQueue;
use crate::error::{Error, Result};
use crate::sideband;
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::log::Log;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

/// A first-in first-out queue for any number of writing and reading processes.
///
/// It lies in shared memory that grows with its content. [`put`](Queue::put) into a queue without a bound never waits
/// for a reader, and the values of a process stay when the process ends. If a process is killed, each of its puts and
/// gets has happened completely or not at all, and no other process is blocked. Clones are the same queue, and so are
/// the copies in other processes; the queue ends with the last of them.
///
/// ```
/// use maniple::{Process, Queue};
///
/// # fn main() -> maniple::Result<()> {
/// let (jobs, results) = (Queue::<u64>::new()?, Queue::<u64>::new()?);
/// let workers = (0..2).map(|_| {
///     let worker = Process::new(
///         |(jobs, results): (Queue<u64>, Queue<u64>)| {
///             while let Ok(n) = jobs.get() {
///                 results.put(&(n * n))?;
///             }
///             Ok::<_, maniple::Error>(())
///         },
///         (jobs.clone(), results.clone()),
///     )?;
///     worker.start()?;
///     Ok(worker)
/// });
/// let workers: Vec<Process> = workers.collect::<maniple::Result<_>>()?;
/// for n in 1..=10 {
///     jobs.put(&n)?;
/// }
/// jobs.close()?;
/// let mut sum = 0;
/// for _ in 1..=10 {
///     sum += results.get()?;
/// }
/// assert_eq!(sum, 385);
/// # for worker in workers { worker.join()?; }
/// # Ok(())
/// # }
/// ```
///
/// Large [`Bulk`](crate::Bulk)s are copied as a whole. Values may contain descriptors.
pub struct Queue<T> {
    pub(super) shared: Arc<Shared>,
    /// Whether its values are to be reported done.
    pub(super) counted: bool,
    types: PhantomData<fn(T) -> T>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Log,
    fds: FdQueue,
}

fn deadline(until: Until) -> Option<Instant> {
    match until {
        Until::Now => Some(Instant::now()),
        Until::Then(then) => Some(then),
        Until::Ever => None,
    }
}

/// Returns whether to end the wait even for a lock, whose holder may be stopped. A call without a wait still waits for
/// the lock.
fn is_over(until: Until) -> bool {
    matches!(until, Until::Then(then) if Instant::now() >= then)
}

impl<T> Queue<T> {
    /// Creates an empty queue for any number of values.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// (1..=1000).try_for_each(|n| queue.put(&n))?;
    /// assert_eq!((queue.len(), queue.get()?), (1000, 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error, if there is no memory or descriptor left (a queue takes four).
    pub fn new() -> Result<Queue<T>> {
        Ok(Queue::over(Shared { log: Log::create()?, fds: FdQueue::new()? }, false))
    }

    /// Creates a queue for at most `most` values. A further `put` waits until a value is removed.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::bounded(1)?;
    /// assert!(queue.try_put(&"first".to_string())?);
    /// assert!(!queue.try_put(&"second".to_string())?);
    /// assert_eq!(queue.get()?, "first");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Queue::new); [`Error::InvalidArgument`] for a bound of 0, because nothing could be put into such a
    /// queue.
    pub fn bounded(most: usize) -> Result<Queue<T>> {
        if most == 0 {
            return Err(Error::InvalidArgument("a queue with room for 0 values; use 1 or more, or new()"));
        }
        let queue = Queue::new()?;
        queue.shared.log.limit(most as u64);
        Ok(queue)
    }

    fn over(shared: Shared, counted: bool) -> Queue<T> {
        Queue { shared: Arc::new(shared), counted, types: PhantomData }
    }

    /// Returns the current number of values.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// queue.put(&'a')?;
    /// queue.put(&'b')?;
    /// assert_eq!(queue.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.log.len() as usize
    }

    /// Returns whether the queue is empty at this moment.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// assert!(queue.is_empty());
    /// queue.put(&1)?;
    /// assert!(!queue.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.log.is_empty()
    }

    /// Closes the queue for all processes: every later `put` returns [`ChannelError::QueueClosed`](crate::ChannelError::QueueClosed). The values in the
    /// queue can still be removed. After that `get` returns the same error, also in calls that wait. Closing again does
    /// nothing.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// queue.put(&1)?;
    /// queue.close()?;
    /// assert!(matches!(queue.put(&2), Err(maniple::Error::Channel(maniple::ChannelError::QueueClosed))));
    /// assert_eq!(queue.get()?, 1);
    /// assert!(matches!(queue.get(), Err(maniple::Error::Channel(maniple::ChannelError::QueueClosed))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn close(&self) -> Result<()> {
        Ok(self.shared.log.close(&mut || false)?)
    }

    /// Returns whether the queue was closed.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::<u8>::new()?;
    /// assert!(!queue.is_closed());
    /// queue.close()?;
    /// assert!(queue.is_closed());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.log.is_closed()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: self.shared.clone(), counted: self.counted, types: PhantomData }
    }
}

maniple_sys::as_handle!(
    /// Readable while there is a value to get, or the queue is closed: for [`wait`](crate::wait). From its first use
    /// on, puts and gets in all processes maintain this state, at a small cost.
    impl[T] for Queue<T>, |this| {
    // It acquires a lock. If that fails, the queue is unusable as well, and its next call returns an error.
    let _ = this.shared.log.watch(&mut || false);
    this.shared.log.event()
});

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

const WHAT: &str = "a Queue";

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ((memory, event), (into, out)) = (self.shared.log.handles(), self.shared.fds.ends());
        let mut numbers = [0; 4];
        for (number, fd) in numbers.iter_mut().zip([memory, event, into, out]) {
            *number = sideband::send_shared_handle::<S::Error>(WHAT, fd)?;
        }
        (self.counted, numbers).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (counted, numbers) = <(bool, [u32; 4])>::deserialize(deserializer)?;
        let take = |place: usize| sideband::copy_handle::<D::Error>(WHAT, numbers[place]);
        let log = Log::open(take(0)?, take(1)?);
        let log = log.map_err(serde::de::Error::custom)?;
        Ok(Queue::over(Shared { log, fds: FdQueue::over(take(2)?, take(3)?) }, counted))
    }
}
