//! Queues for any number of processes on both sides.

use super::fd_queue::FdQueue;
use crate::codec::Postcard;
use crate::error::{ChannelError, Error, InTime, Result};
use crate::sideband::{self, Sink, Source};
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::log::{Log, Put, Terms};
use maniple_engine::shm::buffers::Buffer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Its values are to be reported done.
    pub(super) counted: bool,
    types: PhantomData<fn(T) -> T>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Log,
    fds: FdQueue,
}

/// What a put needs and does not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Room,
    /// A way for its descriptors, or the writers' lock.
    Descriptors,
}

/// How an attempt to put a value ended.
pub(super) enum Attempt {
    Done,
    /// The time was up.
    Late,
    Lacks(Lack),
}

impl Shared {
    /// Waits until it may be there. False: the time is up.
    pub(super) fn wait_for(&self, lack: Lack, until: Until) -> Result<bool> {
        match lack {
            Lack::Room => Ok(self.log.wait_for_room(None, deadline(until), &mut || false)?),
            Lack::Descriptors => self.fds.wait(until),
        }
    }
}

/// A value on its way in.
pub(super) struct Outgoing {
    first: Vec<u8>,
    rest: Vec<Vec<u8>>,
    handles: Vec<maniple_sys::OwnedHandle>,
    nonce: u64,
}

/// The last byte of a value says whether it has descriptors; then the nonce is before it.
const ALONE: u8 = 0;
const WITH_HANDLES: u8 = 1;

fn deadline(until: Until) -> Option<Instant> {
    match until {
        Until::Now => Some(Instant::now()),
        Until::Then(then) => Some(then),
        Until::Ever => None,
    }
}

/// Whether to give up waiting even for a lock, whose holder may be stopped. A call that is not to wait waits for that.
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

    /// Closes the queue for all processes: every later `put` returns [`ChannelError::QueueClosed`]. The values in the
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

impl<T: Serialize> Queue<T> {
    /// Adds a value. Waits for room only if the queue has a bound, or if the value has descriptors and the queue holds
    /// some hundred such values.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// queue.put(&("one".to_string(), 1))?;
    /// queue.put(&("two".to_string(), 2))?;
    /// assert_eq!(queue.get()?, ("one".to_string(), 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::QueueClosed`], [`Error::Codec`] if the value cannot be encoded, or the operating system's error
    /// if there is no memory left.
    pub fn put(&self, value: &T) -> Result<()> {
        self.put_until(value, Until::Ever).map(|_| ())
    }

    /// Adds a value if there is room, and returns whether there was.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::bounded(1)?;
    /// assert!(queue.try_put(&1)?);
    /// assert!(!queue.try_put(&2)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Queue::put).
    pub fn try_put(&self, value: &T) -> Result<bool> {
        self.put_until(value, Until::Now)
    }

    /// As [`put`](Self::put), waiting for room at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::bounded(1)?;
    /// queue.put_timeout(&1, Duration::from_secs(1))?;
    /// assert!(matches!(queue.put_timeout(&2, Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Queue::put), and [`Error::Timeout`].
    pub fn put_timeout(&self, value: &T, timeout: Duration) -> Result<()> {
        self.put_until(value, Until::after(timeout))?.in_time("room in the queue", timeout)
    }

    fn put_until(&self, value: &T, until: Until) -> Result<bool> {
        let outgoing = self.prepare(value)?;
        loop {
            let lack = match self.attempt(&outgoing, until)? {
                Attempt::Done => return Ok(true),
                Attempt::Late => return Ok(false),
                Attempt::Lacks(lack) => lack,
            };
            let now = matches!(until, Until::Now) && lack == Lack::Room;
            if now || !self.shared.wait_for(lack, until)? {
                return Ok(false);
            }
        }
    }

    /// Puts it, if there is what that takes.
    pub(super) fn attempt(&self, outgoing: &Outgoing, until: Until) -> Result<Attempt> {
        let Shared { log, fds } = &*self.shared;
        let mut parts = Vec::with_capacity(1 + outgoing.rest.len());
        parts.push(&outgoing.first[..]);
        parts.extend(outgoing.rest.iter().map(|part| &part[..]));
        let mut send = |position| fds.send(position, outgoing.nonce, &outgoing.handles);
        let mut terms = Terms { counted: self.counted, hurried: !matches!(until, Until::Ever), before: None };
        if !outgoing.handles.is_empty() {
            terms.before = Some(&mut send);
        }
        let put = match log.put_on(&parts, terms, Some(&mut || is_over(until))) {
            Err(maniple_engine::Error::Interrupted) => return Ok(Attempt::Late),
            put => put?,
        };
        match put {
            Put::Done => Ok(Attempt::Done),
            Put::Closed => Err(Error::Channel(ChannelError::QueueClosed)),
            Put::Full => Ok(Attempt::Lacks(Lack::Room)),
            Put::Cramped => Err(Error::Channel(ChannelError::QueueMemory(log.capacity()))),
            Put::Refused | Put::Busy => Ok(Attempt::Lacks(Lack::Descriptors)),
        }
    }

