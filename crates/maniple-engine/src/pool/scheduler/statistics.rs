//! What the scheduler counts.
//!
//! A task counts as *received* when it is added, and once more when it ends, by the way in which it ends. So at every moment
//!
//! ```text
//! received = completed + failed + lost + timed out + cancelled + tasks that have not ended
//! ```
//!
//! A task that is tried again has not ended. Its tries count as *launched*, one by one, when their ends are known.

use super::{Assigned, Death, Dropped, Scheduler};

/// How the answer of a worker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// As a result.
    Completed,
    /// As an error.
    Failed,
    /// As nothing: the task was cancelled while it ran.
    Cancelled,
}

/// How long (ns) a worker took for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// How long the task ran.
    pub nanos: u64,
    /// When it began; 0 if that is not known. Used for display only.
    pub began: u64,
}

/// For how many tasks the durations of this task of a worker count: each of its first tasks and each long task counts once, and of
/// its later short tasks one in many counts for all of them, because counting takes as long as a part of such a task.
pub fn weight(number: u64, nanos: u64) -> u64 {
    const FIRST: u64 = 512;
    const SHORT: u64 = 1 << 14;
    const PART: u64 = 32;
    match () {
        () if nanos >= SHORT || number < FIRST => 1,
        () if number.is_multiple_of(PART) => PART,
        () => 0,
    }
}

/// How many of the slowest tasks are kept.
const SLOWEST: usize = 5;

/// The counters of a pool.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Tasks that were added.
    pub received: u64,
    /// Tries that workers have begun, and of which the end is known.
    pub launched: u64,
    /// Tasks that ended with a result.
    pub completed: u64,
    /// Tasks that ended with an error, or that could not be sent.
    pub failed: u64,
    /// Tasks that ended with their worker, or because no worker could be started.
    pub lost: u64,
    /// Tasks that ended at their time limit.
    pub timed_out: u64,
    /// Tasks that were cancelled, also by the pool's termination.
    pub cancelled: u64,
    /// Tries that failed, and after which the task was tried again.
    pub retried: u64,
    /// Tries that ended with their worker.
    pub ended_with_worker: u64,
    /// Items of tasks that have ended.
    pub items_done: u64,
    /// Workers that were started.
    pub created: u64,
    /// The most workers that had tasks at once.
    pub most_busy: usize,
    /// How long tasks waited, from when they were added until a worker began them.
    pub waiting: Histogram,
    /// How long they ran.
    pub running: Histogram,
    slowest: Vec<(u64, u32)>,
    /// Shorter tasks are not among the slowest.
    least_slow: u64,
    off: bool,
}

impl Tally {
    pub(super) fn new(off: bool) -> Tally {
        Tally { slowest: Vec::with_capacity(SLOWEST + 1), off, ..Tally::default() }
    }

    /// Tasks that have ended.
    pub fn ended(&self) -> u64 {
        self.completed + self.failed + self.lost + self.timed_out + self.cancelled
    }

    /// Tasks that have not ended.
    pub fn open(&self) -> u64 {
        self.received - self.ended()
    }

    /// How long (ns) the slowest tasks ran, slowest first, and their functions.
    pub fn slowest(&self) -> &[(u64, u32)] {
        &self.slowest
    }

    /// Whether one of the slowest tasks was of this function.
    pub fn names(&self, func: u32) -> bool {
        self.slowest.iter().any(|&(_, of)| of == func)
    }

    pub(super) fn end(&mut self, items: usize, how: Answered) {
        match how {
            Answered::Completed => self.completed += 1,
            Answered::Failed => self.failed += 1,
            Answered::Cancelled => self.cancelled += 1,
        }
        self.items_done += items as u64;
    }

    pub(super) fn drop_task(&mut self, items: usize, why: Dropped, death: Death) {
        match why {
            Dropped::Lost(_) if death == Death::Overdue => self.timed_out += 1,
            Dropped::Lost(_) | Dropped::Broken => self.lost += 1,
            Dropped::Cancelled | Dropped::Terminated => self.cancelled += 1,
        }
        self.items_done += items as u64;
    }

    /// A worker has run a task that was added at `since`, and has reported it at `now`.
    pub(super) fn ran<P>(&mut self, task: &Assigned<P>, Took { nanos, began }: Took, now: u64) {
        self.launched += 1;
        if self.off {
            return;
        }
        self.note_slow(nanos, task.func);
        let weight = weight(task.number, nanos);
        if weight == 0 {
            return;
        }
        // A faulty worker writes any moment.
        let latest = now.saturating_sub(nanos);
        let began = if (task.since..=latest).contains(&began) { began } else { latest };
        self.waiting.add(began.saturating_sub(task.since), weight);
        self.running.add(nanos, weight);
    }

    #[inline]
    pub(super) fn note_slow(&mut self, nanos: u64, func: u32) {
        if nanos >= self.least_slow {
            self.put_slow(nanos, func);
        }
    }

    #[cold]
    fn put_slow(&mut self, nanos: u64, func: u32) {
        let at = self.slowest.partition_point(|&(other, _)| other >= nanos);
        self.slowest.insert(at, (nanos, func));
        self.slowest.truncate(SLOWEST);
        if let Some(&(least, _)) = self.slowest.get(SLOWEST - 1) {
            self.least_slow = least + 1;
        }
    }
}

