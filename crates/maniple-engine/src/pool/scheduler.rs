//! Assigns tasks to workers: a pure state machine. Events come in as method calls, commands go out through
//! [`Scheduler::commands`]. It uses no clock, no thread and no I/O; time is a number that the caller passes. The same
//! code runs in production and in the seeded simulator (`tests/it/simulation.rs`).
//!
//! # Life of a task
//! ```text
//!             submit / fill            assign                claim (by the worker)        finished
//!  (source) ───────────────▶ pending ─────────▶ assigned ───────────────────▶ running ─────────────▶ done
//!                               ▲                  │ revoked, or its worker died   │ its worker died
//!                               └──────────────────┘                               └──────────────▶ lost
//! ```
//! Only the worker moves a task from *assigned* to *running* (by claiming its frame), so the scheduler does not know
//! which of a worker's tasks runs until the caller reports it. So the report of a death includes a function that tells
//! which tasks were claimed.
//!
//! # How much a worker is given in advance
//! A worker gets tasks for about a millisecond of work, estimated from the function's earlier tasks. It gets one task
//! if the duration is unknown or tasks are longer. Tasks that wait in a worker's link can be revoked for an idle
//! worker, so work given in advance is never stuck behind a long task. It is also not stuck at a worker that does not
//! begin at all, because it was stopped or gets no processor: such a worker is *silent*, and gets no tasks before it
//! has skipped the revoked tasks.
//!
//! # When workers cannot be started
//! After more failures in a row than there are workers, the pool fails, if no worker lives. While a worker lives, the
//! starts of the others are retried after growing pauses.
//!
//! # How long a chunk is
//! Without a `chunksize` of the caller, a chunk takes about two milliseconds. It never exceeds a share of the remaining
//! items that keeps all workers busy to the end.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `jobs` | events of jobs: submission, tasks, consumption, cancellation, close, termination |
//! | `decisions` | which worker gets which task, and what is revoked |
//! | `queue` | which job goes next: priority, and a fair share among equals |
//! | `deadlines` | time limits of tasks and of starts |
//! | `retrying` | tasks that are tried again |
//! | `sizes` | the number of workers |
//! | `statistics` | what it counts |
//! | `questions`, `terms` | queries; inputs and outputs |

mod deadlines;
mod decisions;
mod jobs;
mod questions;
mod queue;
mod retrying;
mod sizes;
mod statistics;
mod terms;

use self::queue::Queue;
pub use self::statistics::{Answered, Histogram, Tally, Took, weight};
use super::policy::failures_at_most;
use rustc_hash::FxHashMap;
use slotmap::SlotMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
pub use terms::{Assigned, Chunk, Command, Config, Death, Dropped, JobId, JobShape, Retries, Supply, Terms, WorkerId};

/// A task counts as lost if so many workers died that would have begun it next.
const DEADLY: u8 = 3;

#[derive(Debug)]
struct Pending<P> {
    index: u64,
    items: usize,
    deaths: u8,
    tries: u16,
    since: u64,
    payload: P,
}

#[derive(Debug)]
struct Job<P> {
    shape: JobShape,
    pending: VecDeque<Pending<P>>,
    filling: bool,
    input_open: bool,
    next_index: u64,
    unfinished: usize,
    items_left: Option<usize>,
    in_window: usize,
    cancelled: bool,
    queued: bool,
    /// For a fair share.
    account: queue::Account,
    /// The plan in which it had nothing to give.
    passed: u64,
    /// Its place among jobs with equal accounts.
    order: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    /// It is ready, and gets no task before it takes the place of another worker.
    Spare,
    Retiring,
}

#[derive(Debug)]
struct Worker<P> {
    /// Its number in the pool.
    number: usize,
    phase: Phase,
    /// It has reported that it is ready.
    greeted: bool,
    assigned: VecDeque<Assigned<P>>,
    next_number: u64,
    given: u64,
    full: bool,
    /// When to retry a full worker for which no answer will report room.
    retry_at: Option<u64>,
    /// Its newest tasks are being revoked: none may be added behind them before that is done.
    recalled: bool,
    /// The number of the newest task that it is known to have claimed.
    begun: u64,
    /// All its tasks were revoked, because it did not begin. It gets no task before it has shown that it is awake.
    silent: bool,
    /// When it last finished a task, or got a task after it had none.
    last_finish: u64,
    /// When its process began to run.
    adopted: Option<u64>,
    /// The number of the task that it runs, and when it began, if it has a limit.
    running: (u64, u64),
    /// The task whose interruption was requested, and the task whose end was requested.
    interrupted: u64,
    overdue: u64,
    /// It is being ended: no task is assigned to it, and it is not told to stop.
    doomed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Closing,
    Terminated,
    Broken,
}

