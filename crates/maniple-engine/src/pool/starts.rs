//! Which starts of workers are due, and when: a pure state machine, without a clock or a process.
//!
//! The scheduler requests workers. A start that fails because of a shortage (memory, descriptors, processes) is retried
//! after a growing pause, and does not count as a failure: the pool continues with the workers that it has, and is
//! complete again when there is enough. The same applies if a worker reports, by its exit code, that it lacked a
//! resource before it was ready. A worker that becomes ready ends the row of pauses. If none becomes ready for long,
//! the pool's open calls fail, but not the pool.
//!
//! The scheduler counts a start that fails for another reason; it has its own pauses.
//!
//! ```text
//!   asked for ──▶ due ──▶ begun ──▶ made, or failed
//!                  ▲        │
//!                  └────────┘ something is short: put off
//! ```

use super::policy::{START_PATIENCE, START_PAUSES};

/// The starts of one pool. Times are nanoseconds on any monotonic clock.
#[derive(Debug, Default)]
pub struct Starts {
    due: usize,
    begun: usize,
    /// When the next start may begin.
    at: u64,
    /// The latest pause of a row; 0: there was none.
    pause: u64,
    /// Since when no worker was ready, as far as is known, and how many workers had become ready by then.
    row: Option<(u64, u64)>,
}

impl Starts {
    /// So many more starts are due.
    pub fn ask(&mut self, count: usize) {
        self.due += count;
    }

    /// No start is due any more: the pool was terminated.
    pub fn call_off(&mut self) {
        self.due = 0;
    }

    /// How many starts are due, now or later.
    pub fn due(&self) -> usize {
        self.due
    }

    /// Whether a start has begun that is not made, and has not failed.
    pub fn is_starting(&self) -> bool {
        self.begun > 0
    }

    /// How long until a start can begin; `None` if none is due.
    pub fn wait(&self, now: u64) -> Option<u64> {
        (self.due > 0).then(|| self.at.saturating_sub(now))
    }

    /// Whether a start can begin now.
    pub fn is_due(&self, now: u64) -> bool {
        self.wait(now) == Some(0)
    }

    /// Begins a start, if it can begin now. `greeted` is the number of workers that have become ready since the pool
    /// began.
    pub fn begin(&mut self, greeted: u64, now: u64) -> bool {
        let begins = self.is_due(now);
        if begins {
            self.due -= 1;
            self.begun += 1;
            self.look_at_progress(greeted, now);
        }
        begins
    }

    /// Reports that a begun start has succeeded, or has failed for another reason than a shortage. Returns false if
    /// none was begun.
    pub fn end(&mut self) -> bool {
        let ends = self.begun > 0;
        self.begun -= usize::from(ends);
        ends
    }

    /// Reports that a begun start met a shortage: it is due again, later. `is_served`: a worker that is ready lives.
    /// Returns whether there was none for too long.
    pub fn put_off(&mut self, greeted: u64, is_served: bool, now: u64) -> bool {
        self.due += usize::from(self.end());
        self.pause_for(greeted, is_served, now)
    }

    /// Reports that a worker lacked a resource before it was ready: another start is due, later. See `put_off`.
    pub fn lacked(&mut self, greeted: u64, is_served: bool, now: u64) -> bool {
        self.due += 1;
        self.pause_for(greeted, is_served, now)
    }

    fn pause_for(&mut self, greeted: u64, is_served: bool, now: u64) -> bool {
        self.look_at_progress(greeted, now);
        if is_served {
            self.row = Some((now, greeted));
        }
        let (first, longest) = (START_PAUSES.0.as_nanos() as u64, START_PAUSES.1.as_nanos() as u64);
        self.pause = if self.pause == 0 { first } else { (2 * self.pause).min(longest) };
        self.at = now.saturating_add(self.pause);
        self.row.is_some_and(|(since, _)| now.saturating_sub(since) > START_PATIENCE.as_nanos() as u64)
    }

    fn look_at_progress(&mut self, greeted: u64, now: u64) {
        if self.row.is_none_or(|(_, before)| before != greeted) {
            self.row = Some((now, greeted));
            self.pause = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Retries until it has lasted for too long, or `tries` are over. Returns the pauses.
    fn pauses(starts: &mut Starts, tries: usize, now: &mut u64) -> (Vec<u64>, bool) {
        let mut pauses = Vec::new();
        for _ in 0..tries {
            assert!(starts.begin(0, *now));
            let given_up = starts.put_off(0, false, *now);
            let wait = starts.wait(*now).unwrap();
            pauses.push(wait);
            assert!(!starts.is_due(*now) && !starts.begin(0, *now));
            if given_up {
                return (pauses, true);
            }
            *now += wait;
        }
        (pauses, false)
    }

    #[test]
    fn pauses_grow_up_to_a_second_and_the_calls_are_given_up_after_ten() {
        let (mut starts, mut now) = (Starts::default(), 7);
        assert!(starts.wait(now).is_none() && !starts.begin(0, now));
        starts.ask(1);
        let (pauses, given_up) = pauses(&mut starts, 1000, &mut now);
        assert!(given_up && now > 10 * SECOND && now < 12 * SECOND, "{now}");
        assert!(pauses[0] == SECOND / 100 && pauses.is_sorted() && pauses.iter().all(|&pause| pause <= SECOND));
        assert_eq!(starts.due(), 1, "it is tried further on");
    }

    #[test]
    fn a_worker_that_becomes_ready_ends_the_row() {
        let (mut starts, mut now) = (Starts::default(), 0);
        starts.ask(1);
        pauses(&mut starts, 8, &mut now);
        assert!(starts.begin(1, now) && starts.end());
        starts.ask(1);
        now += 11 * SECOND;
        assert!(starts.begin(1, now));
        // No worker was ready for long, but the previous worker was.
        assert!(!starts.put_off(2, false, now) && starts.wait(now) == Some(SECOND / 100));
    }

    #[test]
    fn the_time_without_a_worker_begins_when_the_last_worker_is_gone() {
        let (mut starts, mut now) = (Starts::default(), 0);
        starts.ask(1);
        for is_served in [true, false] {
            let until = now + 9 * SECOND;
            while now < until {
                assert!(starts.begin(1, now) && !starts.put_off(1, is_served, now));
                now += starts.wait(now).unwrap();
            }
        }
        now += 2 * SECOND;
        assert!(starts.begin(1, now) && starts.put_off(1, false, now));
    }

    #[test]
    fn what_was_begun_is_not_due_twice() {
        let mut starts = Starts::default();
        starts.ask(3);
        assert!(starts.begin(0, 0) && starts.begin(0, 0));
        assert_eq!(starts.due(), 1);
        starts.put_off(0, false, 0);
        assert!(starts.end() && !starts.end());
        // A failure that is reported without a start, as after an interrupt, only causes a pause.
        starts.put_off(0, false, 0);
        assert_eq!(starts.due(), 2);
        starts.lacked(0, false, 0);
        assert_eq!(starts.due(), 3);
        starts.call_off();
        assert_eq!((starts.due(), starts.wait(0)), (0, None));
    }
}