const BUCKETS: usize = 64;
/// The unit (ns, a power of two) of the histogram.
const UNIT_BITS: u32 = 10;

/// Durations in logarithmic buckets, two for each power of two: from 1 µs to 71 minutes.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    total: u64,
    greatest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [0; BUCKETS], total: 0, greatest: 0 }
    }
}

/// The bucket of a duration in units. Bucket 0 has what is shorter than 2 units.
fn bucket(units: u64) -> usize {
    if units < 2 {
        return 0;
    }
    let power = units.ilog2();
    let half = (units >> (power - 1)) & 1;
    ((2 * power) as usize + half as usize - 1).min(BUCKETS - 1)
}

/// The shortest duration (ns) of a bucket.
fn bound(bucket: usize) -> u64 {
    if bucket == 0 {
        return 0;
    }
    let (power, half) = (bucket.div_ceil(2), 1 - bucket % 2);
    ((2 + half as u64) << (power - 1)) << UNIT_BITS
}

impl Histogram {
    pub(super) fn add(&mut self, nanos: u64, count: u64) {
        self.buckets[bucket(nanos >> UNIT_BITS)] += count;
        self.total = self.total.saturating_add(nanos.saturating_mul(count));
        self.greatest = self.greatest.max(nanos);
    }

    /// How many durations there are; an estimate if there are many short ones.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum (ns).
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest (ns).
    pub fn greatest(&self) -> u64 {
        self.greatest
    }

    /// The duration (ns) that `part` (0 to 1) of all durations do not exceed; 0 if there are none. Inside a bucket the durations count
    /// as spread evenly, so the result is wrong by half of itself at most, and usually by much less.
    pub fn percentile(&self, part: f64) -> u64 {
        let wanted = part * self.count() as f64;
        let mut below = 0;
        for (at, &inside) in self.buckets.iter().enumerate().filter(|(_, inside)| **inside > 0) {
            if (below + inside) as f64 >= wanted {
                let from = bound(at) as f64;
                let to = if at + 1 < BUCKETS { bound(at + 1) } else { self.greatest }.min(self.greatest) as f64;
                let share = ((wanted - below as f64) / inside as f64).clamp(0.0, 1.0);
                return (from + (to - from).max(0.0) * share) as u64;
            }
            below += inside;
        }
        self.greatest
    }
}

impl<P> Scheduler<P> {
    /// What was counted so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The tasks that have not ended, counted one by one. It takes long if there are many calls; the accounts need it only in tests.
    pub fn count_open(&self) -> usize {
        let pending: usize = self.jobs.values().map(|job| job.pending.len()).sum();
        let assigned: usize = self.workers.values().map(|w| w.assigned.len()).sum();
        pending + assigned + self.delayed.len()
    }

    /// Items of open jobs of which no task was made yet, as far as their number is known.
    pub fn unmade_items(&self) -> usize {
        self.unmade
    }

    /// The same, counted job by job, for tests.
    pub fn count_unmade(&self) -> usize {
        self.jobs.values().filter_map(|job| job.items_left).sum()
    }

    pub(super) fn note_busy(&mut self) {
        if self.tally.most_busy < self.workers.len() {
            self.tally.most_busy = self.tally.most_busy.max(self.busy());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!(bound(0), 0);
        for at in 1..BUCKETS {
            assert!(bound(at) > bound(at - 1), "{at}");
            assert_eq!(bucket(bound(at) >> UNIT_BITS), at);
            assert_eq!(bucket((bound(at) >> UNIT_BITS) - 1), at - 1);
        }
        assert_eq!(bucket(u64::MAX >> UNIT_BITS), BUCKETS - 1);
        assert!(bound(BUCKETS - 1) > 3_000_000_000_000);
    }

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), 0);
        for ms in 1..=1000 {
            histogram.add(ms * 1_000_000, 1);
        }
        for (part, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let found = histogram.percentile(part) as f64 / 1e6;
            assert!((found / ms - 1.0).abs() < 0.1, "{part}: {found}");
        }
        assert_eq!((histogram.count(), histogram.greatest()), (1000, 1_000_000_000));
        assert!(histogram.percentile(1.0) == 1_000_000_000 && histogram.percentile(0.0) < 1_500_000);
        let mut same = Histogram::default();
        same.add(u64::MAX, 1);
        same.add(u64::MAX, 1);
        assert_eq!((same.total(), same.percentile(1.0)), (u64::MAX, u64::MAX));
    }

    #[test]
    fn short_tasks_count_in_groups() {
        let sum = |from: u64, nanos| (from..from + 3200).map(|number| weight(number, nanos)).sum::<u64>();
        assert_eq!((sum(0, 1000), sum(512, 1000), sum(9999, 20_000)), (3200, 3200, 3200));
        assert!((512..2000).filter(|&number| weight(number, 1000) > 0).count() < 50);
    }

    #[test]
    fn the_slowest_five_are_kept_in_order() {
        let mut tally = Tally::new(false);
        for nanos in [3, 9, 1, 7, 7, 2, 8, 100, 5] {
            tally.note_slow(nanos, nanos as u32);
        }
        assert_eq!(tally.slowest(), [(100, 100), (9, 9), (8, 8), (7, 7), (7, 7)]);
        assert!(tally.names(9) && !tally.names(5));
    }
}