/// The state machine. `P` is a task's payload, which it never reads.
#[derive(Debug)]
pub struct Scheduler<P> {
    config: Config,
    state: State,
    /// Whether no further job can be submitted.
    closed: bool,
    workers: SlotMap<WorkerId, Worker<P>>,
    jobs: SlotMap<JobId, Job<P>>,
    queue: Queue,
    /// Tasks that are tried again, and when.
    delayed: Vec<(u64, JobId, Pending<P>)>,
    /// How many jobs have limits.
    limited: usize,
    /// Surplus workers are to end.
    shrinks: bool,
    /// There may be spare workers.
    has_spares: bool,
    /// How many plans there were.
    plans: u64,
    cost: FxHashMap<u32, u64>,
    asked: usize,
    failed_starts: usize,
    /// How many workers have become ready so far.
    greeted: u64,
    /// The time until which no worker is requested, after failures in a row.
    hold: Option<u64>,
    last_revoke: u64,
    /// When tasks that were given in advance are taken back, because another job's task goes first.
    overtake_at: Option<u64>,
    tally: Tally,
    /// Items of open jobs of which no task was made yet, as far as their number is known.
    unmade: usize,
    commands: Vec<Command>,
}

impl<P> Scheduler<P> {
    /// Creates a pool without workers; the first [`plan`](Self::plan) requests them.
    pub fn new(config: Config) -> Self {
        Scheduler {
            config,
            state: State::Running,
            closed: false,
            workers: SlotMap::with_key(),
            jobs: SlotMap::with_key(),
            queue: Queue::of(config.processes),
            delayed: Vec::new(),
            limited: 0,
            shrinks: false,
            has_spares: false,
            plans: 0,
            cost: FxHashMap::default(),
            asked: 0,
            failed_starts: 0,
            greeted: 0,
            hold: None,
            last_revoke: 0,
            overtake_at: None,
            tally: Tally::new(config.is_uncounted),
            unmade: 0,
            commands: Vec::new(),
        }
    }

    // ---- events: workers ----

    /// The caller starts a worker, by itself or because the scheduler requested it.
    pub fn worker_started(&mut self) -> WorkerId {
        self.asked = self.asked.saturating_sub(1);
        let number = self.free_number();
        self.tally.created += 1;
        self.workers.insert(Worker {
            number,
            phase: Phase::Starting,
            greeted: false,
            assigned: VecDeque::new(),
            next_number: 1,
            given: 0,
            full: false,
            retry_at: None,
            recalled: false,
            begun: 0,
            silent: false,
            last_finish: 0,
            adopted: None,
            running: (0, 0),
            interrupted: 0,
            overdue: 0,
            doomed: false,
        })
    }

    /// The process of a started worker runs.
    pub fn worker_adopted(&mut self, worker: WorkerId, now: u64) {
        if let Some(w) = self.workers.get_mut(worker) {
            w.adopted = Some(now);
        }
    }

    /// A requested worker could not be started: the caller will not retry by itself.
    pub fn start_failed(&mut self) {
        self.asked = self.asked.saturating_sub(1);
        self.failed_start();
    }

    /// A worker reported that it is ready for tasks.
    pub fn worker_up(&mut self, worker: WorkerId, now: u64) {
        self.failed_starts = 0;
        self.greeted += 1;
        self.has_spares = true;
        self.hold = None;
        if let Some(w) = self.workers.get_mut(worker) {
            w.last_finish = now;
            w.greeted = true;
            if w.phase == Phase::Starting {
                w.phase = if w.doomed { Phase::Retiring } else { Phase::Spare };
            }
        }
    }

