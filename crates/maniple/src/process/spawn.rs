//! One function in a separate process, with its result.
#![allow(unsafe_code)]

use super::Process;
use crate::callee::Callee;
use crate::error::{CallError, ChannelError, Error, Result, TimeoutError, WorkerLost};
use crate::failure::Failure;
use crate::identity::{Function, Identity};
use crate::panic;
use crate::payload::Payload;
use crate::startup;
use crate::transport::{Receiver, Sender, channel, until_readable, wait, wait_timeout};
use maniple_sys::AsHandle;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::any::type_name;
use std::fmt;
use std::time::Duration;

/// How long a process has to end after its function returned.
const END: Duration = Duration::from_secs(5);

/// How the function ended.
type Outcome<R> = Result<R, Failure>;

/// The data that the process needs.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "A: Serialize", deserialize = "A: Deserialize<'de>"))]
struct Work<A, R> {
    function: Sent<A, R>,
    argument: A,
    result: Sender<Outcome<R>>,
}

/// A function on its way.
struct Sent<A, R>(fn(A) -> R);

impl<A, R> Serialize for Sent<A, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Identity::of(self.0.address()).map_err(ser::Error::custom)?.encode().serialize(serializer)
    }
}

impl<'de, A, R> Deserialize<'de> for Sent<A, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <[u8; crate::identity::LEN]>::deserialize(deserializer)?;
        let address = Identity::decode(&mut &bytes[..]).and_then(Identity::address).map_err(de::Error::custom)?;
        // SAFETY: `spawn` of exactly these types wrote the identity of a function of this type, and the process reads
        // it in `work` of the same types. `Identity::address` has checked that the identity belongs to this build.
        Ok(Sent(unsafe { Function::recall(address) }))
    }
}

fn work<A: Payload, R: Payload>(work: Work<A, R>) -> Result<()> {
    panic::install_hook();
    let Work { function, argument, result } = work;
    let outcome = panic::caught(|| (function.0)(argument)).map_err(|panicked| Failure::Panicked(*panicked));
    result.send(&outcome).or_else(|error| result.send(&Err(Failure::from(error))))
}

/// Runs `function(argument)` in a separate process, and returns a handle on its result.
///
/// For many calls use a [`Pool`](crate::Pool), which starts its processes once. For a process without a result, or with
/// a name, another environment or other streams, use a [`Process`].
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let lengths = maniple::spawn(|words: Vec<String>| words.iter().map(String::len).sum::<usize>(), vec!["ab".into(), "c".into()])?;
/// // Something else meanwhile.
/// assert_eq!(lengths.join()?, 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Codec`] if the argument cannot be encoded, [`CallError::Function`] if the function is not part of the
/// program, [`ProcessError::Start`](crate::ProcessError::Start) if the operating system refuses.
pub fn spawn<A: Payload, R: Payload>(function: fn(A) -> R, argument: A) -> Result<JoinHandle<R>> {
    // Asked first, for the errors that say why.
    startup::check(None)?;
    Identity::of(function.address())?;
    let (sender, receiver) = channel()?;
    let callee = Callee::Pointer(function.address().addr(), type_name::<fn(A) -> R>());
    let given = Work { function: Sent(function), argument, result: sender };
    let process = Process::builder().daemon(true).build(work::<A, R>, given)?;
    process.start()?;
    Ok(JoinHandle { process, receiver, callee, taken: false })
}

/// A handle on the result of a function in a separate process. [`spawn`] returns it.
///
/// Dropping it ends the process at once; the result is lost.
///
/// ```
/// use maniple::{Cause, Error, Exit};
///
/// # fn main() -> maniple::Result<()> {
/// let crash = maniple::spawn(|()| -> u8 { std::process::abort() }, ())?;
/// let Err(Error::WorkerLost(lost)) = crash.join() else { panic!("it has a value") };
/// assert_eq!(lost.exit, Exit::Killed(Cause::ABORT));
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it ends the process"]
pub struct JoinHandle<R> {
    process: Process,
    receiver: Receiver<Outcome<R>>,
    callee: Callee,
    taken: bool,
}

