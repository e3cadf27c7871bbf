//! Errors of managers.

use super::{Error, travel};
use maniple_engine::process::Exit;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a manager refused a call: [`Error::Manager`].
///
/// ```
/// use maniple::managers::ManagerError;
///
/// # fn main() -> maniple::Result<()> {
/// let manager = maniple::Manager::new()?;
/// let error = manager.queue::<u8>(0)?.task_done().unwrap_err();
/// assert!(matches!(error, maniple::Error::Manager(ManagerError::TaskDoneTooOften)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// A call that was changing the object panicked before it had finished.
    #[error("this object is poisoned: a call that was changing it panicked; repair it, and call clear_poison()")]
    Poisoned,
    /// A party that waited at the barrier gave up or died, or the barrier was aborted or reset.
    #[error(
        "the barrier is broken: a waiting party gave up or died, or the barrier was aborted; reset() begins a new round"
    )]
    BrokenBarrier,
    /// The object was dropped before the proxy arrived.
    #[error("it no longer has this object: no other proxy for it was left when this proxy arrived")]
    ObjectGone,
    /// The value has this other type.
    #[error("its value has another type: {0}")]
    WrongType(String),
    /// This thread does not hold the lock.
    #[error("this thread does not hold this lock; lock it first")]
    NotHeld,
    /// This thread itself holds the lock.
    #[error("this thread already holds this lock and would wait for itself; use rlock()")]
    WouldDeadlock,
    /// A bounded semaphore would have more permits than at its creation.
    #[error("this bounded semaphore was released more often than acquired")]
    ReleasedTooOften,
    /// `task_done` was called more often than items were put.
    #[error("task_done() was called more often than items were put")]
    TaskDoneTooOften,
    /// The server runs another build of the program.
    #[error("its server runs another build of the program; run the same executable at both ends")]
    WrongBuild,
    /// The server was built with another version of this crate.
    #[error("it was built with another version of maniple; build both ends with the same version")]
    WrongVersion,
    /// A proxy arrived by a way on which keys are not sent.
    #[error("a proxy has arrived without its key; connect to its manager (Manager::connect) first")]
    MissingKey,
    /// A function that runs on an object called the same object through a proxy.
    #[error("this object is in use by the function that calls it; use the function's argument instead of a proxy")]
    Reentrant,
    /// The server lives, and had no thread or memory for another client.
    #[error("its server has no thread for another client; try again later, or raise the limit (ulimit -u)")]
    NoThread,
    /// Only a manager's server can do this.
    #[error("this process is not its server; use Manager::serve")]
    NotServer,
}

impl From<ManagerError> for Error {
    fn from(why: ManagerError) -> Error {
        Error::Manager(why)
    }
}

/// The end of a manager's server, as a client detected it.
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ManagerLost {
    /// The server's address.
    pub address: String,
    /// The end of the server's process, if it was a child of this process, has ended, and its `Manager` still exists.
    #[serde(with = "travel::option_exit")]
    pub exit: Option<Exit>,
    /// The way in which the client detected the end.
    pub why: String,
}

impl fmt::Display for ManagerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the manager at {} is lost", self.address)?;
        if let Some(exit) = &self.exit {
            write!(f, ", {exit}")?;
        }
        write!(f, ": {}; its objects are lost, start another manager", self.why)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for ManagerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ManagerLost {}