    /// A worker has ended, and all its published messages were received before. `claimed` tells whether it had claimed
    /// a task: then the task is lost or tried again, otherwise it goes to another worker. `whole` tells whether a
    /// claimed task can be sent again.
    pub fn worker_gone(
        &mut self,
        worker: WorkerId,
        death: Death,
        now: u64,
        mut claimed: impl FnMut(&P) -> bool,
        mut whole: impl FnMut(&P) -> bool,
    ) {
        let Some(w) = self.workers.remove(worker) else { return };
        if w.phase == Phase::Starting && self.state != State::Terminated {
            self.failed_start();
        }
        let mut assigned = w.assigned;
        if let Some(next) = assigned.front_mut() {
            // A claim that its worker has overwritten does not show that the task was begun. A task that ends its
            // worker in this way must not end all workers.
            next.deaths += u8::from(!claimed(&next.payload));
        }
        let is_lost = |task: &Assigned<P>| claimed(&task.payload) || task.deaths >= DEADLY;
        let (lost, waiting): (Vec<_>, Vec<_>) = assigned.into_iter().partition(is_lost);
        for task in lost {
            self.settle_account(&task, task.expected);
            self.tally.launched += u64::from(claimed(&task.payload));
            if death == Death::Overdue && w.running.0 == task.number {
                self.tally.note_slow(now.saturating_sub(w.running.1), task.func);
            }
            self.tally.ended_with_worker += u64::from(death != Death::Cancelled);
            if death == Death::Cancelled {
                self.drop_task(task.job, task.index, task.items, Dropped::Cancelled);
            } else if let Some(pause) = self.pause_after(&task, death).filter(|_| whole(&task.payload)) {
                self.commands.push(Command::Again { job: task.job, index: task.index });
                self.tally.retried += 1;
                self.try_again(task, now.saturating_add(pause));
            } else {
                self.drop_dead(task.job, task.index, task.items, Dropped::Lost(worker), death);
            }
        }
        for task in waiting.into_iter().rev() {
            self.give_back(task);
        }
    }

    /// A worker could not be started because of a shortage; the caller retries by itself.
    pub fn worker_postponed(&mut self, worker: WorkerId) {
        let Some(w) = self.workers.remove(worker) else { return };
        // A terminated pool waits for no new worker.
        self.asked += usize::from(self.state != State::Terminated);
        for task in w.assigned.into_iter().rev() {
            self.give_back(task);
        }
    }

    fn failed_start(&mut self) {
        self.failed_starts += 1;
        self.hold = None;
        // As long as a worker lives, the starts of the others are retried after a pause.
        let lives = self.workers.values().any(|w| w.phase != Phase::Starting);
        if self.failures_in_excess() > 0 && !lives && self.state != State::Terminated {
            self.state = State::Broken;
            self.drop_all(Dropped::Broken);
        }
    }

    /// How many more starts have failed in a row than are replaced at once.
    fn failures_in_excess(&self) -> usize {
        self.failed_starts.saturating_sub(failures_at_most(self.config.processes))
    }

    // ---- events: tasks ----

    /// The worker finished the task with this number. Returns its job, number in the job and
    /// items; `None` if the worker does not have that task; a healthy worker never reports such a task.
    pub fn finished(
        &mut self,
        worker: WorkerId,
        number: u64,
        took: Took,
        how: Answered,
        now: u64,
    ) -> Option<(JobId, u64, usize)> {
        let task = self.take_finished(worker, number, took, now)?;
        self.tally.end(task.items, how);
        self.settle(task.job);
        Some((task.job, task.index, task.items))
    }

    fn take_finished(&mut self, worker: WorkerId, number: u64, took: Took, now: u64) -> Option<Assigned<P>> {
        let w = self.workers.get_mut(worker)?;
        if w.assigned.front()?.number != number {
            return None;
        }
        let task = w.assigned.pop_front()?;
        w.full = false;
        w.retry_at = None;
        w.silent = false;
        w.last_finish = now;
        self.tally.ran(&task, took, now);
        // A faulty worker reports any duration: the sums of these cannot overflow.
        let nanos = took.nanos.min(u64::from(u32::MAX));
        self.settle_account(&task, nanos);
        let each = nanos / task.items.max(1) as u64;
        self.cost.entry(task.func).and_modify(|c| *c = (*c * 3 + each) / 4).or_insert(each);
        Some(task)
    }

    /// The worker had no room for a task. This task and those after it, which were not sent either, return to the front
    /// of their jobs.
    pub fn refused(&mut self, worker: WorkerId, number: u64) {
        let Some(w) = self.workers.get_mut(worker) else { return };
        w.full = true;
        let count = w.assigned.iter().rev().take_while(|t| t.number >= number).count();
        self.revoked(worker, count);
    }

    /// A task cannot be sent to any worker: it ends. Returns its job, number in the job and items.
    pub fn unsendable(&mut self, worker: WorkerId, number: u64) -> Option<(JobId, u64, usize)> {
        let w = self.workers.get_mut(worker)?;
        let at = w.place(number)?;
        w.given = w.given.saturating_sub(1);
        let task = w.assigned.remove(at)?;
        self.settle_account(&task, 0);
        self.tally.end(task.items, Answered::Failed);
        self.settle(task.job);
        Some((task.job, task.index, task.items))
    }

    /// The worker is known to have claimed the task with this number.
    pub fn begun(&mut self, worker: WorkerId, number: u64) {
        if let Some(w) = self.workers.get_mut(worker) {
            w.begun = w.begun.max(number);
            w.silent = false;
        }
    }