impl<R: Payload> JoinHandle<R> {
    /// Waits for the function's end, and returns its result.
    ///
    /// ```
    /// use maniple::Error;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let failed = maniple::spawn(|x: u32| 1 / x, 0)?;
    /// let Err(Error::Panicked(panicked)) = failed.join() else { panic!("it has a value") };
    /// assert_eq!(panicked.message, "attempt to divide by zero");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Panicked`] if the function panicked, [`Error::WorkerLost`] if its process ended in another way,
    /// [`Error::Codec`] if the result cannot be decoded, [`CallError::Taken`] if it was returned before.
    pub fn join(mut self) -> Result<R> {
        wait(&[&self.receiver, &self.process.sentinel()?])?;
        self.take()
    }

    /// Waits for at most `timeout`. The function continues after that, and the handle can be waited on again.
    ///
    /// ```
    /// use maniple::Error;
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let mut nap = maniple::spawn(|ms| std::thread::sleep(Duration::from_millis(ms)), 100)?;
    /// assert!(matches!(nap.join_timeout(Duration::from_millis(1)), Err(Error::Timeout(_))));
    /// nap.join()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], or as [`join`](JoinHandle::join).
    pub fn join_timeout(&mut self, timeout: Duration) -> Result<R> {
        match wait_timeout(&[&self.receiver, &self.process.sentinel()?], timeout) {
            Err(Error::Timeout(_)) => Err(TimeoutError::new("the function to return", timeout).into()),
            ready => ready.and_then(|_| self.take()),
        }
    }

    /// As [`join`](JoinHandle::join), as a future with any executor.
    ///
    /// ```
    /// async fn total(words: Vec<String>) -> maniple::Result<usize> {
    ///     maniple::spawn(|words: Vec<String>| words.iter().map(String::len).sum(), words)?.join_async().await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`join`](JoinHandle::join).
    pub async fn join_async(mut self) -> Result<R> {
        // The end of the process closes it.
        until_readable(self.receiver.as_handle()).await?;
        self.take()
    }

    /// Returns whether the function has returned, or its process has ended.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let endless = maniple::spawn(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(!endless.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_finished(&self) -> bool {
        self.taken || self.receiver.poll().unwrap_or(true) || !self.process.is_alive()
    }

    /// Returns the handle on the process.
    ///
    /// ```
    /// use maniple::Error;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let endless = maniple::spawn(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// endless.process().kill()?;
    /// assert!(matches!(endless.join(), Err(Error::WorkerLost(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn process(&self) -> &Process {
        &self.process
    }

    fn take(&mut self) -> Result<R> {
        if std::mem::replace(&mut self.taken, true) {
            return Err(CallError::Taken.into());
        }
        match self.receiver.try_recv() {
            Ok(None) | Err(Error::Channel(ChannelError::Closed)) => Err(self.lost()?),
            Err(error) => Err(error),
            Ok(Some(outcome)) => {
                // The process is about to end. It may still be doing work, such as flushing a file, which must not be
                // interrupted.
                let _ = self.process.join_timeout(END);
                outcome.map_err(|failure| {
                    let mut error = Error::from(failure);
                    if let Error::Panicked(panicked) = &mut error {
                        panicked.task = self.task();
                    }
                    error
                })
            }
        }
    }

    fn task(&self) -> String {
        format!("spawn of {}", self.callee)
    }

    fn lost(&self) -> Result<Error> {
        let (pid, exit) = (self.process.pid().unwrap_or(0), self.process.join()?);
        Ok(Error::WorkerLost(Box::new(WorkerLost {
            pid,
            exit,
            task: self.task(),
            stderr_tail: String::new(),
            out_of_memory: false,
            earlier: Vec::new(),
        })))
    }
}

impl<R> fmt::Debug for JoinHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("process", &self.process).finish_non_exhaustive()
    }
}
