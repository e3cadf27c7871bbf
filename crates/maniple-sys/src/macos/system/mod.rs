//! What only this system has. Everything else of the backend is POSIX.
//!
//! `darwin/` is macOS. `stand_in/` has the same items on Linux, for tests of the rest of the backend
//! (`--cfg maniple_posix`); it has no call to sleep on a word, so the waits poll.
//!
//! | module | what it answers |
//! | --- | --- |
//! | `word` | sleeps on a word in shared memory, and wakes its sleepers |
//! | `deaths` | the ends of processes |
//! | `processes` | when a process began, its relatives and its memory; threads; limits |
//! | `objects` | shared memory without a name |
//! | `sockets` | the other end of a local socket, and its unreceived bytes |
//! | `image` | the running program |

#[cfg(target_os = "macos")]
mod darwin;
#[cfg(not(target_os = "macos"))]
mod stand_in;

#[cfg(target_os = "macos")]
pub(super) use darwin::{deaths, image, now, objects, processes, sockets, word};
#[cfg(not(target_os = "macos"))]
pub(super) use stand_in::{deaths, image, now, objects, processes, sockets, word};

/// The state of the process that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// There is no such process.
    Gone,
    /// It has ended, and its parent has not reaped it.
    Ended,
    /// It runs since this moment; 0: the moment is not known.
    Runs(u64),
    /// The system does not answer.
    Unknown,
}

/// A piece of shared memory behind a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Distinguishes the objects of this system.
    pub id: u64,
    /// The number of its bytes.
    pub len: u64,
    /// Whether no process can change its size.
    pub is_fixed: bool,
}

/// The names of objects that this package makes: `/m`, the exact length in 12 hexadecimal digits, and 64 random bits.
/// macOS rounds the length of an object up to whole pages, and reports the name of an object behind a handle even after
/// its removal, so each process finds the exact length. A name has 31 bytes at most there (bsd/sys/posix_shm.h:
/// `PSHMNAMLEN`).
pub(super) mod name {
    const BEGIN: &[u8] = b"/m";
    const DIGITS: usize = 12;
    /// Bytes of a name.
    pub const LEN: usize = BEGIN.len() + DIGITS + 16;

    /// Returns the name of an object. `None`: it is too long to be named.
    pub fn of(len: u64, random: u64) -> Option<String> {
        (len >> (4 * DIGITS) == 0).then(|| format!("/m{len:012x}{random:016x}"))
    }

    /// Returns the length and the random bits in such a name. Takes no memory and no lock: a signal handler may call
    /// it.
    pub fn read(name: &[u8]) -> Option<(u64, u64)> {
        let digits = name.strip_prefix(BEGIN).filter(|_| name.len() == LEN)?;
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0u64, |number, &digit| {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                Some(number << 4 | u64::from(value))
            })
        };
        Some((number(&digits[..DIGITS])?, number(&digits[DIGITS..])?))
    }

    /// Returns a number for any other name (FNV-1a).
    #[cfg(target_os = "macos")]
    pub fn hash(name: &[u8]) -> u64 {
        name.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_name_has_the_length_of_its_object_and_fits_the_systems_limit() {
            for len in [0, 1, 100_000, (1 << 48) - 1] {
                let name = of(len, 0xfedc_ba98_7654_3210).unwrap();
                assert_eq!(read(name.as_bytes()), Some((len, 0xfedc_ba98_7654_3210)));
                assert!(name.len() == LEN && name.len() <= 31);
            }
            assert_eq!(of(1 << 48, 0), None);
            for other in ["/m", "", "/psm_12345678", "/m0000000000x00000000000000000"] {
                assert_eq!(read(other.as_bytes()), None);
            }
        }
    }
}