    /// The newest `count` tasks of a worker were revoked before it claimed them.
    pub fn revoked(&mut self, worker: WorkerId, count: usize) {
        for _ in 0..count {
            let Some(w) = self.workers.get_mut(worker) else { return };
            w.given = w.given.saturating_sub(1);
            let Some(task) = w.assigned.pop_back() else { return };
            self.give_back(task);
        }
    }

    // ---- inner steps ----

    fn give_back(&mut self, task: Assigned<P>) {
        self.settle_account(&task, 0);
        let dropped = match self.state {
            State::Terminated => Some(Dropped::Terminated),
            State::Broken => Some(Dropped::Broken),
            _ => None,
        };
        let id = task.job;
        let Some(job) = self.jobs.get_mut(id) else { return };
        if let Some(why) = dropped.or(job.cancelled.then_some(Dropped::Cancelled)) {
            return self.drop_task(task.job, task.index, task.items, why);
        }
        let Assigned { index, items, deaths, tries, since, payload, .. } = task;
        job.put_back(Pending { index, items, deaths, tries, since, payload });
        if !job.queued {
            // It is older than all jobs without a running task.
            self.queue.put(id, job, true);
        }
    }

    fn drop_task(&mut self, job: JobId, index: u64, items: usize, why: Dropped) {
        self.drop_dead(job, index, items, why, Death::Unasked);
    }

    /// As `drop_task`, of a task that ends with its worker.
    fn drop_dead(&mut self, job: JobId, index: u64, items: usize, why: Dropped, death: Death) {
        self.tally.drop_task(items, why, death);
        self.commands.push(Command::Drop { job, index, items, why });
        self.settle(job);
    }

    fn drop_job(&mut self, job: JobId, why: Dropped) {
        let Some(j) = self.jobs.get_mut(job) else { return };
        j.cancelled = true;
        if std::mem::take(&mut j.input_open) {
            // Tasks that were never made count as one task, so that the job does not count as complete.
            self.unmade -= j.items_left.take().unwrap_or(0);
            let index = j.take_number(1);
            j.unfinished += 1;
            // Not counted: it was never received.
            self.commands.push(Command::Drop { job, index, items: 1, why });
            self.settle(job);
        }
        let Some(j) = self.jobs.get_mut(job) else { return };
        let pending = std::mem::take(&mut j.pending);
        let delayed = self.delayed.extract_if(.., |(_, of, _)| *of == job).map(|(_, _, task)| task);
        for task in pending.into_iter().chain(delayed.collect::<Vec<_>>()) {
            self.drop_task(job, task.index, task.items, why);
        }
    }

    fn drop_all(&mut self, why: Dropped) {
        for job in self.jobs.keys().collect::<Vec<_>>() {
            self.drop_job(job, why);
        }
        for (_, w) in self.workers.iter_mut() {
            let assigned = std::mem::take(&mut w.assigned);
            assigned.iter().for_each(|t| self.tally.drop_task(t.items, why, Death::Unasked));
            self.commands.extend(assigned.iter().map(|t| Command::Drop {
                job: t.job,
                index: t.index,
                items: t.items,
                why,
            }));
            for task in assigned {
                if let Some(j) = self.jobs.get_mut(task.job) {
                    j.unfinished -= 1;
                }
            }
        }
        for job in self.jobs.keys().collect::<Vec<_>>() {
            self.end_if_done(job);
        }
    }

    fn settle(&mut self, job: JobId) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.unfinished -= 1;
            if j.unfinished == 0 {
                self.end_if_done(job);
            }
        }
    }

    fn end_if_done(&mut self, job: JobId) {
        let Some(j) = self.jobs.get(job) else { return };
        // A cancelled job does not wait for its source, which may hang in code of the program.
        if j.unfinished == 0 && !j.input_open && j.pending.is_empty() && (!j.filling || j.cancelled) {
            if let Some(j) = self.jobs.remove(job) {
                self.unmade -= j.items_left.unwrap_or(0);
                self.limited -= usize::from(j.is_limited());
                self.queue.forget(&j);
            }
            self.commands.push(Command::Ended(job));
        }
    }
}

impl<P> Worker<P> {
    fn place(&self, number: u64) -> Option<usize> {
        self.assigned.binary_search_by_key(&number, |t| t.number).ok()
    }

    fn give(&mut self, id: JobId, job: &Job<P>, task: Pending<P>, expected: u64) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.given += 1;
        let Pending { index, items, deaths, tries, since, payload } = task;
        let (func, rank) = (job.shape.func, (job.priority(), job.is_single()));
        self.assigned.push_back(Assigned {
            number,
            job: id,
            index,
            items,
            func,
            rank,
            expected,
            deaths,
            tries,
            since,
            payload,
        });
        number
    }
}
