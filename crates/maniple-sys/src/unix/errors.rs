//! The kinds of errors.

/// Returns whether the system lacked a resource that may be available again later: descriptors, memory, processes,
/// room.
pub fn is_shortage(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    const ALL: [Errno; 7] =
        [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOSPC, Errno::FBIG, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|number| ALL.iter().any(|errno| errno.raw_os_error() == number))
}

/// Returns whether the error of a start of a process or thread reports a limit on their number.
pub fn is_limit_of_processes(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error())
}

/// Returns the error's own number.
pub fn error_number(error: &std::io::Error) -> Option<i32> {
    error.raw_os_error()
}
