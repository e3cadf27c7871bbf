//! Getting values from a queue.

use super::message::{decode, nonce_of};
use super::{Queue, Shared, deadline, is_over};
use crate::error::{ChannelError, Error, Result};
use crate::transport::reactor;
use maniple_engine::channel::frame::Until;
use serde::de::DeserializeOwned;
use std::time::Duration;

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
    #[doc = include_str!("../../block_on.txt")]
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
        reactor::until_some(log.event(), || self.try_get()).await
    }

    fn get_until(&self, until: Until) -> Result<Option<T>> {
        let Shared { log, fds } = &*self.shared;
        let mut first = Vec::new();
        let mut late = || is_over(until);
        loop {
            // Checked first: the values that were put before the queue was closed are then found below.
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
