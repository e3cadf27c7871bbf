//! The options of a child.
#![allow(unsafe_code)]

use super::child::{self, Setup};
use super::start::Plan;
use super::stdio::{Stdio, stream};
use super::{IntoExitCode, Process, Running, Shared, current};
use crate::error::{Error, ProcessError, Result};
use crate::payload::Payload;
use crate::registered;
use crate::startup::{self, StartMethod};
use maniple_engine::process::{self as engine, ExitWatch, lifeline};
use maniple_sys as sys;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Builds a [`Process`]; see [`Process::builder`].
///
/// ```
/// use maniple::{Exit, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let process = Process::builder().name("counter").current_dir("/").build(|code: i32| code + 1, 2)?;
/// assert_eq!(process.name(), "counter");
/// process.start()?;
/// assert_eq!(process.join()?, Exit::Code(3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` or `fork` is called"]
pub struct ProcessBuilder {
    name: Option<String>,
    daemon: bool,
    environment: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
    stdio: [Stdio; 3],
    method: StartMethod,
    program: Option<PathBuf>,
}

impl ProcessBuilder {
    pub(super) fn new() -> ProcessBuilder {
        ProcessBuilder {
            name: None,
            daemon: false,
            environment: Vec::new(),
            folder: None,
            stdio: Default::default(),
            method: StartMethod::default(),
            program: None,
        }
    }

