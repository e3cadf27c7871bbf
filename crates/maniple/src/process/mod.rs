//! Functions in separate processes.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `mod` | [`Process`]: the parent's handle on a child |
//! | `builder`, `stdio` | the options of a child; its standard streams |
//! | `start` | the start of a child, by a new program or by the fork server |
//! | `child` | the child's side: decode the argument, call the function, end |
//! | `spawn` | [`spawn()`] and [`JoinHandle`]: a function in a separate process, with its result |
//! | `exit_code` | [`IntoExitCode`]: what a child's function may return |
//! | `current` | data of a process, its parent and its children |
//!
//! # Life
//! ```text
//!            start                the function returns, panics, exits, or is killed          join
//!   new ──────────────▶ running ─────────────────────────────────────────────────▶ ended ──────────▶ reaped
//! ```
//! A daemon holds a lifeline: it dies when its parent ends in any way. Another child continues if its parent is killed.
//! Dropping the last handle ends a daemon. For another child it waits some seconds; a child that takes longer
//! continues, and a thread waits for it. So no zombie is left, no child except a daemon is interrupted, and every drop
//! has a time limit.

mod builder;
pub(crate) mod child;
mod current;
mod exit_code;
mod spawn;
mod start;
mod stdio;

use crate::error::{Error, ProcessError, Result};
use crate::events::Relay;
use crate::payload::Payload;
pub use builder::ProcessBuilder;
pub use current::{CurrentProcess, ParentProcess, active_children, cpu_count, current_process, parent_process};
pub use exit_code::IntoExitCode;
use maniple_engine::process::{Child, Exit, lifeline::LifelineHub};
use maniple_sys::ready::{self, Interest};
use maniple_sys::{AsHandle, BorrowedHandle};
pub use spawn::{JoinHandle, spawn};
use start::Plan;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
pub use stdio::Stdio;

/// A handle on a process that runs a function. It exists before, while and after the process runs. Clones are handles
/// on the same process.
///
/// Dropping the last handle ends a daemon. For another process it waits for 5 seconds at most; then the process
/// continues by itself. To wait without a limit, call [`join`](Process::join).
///
/// ```
/// use maniple::{Exit, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::new(
///     |(what, code): (String, i32)| {
///         println!("{what}");
///         std::process::exit(code)
///     },
///     ("done".to_string(), 3),
/// )?;
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a process begins when `start` is called, and its drop waits for it or ends it"]
pub struct Process {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    daemon: bool,
    /// The process that made this handle. In a forked child of it, the handle is a mere copy.
    owner: u32,
    plan: Mutex<Option<Plan>>,
    running: OnceLock<Running>,
}

/// How long the drop of the last handle waits for the process's end.
const FAREWELL: Duration = Duration::from_secs(5);

struct Running {
    child: Child,
    // The reader of its tracing events.
    relay: Option<Relay>,
    // A daemon's. Held as long as it may live.
    _lifeline: Option<LifelineHub>,
}

