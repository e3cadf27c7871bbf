//! The description of a process to start, the two sides of a fork, and the environment.

use crate::OwnedHandle;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The target of a child's standard stream.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The target of this process's own stream.
    #[default]
    Inherit,
    /// The null device: reading from it returns the end of the file.
    Null,
    /// This handle.
    Handle(OwnedHandle),
}

/// A process to be started: the argument of [`start`](crate::process::start).
#[derive(Debug)]
pub struct Start {
    /// The program's file. `None`: the file that runs now.
    pub program: Option<PathBuf>,
    /// Its arguments, its name first.
    pub arguments: Vec<OsString>,
    /// Its whole environment: names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory. `None`: this process's.
    pub folder: Option<PathBuf>,
    /// Its standard input, output and error.
    pub stdio: [Stdio; 3],
    /// The handles that it inherits, under the same numbers; none of them a standard stream's.
    pub handles: Vec<OwnedHandle>,
}

/// The side of a fork.
pub enum Forked {
    /// The new process.
    Child,
    /// The process that forked, with the child's number and a handle on the child.
    Parent(u32, OwnedHandle),
}

/// Sets a variable of the environment, or removes it.
///
/// # Safety
/// No other thread of this process reads or changes the environment meanwhile.
#[allow(unsafe_code)]
pub unsafe fn set_variable(name: &OsStr, value: Option<&OsStr>) {
    // SAFETY: the caller ensures that no other thread uses the environment.
    unsafe {
        match value {
            Some(value) => std::env::set_var(name, value),
            None => std::env::remove_var(name),
        }
    }
}
