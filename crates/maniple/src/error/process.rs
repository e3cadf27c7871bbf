//! What can go wrong with a process.

/// Why a process could not be started, or asked for something: [`Error::Process`](crate::Error::Process).
///
/// ```
/// use maniple::{Error, Process, ProcessError};
///
/// # fn main() -> maniple::Result<()> {
/// let error = Process::new(|()| (), ())?.join().unwrap_err();
/// assert!(matches!(error, Error::Process(ProcessError::State(_))));
/// assert_eq!(error.to_string(), "this process: it was not started; call start() first");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// No worker, process or server could be started.
    #[error("no worker could be started: {0}")]
    Start(String),
    /// A process was asked for something at the wrong time.
    #[error("this process: {0}")]
    State(&'static str),
}
