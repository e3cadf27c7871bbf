//! A flag in a manager's server that can be waited for.

use super::Manager;
use super::containers::typed_proxy;
use super::registry::Content;
use super::rpc::Answer;
use super::wait_queue::{WaitQueue, until};
use crate::error::{InTime, Result};
use std::time::Duration;

typed_proxy!(
    /// An event in a [`Manager`]'s server, for processes on any machines.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// assert!(matches!(event.wait_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// event.set()?;
    /// event.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    Event(WaitQueue<bool>)
);

impl Event {
    fn wait_within(&self, limit: Option<Duration>) -> Result<bool> {
        let door = |event: &WaitQueue<bool>, limit: Option<Duration>, answer: &mut Answer| {
            let until = until(limit);
            let mut inside = event.enter();
            // A thread that was woken returns even if the event is cleared already.
            let set = *inside || inside.sleep(0, until)?;
            answer.give(&set)
        };
        self.0.reference().ask(door, &limit)
    }

    /// Waits until the event is set.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// let other = event.clone();
    /// let thread = std::thread::spawn(move || other.set());
    /// event.wait()?;
    /// assert!(event.is_set()?);
    /// thread.join().unwrap()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost) as soon as the server is gone.
    pub fn wait(&self) -> Result<()> {
        self.wait_within(None).map(drop)
    }

    /// As [`wait`](Self::wait), for at most `timeout`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// assert!(matches!(event.wait_timeout(Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// event.set()?;
    /// event.wait_timeout(Duration::from_secs(1))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Event::wait), and [`Error::Timeout`](crate::Error::Timeout).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait_within(Some(timeout))?.in_time("the event to be set", timeout)
    }

    /// Sets the event. All waiters continue.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// event.set()?;
    /// assert!(event.is_set()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn set(&self) -> Result<()> {
        let door = |event: &WaitQueue<bool>, (): (), answer: &mut Answer| {
            let mut inside = event.enter();
            *inside = true;
            inside.wake(0, usize::MAX);
            answer.give(&())
        };
        self.0.reference().ask(door, &())
    }

    /// Clears the event.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// event.set()?;
    /// event.clear()?;
    /// assert!(!event.is_set()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn clear(&self) -> Result<()> {
        let door = |event: &WaitQueue<bool>, (): (), answer: &mut Answer| {
            *event.enter() = false;
            answer.give(&())
        };
        self.0.reference().ask(door, &())
    }

    /// Returns whether the event is set.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(!manager.event()?.is_set()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn is_set(&self) -> Result<bool> {
        let door = |event: &WaitQueue<bool>, (): (), answer: &mut Answer| answer.give(&*event.enter());
        self.0.reference().ask(door, &())
    }
}

impl Manager {
    /// Creates an event that is not set.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let event = manager.event()?;
    /// event.set()?;
    /// event.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`](crate::Error::ManagerLost).
    pub fn event(&self) -> Result<Event> {
        self.make(|()| Content::new(WaitQueue::<bool>::new(false)), &()).map(Event)
    }
}
