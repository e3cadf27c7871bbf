//! Errors of tasks that exceed a limit.

use super::call::write_earlier;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A task ran for longer than its time limit, so the pool ended the task's worker: [`Error::TaskTimeout`](crate::Error::TaskTimeout).
///
/// Only this task fails; another worker takes the place of its worker. How long the caller waits is another limit, see
/// [`TimeoutError`](crate::TimeoutError).
///
/// ```
/// use maniple::{CallOptions, Error, Pool};
/// use std::time::Duration;
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(1)?;
/// let options = CallOptions::new().task_timeout(Duration::from_millis(50));
/// let endless = pool.with(options).apply(|()| -> u8 { loop { std::thread::park() } }, ());
/// let Err(Error::TaskTimeout(late)) = endless else { panic!("it has a value") };
/// assert_eq!(late.limit, Duration::from_millis(50));
/// assert!(late.elapsed >= late.limit);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskTimeout {
    /// The function that the worker was running, if its name is known, and the item of the call.
    pub task: String,
    /// The time limit.
    pub limit: Duration,
    /// How long the task had run.
    pub elapsed: Duration,
    /// The worker's process number.
    pub pid: u32,
    /// The errors of the task's earlier tries, oldest first, if it had [`Retries`](crate::Retries).
    pub earlier: Vec<String>,
}

impl fmt::Display for TaskTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskTimeout { task, limit, elapsed, pid, earlier } = self;
        write!(
            f,
            "{task} exceeded its task_timeout of {limit:?}: its worker, process {pid}, was ended after {elapsed:.1?}"
        )?;
        write_earlier(f, earlier)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for TaskTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TaskTimeout {}

/// A worker used more memory than the pool's limit while it ran a task, so the pool ended the worker:
/// [`Error::MemoryLimit`](crate::Error::MemoryLimit).
///
/// Only this task fails; another worker takes the place of its worker.
///
/// ```
/// use maniple::{Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::builder().processes(1).memory_limit(50_000_000).build()?;
/// let large = pool.apply(|bytes| { let _held = vec![1u8; bytes]; std::thread::park() }, 100_000_000);
/// let Err(Error::MemoryLimit(error)) = large else { panic!("it has a value") };
/// assert_eq!(error.limit, 50_000_000);
/// assert!(error.peak > error.limit);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryLimit {
    /// The function that the worker was running, if its name is known, and the items of the call.
    pub task: String,
    /// The limit in bytes.
    pub limit: u64,
    /// The most memory, in bytes, that the worker is known to have used.
    pub peak: u64,
    /// The worker's process number.
    pub pid: u32,
    /// The errors of the task's earlier tries, oldest first, if it had [`Retries`](crate::Retries).
    pub earlier: Vec<String>,
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemoryLimit { task, limit, peak, pid, earlier } = self;
        let (limit, peak) = (Size(*limit), Size(*peak));
        write!(
            f,
            "{task} exceeded the memory_limit of {limit}: its worker, process {pid}, was ended when it had used {peak}"
        )?;
        write_earlier(f, earlier)
    }
}

/// Writes what `Display` writes, because `main` and `unwrap` print an error in this form.
impl fmt::Debug for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for MemoryLimit {}

/// A number of bytes for people: three digits or more, and the unit.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (unit, factor) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)] {
            if bytes >= factor {
                let (whole, rest) = (bytes / factor, bytes % factor);
                // With one digit behind the point, unless that is 0.
                return match rest * 10 / factor {
                    0 => write!(f, "{whole} {unit}"),
                    tenths => write!(f, "{whole}.{tenths} {unit}"),
                };
            }
        }
        write!(f, "{bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_for_people() {
        let told = [999, 1000, 1_550_000, 300_000_000, 4_000_000_000, 5_000_000_000_000].map(|n| Size(n).to_string());
        assert_eq!(told, ["999 bytes", "1 kB", "1.5 MB", "300 MB", "4 GB", "5000 GB"]);
    }

    #[test]
    fn the_errors_say_which_limit_and_what_happened_before() {
        let late = TaskTimeout {
            task: "item 3 of map of f".into(),
            limit: Duration::from_millis(300),
            elapsed: Duration::from_micros(312_345),
            pid: 77,
            earlier: vec!["worker 76 exited with code 3 while it ran item 3 of map of f".into()],
        };
        assert_eq!(
            late.to_string(),
            "item 3 of map of f exceeded its task_timeout of 300ms: its worker, process 77, was ended after 312.3ms\n\
             try 1 failed: worker 76 exited with code 3 while it ran item 3 of map of f"
        );
        let large = MemoryLimit { task: "apply of f".into(), limit: 1000, peak: 2500, pid: 77, earlier: Vec::new() };
        assert_eq!(
            large.to_string(),
            "apply of f exceeded the memory_limit of 1 kB: its worker, process 77, was ended when it had used 2.5 kB"
        );
    }
}
