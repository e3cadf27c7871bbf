//! The scheduler's inputs and outputs.

use slotmap::new_key_type;
use std::sync::Arc;

new_key_type! {
    /// A worker, for its whole life; never used again for another.
    pub struct WorkerId;
    /// A job: one call of `map`, `apply`, ...
    pub struct JobId;
}

/// How a job's items are cut into tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// So many items in each (the last may have fewer).
    Fixed(usize),
    /// By what the items cost.
    Adaptive,
}

/// The source of a job's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// All tasks were submitted with the job.
    Complete,
    /// Tasks are requested with [`Command::Fill`]; their number is not known in advance.
    OnDemand,
}

/// When a failed task is tried again. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retries {
    /// The greatest number of further tries.
    pub most: u32,
    /// The pause before the second try.
    pub first: u64,
    /// The factor by which each pause is longer than the one before.
    pub factor: f64,
    /// The longest pause.
    pub longest: u64,
    /// Whether a task is tried again whose worker died, or used too much memory.
    pub of_lost: bool,
    /// Whether a task is tried again that exceeded its time limit.
    pub of_overdue: bool,
}

impl Retries {
    /// No task is tried again.
    pub const NONE: Retries = Retries { most: 0, first: 0, factor: 1.0, longest: 0, of_lost: false, of_overdue: false };

    /// The pause before the next try, after so many tries; `None`: there is no next try.
    pub(super) fn pause(&self, tries: u32) -> Option<u64> {
        let more = (1..=self.most).contains(&tries);
        // A float saturates when it is cast.
        let pause = || (self.first as f64 * self.factor.powi(tries as i32 - 1)) as u64;
        more.then(|| pause().min(self.longest))
    }
}

/// The limits, retries and priority of a job's tasks. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// A task that has run for so long is ended with its worker.
    pub limit: Option<u64>,
    /// A task that has run for so long is interrupted.
    pub soft_limit: Option<u64>,
    /// When a failed task is tried again.
    pub retries: Retries,
    /// Tasks with a lower number go first.
    pub priority: i32,
}

impl Default for Terms {
    fn default() -> Self {
        Terms { limit: None, soft_limit: None, retries: Retries::NONE, priority: 0 }
    }
}

/// Why a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// By itself, or by a cause that the pool does not know.
    Unasked,
    /// The pool ended it, because its task exceeded the time limit.
    Overdue,
    /// The pool ended it, because it used too much memory.
    TooLarge,
    /// The pool ended it, because its task was cancelled.
    Cancelled,
}

/// The properties of a job.
#[derive(Clone, Debug)]
pub struct JobShape {
    /// Jobs of the same function share the knowledge of its cost.
    pub func: u32,
    /// Where tasks come from.
    pub supply: Supply,
    /// How items are cut.
    pub chunk: Chunk,
    /// How many items there are, if that is known.
    pub items: Option<usize>,
    /// How many items may be under way and not consumed; `None`: any number.
    pub window: Option<usize>,
    /// Limits, retries and priority; `None`: the defaults.
    pub terms: Option<Arc<Terms>>,
}

/// What the caller has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a task that a worker was assigned ([`task`](super::Scheduler::task)); if there is no room, call
    /// [`refused`](super::Scheduler::refused).
    Send {
        /// To whom.
        worker: WorkerId,
        /// The task's number on the worker's link.
        number: u64,
    },
    /// Request tasks of so many items each from the job's source, then call [`filled`](super::Scheduler::filled).
    Fill {
        /// Whose source.
        job: JobId,
        /// How many tasks at most.
        tasks: usize,
        /// Items in each.
        items: usize,
    },
    /// Try to revoke the worker's newest `count` tasks, newest first, then call [`revoked`](super::Scheduler::revoked).
    Revoke {
        /// From whom.
        worker: WorkerId,
        /// How many at most.
        count: usize,
    },
    /// Tell the worker that there are no more tasks: it ends after its last task.
    Retire(WorkerId),
    /// Start so many workers, then call [`worker_started`](super::Scheduler::worker_started) for each.
    Start(usize),
    /// A task ended without running to its end.
    Drop {
        /// Its job.
        job: JobId,
        /// Its number in the job.
        index: u64,
        /// Its items.
        items: usize,
        /// Why.
        why: Dropped,
    },
    /// A task ended without a result, and will be tried again.
    Again {
        /// Its job.
        job: JobId,
        /// Its number in the job.
        index: u64,
    },
    /// A worker's running task has exceeded its time limit. End the worker, and with it only this task, unless the task
    /// has ended meanwhile: call [`doomed`](super::Scheduler::doomed) first, and
    /// [`worker_gone`](super::Scheduler::worker_gone) with [`Death::Overdue`] later.
    Overdue {
        /// The worker.
        worker: WorkerId,
        /// The task's number on the worker's link.
        number: u64,
    },
    /// A worker's running task has exceeded its soft limit: interrupt it.
    Interrupt {
        /// The worker.
        worker: WorkerId,
        /// The task's number on the worker's link.
        number: u64,
    },
    /// A worker has not become ready within the time limit: end it, unless it is ready now; call
    /// [`doomed`](super::Scheduler::doomed) first.
    Unready(WorkerId),
    /// All tasks of the job have ended and there will be no more. The scheduler forgets the job.
    Ended(JobId),
}

/// Why a task ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It ran on this worker, which died.
    Lost(WorkerId),
    /// Its job was cancelled before it ran, or its worker was ended because the job was cancelled.
    Cancelled,
    /// The pool was terminated.
    Terminated,
    /// No worker could be started.
    Broken,
}

/// A task that a worker has.
#[derive(Debug)]
pub struct Assigned<P> {
    /// Its number on the worker's link, ascending.
    pub number: u64,
    /// Its job.
    pub job: JobId,
    /// Its number in the job.
    pub index: u64,
    /// Its items.
    pub items: usize,
    /// Its function.
    pub func: u32,
    /// The priority of its job, and whether it is the job's only task.
    pub rank: (i32, bool),
    /// How long (ns) it is expected to take.
    pub expected: u64,
    /// How many workers have died that would have begun it next.
    pub deaths: u8,
    /// How often it was tried before.
    pub tries: u16,
    /// When it was added, or could be tried again.
    pub since: u64,
    /// What to send.
    pub payload: P,
}

/// The size of the pool and the renewal of its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many workers there should be, without spare ones.
    pub processes: usize,
    /// How many workers there are at least, if the number follows the work; `None`: always `processes`.
    pub least: Option<usize>,
    /// After how long (ns) without work a worker beyond `least` ends.
    pub idle: u64,
    /// How many spare workers are ready to take the place of a worker that ends.
    pub spares: usize,
    /// After how many tasks a worker is replaced.
    pub max_tasks: Option<u64>,
    /// How long (ns) a worker may take to become ready.
    pub start_limit: Option<u64>,
    /// Whether it leaves out counters that cost time. Only the benchmark of the counters wants that.
    pub is_uncounted: bool,
}

impl Config {
    /// A pool of so many workers, without anything special.
    pub const fn of(processes: usize) -> Config {
        Config { processes, least: None, idle: 0, spares: 0, max_tasks: None, start_limit: None, is_uncounted: false }
    }

    /// Whether the number of workers follows the work.
    pub(super) const fn is_elastic(&self) -> bool {
        self.least() < self.processes
    }

    /// How many workers there are at least, without spare ones.
    pub(super) const fn least(&self) -> usize {
        match self.least {
            Some(least) if least < self.processes => least,
            _ => self.processes,
        }
    }
}
