//! How a process ended.

use std::fmt;

/// How a process ended.
///
/// ```
/// use maniple_sys::process::{Cause, Exit};
///
/// assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
/// assert_eq!(Exit::Killed(Cause::KILL).number(), Some(-Cause::KILL.number()));
/// assert!(Exit::Code(0).success());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// The system or another process ended it.
    Killed(Cause),
    /// It has ended, and another part of the program took its status: the program waits for all its children elsewhere,
    /// makes the system discard their status, or the server that forked it was killed.
    Unknown,
}

/// The cause of a process's end: on Unix the number of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause(i32);

impl Cause {
    /// It received a request to end, as Ctrl-C sends it.
    pub const INTERRUPT: Cause = Cause(2);
    /// It aborted.
    pub const ABORT: Cause = Cause(6);
    /// It was ended at once.
    pub const KILL: Cause = Cause(9);
    /// It accessed memory that is not mapped, or not for this access.
    pub const BAD_ACCESS: Cause = Cause(11);
    /// It received a request to end.
    pub const TERMINATE: Cause = Cause(15);

    /// Returns the cause with this number.
    pub const fn from_number(number: i32) -> Cause {
        Cause(number)
    }

    /// Returns its number. The numbers of the named causes are the same on every system, as Python's negative exit
    /// codes are.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl Exit {
    /// Returns whether the process ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// Returns whether the process was ended at once, as [`kill`](crate::process::kill) ends it.
    pub fn is_kill(self) -> bool {
        self == Exit::Killed(Cause::KILL)
    }

    /// Returns the number of Python's `exitcode`: the code, or the negated number of the cause; `None` if it is
    /// unknown.
    pub fn number(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Killed(cause) => Some(-cause.0),
            Exit::Unknown => None,
        }
    }

    /// Returns the exit of a number that [`Exit::number`] returned.
    pub fn from_number(number: i32) -> Exit {
        if number < 0 { Exit::Killed(Cause(-number)) } else { Exit::Code(number) }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::process::cause_name(*self) {
            Some(name) => write!(f, "signal {} ({name})", self.0),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Killed(cause) => write!(f, "killed by {cause}"),
            Exit::Unknown => f.write_str("ended, and another part of the program took its exit status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, Exit};

    #[test]
    #[cfg(unix)]
    fn an_exit_names_a_known_signal() {
        assert_eq!(Exit::Killed(Cause::BAD_ACCESS).to_string(), "killed by signal 11 (SIGSEGV)");
        assert_eq!(Exit::Killed(Cause::from_number(50)).to_string(), "killed by signal 50");
    }

    #[test]
    fn an_exit_has_the_number_of_pythons_exitcode() {
        for exit in [Exit::Code(7), Exit::Killed(Cause::KILL)] {
            assert_eq!(exit.number().map(Exit::from_number), Some(exit));
        }
        assert_eq!((Exit::Code(7).number(), Exit::Killed(Cause::KILL).number()), (Some(7), Some(-9)));
        assert_eq!(Exit::Unknown.number(), None);
    }
}