    pub(super) fn prepare(&self, value: &T) -> Result<Outgoing> {
        let (mut first, mut sink) = (Vec::with_capacity(64), Sink::parts());
        sideband::encode::<Postcard, T>(value, &mut first, &mut sink)?;
        let (rest, handles) = (sink.take_parts(), sink.take_handles());
        let mut nonce = 0;
        if handles.is_empty() {
            first.push(ALONE);
        } else {
            nonce = self.shared.fds.nonce();
            first.extend_from_slice(&nonce.to_ne_bytes());
            first.push(WITH_HANDLES);
        }
        Ok(Outgoing { first, rest, handles, nonce })
    }
}

impl<T: DeserializeOwned> Queue<T> {
    /// Removes and returns the next value. Waits until there is a value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::<u8>::new()?;
    /// let ours = queue.clone();
    /// let thread = std::thread::spawn(move || ours.put(&1));
    /// assert_eq!(queue.get()?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ChannelError::QueueClosed`] if the queue was closed and is empty, [`Error::Codec`] if the message is not such
    /// a value (it is then lost).
    pub fn get(&self) -> Result<T> {
        self.get_until(Until::Ever)?.ok_or(Error::Channel(ChannelError::QueueClosed))
    }

    /// Removes and returns the next value, or returns `None` if there is none now.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::new()?;
    /// assert_eq!(queue.try_get()?, None);
    /// queue.put(&1)?;
    /// assert_eq!(queue.try_get()?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Queue::get).
    pub fn try_get(&self) -> Result<Option<T>> {
        self.get_until(Until::Now)
    }

    /// Removes and returns the next value. Waits for it at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::<u8>::new()?;
    /// assert_eq!(queue.get_timeout(Duration::from_millis(1))?, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Queue::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.get_until(Until::after(timeout))
    }

    /// Waits for a value as a future, with any executor. A future that is dropped has removed nothing.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let queue = maniple::Queue::<u8>::new()?;
    /// let ours = queue.clone();
    /// let thread = std::thread::spawn(move || ours.put(&1));
    /// assert_eq!(block_on(queue.get_async())?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get`](Queue::get).
    pub async fn get_async(&self) -> Result<T> {
        let log = &self.shared.log;
        log.watch(&mut || false)?;
        super::reactor::until_some(log.event(), || self.try_get()).await
    }

    fn get_until(&self, until: Until) -> Result<Option<T>> {
        let Shared { log, fds } = &*self.shared;
        let mut first = Vec::new();
        let mut late = || is_over(until);
        loop {
            // Asked first: what was put before it was closed is then there to be taken.
            let closed = log.is_closed();
            let mut handles = Ok(Vec::new());
            let mut after = |position: u64, first: &[u8]| {
                if let Some(nonce) = nonce_of(first) {
                    handles = fds.take(position, nonce);
                }
            };
            match log.take_and(&mut first, Some(&mut late), &mut after) {
                Ok(Some(taken)) => return decode(&first, taken.rest, handles?).map(Some),
                Ok(None) => {}
                Err(maniple_engine::Error::Interrupted) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if closed {
                return Err(Error::Channel(ChannelError::QueueClosed));
            }
            if matches!(until, Until::Now) || !log.wait(deadline(until), &mut || false)? {
                return Ok(None);
            }
        }
    }
}

fn nonce_of(first: &[u8]) -> Option<u64> {
    let (&WITH_HANDLES, before) = first.split_last()? else { return None };
    Some(u64::from_ne_bytes(*before.last_chunk()?))
}

fn decode<T: DeserializeOwned>(first: &[u8], rest: Vec<Buffer>, handles: Vec<maniple_sys::OwnedHandle>) -> Result<T> {
    let trailer = if nonce_of(first).is_some() { 9 } else { 1 };
    let bytes = &first[..first.len().saturating_sub(trailer)];
    super::message::decode::<Postcard, T>(bytes, &mut Source::with(rest, handles))
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: self.shared.clone(), counted: self.counted, types: PhantomData }
    }
}

maniple_sys::as_handle!(
    /// Readable while there is something to get, or the queue is closed: for [`wait`](crate::wait). From the first use
    /// of it on, puts and gets in all processes keep it so, which costs them a little.
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
