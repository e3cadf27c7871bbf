//! The jobs that have something to give: by priority, and with a fair share of the workers among equals.
//!
//! Each call with several tasks has an account of the work that workers have done of it or have in hand. The call with the
//! smallest account goes next. All calls of a single task share one account, and are served in the order in which they came.

use super::*;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

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
    /// How often a job was put into the queue.
    puts: u64,
    round: Round,
}

/// The calls with several tasks that can be served in a plan, of one level. A plan serves many, so it orders them once.
#[derive(Debug, Default)]
struct Round {
    plan: u64,
    level: usize,
    /// Whether the level's calls were ordered.
    is_ordered: bool,
    /// By account, and among equals in the order in which they came.
    calls: BinaryHeap<Reverse<(u64, u64, JobId)>>,
    /// The call that was served last. Its account has changed.
    served: Option<JobId>,
}

impl Round {
    fn begin(&mut self, plan: u64, level: usize) {
        self.calls.clear();
        (self.plan, self.level, self.is_ordered, self.served) = (plan, level, false, None);
    }

    fn order<P>(&mut self, id: JobId, job: &Job<P>) {
        if job.queued && job.passed != self.plan {
            self.calls.push(Reverse((job.account.total(), job.order, id)));
        }
    }
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
    /// Whether it is the first single call.
    is_single: bool,
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
        self.puts += 1;
        job.order = self.puts;
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
        let round = &mut self.round;
        if round.plan != plan {
            round.begin(plan, 0);
        } else if let Some(id) = round.served.take()
            && let Some(job) = jobs.get(id)
        {
            round.order(id, job);
        }
        while let Some(level) = self.levels.get_mut(round.level) {
            if !std::mem::replace(&mut round.is_ordered, true) {
                level.calls.retain(|&id| jobs.get(id).map(|job| round.order(id, job)).is_some());
            }
            while level.singles.front().is_some_and(|&id| !jobs.contains_key(id)) {
                level.singles.pop_front();
            }
            let single = level.singles.front().copied().filter(|&id| jobs[id].passed != plan);
            let alone = round.calls.len() + usize::from(single.is_some()) == 1;
            let call = round.calls.peek().map(|Reverse((total, _, _))| *total);
            let is_single = single.is_some() && call.is_none_or(|total| level.singles_account.total() <= total);
            if let Some(job) = single.filter(|_| is_single) {
                level.floor = level.floor.max(level.singles_account.done);
                return Some(Turn { job, alone, level: round.level, is_single });
            }
            if let Some(Reverse((_, _, job))) = round.calls.pop() {
                level.floor = level.floor.max(jobs[job].account.done);
                round.served = Some(job);
                return Some(Turn { job, alone, level: round.level, is_single });
            }
            round.begin(plan, round.level + 1);
        }
        None
    }

    /// Charges a task, which is expected to take `nanos`, to its job.
    pub fn charge<P>(&mut self, turn: &Turn, job: &mut Job<P>, nanos: u64) {
        let account = if turn.is_single {
            self.singles_in_hand += 1;
            &mut self.levels[turn.level].singles_account
        } else {
            &mut job.account
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
        if turn.is_single {
            level.singles.pop_front();
            level.waiting -= 1;
        } else if let Some(place) = level.calls.iter().position(|&id| id == turn.job) {
            level.calls.remove(place);
        }
        if level.singles.is_empty() && level.calls.is_empty() && !is_last {
            self.floor = self.floor.max(level.floor);
            self.levels.remove(turn.level);
            // The next level now has this one's number.
            self.round.begin(self.round.plan, turn.level);
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
