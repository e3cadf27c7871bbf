//! The numbers of errors as C's library has them. The system's own calls have other numbers for the same errors.

use std::io::{self, ErrorKind};

/// The system's numbers, and C's. Numbers of the network are the same in both.
const NUMBERS: [(i32, i32); 22] = [
    (2, 2),     // no file
    (3, 2),     // no path
    (4, 24),    // too many open files
    (5, 13),    // access denied
    (6, 9),     // invalid handle
    (8, 12),    // not enough memory
    (14, 12),   // out of memory
    (18, 2),    // no more files
    (32, 13),   // in use
    (33, 13),   // locked
    (39, 28),   // disk full
    (80, 17),   // file exists
    (109, 32),  // broken pipe
    (112, 28),  // disk full
    (123, 22),  // invalid name
    (161, 2),   // bad path
    (183, 17),  // exists already
    (232, 32),  // the pipe is being closed
    (233, 32),  // the pipe has no other end
    (998, 14),  // invalid address
    (1450, 12), // no resources
    (1455, 12), // commitment limit
];

const EINVAL: i32 = 22;
const FIRST_OF_NETWORK: i32 = 10_000;

/// Returns the number that C's library has for an error. `None`: the error is none of the system's.
pub fn error_number(error: &io::Error) -> Option<i32> {
    match error.raw_os_error() {
        Some(number @ FIRST_OF_NETWORK..12_000) => Some(number),
        Some(number) => Some(NUMBERS.iter().find(|(system, _)| *system == number).map_or(EINVAL, |(_, c)| *c)),
        None => Some(match error.kind() {
            ErrorKind::NotFound => 2,
            ErrorKind::PermissionDenied => 13,
            ErrorKind::AlreadyExists => 17,
            ErrorKind::InvalidInput => EINVAL,
            ErrorKind::BrokenPipe => 32,
            ErrorKind::AddrInUse => 10_048,
            ErrorKind::ConnectionAborted => 10_053,
            ErrorKind::ConnectionReset => 10_054,
            ErrorKind::NotConnected => 10_057,
            ErrorKind::TimedOut => 10_060,
            ErrorKind::ConnectionRefused => 10_061,
            _ => return None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_numbers_of_the_c_library() {
        assert_eq!(error_number(&io::Error::from_raw_os_error(183)), Some(17));
        assert_eq!(error_number(&io::Error::from_raw_os_error(10_061)), Some(10_061));
        assert_eq!(error_number(&ErrorKind::BrokenPipe.into()), Some(32));
        assert_eq!(error_number(&io::Error::other("text")), None);
    }
}
