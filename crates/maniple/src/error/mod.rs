//! The errors that the crate's functions return.
//!
//! | file | its errors |
//! | --- | --- |
//! | `call` | calls in other processes: [`CallError`], [`WorkerLost`], [`Panicked`] |
//! | `limits` | tasks that exceed a limit: [`TaskTimeout`], [`MemoryLimit`] |
//! | `process` | starting and asking processes: [`ProcessError`] |
//! | `channel` | connections, channels, queues, listeners: [`ChannelError`] |
//! | `sync` | locks, semaphores, barriers: [`SyncError`], [`Poison`], [`BrokenBarrier`] |
//! | `manager` | managers: [`ManagerError`], [`ManagerLost`] |
//! | `timeout` | any wait with a time limit: [`TimeoutError`] |
//! | `system` | refusals of the operating system: [`SystemError`] |
//!
//! `travel` has what lets them be sent to another process.

mod call;
mod channel;
mod limits;
mod manager;
mod process;
mod sync;
mod system;
mod timeout;
mod travel;

pub(crate) use call::was;
pub use call::{CallError, Panicked, WorkerLost};
pub use channel::ChannelError;
pub use limits::{MemoryLimit, TaskTimeout};
pub use manager::{ManagerError, ManagerLost};
pub use process::ProcessError;
pub use sync::{BrokenBarrier, Poison, SyncError};
pub use system::SystemError;
pub(crate) use timeout::InTime;
pub use timeout::TimeoutError;

use maniple_engine::channel::listener::ContactError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use travel::Fixed;

/// This crate's result.
///
/// ```
/// fn total(parts: Vec<u32>) -> maniple::Result<u32> {
///     maniple::Pool::new(1)?.apply(|parts: Vec<u32>| parts.iter().sum(), parts)
/// }
///
/// assert_eq!(total(vec![1, 2]).unwrap(), 3);
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: one type for the whole crate, with one variant for each domain.
///
/// [`source`](std::error::Error::source) returns the cause. The error converts into [`std::io::Error`].
///
/// An error that a called function *returns* is not an `Error`: `pool.apply(f, x)?` is then the function's own
/// `Result`.
///
/// ```
/// use maniple::{Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(1)?;
/// match pool.apply(|x: u32| 100 / x, 0) {
///     Err(Error::Panicked(panicked)) => assert_eq!(panicked.message, "attempt to divide by zero"),
///     Err(Error::WorkerLost(lost)) => panic!("the worker {}", lost.exit),
///     other => panic!("{other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// An `Error` can be sent: a task that makes such calls itself may return a [`maniple::Result`](Result). It arrives as
/// the same variant with the same text. The [`source`](std::error::Error::source) of a [`SystemError`] is reduced to its
/// number (`errno`).
///
/// ```
/// use maniple::{Error, Event, Pool};
/// use std::time::Duration;
///
/// fn started(event: Event) -> maniple::Result<bool> {
///     event.wait_timeout(Duration::from_millis(1))?;
///     Ok(true)
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let outcome = Pool::new(1)?.apply(started, Event::new()?)?;
/// assert!(matches!(outcome, Err(Error::Timeout(_))));
/// # Ok(())
/// # }
/// ```
///
/// `Debug` writes the same text as `Display`, because `main` and `unwrap` print an error in this form. After it come the
/// lines of the panic's call stack.
#[derive(Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The worker that ran the task died: it was killed, it crashed, or it exited.
    #[error(transparent)]
    WorkerLost(Box<WorkerLost>),
    /// The task ran for longer than its [`task_timeout`](crate::CallOptions::task_timeout), so its worker was ended.
    #[error(transparent)]
    TaskTimeout(Box<TaskTimeout>),
    /// The worker used more memory than the pool's [`memory_limit`](crate::PoolBuilder::memory_limit), so it was ended.
    #[error(transparent)]
    MemoryLimit(Box<MemoryLimit>),
    /// The function panicked.
    #[error(transparent)]
    Panicked(Box<Panicked>),
    /// A call could not be made, or has no result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A process could not be started, or a call to its handle failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A message could not be sent or received.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A lock, a unit of a semaphore or a barrier was not acquired.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// Shared memory cannot be used in this way, or has unexpected content.
    #[error("shared memory: {0}")]
    SharedMemory(String),
    /// A manager's server is lost: it was shut down, killed, or cannot be reached any more.
    #[error(transparent)]
    ManagerLost(Box<ManagerLost>),
    /// A manager refused a call.
    #[error("the manager: {0}")]
    Manager(#[source] ManagerError),
    /// An argument, a result or a state could not be encoded or decoded.
    #[error("a value of type {type_name} could not be {what}: {why}")]
    Codec {
        /// "encoded" or "decoded".
        #[serde(deserialize_with = "travel::fixed")]
        what: Fixed,
        /// The value's type.
        #[serde(deserialize_with = "travel::fixed")]
        type_name: Fixed,
        /// The reason.
        why: String,
    },
    /// An argument has a value without a meaning, such as a size of 0. The call did nothing.
    #[error("invalid argument: {0}")]
    InvalidArgument(#[serde(deserialize_with = "travel::fixed")] Fixed),
    /// The time limit expired. What the call waited for may still happen, so the caller can repeat the call.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// The operating system or the engine refused something.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Panicked(panicked) => panicked.fmt(f),
            Error::Call(CallError::Initializer(error)) => write!(f, "the initializer failed in a worker: {error:?}"),
            other => write!(f, "{other}"),
        }
    }
}

