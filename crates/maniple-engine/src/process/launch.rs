//! Starts a program in a fresh process.
//!
//! Only the Rust front uses it: a Python child is started by the interpreter's fork, or by the standard package's
//! command line.

use super::child::Child;
use super::inherit;
use crate::error::{Doing, Result, unstarted};
use maniple_sys as sys;
use maniple_sys::OwnedHandle;
use maniple_sys::process::{Start, Stdio};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

/// A builder for a program start.
///
/// ```
/// use maniple_engine::process::{Exit, Launch};
///
/// # fn main() -> maniple_engine::Result<()> {
/// let child = Launch::program("/bin/sh").arg("-c").arg("exit $CODE").env("CODE", "3").start()?;
/// assert_eq!(child.wait()?, Exit::Code(3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Launch {
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    changes: Vec<(OsString, Option<OsString>)>,
    folder: Option<PathBuf>,
    stdio: [Stdio; 3],
    handles: Vec<OwnedHandle>,
    role: Option<String>,
    is_free: bool,
}

impl Launch {
    /// Starts this program again, with the same arguments: the same file, even if its name now belongs to another file.
    pub fn this_program() -> Launch {
        Launch { arguments: std::env::args_os().collect(), ..Launch::default() }
    }

    /// The program in the file `path`.
    pub fn program(path: impl Into<PathBuf>) -> Launch {
        let path = path.into();
        Launch { arguments: vec![path.clone().into()], program: Some(path), ..Launch::default() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Launch {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable for the child, in addition to those of this process.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Launch {
        self.changes.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable for the child.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Launch {
        self.changes.push((name.into(), None));
        self
    }

    /// The child's working directory.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Launch {
        self.folder = Some(folder.into());
        self
    }

    /// The child's standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdio) -> Launch {
        self.stdio[0] = stdin;
        self
    }

    /// The child's standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: Stdio) -> Launch {
        self.stdio[1] = stdout;
        self
    }

    /// The child's standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: Stdio) -> Launch {
        self.stdio[2] = stderr;
        self
    }

    /// The child's role, which it reads from [`super::inherited`].
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Launch {
        self.role = Some(role.into());
        self
    }

    /// The child continues if this process is killed, on every system. Windows ends other children then; elsewhere it
    /// makes no difference.
    #[must_use]
    pub fn free(mut self) -> Launch {
        self.is_free = true;
        self
    }

    /// Handles for the child, under the same numbers; it reads them from [`super::inherited`] if a role is given. No
    /// other child gets them, also if another thread starts it at the same time.
    #[must_use]
    pub fn handles(mut self, handles: Vec<OwnedHandle>) -> Launch {
        self.handles.extend(handles);
        self
    }

    /// Starts the child. It has default signal handling, no blocked signal, and of this process's descriptors only the
    /// standard streams and the passed handles. This process's copies of these handles are closed.
    ///
    /// # Errors
    /// The program cannot be run, or there are too many processes or descriptors.
    pub fn start(mut self) -> Result<Child> {
        // The child gets a handle under its own number, which must not be that of a standard stream.
        let handles = std::mem::take(&mut self.handles).into_iter().map(sys::own::above_stdio);
        self.handles =
            handles.collect::<Result<_, _>>().doing("move a handle out of the way of the standard streams")?;
        // Without handles on processes, a pipe's end that the child holds reports its end.
        let (watch, held) = match sys::process::has_handles() {
            true => (None, None),
            false => sys::process::lifeline().map(|(watch, held)| (Some(watch), Some(held))).doing("make a pipe")?,
        };
        self.changes.push(match &self.role {
            Some(role) => (inherit::VARIABLE.into(), Some(inherit::announce(role, &self.handles, held.as_ref()))),
            None => (inherit::VARIABLE.into(), None),
        });
        self.handles.extend(held);
        let start = Start {
            environment: self.environment(),
            program: self.program,
            arguments: self.arguments,
            folder: self.folder,
            stdio: self.stdio,
            handles: self.handles,
        };
        let named = |error: io::Error| match (&start.program, error.kind()) {
            // Which file it was, and not this program's own, is what the caller has to know.
            (Some(program), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                io::Error::new(error.kind(), format!("{}: {error}", program.display()))
            }
            _ => error,
        };
        let started =
            if self.is_free { sys::process::start_free(&start, watch) } else { sys::process::start(&start, watch) };
        let (pid, handle) = started.map_err(named).map_err(|e| unstarted("start a process", e))?;
        Ok(Child::ours(pid, handle))
    }

    /// The child's whole environment.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let is_same = |one: &OsStr, other: &OsStr| sys::process::is_same_variable(one, other);
        let changed = |name: &OsStr| self.changes.iter().any(|(n, _)| is_same(n, name));
        let mut all: Vec<_> = std::env::vars_os().filter(|(name, _)| !changed(name)).collect();
        for (at, (name, value)) in self.changes.iter().enumerate() {
            let last = self.changes[at + 1..].iter().all(|(later, _)| !is_same(later, name));
            if let (true, Some(value)) = (last, value) {
                all.push((name.clone(), value.clone()));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_in_an_environment_once() {
        let launch = Launch::this_program().env("MANIPLE_a", "1").env("MANIPLE_A", "2").env_remove("path");
        let environment = launch.environment();
        let values = |name: &str| {
            let is = |n: &OsStr| n.to_str().is_some_and(|n| n.eq_ignore_ascii_case(name));
            environment.iter().filter(|(n, _)| is(n)).map(|(_, value)| value.to_str().unwrap()).collect::<Vec<_>>()
        };
        if sys::process::is_same_variable(OsStr::new("a"), OsStr::new("A")) {
            assert_eq!((values("maniple_a"), values("PATH").len()), (vec!["2"], 0));
        } else {
            assert_eq!((values("maniple_a"), values("PATH").len()), (vec!["1", "2"], 1));
        }
    }
}
