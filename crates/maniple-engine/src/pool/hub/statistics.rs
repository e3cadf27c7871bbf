//! What a pool counts, for its user: the scheduler's tally, and a row for each worker.
//!
//! A row belongs to a *number* of a worker, not to a process: a worker that takes the place of another continues its row. What the process
//! of now has counted is read from its link ([`counters`](crate::pool::link::counters)); what its predecessors have counted is in the row.

mod table;

use super::{Hub, State};
use crate::error::Result;
use crate::pool::link::counters::Counted;
use crate::pool::scheduler::{Death, Histogram, WorkerId};
use maniple_sys::{clock, process::usage};
use std::sync::Arc;
use std::time::Duration;

/// The counters of a pool, at one moment: `tasks_received` is the sum of `tasks_completed`, `tasks_failed`, `tasks_lost`,
/// `tasks_timed_out`, `tasks_cancelled`, `tasks_waiting` and `tasks_running`.
///
/// A task is one call, or a chunk of the items of a call such as `map`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Tasks that calls have submitted.
    pub tasks_received: u64,
    /// Times that a worker has begun a task. A task that is tried again counts once more.
    pub tasks_launched: u64,
    /// Tasks that ended with a result.
    pub tasks_completed: u64,
    /// Tasks that ended with an error of their own, or that could not be sent.
    pub tasks_failed: u64,
    /// Tasks that ended with their worker, or because no worker could be started.
    pub tasks_lost: u64,
    /// Tasks that ended at their time limit.
    pub tasks_timed_out: u64,
    /// Tasks that were cancelled, or dropped by the pool's termination.
    pub tasks_cancelled: u64,
    /// Times that a task failed and was tried again.
    pub tasks_retried: u64,
    /// Tasks that wait: for a worker, at a worker behind another task, or for their next try.
    pub tasks_waiting: u64,
    /// Tasks that workers run.
    pub tasks_running: u64,
    /// Items of the tasks that have ended.
    pub items_done: u64,
    /// Items of calls that are not in tasks yet, as far as their number is known: a long call makes its tasks as they are needed.
    pub items_pending: u64,
    /// Workers that exist: busy, idle and starting ones.
    pub workers_alive: usize,
    /// Workers that run a task.
    pub workers_busy: usize,
    /// Workers that are ready and run no task.
    pub workers_idle: usize,
    /// Workers that are not ready yet.
    pub workers_starting: usize,
    /// Workers that were started since the pool began.
    pub workers_created: u64,
    /// The most workers that had tasks at once.
    pub max_workers_busy_concurrently: usize,
    /// How long tasks waited until a worker began them.
    pub waiting: Latency,
    /// How long tasks ran.
    pub running: Latency,
    /// The time that workers have spent in tasks, also those that have ended.
    pub working_time: Duration,
    /// The time that workers were ready and ran no task.
    pub waiting_time: Duration,
    /// The slowest tasks, slowest first, at most five.
    pub slowest: Vec<SlowTask>,
    /// The workers, by number.
    pub workers: Vec<WorkerStats>,
}

/// The distribution of durations. Percentiles are estimates from logarithmic buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latency {
    /// How many durations there are; an estimate if there are many below 16 µs.
    pub count: u64,
    /// Their sum.
    pub total: Duration,
    /// Half of them are not longer.
    pub p50: Duration,
    /// Nine of ten are not longer.
    pub p90: Duration,
    /// 99 of 100 are not longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// One of the slowest tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowTask {
    /// How long it ran.
    pub duration: Duration,
    /// The name of its function; empty if that is not known.
    pub function: Arc<str>,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It is not ready yet.
    Starting,
    /// It is ready, and waits until it takes the place of another.
    Spare,
    /// It waits for a task.
    Idle,
    /// It runs a task.
    Busy,
    /// It has ended, and no other has taken its place.
    #[default]
    Ended,
}

impl WorkerState {
    /// The name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Starting => "starting",
            WorkerState::Spare => "spare",
            WorkerState::Idle => "idle",
            WorkerState::Busy => "busy",
            WorkerState::Ended => "ended",
        }
    }
}

/// The counters of a worker. The counts include those of the workers whose place it has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Its number in the pool, from 0 on.
    pub number: usize,
    /// Its process; 0: none yet, or it has ended.
    pub pid: u32,
    /// What it does.
    pub state: WorkerState,
    /// The name of the function of the task that it runs; empty if it runs none, or the name is not known.
    pub task: Arc<str>,
    /// How long it has run that task.
    pub task_time: Duration,
    /// Tasks that it has ended with a result.
    pub tasks_completed: u64,
    /// Tasks that it has ended with an error, each try counted.
    pub tasks_failed: u64,
    /// Tasks that were lost with it, each try counted.
    pub tasks_lost: u64,
    /// Tasks that ended with it at their time limit, each try counted.
    pub tasks_timed_out: u64,
    /// Processes that were started under this number.
    pub created: u64,
    /// The time from the start of the last process until it ran this package's code.
    pub start_up_time: Duration,
    /// The time from there until it was ready: its initializer.
    pub init_time: Duration,
    /// The time that it was ready and ran no task.
    pub waiting_time: Duration,
    /// The time in tasks.
    pub working_time: Duration,
    /// Its resident memory in bytes; 0 if that is not known.
    pub memory: u64,
}

