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

/// Returns the error of a receive that has no descriptor left for a handle.
pub fn out_of_handles() -> std::io::Error {
    rustix::io::Errno::MFILE.into()
}

/// Returns whether an error is [`out_of_handles`].
pub fn is_out_of_handles(e: &std::io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error())
}

/// Returns whether a send failed because too many handles of this user are in transit.
pub fn is_crowded(e: &std::io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error())
}
