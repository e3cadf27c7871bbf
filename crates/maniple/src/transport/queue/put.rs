//! Putting values into a queue.

use super::message::Outgoing;
use super::{Queue, Shared, deadline, is_over};
use crate::error::{ChannelError, Error, InTime, Result};
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::log::{Put, Terms};
use serde::Serialize;
use std::time::Duration;

/// A resource that a put needs and that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Lack {
    Room,
    /// Room for its descriptors, or the writers' lock.
    Descriptors,
}

/// How an attempt to put a value ended.
pub(in crate::transport) enum Attempt {
    Done,
    /// The time limit has passed.
    Late,
    Lacks(Lack),
}

impl Shared {
    /// Waits until the resource may be available. Returns false if the time limit has passed.
    pub(in crate::transport) fn wait_for(&self, lack: Lack, until: Until) -> Result<bool> {
        match lack {
            Lack::Room => Ok(self.log.wait_for_room(None, deadline(until), &mut || false)?),
            Lack::Descriptors => self.fds.wait(until),
        }
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
    /// [`ChannelError::QueueClosed`], [`ChannelError::QueueMemory`] if the queue was made under a limit on file sizes
    /// (`ulimit -f`) and is full, [`Error::Codec`] if the value cannot be encoded, or the operating system's error if
    /// there is no memory left.
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

    /// Puts the value, unless a resource is missing.
    pub(in crate::transport) fn attempt(&self, outgoing: &Outgoing, until: Until) -> Result<Attempt> {
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
}
