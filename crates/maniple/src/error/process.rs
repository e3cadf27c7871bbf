//! Errors of processes.

/// Why a process could not be started, or a call to its handle failed: [`Error::Process`](crate::Error::Process).
///
/// ```
/// use maniple::{Error, Process, ProcessError};
///
/// # fn main() -> maniple::Result<()> {
/// let error = Process::builder().name("scanner").build(|()| (), ())?.join().unwrap_err();
/// assert!(matches!(error, Error::Process(ProcessError::State(_))));
/// assert_eq!(error.to_string(), "the process \"scanner\" was not started; call start() first");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A worker, process or server could not be started.
    #[error("no process or thread could be started: {0}")]
    Start(String),
    /// The process was not in the state that the call needs. Contains the process's name.
    #[error("the process {0}")]
    State(String),
}
