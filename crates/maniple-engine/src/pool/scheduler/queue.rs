//! The jobs that have something to give: by priority, and with a fair share of the workers among equals.
//!
//! Each call with several tasks has an account of the work that workers have done of it or have in hand. The call with the
//! smallest account goes next. All calls of a single task share one account, and are served in the order in which they came.

use super::*;
use std::cmp::Ordering;

/// The work of a call, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// What workers have done.
    done: u64,
    /// What the tasks that workers have now are expected to take.
    in_hand: u64,
}

/// How much work (ns) per worker a call may make up for that it missed while its source or its window had no task.
const MADE_UP: u64 = 4_000_000;

/// The jobs with tasks that wait, or that can be requested.
#[derive(Debug, Default)]
pub(super) struct Queue {
    levels: Vec<Level>,
    /// How much work (ns) a call may make up for.
    made_up: u64,
    /// How many single tasks workers have.
    singles_in_hand: usize,
    /// The highest floor of a level that exists no longer.
    floor: u64,
}

/// The jobs of one priority.
#[derive(Debug, Default)]
struct Level {
    priority: i32,
    singles: VecDeque<JobId>,
    singles_account: Account,
    /// How many of them wait: a call that has ended leaves the queue when its turn comes.
    waiting: usize,
    /// Calls with several tasks.
    calls: Vec<JobId>,
    /// The work (ns) that was done of the call that went last. A call that comes is treated as if as much of it were done.
    floor: u64,
}

/// The job that is served next.
pub(super) struct Turn {
    pub job: JobId,
    /// Whether it is the only one that can be served now.
    pub alone: bool,
    level: usize,
    /// Its place among the calls; `None`: it is the first single call.
    place: Option<usize>,
}

impl Queue {
    pub fn of(workers: usize) -> Self {
        let mut queue = Self::default();
        queue.have_workers(workers);
        queue
    }

