//! What is to be known of a process to start it, and what a fork makes.

use crate::OwnedHandle;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where one of a child's three standard streams goes.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Where this process's own goes.
    #[default]
    Inherit,
    /// The null device: reading from it returns the end of the file.
    Null,
    /// To this handle.
    Handle(OwnedHandle),
}

/// A process to be started: the argument of [`start`](crate::process::start).
#[derive(Debug)]
pub struct Start {
    /// The program's file. `None`: the very file that runs now.
    pub program: Option<PathBuf>,
    /// Its arguments, its name first.
    pub arguments: Vec<OsString>,
    /// Its whole environment: names and values.
    pub environment: Vec<(OsString, OsString)>,
    /// The folder that it works in. `None`: this process's.
    pub folder: Option<PathBuf>,
    /// Its standard input, output and error.
    pub stdio: [Stdio; 3],
    /// What it gets under the same numbers; none of a standard stream's.
    pub handles: Vec<OwnedHandle>,
}

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The one that was there, with the new one's number and a handle on it.
    Parent(u32, OwnedHandle),
}