impl Process {
    /// Creates a process that calls `function(argument)`. [`start`](Process::start) starts it.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|(a, b): (i32, i32)| a + b, (1, 2))?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Codec`] if the argument cannot be encoded, [`CallError::Function`](crate::CallError::Function) if the
    /// function is not part of the program.
    pub fn new<A: Payload, R: IntoExitCode + 'static>(function: fn(A) -> R, argument: A) -> Result<Process> {
        Process::builder().build(function, argument)
    }

    /// Returns a builder for a process with further options: a name, daemon, another environment, and so on.
    ///
    /// ```
    /// use maniple::{Exit, Process, Stdio};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder()
    ///     .name("quiet")
    ///     .daemon(true)
    ///     .env("LEVEL", "3")
    ///     .stdout(Stdio::Null)
    ///     .build(|()| std::env::var("LEVEL").unwrap().parse::<i32>(), ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::new()
    }

    /// Starts the process. A process can be started once.
    ///
    /// ```
    /// use maniple::{Error, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|()| (), ())?;
    /// process.start()?;
    /// assert!(matches!(process.start(), Err(Error::Process(_))));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was started before, [`ProcessError::Start`] if the operating system refuses.
    pub fn start(&self) -> Result<()> {
        // Locked during the start, so that a second caller continues only when the child exists.
        let mut plan = self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = plan.take() else {
            return Err(self.state("has already been started; make another process"));
        };
        let running = taken.start()?;
        let _ = self.shared.running.set(running);
        current::remember(&self.shared);
        Ok(())
    }

    /// Every call to the handle uses it, so the process's events are passed on.
    fn running(&self) -> Result<&Running> {
        let running = self.shared.running.get();
        if let Some(relay) = running.and_then(|running| running.relay.as_ref()) {
            relay.deliver();
        }
        running.ok_or_else(|| self.state("was not started; call start() first"))
    }

    /// The error of a call that needs another state of the process.
    fn state(&self, what: &str) -> Error {
        Error::Process(ProcessError::State(format!("{:?} {what}", self.shared.name)))
    }

    /// Waits until the process has ended, and returns how it ended.
    ///
    /// ```
    /// use maniple::{Cause, Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|()| std::process::abort(), ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Killed(Cause::ABORT));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub fn join(&self) -> Result<Exit> {
        self.running()?.wait(None)?;
        let exit = self.running()?.child.wait()?;
        self.running()?;
        Ok(exit)
    }

    /// As [`join`](Self::join), for at most `timeout`.
    ///
    /// ```
    /// use maniple::{Cause, Error, Exit, Process};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// process.start()?;
    /// assert_eq!(process.join_timeout(Duration::from_millis(1))?, None);
    /// process.kill()?;
    /// assert_eq!(process.join_timeout(Duration::MAX)?, Some(Exit::Killed(Cause::KILL)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<Exit>> {
        let until = Instant::now().checked_add(timeout);
        self.running()?.wait(until)?;
        let left = until.map_or(timeout, |until| until.saturating_duration_since(Instant::now()));
        let ended = self.running()?.child.wait_timeout(left)?;
        self.running()?;
        Ok(ended)
    }

    /// As [`join`](Process::join), as a future, with any executor.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    #[doc = include_str!("../block_on.txt")]
    /// async fn run(code: i32) -> maniple::Result<Exit> {
    ///     let process = Process::new(|code: i32| code, code)?;
    ///     process.start()?;
    ///     process.join_async().await
    /// }
    ///
    /// assert_eq!(block_on(run(3)).unwrap(), Exit::Code(3));
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub async fn join_async(&self) -> Result<Exit> {
        crate::transport::until_readable(self.sentinel()?).await?;
        self.join()
    }

    /// Returns whether the process was started and has not ended.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let process = maniple::Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// process.start()?;
    /// assert!(process.is_alive());
    /// process.kill()?;
    /// process.join()?;
    /// assert!(!process.is_alive());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A process that cannot be asked for lack of memory is not dead.
        self.running().is_ok_and(|running| {
            running.child.try_wait().map_or_else(|error| error.is_shortage(), |exit| exit.is_none())
        })
    }

    /// Returns how the process ended, if it has.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::new(|()| 3, ())?;
    /// assert_eq!(process.exit_status(), None);
    /// process.start()?;
    /// process.join()?;
    /// assert_eq!(process.exit_status(), Some(Exit::Code(3)));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn exit_status(&self) -> Option<Exit> {
        self.running().ok()?.child.try_wait().ok()?
    }

    /// Returns the process number, after the start.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let process = maniple::Process::new(|()| (), ())?;
    /// assert_eq!(process.pid(), None);
    /// process.start()?;
    /// assert!(process.pid().is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.running().ok()?.child.pid())
    }

    /// Returns the given name, or `Process-1`, `Process-2` and so on.
    ///
    /// ```
    /// use maniple::Process;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// assert_eq!(Process::new(|()| (), ())?.name(), "Process-1");
    /// assert_eq!(Process::builder().name("scanner").build(|()| (), ())?.name(), "scanner");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Returns whether the process ends with its parent.
    ///
    /// ```
    /// use maniple::Process;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// assert!(!Process::new(|()| (), ())?.is_daemon());
    /// assert!(Process::builder().daemon(true).build(|()| (), ())?.is_daemon());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.shared.daemon
    }

    /// Asks the process to end (`SIGTERM`). It is not an error if the process has ended.
    ///
    /// ```
    /// use maniple::{Cause, Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// process.start()?;
    /// process.terminate()?;
    /// assert_eq!(process.join()?, Exit::Killed(Cause::TERMINATE));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub fn terminate(&self) -> Result<()> {
        Ok(self.running()?.child.terminate()?)
    }

    /// Ends the process at once (`SIGKILL`). It is not an error if the process has ended.
    ///
    /// ```
    /// use maniple::{Cause, Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// process.start()?;
    /// process.kill()?;
    /// assert_eq!(process.join()?, Exit::Killed(Cause::KILL));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub fn kill(&self) -> Result<()> {
        Ok(self.running()?.child.kill()?)
    }

    /// Returns a descriptor that becomes readable when the process ends, for [`wait()`](crate::wait()) and selectors.
    ///
    /// ```
    /// use maniple::{Process, wait};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let endless = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// let short = Process::new(|()| (), ())?;
    /// endless.start()?;
    /// short.start()?;
    /// assert_eq!(wait(&[&endless.sentinel()?, &short.sentinel()?])?, [1]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProcessError::State`] if it was not started.
    pub fn sentinel(&self) -> Result<BorrowedHandle<'_>> {
        Ok(self.running()?.child.watch().as_handle())
    }
}