    pub fn have_workers(&mut self, workers: usize) {
        self.made_up = MADE_UP.saturating_mul(workers as u64);
    }

    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.singles.is_empty() && level.calls.is_empty())
    }

    /// How many single calls wait: here, or behind other tasks at their worker. `running`: how many of them workers run.
    pub fn singles(&self, running: usize) -> usize {
        self.levels.iter().map(|level| level.waiting).sum::<usize>() + self.singles_in_hand.saturating_sub(running)
    }

    /// A job has ended, and no longer waits.
    pub fn forget<P>(&mut self, job: &Job<P>) {
        let level = self.levels.iter_mut().find(|level| level.priority == job.priority());
        if let Some(level) = level.filter(|_| job.queued && job.is_single()) {
            level.waiting -= 1;
        }
    }

    pub fn len(&self) -> usize {
        self.levels.iter().map(|level| level.singles.len() + level.calls.len()).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = JobId> {
        self.levels.iter().flat_map(|level| level.singles.iter().chain(&level.calls)).copied()
    }

    /// Puts a job into the queue. `first`: before all single calls of its priority.
    pub fn put<P>(&mut self, id: JobId, job: &mut Job<P>, first: bool) {
        job.queued = true;
        let priority = job.priority();
        let at = self.levels.partition_point(|level| level.priority < priority);
        if self.levels.get(at).is_none_or(|level| level.priority != priority) {
            self.levels.insert(at, Level { priority, floor: self.floor, ..Level::default() });
        }
        let level = &mut self.levels[at];
        if !job.is_single() {
            job.account.catch_up(level.floor, self.made_up);
            level.calls.push(id);
        } else {
            level.waiting += 1;
            if level.singles.is_empty() {
                level.singles_account.done = level.singles_account.done.max(level.floor);
            }
            if first {
                level.singles.push_front(id);
            } else {
                level.singles.push_back(id);
            }
        }
    }

    /// A job in the queue that had no task to give has one again.
    pub fn resume<P>(&self, job: &mut Job<P>) {
        let priority = job.priority();
        if let Some(level) = self.levels.iter().find(|level| level.priority == priority) {
            job.account.catch_up(level.floor, self.made_up);
        }
    }

    /// The job that is served next, of those that were not skipped in this plan.
    pub fn next<P>(&mut self, jobs: &SlotMap<JobId, Job<P>>, plan: u64) -> Option<Turn> {
        for (index, level) in self.levels.iter_mut().enumerate() {
            level.calls.retain(|&id| jobs.contains_key(id));
            while level.singles.front().is_some_and(|&id| !jobs.contains_key(id)) {
                level.singles.pop_front();
            }
            let single = level.singles.front().filter(|&&id| jobs[id].passed != plan);
            let single = single.map(|&id| (level.singles_account, id, None));
            let calls = level.calls.iter().enumerate().filter_map(|(place, &id)| {
                let job = &jobs[id];
                (job.passed != plan).then_some((job.account, id, Some(place)))
            });
            let mut count = 0;
            let least =
                single.into_iter().chain(calls).inspect(|_| count += 1).min_by_key(|&(account, _, _)| account.total());
            if let Some((account, job, place)) = least {
                level.floor = level.floor.max(account.done);
                return Some(Turn { job, alone: count == 1, level: index, place });
            }
        }
        None
    }

    /// Charges a task, which is expected to take `nanos`, to its job.
    pub fn charge<P>(&mut self, turn: &Turn, job: &mut Job<P>, nanos: u64) {
        let account = match turn.place {
            Some(_) => &mut job.account,
            None => {
                self.singles_in_hand += 1;
                &mut self.levels[turn.level].singles_account
            }
        };
        account.in_hand = account.in_hand.saturating_add(nanos);
    }

    /// A worker no longer has a task: charges what it has taken, in place of what was expected.
    pub fn settle<P>(&mut self, job: &mut Job<P>, expected: u64, taken: u64) {
        let priority = job.priority();
        self.singles_in_hand = self.singles_in_hand.saturating_sub(job.is_single().into());
        let account = if !job.is_single() {
            &mut job.account
        } else if let Some(level) = self.levels.iter_mut().find(|level| level.priority == priority) {
            &mut level.singles_account
        } else {
            return;
        };
        account.in_hand = account.in_hand.saturating_sub(expected);
        account.done = account.done.saturating_add(taken);
    }

    /// The job has nothing more to give.
    pub fn remove<P>(&mut self, turn: &Turn, job: &mut Job<P>) {
        job.queued = false;
        let is_last = self.levels.len() == 1;
        let level = &mut self.levels[turn.level];
        match turn.place {
            Some(place) => {
                level.calls.remove(place);
            }
            None => {
                level.singles.pop_front();
                level.waiting -= 1;
            }
        }
        if level.singles.is_empty() && level.calls.is_empty() && !is_last {
            self.floor = self.floor.max(level.floor);
            self.levels.remove(turn.level);
        }
    }
}

impl<P> Scheduler<P> {
    /// A worker no longer has a task, which has taken `nanos`.
    pub(super) fn settle_account(&mut self, task: &Assigned<P>, nanos: u64) {
        if let Some(job) = self.jobs.get_mut(task.job) {
            self.queue.settle(job, task.expected, nanos);
        }
    }
}

impl Account {
    /// A new call begins as if as much were done of it as of others. A call that had no task to give for a while has not
    /// saved up all that it missed: the others would have to wait for all of it.
    fn catch_up(&mut self, floor: u64, made_up: u64) {
        let least = if self.total() == 0 { floor } else { floor.saturating_sub(made_up) };
        self.done = self.done.max(least);
    }

    fn total(self) -> u64 {
        self.done.saturating_add(self.in_hand)
    }
}

impl<P> Job<P> {
    /// Whether it has one task, which was submitted with it.
    pub(super) fn is_single(&self) -> bool {
        self.shape.items == Some(1) && self.shape.supply == Supply::Complete
    }

    /// Whether this job, which is served next, is served before a task of such a rank that a worker has not begun.
    pub(super) fn may_overtake(&self, (priority, is_single): (i32, bool)) -> bool {
        match self.priority().cmp(&priority) {
            Ordering::Less => true,
            Ordering::Equal => !(self.is_single() && is_single),
            Ordering::Greater => false,
        }
    }

    pub(super) fn priority(&self) -> i32 {
        self.shape.terms.as_ref().map_or(0, |terms| terms.priority)
    }
}
