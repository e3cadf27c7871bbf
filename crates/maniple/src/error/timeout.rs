//! The time was up.

use super::Result;
use super::travel::{self, Fixed};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The time limit of a waiting call expired. The error says what the call waited for, and for how long.
///
/// Every method whose name ends in `_timeout` takes a [`Duration`] and returns what the method without it returns, or
/// this as [`Error::Timeout`](crate::Error::Timeout) (the locks:
/// [`TryLockError::Timeout`](crate::TryLockError::Timeout)). The call has then done nothing, and can be repeated. A
/// limit of zero checks once and does not wait. A limit that no clock can measure is a wait without end. `recv`, `get`
/// and a process's `join` return `None` instead. [`Connection::poll_timeout`](crate::Connection::poll_timeout) and
/// [`Condition::wait_timeout`](crate::Condition::wait_timeout) return whether it happened.
///
/// ```
/// use maniple::{Error, Event};
/// use std::time::Duration;
///
/// # fn main() -> maniple::Result<()> {
/// let Err(Error::Timeout(late)) = Event::new()?.wait_timeout(Duration::from_millis(5)) else { panic!("it is not set") };
/// assert_eq!((late.waited_for(), late.timeout()), ("the event to be set", Duration::from_millis(5)));
/// assert_eq!(late.to_string(), "timed out after 5ms: waited for the event to be set");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutError {
    #[serde(deserialize_with = "travel::fixed")]
    waited_for: Fixed,
    timeout: Duration,
}

impl TimeoutError {
    pub(crate) const fn new(waited_for: &'static str, timeout: Duration) -> TimeoutError {
        TimeoutError { waited_for, timeout }
    }

    /// Returns what the call waited for.
    ///
    /// ```
    /// use maniple::{Event, Error};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let Err(Error::Timeout(late)) = Event::new()?.wait_timeout(Duration::ZERO) else { panic!("it is not set") };
    /// assert_eq!(late.waited_for(), "the event to be set");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn waited_for(&self) -> &'static str {
        self.waited_for
    }

    /// Returns the time limit of the call.
    ///
    /// ```
    /// use maniple::{Event, Error};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let Err(Error::Timeout(late)) = Event::new()?.wait_timeout(Duration::from_millis(2)) else { panic!("it is not set") };
    /// assert_eq!(late.timeout(), Duration::from_millis(2));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timed out after {:?}: waited for {}", self.timeout, self.waited_for)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TimeoutError {}

/// The result of a wait with a time limit. None, or false, means that the limit has passed.
pub(crate) trait InTime {
    type Output;

    fn in_time(self, waited_for: &'static str, timeout: Duration) -> Result<Self::Output>;
}

impl<T> InTime for Option<T> {
    type Output = T;

    fn in_time(self, waited_for: &'static str, timeout: Duration) -> Result<T> {
        self.ok_or_else(|| TimeoutError::new(waited_for, timeout).into())
    }
}

impl InTime for bool {
    type Output = ();

    fn in_time(self, waited_for: &'static str, timeout: Duration) -> Result<()> {
        self.then_some(()).in_time(waited_for, timeout)
    }
}
