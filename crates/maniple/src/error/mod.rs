//! What can go wrong, and what a caller gets to know about it.

mod timeout;

pub(crate) use timeout::InTime;
pub use timeout::TimeoutError;

use maniple_engine::channel::listener::ContactError;
use maniple_engine::process::Exit;
use std::fmt;
use std::io;

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

/// What went wrong: one type for the whole crate.
///
/// An error that a function *returns* is not among them: `pool.apply(f, x)?` is then the function's own `Result`.
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The worker that ran the task died: it was killed, it crashed, or it exited.
    #[error(transparent)]
    WorkerLost(Box<WorkerLost>),
    /// The function panicked.
    #[error(transparent)]
    Panicked(Box<Panicked>),
    /// An argument, a result or a state could not be turned into bytes, or back.
    #[error("a value of type {type_name} could not be {what}: {why}")]
    Codec {
        /// "encoded" or "decoded".
        what: &'static str,
        /// The value's type.
        type_name: &'static str,
        /// What stood in the way.
        why: String,
    },
    /// The function cannot be run in another process.
    #[error("this function cannot be sent to a worker: {0}")]
    Function(&'static str),
    /// A function cannot be called by its name in the other program: the name, and why.
    #[error("the task {} cannot be called: {}", .0.0, .0.1)]
    Task(Box<(String, String)>),
    /// The pool was closed or terminated before the call.
    #[error("the pool is not running: it was closed or terminated")]
    NotRunning,
    /// The job was cancelled, or the pool terminated, before this could run to its end.
    #[error("cancelled, or the pool was terminated, before it ran to its end")]
    Cancelled,
    /// The time was up. What the call waited for may still come, so it can be made again.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// An argument has a value that means nothing, such as a size of 0. Nothing was done.
    #[error("cannot make sense of {0}")]
    InvalidArgument(&'static str),
    /// No worker could be started.
    #[error("no worker could be started: {0}")]
    Start(String),
    /// A process was asked for something at the wrong time.
    #[error("this process: {0}")]
    Process(&'static str),
    /// The initializer failed in a worker.
    #[error("the initializer failed in a worker: {0}")]
    Initializer(#[source] Box<Error>),
    /// What went wrong in the worker, outside of the function: its words.
    #[error("in the worker: {0}")]
    Remote(String),
    /// The job's value was taken before.
    #[error("the value of this call was taken before")]
    Taken,
    /// The other end of a connection is closed, or its process has ended: nothing is left to receive, and nobody there to send to.
    #[error("the other end is closed")]
    Closed,
    /// The queue was closed: nothing can be put into it any more, or nothing is left in it.
    #[error("the queue was closed")]
    QueueClosed,
    /// The queue holds as many bytes as it can: it was made by a process whose files may have no more (`ulimit -f`).
    #[error(
        "the queue is full: file sizes were limited (ulimit -f) when it was made, so it holds at most {0} bytes; get something out of it \
         first, or make it with a higher limit"
    )]
    QueueMemory(u64),
    /// The other end of a connection was closed in the middle of a message, as a rule because its process was killed.
    #[error("the other end was closed in the middle of a message; its process was probably killed")]
    CutOff,
    /// Both ends of a connection send and wait for room, and neither receives: without this error they would wait for each other for ever.
    /// The message is not sent.
    #[error(
        "both ends of this connection send and neither receives, so that each waits for the other; receive what has come before \
         more is sent, receive in a thread of its own, or send with send_timeout or try_send"
    )]
    BothSend,
    /// A message cannot be sent or received in this way.
    #[error("this message: {0}")]
    Message(&'static str),
    /// A text is no address of a [`Listener`](crate::Listener).
    #[error("{0}")]
    Address(String),
    /// Two ends of a new connection did not show each other in time that they know the same [`Authkey`](crate::Authkey). A
    /// [`Listener`](crate::Listener) goes on after that; it concerns one client.
    #[error("{0}")]
    Authentication(String),
    /// A lock was taken, but whoever held it before died or panicked. The guard was given back when this was made; to have it all
    /// the same, match on the [`PoisonError`](crate::PoisonError) instead of using `?`.
    #[error(
        "{0}: what it guards may be half changed; put it right (into_inner() gives the guard), then call clear_poison()"
    )]
    Poisoned(crate::sync::Poison),
    /// Somebody holds the lock.
    #[error("somebody else holds it just now; wait for it with lock() or lock_timeout()")]
    WouldBlock,
    /// Nothing was there to be given back.
    #[error("it cannot be given back: nobody holds it, or not this process")]
    NotHeld,
    /// Not all came to the barrier.
    #[error("the barrier is broken: {0}; reset() makes it as new")]
    BrokenBarrier(crate::sync::BrokenBarrier),
    /// Shared memory cannot be used so, or its content is not what it should be.
    #[error("shared memory: {0}")]
    SharedMemory(String),
    /// A manager's server is gone: it was shut down, killed, or cannot be reached any more.
    #[error(transparent)]
    ManagerLost(Box<ManagerLost>),
    /// A manager was asked for something that it does not have or allow.
    #[error("the manager: {0}")]
    Manager(crate::managers::ManagerError),
    /// The operating system or the engine refused something.
    #[error(transparent)]
    Engine(maniple_engine::Error),
}

