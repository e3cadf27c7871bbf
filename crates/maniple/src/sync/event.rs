//! A flag to wait for.

use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{InTime, Result};
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::event::Event as Inner;
use maniple_engine::wait::Until;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A flag that processes can wait for. The death of a process does not affect the others.
///
/// ```
/// use maniple::{Event, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let ready = Event::new()?;
/// let process = Process::new(|ready: Event| ready.set(), ready.clone())?;
/// process.start()?;
/// ready.wait();
/// assert!(ready.is_set());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Event(pub(super) Arc<Inner>);

impl Event {
    /// Creates an event that is not set.
    ///
    /// ```
    /// assert!(!maniple::Event::new()?.is_set());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if there is no memory or descriptor left.
    pub fn new() -> Result<Event> {
        Ok(Event(Arc::new(Inner::new()?)))
    }

    /// Sets the event, and wakes all waiters.
    ///
    /// ```
    /// let event = maniple::Event::new()?;
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn set(&self) {
        self.0.set();
    }

    /// Clears the event. Threads that waited when it was set continue nevertheless.
    ///
    /// ```
    /// let event = maniple::Event::new()?;
    /// event.set();
    /// event.clear();
    /// assert!(!event.is_set());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Returns whether the event is set.
    ///
    /// ```
    /// let event = maniple::Event::new()?;
    /// assert!(!event.is_set());
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Waits until the event is set, or was set meanwhile. If the process that should set the event may die, use
    /// [`wait_timeout`](Event::wait_timeout).
    ///
    /// ```
    /// let event = maniple::Event::new()?;
    /// let other = event.clone();
    /// let thread = std::thread::spawn(move || other.set());
    /// event.wait();
    /// assert!(event.is_set());
    /// # thread.join().unwrap();
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn wait(&self) {
        while !self.0.wait(Until::Ever, &mut || true).is_ours() {}
    }

    /// As [`wait`](Self::wait), for at most `timeout`.
    ///
    /// ```
    /// let event = maniple::Event::new()?;
    /// assert!(matches!(event.wait_timeout(std::time::Duration::from_millis(1)), Err(maniple::Error::Timeout(_))));
    /// event.set();
    /// event.wait_timeout(std::time::Duration::ZERO)?;
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.0.wait(Until::after(timeout), &mut || true).is_ours().in_time("the event to be set", timeout)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish()
    }
}

impl ShmSerde for Event {
    const WHAT: &'static str = "an Event";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<Event> {
        Ok(Event(Arc::new(Inner::open(ticket)?)))
    }
}

shm_serde!(Event);