impl Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("Process");
        it.field("name", &self.shared.name).field("daemon", &self.shared.daemon);
        match self.running() {
            Err(_) => it.field("state", &format_args!("not started")),
            Ok(running) => {
                it.field("pid", &running.child.pid());
                match running.child.try_wait() {
                    Ok(Some(exit)) => it.field("state", &format_args!("{exit}")),
                    _ => it.field("state", &format_args!("running")),
                }
            }
        };
        it.finish()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::process::id() != self.owner {
            return;
        }
        let Some(running) = self.running.take() else { return };
        if self.daemon {
            let _ = running.child.kill();
        }
        if !running.see_out(Some(FAREWELL)) {
            // It continues, and is not left as a zombie when it ends.
            let reap = move || running.see_out(None);
            let _ = std::thread::Builder::new().name("maniple-reaper".into()).spawn(reap);
        }
    }
}

impl Running {
    /// Waits for its end, for at most `limit`, and passes on its events. Returns false if it still runs.
    fn see_out(&self, limit: Option<Duration>) -> bool {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let _ = self.wait(until);
        let ended = match until {
            None => self.child.wait().is_ok(),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                !matches!(self.child.wait_timeout(left), Ok(None))
            }
        };
        if let Some(relay) = &self.relay {
            relay.deliver();
        }
        ended
    }

    /// Passes on the process's events until it has ended or the time limit expires.
    fn wait(&self, until: Option<Instant>) -> Result<()> {
        let Some(relay) = &self.relay else { return Ok(()) };
        let mut open = true;
        while open && self.child.try_wait()?.is_none() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            let mut either = [Interest::new(self.child.watch().as_handle()), Interest::new(relay.as_handle())];
            let failed = |source| maniple_engine::Error::Os { doing: "wait for a process", source };
            ready::wait(&mut either, left).map_err(failed)?;
            if either[1].ready() {
                open = relay.deliver();
            }
        }
        Ok(())
    }
}
