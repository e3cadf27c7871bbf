//! Time limits of Python's calls.

use std::time::{Duration, Instant};

/// Returns the time `timeout` seconds from now; `None` if there is no limit.
pub fn deadline(timeout: Option<f64>) -> Option<Instant> {
    // A time limit that a clock cannot represent is no limit.
    timeout.and_then(|t| Instant::now().checked_add(Duration::try_from_secs_f64(t.max(0.0)).ok()?))
}
