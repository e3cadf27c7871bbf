//! The sizes that no pool can have: a front refuses them before it starts a worker.
//!
//! Otherwise a pool would start thousands of workers, and the system would run short before one start fails. Limits that
//! depend on what else runs, such as free memory, are not checked: a start that fails reports them.

use maniple_sys as sys;
use std::fmt;

/// Smaller new pools are not checked: the files of the limits take longer to read than the start of a worker, and the start
/// that fails comes soon.
const LARGE: usize = 64;

/// Why this process can never have so many workers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImpossibleSize {
    /// They take more descriptors than this process may have.
    Descriptors {
        /// How many workers.
        processes: usize,
        /// How many descriptors they take.
        need: usize,
        /// How many this process may have.
        most: usize,
    },
    /// They are more processes than a limit allows.
    Processes {
        /// How many workers.
        processes: usize,
        /// The name of what sets the limit.
        whose: String,
        /// The limit.
        most: u64,
    },
}

impl fmt::Display for ImpossibleSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImpossibleSize::Descriptors { processes, need, most } => write!(
                f,
                "{processes} workers take {need} descriptors, but this process may have {most} (RLIMIT_NOFILE): raise the \
                 limit (ulimit -n), or ask for fewer workers"
            ),
            ImpossibleSize::Processes { processes, whose, most } => write!(
                f,
                "{processes} workers cannot run at once: {whose} allows {most} processes and threads: raise the limit, or \
                 ask for fewer workers"
            ),
        }
    }
}

impl std::error::Error for ImpossibleSize {}

/// Checks the number of a new pool's workers, each of which needs so many of this process's descriptors.
///
/// # Errors
/// [`ImpossibleSize`].
pub fn check_size(processes: usize, descriptors: usize) -> Result<(), ImpossibleSize> {
    if processes <= LARGE { Ok(()) } else { check_growth(processes, descriptors) }
}

/// Checks the number of workers to which a pool grows: no start reports to the caller that it has failed.
///
/// # Errors
/// [`ImpossibleSize`].
pub fn check_growth(processes: usize, descriptors: usize) -> Result<(), ImpossibleSize> {
    check(processes, descriptors, sys::most_handles(), sys::process::limits::most_processes)
}

fn check(
    processes: usize,
    descriptors: usize,
    most: usize,
    limits: impl FnOnce() -> Vec<(String, u64)>,
) -> Result<(), ImpossibleSize> {
    let need = processes.saturating_mul(descriptors);
    if need >= most {
        return Err(ImpossibleSize::Descriptors { processes, need, most });
    }
    match limits().into_iter().find(|&(_, most)| processes as u64 >= most) {
        Some((whose, most)) => Err(ImpossibleSize::Processes { processes, whose, most }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_a_limit_forbids_is_refused() {
        let limits = || vec![("one".to_owned(), 5000), ("another".to_owned(), 200)];
        assert_eq!(check(100, 3, 301, limits), Ok(()));
        let error = check(100, 3, 300, limits).unwrap_err();
        assert_eq!(error, ImpossibleSize::Descriptors { processes: 100, need: 300, most: 300 });
        assert!(error.to_string().contains("100 workers take 300 descriptors"));
        let error = check(200, 1, 1000, limits).unwrap_err();
        assert_eq!(error, ImpossibleSize::Processes { processes: 200, whose: "another".into(), most: 200 });
        assert!(error.to_string().contains("another allows 200 processes"));
        assert!(check(usize::MAX, 3, usize::MAX - 1, limits).is_err());
    }

    #[test]
    fn a_small_pool_is_checked_only_if_it_grows() {
        assert_eq!(check_size(LARGE, usize::MAX), Ok(()));
        assert!(check_growth(LARGE, usize::MAX).is_err());
        assert_eq!(check_growth(1, 3), Ok(()));
        assert!(check_size(usize::MAX, 1).is_err());
    }
}
