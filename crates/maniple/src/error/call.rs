//! Errors of calls in other processes.

use super::Error;
use super::travel::{self, Fixed};
use maniple_engine::process::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a call could not be made, or has no result: [`Error::Call`].
///
/// A function that panicked is [`Error::Panicked`], a worker that died [`Error::WorkerLost`].
///
/// ```
/// use maniple::{CallError, Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(1)?;
/// pool.close();
/// assert!(matches!(pool.apply(i32::abs, -1), Err(Error::Call(CallError::NotRunning))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The function cannot be run in another process.
    #[error("this function cannot be sent to a worker: {0}")]
    Function(#[serde(deserialize_with = "travel::fixed")] Fixed),
    /// A function cannot be called by its name in the other program.
    #[error("the task {name} cannot be called: {why}")]
    Task {
        /// The name that the caller used.
        name: String,
        /// The reason, and the names that the program has.
        why: String,
    },
    /// The pool was closed or terminated before the call.
    #[error("the pool is not running: it was closed or terminated")]
    NotRunning,
    /// As many calls wait for a worker as [`max_backlog`](crate::PoolBuilder::max_backlog) allows. The call was not made.
    #[error("{max_backlog} calls of the pool wait for a worker already (max_backlog)")]
    BacklogFull {
        /// The limit.
        max_backlog: usize,
    },
    /// The call was cancelled ([`JobHandle::cancel`](crate::JobHandle::cancel), [`Pool::cancel_all`](crate::Pool::cancel_all))
    /// before it had run to its end.
    #[error("the call was cancelled before it had ended")]
    Cancelled,
    /// The pool was terminated ([`Pool::terminate`](crate::Pool::terminate), or its drop) before the call had run to its end.
    #[error("the pool was terminated before the call had ended")]
    Terminated,
    /// The initializer failed in a worker.
    #[error("the initializer failed in a worker: {0}")]
    Initializer(#[source] Box<Error>),
    /// An error in the worker, outside of the function. Contains the error's text.
    #[error("in the worker: {0}")]
    Remote(String),
    /// The value of the call has already been taken.
    #[error("the value of this call has already been taken")]
    Taken,
}

/// The end of a worker, and the task that it was running.
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerLost {
    /// The worker's process number.
    pub pid: u32,
    /// The end of the worker.
    #[serde(with = "travel::exit")]
    pub exit: Exit,
    /// The function that the worker was running, if its name is known, and the items of the call.
    pub task: String,
    /// The last lines of the worker's standard error. May be empty.
    pub stderr_tail: String,
    /// Whether the kernel has probably killed the worker, because memory ran out: the worker was killed, and the kernel
    /// has ended a process for that reason since the pool was built.
    pub out_of_memory: bool,
    /// The errors of the task's earlier tries, oldest first, if it had [`Retries`](crate::Retries).
    pub earlier: Vec<String>,
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} {}{} while it ran {}", self.pid, was(self.exit), self.exit, self.task)?;
        if self.out_of_memory {
            f.write_str(
                ", probably by the kernel, which has ended a process because memory ran out (see the kernel's log)",
            )?;
        }
        let tail = self.stderr_tail.trim_end();
        if !tail.is_empty() {
            write!(f, "; its standard error ended in:\n{tail}")?;
        }
        write_earlier(f, &self.earlier)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for WorkerLost {}

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
/// assert!(panicked.task.starts_with("apply of "));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Panicked {
    /// The panic's message.
    pub message: String,
    /// The panic's location as `file:line:column`, if it is known.
    pub location: Option<String>,
    /// The call stack. Empty when the worker's environment has `RUST_BACKTRACE=0`.
    pub backtrace: String,
    /// The worker's process number.
    pub pid: u32,
    /// The function that panicked, if its name is known, and the item of the call, as in [`WorkerLost::task`]. Empty for
    /// the initializer of a pool and for functions that a manager's server runs.
    pub task: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the function panicked in process {}", self.pid)?;
        if let Some(location) = &self.location {
            write!(f, " at {location}")?;
        }
        if !self.task.is_empty() {
            write!(f, " while it ran {}", self.task)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Writes what `Display` writes, and the call stack in lines of its own, because `main` and `unwrap` print an error in
/// this form.
impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let backtrace = self.backtrace.trim_end();
        if backtrace.is_empty() { Ok(()) } else { write!(f, "\nits call stack:\n{backtrace}") }
    }
}

impl std::error::Error for Panicked {}

/// Returns the verb for an exit, in a sentence about the process.
pub(crate) fn was(exit: Exit) -> &'static str {
    if matches!(exit, Exit::Killed(_)) { "was " } else { "" }
}

/// Writes the errors of a task's earlier tries, one a line.
pub(super) fn write_earlier(f: &mut fmt::Formatter<'_>, earlier: &[String]) -> fmt::Result {
    (1..).zip(earlier).try_for_each(|(number, error)| write!(f, "\ntry {number} failed: {error}"))
}
