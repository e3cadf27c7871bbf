//! How a process ended.

use std::fmt;

/// How a process ended.
///
/// ```
/// use maniple_sys::process::Exit;
///
/// assert_eq!(Exit::Code(3).to_string(), "exited with code 3");
/// assert_eq!(Exit::Signal(9).to_string(), "killed by signal 9 (SIGKILL)");
/// assert!(Exit::Code(0).success());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It ended by itself with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It has ended, and somebody else took its status: the program waits for all its children elsewhere, ignores
    /// `SIGCHLD`, or the server that forked it was killed.
    Unknown,
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }

    /// One number, as Python's `exitcode` has it: the code, or the negated signal; `None` when unknown.
    pub fn number(self) -> Option<i32> {
        match self {
            Exit::Code(code) => Some(code),
            Exit::Signal(signal) => Some(-signal),
            Exit::Unknown => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(signal) => match crate::process::signal_name(signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            Exit::Unknown => f.write_str("ended, and its exit status was taken by someone else"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn names_the_signal_it_can_name() {
        assert_eq!(Exit::Signal(11).to_string(), "killed by signal 11 (SIGSEGV)");
        assert_eq!(Exit::Signal(50).to_string(), "killed by signal 50");
    }

    #[test]
    fn gives_a_number_as_python_does() {
        assert_eq!(Exit::Code(7).number(), Some(7));
        assert_eq!(Exit::Signal(9).number(), Some(-9));
        assert_eq!(Exit::Unknown.number(), None);
    }
}
