//! A queue in a manager's server.

use super::containers::typed_proxy;
use super::registry::Content;
use super::rpc::Answer;
use super::wait_queue::{WaitQueue, until};
use super::{Manager, ManagerError};
use crate::error::{InTime, Result};
use crate::payload::Payload;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The queues of callers that wait for an item, for room, and for the processing of all items.
const GETTERS: usize = 0;
const PUTTERS: usize = 1;
const JOINERS: usize = 2;

pub(super) struct State<T> {
    items: VecDeque<T>,
    most: usize,
    unfinished: u64,
}

type Shared<T> = Arc<WaitQueue<State<T>, 3>>;

typed_proxy!(
    /// A queue in a [`Manager`]'s server, for any number of processes on any machines. (Between processes of one
    /// machine the crate's other queues are much faster.)
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<String>(1)?;
    /// queue.put(&"first".to_string())?;
    /// assert!(!queue.try_put(&"second".to_string())?);
    /// assert_eq!(queue.get()?, "first");
    /// assert_eq!(queue.get_timeout(Duration::from_millis(1))?, None);
    /// queue.task_done()?;
    /// queue.join()?;
    /// # Ok(())
    /// # }
    /// ```
    Queue<T>(Shared<T>)
);

impl<T: Payload> Queue<T> {
    fn put_within(&self, item: &T, limit: Option<Duration>) -> Result<bool> {
        let door = |queue: &Shared<T>, (item, limit): (T, Option<Duration>), answer: &mut Answer| {
            let until = until(limit);
            let mut inside = queue.enter();
            while inside.items.len() >= inside.most {
                if !inside.sleep(PUTTERS, until)? {
                    return answer.give(&false);
                }
            }
            inside.items.push_back(item);
            inside.unfinished += 1;
            inside.wake(GETTERS, 1);
            answer.give(&true)
        };
        self.0.reference().ask(door, &(item, limit))
    }

    fn get_within(&self, limit: Option<Duration>) -> Result<Option<T>> {
        let door = |queue: &Shared<T>, limit: Option<Duration>, answer: &mut Answer| {
            let until = until(limit);
            let mut inside = queue.enter();
            let item = loop {
                match inside.items.pop_front() {
                    Some(item) => break item,
                    None if inside.sleep(GETTERS, until)? => {}
                    None => return answer.give(&None::<T>),
                }
            };
            // Encoded while the queue is locked: if that fails the item stays the first.
            let given = answer.give(&Some(&item));
            if given.is_ok() {
                inside.wake(PUTTERS, 1);
            }
            drop(inside);
            let back = queue.clone();
            let give_back = move || {
                let mut inside = back.enter();
                inside.items.push_front(item);
                inside.wake(GETTERS, 1);
            };
            match given {
                Ok(()) => answer.unless_sent(give_back),
                Err(trouble) => {
                    give_back();
                    return Err(trouble);
                }
            }
            Ok(())
        };
        self.0.reference().ask(door, &limit)
    }

    /// Adds an item. Waits until there is room.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// queue.put(&1)?;
    /// assert_eq!(queue.get()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call), like all methods.
    pub fn put(&self, item: &T) -> Result<()> {
        self.put_within(item, None).map(drop)
    }

    /// As [`put`](Self::put), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(1)?;
    /// queue.put_timeout(&1, Duration::from_secs(1))?;
    /// assert!(matches!(queue.put_timeout(&2, Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call), and [`Error::Timeout`](crate::Error::Timeout).
    pub fn put_timeout(&self, item: &T, timeout: Duration) -> Result<()> {
        self.put_within(item, Some(timeout))?.in_time("room in the queue", timeout)
    }

    /// Adds an item if there is room. Returns whether it did.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(1)?;
    /// assert!(queue.try_put(&1)? && !queue.try_put(&2)?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn try_put(&self, item: &T) -> Result<bool> {
        self.put_within(item, Some(Duration::ZERO))
    }

    /// Removes and returns the next item. Waits until there is an item. A caller that is killed meanwhile removes no
    /// item.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// let other = queue.clone();
    /// let thread = std::thread::spawn(move || other.put(&1));
    /// assert_eq!(queue.get()?, 1);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get(&self) -> Result<T> {
        loop {
            if let Some(item) = self.get_within(None)? {
                return Ok(item);
            }
        }
    }

    /// As [`get`](Self::get), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// assert_eq!(queue.get_timeout(Duration::from_millis(1))?, None);
    /// queue.put(&1)?;
    /// assert_eq!(queue.get_timeout(Duration::from_secs(1))?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Option<T>> {
        self.get_within(Some(timeout))
    }

    /// Removes and returns the next item, if there is one.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// queue.put(&1)?;
    /// assert_eq!((queue.try_get()?, queue.try_get()?), (Some(1), None));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn try_get(&self) -> Result<Option<T>> {
        self.get_within(Some(Duration::ZERO))
    }

    /// Reports one item as processed.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// queue.put(&1)?;
    /// assert_eq!(queue.get()?, 1);
    /// queue.task_done()?;
    /// assert!(queue.task_done().is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::TaskDoneTooOften`] if all items have already been reported.
    pub fn task_done(&self) -> Result<()> {
        let door = |queue: &Shared<T>, (): (), answer: &mut Answer| {
            let mut inside = queue.enter();
            inside.unfinished = inside.unfinished.checked_sub(1).ok_or(ManagerError::TaskDoneTooOften)?;
            if inside.unfinished == 0 {
                inside.wake(JOINERS, usize::MAX);
            }
            answer.give(&())
        };
        self.0.reference().ask(door, &())
    }

    /// Waits until [`task_done`](Queue::task_done) has been called for every item.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// queue.put(&1)?;
    /// let other = queue.clone();
    /// let worker = std::thread::spawn(move || other.get().and_then(|_job| other.task_done()));
    /// queue.join()?;
    /// assert!(queue.is_empty()?);
    /// worker.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn join(&self) -> Result<()> {
        let door = |queue: &Shared<T>, (): (), answer: &mut Answer| {
            let mut inside = queue.enter();
            while inside.unfinished > 0 {
                inside.sleep(JOINERS, None)?;
            }
            answer.give(&())
        };
        self.0.reference().ask(door, &())
    }

    /// Returns the number of items.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<u8>(0)?;
    /// queue.put(&1)?;
    /// assert_eq!(queue.len()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn len(&self) -> Result<usize> {
        let door = |queue: &Shared<T>, (): (), answer: &mut Answer| answer.give(&queue.enter().items.len());
        self.0.reference().ask(door, &())
    }

    /// Returns whether the queue is empty.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.queue::<u8>(0)?.is_empty()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
}

impl Manager {
    /// Creates a queue with room for `maxsize` items, or for any number if `maxsize` is 0.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let queue = manager.queue::<String>(10)?;
    /// queue.put(&"tea".to_string())?;
    /// assert_eq!(queue.get()?, "tea");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn queue<T: Payload>(&self, maxsize: usize) -> Result<Queue<T>> {
        let maker = |maxsize: usize| {
            let most = if maxsize == 0 { usize::MAX } else { maxsize };
            let queue: Shared<T> = Arc::new(WaitQueue::new(State { items: VecDeque::new(), most, unfinished: 0 }));
            Content::new(queue)
        };
        self.make(maker, &maxsize).map(Queue)
    }
}