    /// Sets the name of the process, which [`current_process`](super::current_process) returns and messages contain.
    /// The default is `Process-1`, `Process-2` and so on.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let process = maniple::Process::builder().name("scanner").build(|()| (), ())?;
    /// assert_eq!(process.name(), "scanner");
    /// # Ok(())
    /// # }
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process is a daemon. A daemon ends with this process, at once and even if it is busy. Another
    /// process continues when this process is killed; dropping its last handle waits for it, for some seconds at most.
    /// By default a process is not a daemon.
    ///
    /// ```
    /// use maniple::Process;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().daemon(true).build(|()| loop { std::thread::park() }, ())?;
    /// process.start()?;
    /// // Ends it.
    /// drop(process);
    /// # Ok(())
    /// # }
    /// ```
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.daemon = daemon;
        self
    }

    /// Sets an environment variable, in addition to those of this process, which the process has by default.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().env("LEVEL", "3").build(|()| std::env::var("LEVEL").unwrap().parse::<i32>(), ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable. By default the process has all variables of this process.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().env_remove("PATH").build(|()| i32::from(std::env::var_os("PATH").is_some()), ())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Sets the working directory. The default is that of this process.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let process = Process::builder().current_dir("/").build(
    ///     |()| std::env::current_dir().map(|folder| i32::from(folder != std::path::Path::new("/"))),
    ///     (),
    /// )?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Sets the source of the standard input. The default is that of this process ([`Stdio::Inherit`]).
    ///
    /// ```
    /// use maniple::{Exit, Process};
    /// use std::io::Write;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (reader, mut writer) = std::io::pipe()?;
    /// let process = Process::builder()
    ///     .stdin(reader)
    ///     .build(|()| std::io::read_to_string(std::io::stdin()).unwrap().parse::<i32>(), ())?;
    /// process.start()?;
    /// writer.write_all(b"3")?;
    /// drop(writer);
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdio[0] = stdin.into();
        self
    }

    /// Sets the target of the standard output. The default is that of this process ([`Stdio::Inherit`]).
    ///
    /// ```
    /// use maniple::Process;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (reader, writer) = std::io::pipe()?;
    /// let process = Process::builder().stdout(writer).build(|name: String| println!("hello {name}"), "you".into())?;
    /// process.start()?;
    /// assert_eq!(std::io::read_to_string(reader)?, "hello you\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdio[1] = stdout.into();
        self
    }

    /// Sets the target of the standard error. The default is that of this process ([`Stdio::Inherit`]).
    ///
    /// ```
    /// use maniple::Process;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (reader, writer) = std::io::pipe()?;
    /// let process = Process::builder().stderr(writer).build(|()| Err::<(), _>("no such file"), ())?;
    /// process.start()?;
    /// assert_eq!(std::io::read_to_string(reader)?, "Error: \"no such file\"\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stdio[2] = stderr.into();
        self
    }

    /// Sets how the process is started. The default is [`StartMethod::Spawn`].
    ///
    /// ```
    /// use maniple::{Exit, Process, StartMethod};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().start_method(StartMethod::ForkServer).build(|code: i32| code, 3)?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.method = method;
        self
    }

    /// Sets the program that is started. The default is this program. Another program must be an executable that links
    /// this crate, and that calls [`init`](crate::init()) first in `main` if it is built without the feature `auto-init`;
    /// otherwise it runs its own `main`, and its exit code is not that of the function. The function is then called by the name under which it is registered in that program. So it must be a
    /// [task](macro@crate::task) of this program as well, or be named ([`build_named`](ProcessBuilder::build_named)).
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// #[maniple::task(name = "successor")]
    /// fn successor(code: i32) -> i32 {
    ///     code + 1
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let other_program = std::env::current_exe()?;
    /// let process = Process::builder().program(other_program).build(successor, 2)?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    fn setup(&mut self) -> Setup {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let name = self.name.take().unwrap_or_else(|| format!("Process-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        Setup {
            name,
            daemon: self.daemon,
            parent_name: current::current_process().name().to_owned(),
            parent: std::process::id(),
            environment: std::mem::take(&mut self.environment),
            folder: self.folder.take(),
            events: 0,
        }
    }

    /// Creates the process, without starting it.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let process = Process::builder().daemon(true).build(|word: String| word.len() as i32, "abc".into())?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Codec`] if the argument cannot be encoded, [`CallError::Function`](crate::CallError::Function) if the
    /// function is not part of the program.
    pub fn build<A: Payload, R: IntoExitCode + 'static>(self, function: fn(A) -> R, argument: A) -> Result<Process> {
        // First this check, whose error says what to do; then the check of the function.
        startup::check(self.program.as_deref())?;
        let call = match self.program {
            None => child::send(function, &argument)?,
            Some(_) => child::send_named(|output| registered::send_registered(function, output), &argument)?,
        };
        self.finish(call)
    }

    /// As [`build`](Self::build), for a function that the other program (or this program) has registered by name, as a
    /// [task](macro@crate::task). `R` is the function's result.
    ///
    /// If that program has no task of the name, the process writes that to its standard error and ends at once, with
    /// code 1.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// #[maniple::task(name = "count to")]
    /// fn count(up_to: i32) -> i32 {
    ///     (1..=up_to).last().unwrap_or(0)
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let other_program = std::env::current_exe()?;
    /// let process = Process::builder().program(other_program).build_named::<_, i32>("count to", 7)?;
    /// process.start()?;
    /// assert_eq!(process.join()?, Exit::Code(7));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Codec`] if the argument cannot be encoded.
    pub fn build_named<A: Payload, R: IntoExitCode + 'static>(self, name: &str, argument: A) -> Result<Process> {
        let call = child::send_named(|output| registered::send::<A, R>(name, output), &argument)?;
        self.finish(call)
    }

    fn finish(mut self, call: child::Called) -> Result<Process> {
        if self.program.is_some() && self.method != StartMethod::Spawn {
            return Err(Error::Process(ProcessError::Start(
                "the fork server forks this program; another program can only be spawned".into(),
            )));
        }
        startup::check(self.program.as_deref())?;
        let setup = self.setup();
        let (name, daemon) = (setup.name.clone(), setup.daemon);
        let plan = Plan { setup, call, stdio: self.stdio, method: self.method, program: self.program };
        Ok(Process { shared: Arc::new(shared(name, daemon, Some(plan), OnceLock::new())) })
    }

    /// Forks this process; the child calls `function` and ends. The child has a copy of this process's memory, so
    /// `function` may be any closure, and nothing is encoded.
    ///
    /// ```
    /// use maniple::{Exit, Process};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let words = ["a", "b", "c"];
    /// // SAFETY: this program has started no thread.
    /// let process = unsafe { Process::builder().fork(|| words.len() as i32)? };
    /// assert_eq!(process.join()?, Exit::Code(3));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Safety
    /// No other thread may be running: a lock that another thread holds, such as a lock of the memory allocator, stays
    /// locked in the child forever. (A program that has made a [`Pool`](crate::Pool) has such threads.) The caller is
    /// responsible for values that must not exist in two processes, such as those that delete a file when they are
    /// dropped. The child ends without dropping values outside of `function`.
    ///
    /// # Errors
    /// [`ProcessError::Start`] if the operating system refuses.
    pub unsafe fn fork<R: IntoExitCode>(mut self, function: impl FnOnce() -> R) -> Result<Process> {
        let setup = self.setup();
        let refused =
            |error: &dyn std::fmt::Display| Error::Process(ProcessError::Start(format!("could not fork: {error}")));
        let line = setup.daemon.then(lifeline::pair).transpose().map_err(|e| refused(&e))?;
        let (held, theirs) = line.unzip();
        let me = ExitWatch::of(std::process::id()).map_err(|e| refused(&e))?;
        // SAFETY: the caller promises that no other thread is running.
        match unsafe { engine::fork() }.map_err(|e| refused(&e))? {
            engine::Forked::Child => {
                let stdio = self.stdio.map(stream);
                sys::process::leave(child::in_fork(setup, stdio, me, theirs, function))
            }
            engine::Forked::Parent(child) => {
                let running = Running { child, relay: None, _lifeline: held };
                let process =
                    Process { shared: Arc::new(shared(setup.name, setup.daemon, None, OnceLock::from(running))) };
                current::remember(&process.shared);
                Ok(process)
            }
        }
    }
}

fn shared(name: String, daemon: bool, plan: Option<Plan>, running: OnceLock<Running>) -> Shared {
    Shared { name, daemon, owner: std::process::id(), plan: Mutex::new(plan), running }
}
