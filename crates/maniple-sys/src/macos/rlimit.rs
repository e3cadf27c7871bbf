//! The limits of this process.

use rustix::process::{Resource, getrlimit};

/// Returns a soft limit. `None`: there is none.
pub(super) fn soft(resource: Resource) -> Option<u64> {
    getrlimit(resource).current
}
