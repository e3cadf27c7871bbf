//! When a failed task is tried again.

use crate::error::{Error, Result};
use maniple_engine::pool as engine;
use std::fmt;
use std::time::Duration;

/// When a failed task is tried again: for [`CallOptions::retries`](crate::CallOptions::retries) and
/// [`PoolBuilder::retries`](crate::PoolBuilder::retries).
///
/// A task is tried again after a [lost worker](crate::Error::WorkerLost), an exceeded
/// [time limit](crate::Error::TaskTimeout) or an exceeded [memory limit](crate::Error::MemoryLimit), so the function
/// must be safe to call again. A panic, and an error that the function itself returns, are results, and are never tried
/// again. A task whose arguments hold descriptors is not tried again either: the lost worker had the only copies.
///
/// ```
/// use maniple::{CallOptions, Pool, Retries};
/// use std::path::PathBuf;
/// use std::time::Duration;
///
/// /// Loses its worker on the first try.
/// fn fragile(marker: PathBuf) -> u32 {
///     if std::fs::File::create_new(marker).is_ok() {
///         std::process::abort();
///     }
///     7
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let marker = std::env::temp_dir().join(format!("tried-{}", std::process::id()));
/// let pool = Pool::new(1)?;
/// let retries = Retries::new(3).initial_delay(Duration::from_millis(10)).backoff_coefficient(1.5);
/// assert_eq!(pool.with(CallOptions::new().retries(retries)).apply(fragile, marker.clone())?, 7);
/// # std::fs::remove_file(marker)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "retries have no effect until they are passed to options"]
pub struct Retries {
    max_retries: u32,
    initial_delay: Duration,
    backoff_coefficient: Factor,
    max_delay: Duration,
}

/// A number whose bits are compared, so that options can be compared and hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Factor(u64);

impl fmt::Debug for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f64::from_bits(self.0).fmt(f)
    }
}

/// Nanoseconds that no clock counts to.
pub(super) const ENDLESS: u64 = u64::MAX / 4;

/// A time for the engine.
pub(super) fn nanos(time: Duration) -> u64 {
    time.as_nanos().min(ENDLESS.into()) as u64
}

/// The engine counts a task's tries in 16 bits.
const MOST: u32 = u16::MAX as u32;

impl Retries {
    /// Creates retries without a pause before the second try: `max_retries` is the greatest number of further tries of a
    /// task, at most 65,535. A number of 0 is the default of pools and calls.
    ///
    /// ```
    /// assert_eq!(maniple::Retries::new(3), maniple::Retries::from(3));
    /// ```
    pub const fn new(max_retries: u32) -> Retries {
        Retries {
            max_retries,
            initial_delay: Duration::ZERO,
            backoff_coefficient: Factor(2.0_f64.to_bits()),
            max_delay: Duration::from_secs(60),
        }
    }

    /// Sets the pause before the second try. The default is none.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool, Retries};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// const PATIENT: Retries = Retries::new(2).initial_delay(Duration::from_millis(50));
    /// assert_eq!(Pool::new(1)?.with(CallOptions::new().retries(PATIENT)).apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn initial_delay(mut self, delay: Duration) -> Retries {
        self.initial_delay = delay;
        self
    }

    /// Sets the factor by which each pause is longer than the one before. It must be 1 or more. The default is 2.
    ///
    /// ```
    /// use maniple::{CallOptions, Error, Pool, Retries};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let shorter = CallOptions::new().retries(Retries::new(2).backoff_coefficient(0.5));
    /// assert!(matches!(Pool::new(1)?.with(shorter).apply(i32::abs, -1), Err(Error::InvalidArgument(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub const fn backoff_coefficient(mut self, factor: f64) -> Retries {
        self.backoff_coefficient = Factor(factor.to_bits());
        self
    }

    /// Sets the longest pause. The default is 60 seconds.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool, Retries};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let retries = Retries::new(9).initial_delay(Duration::from_millis(100)).max_delay(Duration::from_secs(1));
    /// assert_eq!(Pool::new(1)?.with(CallOptions::new().retries(retries)).apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn max_delay(mut self, delay: Duration) -> Retries {
        self.max_delay = delay;
        self
    }

    /// Returns the engine's form.
    pub(super) fn resolve(self) -> Result<engine::Retries> {
        let factor = f64::from_bits(self.backoff_coefficient.0);
        if self.max_retries > MOST {
            return Err(Error::InvalidArgument("more than 65,535 retries"));
        }
        if factor.is_nan() || factor < 1.0 {
            return Err(Error::InvalidArgument("a backoff_coefficient of less than 1; use 1 or more"));
        }
        if self.max_retries == 0 {
            return Ok(engine::Retries::NONE);
        }
        Ok(engine::Retries {
            most: self.max_retries,
            first: nanos(self.initial_delay),
            factor,
            longest: nanos(self.max_delay),
            of_lost: true,
            of_overdue: true,
        })
    }
}

/// So many retries, without a pause before the second try.
impl From<u32> for Retries {
    fn from(max_retries: u32) -> Retries {
        Retries::new(max_retries)
    }
}
