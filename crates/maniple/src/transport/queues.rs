//! Queues for special purposes, on top of [`Queue`].

use super::queue::Queue;
use crate::error::{ChannelError, Error, InTime, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::{Duration, Instant};

/// A [`Queue`] that counts the values that were put and are not processed yet.
///
/// A process that gets a value calls [`task_done`](JoinableQueue::task_done) when it has processed it; [`join`](JoinableQueue::join) waits
/// until all values are processed. It has all the methods of a queue.
///
/// ```
/// use maniple::{JoinableQueue, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let jobs = JoinableQueue::<u32>::new()?;
/// let worker = Process::new(
///     |jobs: JoinableQueue<u32>| {
///         while let Ok(_job) = jobs.get() {
///             jobs.task_done()?;
///         }
///         Ok::<_, maniple::Error>(())
///     },
///     jobs.clone(),
/// )?;
/// worker.start()?;
/// for job in 0..10 {
///     jobs.put(&job)?;
/// }
/// jobs.join()?;
/// assert!(jobs.is_empty());
/// jobs.close()?;
/// # worker.join()?;
/// # Ok(())
/// # }
/// ```
///
/// A value that a killed process was working on is never reported as processed.
pub struct JoinableQueue<T>(Queue<T>);

impl<T> JoinableQueue<T> {
    /// Creates an empty queue for any number of values.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let jobs = maniple::JoinableQueue::<u8>::new()?;
    /// // Nothing was put, so nothing is to be done.
    /// jobs.join()?;
    /// assert!(jobs.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn new() -> Result<Self> {
        Queue::new().map(Self::counting)
    }

    /// Creates a queue for at most `most` values.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let jobs = maniple::JoinableQueue::bounded(1)?;
    /// assert!(jobs.try_put(&1)?);
    /// assert!(!jobs.try_put(&2)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::bounded`].
    pub fn bounded(most: usize) -> Result<Self> {
        Queue::bounded(most).map(Self::counting)
    }

    fn counting(mut queue: Queue<T>) -> Self {
        queue.counted = true;
        JoinableQueue(queue)
    }

    /// Reports one received value as processed.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let jobs = maniple::JoinableQueue::new()?;
    /// jobs.put(&1)?;
    /// assert_eq!(jobs.get()?, 1);
    /// jobs.task_done()?;
    /// assert!(matches!(jobs.task_done(), Err(maniple::Error::Channel(maniple::ChannelError::Message(_)))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::Message`] if more are reported than were put.
    pub fn task_done(&self) -> Result<()> {
        let done = self.0.shared.log.done();
        if done {
            Ok(())
        } else {
            Err(Error::Channel(ChannelError::Message("task_done was called more often than values were put")))
        }
    }

    /// Waits until every value that was put has been reported as processed.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let jobs = maniple::JoinableQueue::new()?;
    /// jobs.put(&1)?;
    /// let ours = jobs.clone();
    /// let worker = std::thread::spawn(move || ours.get().and_then(|_job: i32| ours.task_done()));
    /// jobs.join()?;
    /// assert!(jobs.is_empty());
    /// worker.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn join(&self) -> Result<()> {
        self.0.shared.log.join(None, &mut || false)?;
        Ok(())
    }

    /// As [`join`](Self::join), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let jobs = maniple::JoinableQueue::new()?;
    /// jobs.put(&1)?;
    /// assert!(matches!(jobs.join_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], or the operating system's error.
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(timeout);
        self.0.shared.log.join(deadline, &mut || false)?.in_time("the values of the queue to be processed", timeout)
    }
}

impl<T> std::ops::Deref for JoinableQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

/// A [`Queue`] with the fewest methods.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let queue = maniple::SimpleQueue::new()?;
/// queue.put(&"one".to_string())?;
/// assert!(!queue.is_empty());
/// assert_eq!(queue.get()?, "one");
/// # Ok(())
/// # }
/// ```
pub struct SimpleQueue<T>(Queue<T>);

impl<T> SimpleQueue<T> {
    /// Creates an empty queue.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::SimpleQueue::<u8>::new()?;
    /// assert!(queue.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::new`].
    pub fn new() -> Result<Self> {
        Queue::new().map(SimpleQueue)
    }

    /// Returns whether the queue is empty at this moment.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::SimpleQueue::new()?;
    /// queue.put(&1)?;
    /// assert!(!queue.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Closes the queue; see [`Queue::close`].
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::SimpleQueue::<u8>::new()?;
    /// queue.close()?;
    /// assert!(matches!(queue.get(), Err(maniple::Error::Channel(maniple::ChannelError::QueueClosed))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The operating system's error.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }
}

impl<T: Serialize> SimpleQueue<T> {
    /// Adds a value, without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::SimpleQueue::new()?;
    /// queue.put(&[1, 2, 3])?;
    /// assert_eq!(queue.get()?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::put`].
    pub fn put(&self, value: &T) -> Result<()> {
        self.0.put(value)
    }
}

impl<T: DeserializeOwned> SimpleQueue<T> {
    /// Removes and returns the next value. Waits until there is a value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::SimpleQueue::new()?;
    /// queue.put(&"one".to_string())?;
    /// queue.put(&"two".to_string())?;
    /// assert_eq!((queue.get()?, queue.get()?), ("one".to_string(), "two".to_string()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Queue::get`].
    pub fn get(&self) -> Result<T> {
        self.0.get()
    }
}

macro_rules! over_queue {
    ($queue:ident) => {
        impl<T> Clone for $queue<T> {
            fn clone(&self) -> Self {
                $queue(self.0.clone())
            }
        }

        maniple_sys::as_handle!(impl[T] for $queue<T>, |this| this.0.as_handle());

        impl<T> fmt::Debug for $queue<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($queue)).field(&self.0).finish()
            }
        }

        impl<T> Serialize for $queue<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.serialize(serializer)
            }
        }

        impl<'de, T> Deserialize<'de> for $queue<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Queue::deserialize(deserializer).map($queue)
            }
        }
    };
}

over_queue!(JoinableQueue);
over_queue!(SimpleQueue);
