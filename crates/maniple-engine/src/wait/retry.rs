//! What a process that is just starting does about a shortage.

use crate::error::Result;
use std::time::Duration;

/// Tries again for some seconds where something is short: the hub would only start another worker in this one's place.
pub(crate) fn while_short<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut nap = Duration::from_millis(10);
    loop {
        match work() {
            Err(error) if error.is_shortage() && nap < Duration::from_secs(4) => std::thread::sleep(nap),
            other => return other,
        }
        nap *= 2;
    }
}
