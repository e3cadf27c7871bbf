//! Limits to a wait.

use std::time::{Duration, Instant};

/// Until when to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Only what is there counts.
    Now,
    /// Then.
    Then(Instant),
    /// Until there is something.
    Ever,
}

impl Until {
    /// After so long.
    pub fn after(time: Duration) -> Until {
        if time.is_zero() { Until::Now } else { Instant::now().checked_add(time).map_or(Until::Ever, Until::Then) }
    }

    /// What is left; `None`: for ever.
    pub fn left(self) -> Option<Duration> {
        match self {
            Until::Now => Some(Duration::ZERO),
            Until::Then(then) => Some(then.saturating_duration_since(Instant::now())),
            Until::Ever => None,
        }
    }
}