/// Returns the name of a function. Finding it may take long, so that is done when statistics are read.
pub type Name = Arc<dyn Fn() -> Arc<str> + Send + Sync>;

/// The functions whose names have to be found once the hub's lock is free.
#[derive(Default)]
struct Unnamed {
    /// By the worker's number.
    workers: Vec<(usize, Name)>,
    slowest: Vec<Option<Name>>,
}

/// What is kept of the workers with one number.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    created: u64,
    completed: u64,
    failed: u64,
    lost: u64,
    timed_out: u64,
    working: u64,
    waiting: u64,
    start_up: u64,
    init: u64,
}

impl Row {
    /// The row with what the process of now has counted, whose link was made at `made`.
    fn with(&self, counted: &Counted, made: u64, now: u64) -> Row {
        let mut row = self.clone();
        row.completed = row.completed.saturating_add(counted.completed);
        row.failed = row.failed.saturating_add(counted.failed);
        row.working = row.working.saturating_add(counted.working);
        row.waiting = row.waiting.saturating_add(counted.waiting(now));
        if counted.opened != 0 {
            row.start_up = counted.opened.saturating_sub(made);
            row.init = if counted.ready == 0 { now } else { counted.ready }.saturating_sub(counted.opened);
        }
        row
    }

    fn stats(&self, number: usize) -> WorkerStats {
        WorkerStats {
            number,
            tasks_completed: self.completed,
            tasks_failed: self.failed,
            tasks_lost: self.lost,
            tasks_timed_out: self.timed_out,
            created: self.created,
            start_up_time: Duration::from_nanos(self.start_up),
            init_time: Duration::from_nanos(self.init),
            waiting_time: Duration::from_nanos(self.waiting),
            working_time: Duration::from_nanos(self.working),
            ..WorkerStats::default()
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Latency {
        let part = |part| Duration::from_nanos(histogram.percentile(part));
        Latency {
            count: histogram.count(),
            total: Duration::from_nanos(histogram.total()),
            p50: part(0.5),
            p90: part(0.9),
            p99: part(0.99),
            max: Duration::from_nanos(histogram.greatest()),
        }
    }
}

impl State {
    /// A worker is about to be started.
    pub(super) fn begin_row(&mut self, worker: WorkerId) {
        let Some(number) = self.sched.number_of(worker) else { return };
        if self.rows.len() <= number {
            self.rows.resize_with(number + 1, Row::default);
        }
        self.rows[number].created += 1;
    }

    /// A worker has ended, and its messages were received: what it has counted stays.
    pub(super) fn end_row(&mut self, worker: WorkerId) {
        let now = clock::now();
        let Some(number) = self.sched.number_of(worker) else { return };
        if let (Some(slot), Some(row)) = (self.slots.get(worker), self.rows.get_mut(number)) {
            *row = row.with(&slot.link.counted(now), slot.made, now);
        }
    }

    /// A worker with this number has ended: counts the tries that have ended with it.
    pub(super) fn count_losses(&mut self, number: Option<usize>, before: u64, death: Death) {
        let lost = self.sched.tally().ended_with_worker - before;
        if let Some(row) = number.and_then(|number| self.rows.get_mut(number)) {
            if death == Death::Overdue { row.timed_out += lost } else { row.lost += lost }
        }
    }

    /// Forgets the names of forgotten functions that were among the slowest tasks, and are not any more.
    pub(super) fn forget_names(&mut self) {
        const SPARE: usize = 64;
        if self.names.len() > self.functions.len() + SPARE {
            let State { names, functions, sched, .. } = self;
            names.retain(|func, _| functions.contains_key(func) || sched.tally().names(*func));
        }
    }

    fn stats(&self, now: u64) -> (PoolStats, Unnamed) {
        let mut unnamed = Unnamed::default();
        let tally = self.sched.tally();
        let mut rows = self.rows.clone();
        let mut workers: Vec<WorkerStats> = rows.iter().enumerate().map(|(n, row)| row.stats(n)).collect();
        let mut stats = PoolStats::default();
        for (worker, slot) in &self.slots {
            let Some(number) = self.sched.number_of(worker).filter(|&number| number < rows.len()) else { continue };
            let counted = slot.link.counted(now);
            rows[number] = rows[number].with(&counted, slot.made, now);
            // A worker runs one task. Others that it has claimed have ended a moment ago, and their answers were not received yet.
            let first = self.sched.assigned(worker).next().filter(|task| slot.link.claimed(task.payload.position));
            let is_ready = self.sched.is_up(worker);
            // After a termination the scheduler does not know the tasks that still run.
            let is_busy = first.is_some() || self.terminated && is_ready && counted.busy_since.is_some();
            unnamed.workers.extend(first.and_then(|task| Some((number, self.names.get(&task.func)?.clone()))));
            let task_time = counted.busy_since.filter(|_| is_busy).map_or(0, |since| now.saturating_sub(since));
            workers[number] = WorkerStats {
                pid: if slot.reaping { 0 } else { slot.pid },
                state: match () {
                    () if slot.reaping => WorkerState::Ended,
                    () if !is_ready => WorkerState::Starting,
                    () if is_busy => WorkerState::Busy,
                    () if self.sched.is_spare(worker) => WorkerState::Spare,
                    () => WorkerState::Idle,
                },
                task_time: Duration::from_nanos(task_time),
                ..rows[number].stats(number)
            };
            stats.tasks_running += u64::from(first.is_some());
            if !slot.reaping {
                stats.workers_alive += 1;
                stats.workers_starting += usize::from(!is_ready);
                stats.workers_busy += usize::from(is_ready && is_busy);
                stats.workers_idle += usize::from(is_ready && !is_busy);
            }
        }
        let sum = |of: fn(&Row) -> u64| Duration::from_nanos(rows.iter().map(of).fold(0, u64::saturating_add));
        unnamed.slowest = tally.slowest().iter().map(|(_, func)| self.names.get(func).cloned()).collect();
        let slowest = tally
            .slowest()
            .iter()
            .map(|&(nanos, _)| SlowTask { duration: Duration::from_nanos(nanos), function: Arc::default() });
        let stats = PoolStats {
            tasks_received: tally.received,
            tasks_launched: tally.launched + stats.tasks_running,
            tasks_completed: tally.completed,
            tasks_failed: tally.failed,
            tasks_lost: tally.lost,
            tasks_timed_out: tally.timed_out,
            tasks_cancelled: tally.cancelled,
            tasks_retried: tally.retried,
            tasks_waiting: tally.open().saturating_sub(stats.tasks_running),
            items_done: tally.items_done,
            items_pending: self.sched.unmade_items() as u64,
            workers_created: tally.created,
            max_workers_busy_concurrently: tally.most_busy,
            waiting: Latency::of(&tally.waiting),
            running: Latency::of(&tally.running),
            working_time: sum(|row| row.working),
            waiting_time: sum(|row| row.waiting),
            slowest: slowest.collect(),
            workers,
            ..stats
        };
        (stats, unnamed)
    }
}

impl Hub {
    /// What the pool has counted so far. A pool that has ended answers with its last numbers.
    ///
    /// # Errors
    /// [`Error::Foreign`](crate::Error::Foreign).
    pub fn stats(&self) -> Result<PoolStats> {
        self.check()?;
        let inner = self.shared();
        let mut st = self.lock();
        // What has arrived counts, also if the driver sleeps.
        inner.listen(&mut st);
        inner.advance(&mut st);
        let driven = st.seats.is_taken();
        inner.settle_down(&mut st, driven);
        let (mut stats, unnamed) = st.stats(clock::now());
        drop(st);
        for (number, name) in unnamed.workers {
            stats.workers[number].task = name();
        }
        for (slow, name) in stats.slowest.iter_mut().zip(unnamed.slowest) {
            slow.function = name.map(|name| name()).unwrap_or_default();
        }
        for worker in stats.workers.iter_mut().filter(|worker| worker.pid != 0) {
            worker.memory = usage::memory_of(worker.pid).unwrap_or(0);
        }
        Ok(stats)
    }
}

impl PoolStats {
    /// The part of their time, 0 to 1, that ready workers have spent in tasks.
    #[must_use]
    pub fn working_ratio(&self) -> f64 {
        ratio(self.working_time, self.waiting_time)
    }
}

impl WorkerStats {
    /// The part of its time, 0 to 1, that the worker has spent in tasks since it was ready.
    #[must_use]
    pub fn working_ratio(&self) -> f64 {
        ratio(self.working_time, self.waiting_time)
    }
}

fn ratio(working: Duration, waiting: Duration) -> f64 {
    let (working, waiting) = (working.as_secs_f64(), waiting.as_secs_f64());
    if working > 0.0 { working / (working + waiting) } else { 0.0 }
}
