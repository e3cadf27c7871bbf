//! One error type for the whole engine.

use std::io;

/// The errors of the engine. Every message says which operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("could not {doing}: {source}{}", maniple_sys::advice(source))]
    Os {
        /// What was being done, as the object of "could not".
        doing: &'static str,
        /// The operating system's own error.
        source: io::Error,
    },
    /// The other side of a link wrote something that no healthy peer writes.
    #[error("a link to a worker is damaged: {0}")]
    Damaged(&'static str),
    /// The pool was closed or terminated.
    #[error("the pool is not running")]
    NotRunning,
    /// The handles given to a worker are not the ones a hub made.
    #[error("the handles are not those of a pool's link: {0}")]
    BadHandles(&'static str),
    /// A lock, semaphore, condition or event cannot be used in this way.
    #[error("could not use a lock in shared memory: {0}")]
    Lock(&'static str),
    /// A hub was used in a process that did not make it.
    #[error("this pool belongs to process {owner}, and a forked child cannot use it; make another pool in the child")]
    Foreign {
        /// The process that made the hub.
        owner: u32,
    },
    /// A worker's link was used in a process that the worker has forked.
    #[error(
        "a task forked this process and returned in the child as well; only the parent can answer the task: end the child, as by os._exit()"
    )]
    ForkedWorker,
    /// The caller's interrupt hook ended the wait.
    #[error("interrupted")]
    Interrupted,
    /// The other end of a connection is closed, and nothing is left to receive.
    #[error("the other end of the connection is closed")]
    EndOfStream,
    /// The other end of a connection was closed in the middle of a message, usually by its process's death.
    #[error("got end of file during message")]
    CutOff,
    /// Both ends of a connection send and wait for room, and neither receives.
    #[error(
        "both ends of this connection send and neither receives, so that each waits for the other; receive before you \
            send more, or receive in another thread"
    )]
    BothSend,
    /// The bytes received over a connection are not the length of a message.
    #[error("bad message length")]
    BadLength,
    /// A message is longer than its receiver allows.
    #[error("the message is longer than its receiver allows")]
    TooLong,
    /// An error of a part of the engine, such as [`ContactError`](crate::channel::listener::ContactError): a downcast
    /// returns that type.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// The hub ended while its worker waited.
    #[error("the hub has ended")]
    HubGone,
}

impl Error {
    /// This process has no memory left for the operation.
    #[cfg(not(loom))]
    pub(crate) fn out_of_memory(doing: &'static str) -> Error {
        Error::Os { doing, source: maniple_sys::memory::out_of_memory() }
    }

    /// Whether the system refused something, which says nothing about the other side.
    pub fn is_local(&self) -> bool {
        matches!(self, Error::Os { .. })
    }

    /// Whether a resource ran out that may be available again later: descriptors, memory, processes.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Error::Os { source, .. } if maniple_sys::is_shortage(source))
    }
}

/// The error of a start of a process or thread.
pub(crate) fn unstarted(doing: &'static str, source: io::Error) -> Error {
    let is_limited = maniple_sys::is_limit_of_processes(&source);
    let limited = "start another process or thread: the limit on their number is reached (ulimit -u)";
    Error::Os { doing: if is_limited { limited } else { doing }, source }
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names what was being done when an operating-system call failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &'static str) -> Result<T> {
        self.map_err(|e| Error::Os { doing: what, source: e.into() })
    }
}