/// The end of a worker, told with what it was doing.
///
/// ```
/// use maniple::{Error, Cause, Exit, Pool};
///
/// fn fail(code: i32) {
///     eprintln!("the disk is full");
///     std::process::exit(code)
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let Err(Error::WorkerLost(lost)) = Pool::new(1)?.apply(fail, 3) else { panic!("it has a value") };
/// assert_eq!(lost.exit, Exit::Code(3));
/// assert_eq!(lost.stderr_tail, "the disk is full");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLost {
    /// The worker's process number.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// The function that it was running, where its name is known, and for which items of the call.
    pub task: String,
    /// What it last wrote to its standard error; may be empty.
    pub stderr_tail: String,
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} {}{} while it ran {}", self.pid, was(self.exit), self.exit, self.task)?;
        let tail = self.stderr_tail.trim_end();
        if !tail.is_empty() {
            write!(f, "; its standard error ended in:\n{tail}")?;
        }
        Ok(())
    }
}

impl std::error::Error for WorkerLost {}

/// The verb that an exit lacks where it says what was done to the process.
pub(crate) fn was(exit: Exit) -> &'static str {
    if matches!(exit, Exit::Killed(_)) { "was " } else { "" }
}

/// The end of a manager's server, as one of its clients saw it.
///
/// ```
/// use maniple::{Error, Cause, Exit, Manager};
///
/// # fn main() -> maniple::Result<()> {
/// let manager = Manager::new()?;
/// let list = manager.list::<u32>()?;
/// let crash = list.with(|_: &mut Vec<u32>, code: i32| -> u8 { std::process::exit(code) }, 3);
/// let Err(Error::ManagerLost(lost)) = crash else { panic!("it has a value") };
/// assert_eq!(lost.exit, Some(Exit::Code(3)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagerLost {
    /// Where it listened.
    pub address: String,
    /// How its process ended, if it was a child of this one, has ended, and its `Manager` is still there.
    pub exit: Option<Exit>,
    /// What was noticed.
    pub why: String,
}

impl fmt::Display for ManagerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the manager at {} is gone", self.address)?;
        if let Some(exit) = &self.exit {
            write!(f, ", {exit}")?;
        }
        write!(f, ": {}; what it held is lost, start another", self.why)
    }
}

impl std::error::Error for ManagerLost {}

/// A panic in a worker, as its panic hook saw it.
///
/// ```
/// use maniple::{Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let Err(Error::Panicked(panicked)) = Pool::new(1)?.apply(|()| -> u8 { panic!("no such thing") }, ()) else {
///     panic!("it has a value")
/// };
/// assert_eq!(panicked.message, "no such thing");
/// assert!(panicked.location.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Panicked {
    /// What the function panicked with.
    pub message: String,
    /// `file:line:column`, if it is known.
    pub location: Option<String>,
    /// The call stack. Empty when the worker's environment has `RUST_BACKTRACE=0`.
    pub backtrace: String,
    /// The worker's process number.
    pub pid: u32,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the function panicked in worker {}", self.pid)?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Panicked {}

impl Error {
    /// For a [`Codec`](crate::Codec): why a `T` could not be "encoded" or "decoded".
    ///
    /// ```
    /// let error = maniple::Error::codec::<u32>("decoded", "too few bytes");
    /// assert_eq!(error.to_string(), "a value of type u32 could not be decoded: too few bytes");
    /// ```
    pub fn codec<T: ?Sized>(what: &'static str, why: impl fmt::Display) -> Error {
        Error::Codec { what, type_name: std::any::type_name::<T>(), why: why.to_string() }
    }
}

impl From<maniple_engine::Error> for Error {
    fn from(error: maniple_engine::Error) -> Self {
        match error {
            maniple_engine::Error::NotRunning => Error::NotRunning,
            maniple_engine::Error::BothSend => Error::BothSend,
            other if ContactError::of(&other).is_some_and(ContactError::is_authentication) => {
                Error::Authentication(other.to_string())
            }
            other => Error::Engine(other),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Timeout(_) => io::ErrorKind::TimedOut,
            Error::Codec { .. } => io::ErrorKind::InvalidData,
            Error::NotRunning | Error::ManagerLost(_) => io::ErrorKind::NotConnected,
            Error::Address(_) | Error::InvalidArgument(_) => io::ErrorKind::InvalidInput,
            Error::Authentication(_) => io::ErrorKind::PermissionDenied,
            Error::WouldBlock => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_worker_says_who_how_what_and_its_last_words() {
        let lost = WorkerLost {
            pid: 12,
            exit: Exit::Killed(maniple_engine::process::Cause::KILL),
            task: "items 3 to 4".into(),
            stderr_tail: "out of memory\n".into(),
        };
        let text = Error::WorkerLost(Box::new(lost)).to_string();
        assert_eq!(
            text,
            "worker 12 was killed by signal 9 (SIGKILL) while it ran items 3 to 4; its standard error ended in:\nout of memory"
        );
    }

    #[test]
    fn an_error_fits_into_a_few_words() {
        assert!(size_of::<Error>() <= 64);
    }
}