impl Error {
    /// Creates the error of a [`Codec`](crate::Codec): why a `T` could not be "encoded" or "decoded".
    ///
    /// ```
    /// let error = maniple::Error::codec::<u32>("decoded", "too few bytes");
    /// assert_eq!(error.to_string(), "a value of type u32 could not be decoded: too few bytes");
    /// ```
    pub fn codec<T: ?Sized>(what: &'static str, why: impl fmt::Display) -> Error {
        Error::Codec { what, type_name: std::any::type_name::<T>(), why: why.to_string() }
    }
}

/// The engine is no part of this crate's interface; the conversion serves its own code.
#[doc(hidden)]
impl From<maniple_engine::Error> for Error {
    fn from(error: maniple_engine::Error) -> Self {
        match error {
            maniple_engine::Error::NotRunning => CallError::NotRunning.into(),
            maniple_engine::Error::BothSend => ChannelError::Deadlock.into(),
            other if ContactError::of(&other).is_some_and(ContactError::is_authentication) => {
                ChannelError::Authentication(other.to_string()).into()
            }
            other => Error::System(SystemError::of(other)),
        }
    }
}

/// An error of the operating system keeps its number ([`io::Error::raw_os_error`]). Any other error becomes the inner
/// error of the new error, whose kind corresponds to it.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::System(system) => match system.raw_os_error() {
                Some(number) => return io::Error::from_raw_os_error(number),
                None => system.kind(),
            },
            Error::Timeout(_) | Error::TaskTimeout(_) => io::ErrorKind::TimedOut,
            Error::MemoryLimit(_) => io::ErrorKind::OutOfMemory,
            Error::Codec { .. } => io::ErrorKind::InvalidData,
            Error::Call(CallError::NotRunning) | Error::ManagerLost(_) => io::ErrorKind::NotConnected,
            Error::Channel(channel) => channel.kind(),
            Error::InvalidArgument(_) => io::ErrorKind::InvalidInput,
            Error::Sync(SyncError::WouldBlock) => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maniple_engine::process::Exit;

    #[test]
    fn a_lost_worker_says_who_how_what_and_its_last_words() {
        let lost = WorkerLost {
            pid: 12,
            exit: Exit::Killed(maniple_engine::process::Cause::KILL),
            task: "items 3 to 4".into(),
            stderr_tail: "out of memory\n".into(),
            out_of_memory: false,
            earlier: Vec::new(),
        };
        let text = Error::WorkerLost(Box::new(lost.clone())).to_string();
        // The system's name for it.
        let kill = maniple_engine::process::Cause::KILL.to_string();
        assert!(cfg!(windows) || kill == "signal 9 (SIGKILL)", "{kill}");
        let first = format!("worker 12 was killed by {kill} while it ran items 3 to 4");
        assert_eq!(text, format!("{first}; its standard error ended in:\nout of memory"));
        let killed = WorkerLost { out_of_memory: true, stderr_tail: String::new(), ..lost };
        let again = WorkerLost { earlier: vec![killed.to_string()], ..killed };
        let each = format!(
            "{first}, probably by the kernel, which has ended a process because memory ran out (see the kernel's log)"
        );
        assert_eq!(again.to_string(), format!("{each}\ntry 1 failed: {each}"));
    }

    #[test]
    fn an_error_fits_into_a_few_words() {
        assert!(size_of::<Error>() <= 64);
    }

    #[test]
    fn an_io_error_keeps_the_number_and_else_the_error() {
        let full = Error::from(maniple_engine::Error::Os { doing: "write", source: io::Error::from_raw_os_error(28) });
        assert_eq!(io::Error::from(full).raw_os_error(), Some(28));
        let closed = io::Error::from(Error::from(ChannelError::Closed));
        assert_eq!(closed.kind(), io::ErrorKind::BrokenPipe);
        assert!(closed.get_ref().is_some_and(|inner| inner.is::<Error>()));
    }

    #[test]
    fn sources_lead_to_what_lies_behind() {
        use std::error::Error as _;
        let behind = Error::InvalidArgument("nothing");
        let error = Error::from(CallError::Initializer(Box::new(behind)));
        assert_eq!(error.source().map(ToString::to_string), Some("invalid argument: nothing".into()));
        assert!(Error::Manager(ManagerError::NotHeld).source().is_some_and(|source| source.is::<ManagerError>()));
    }
}
