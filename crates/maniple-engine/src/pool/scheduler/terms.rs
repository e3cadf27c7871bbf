//! The scheduler's inputs and outputs.

use slotmap::new_key_type;

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

/// The properties of a job.
#[derive(Clone, Copy, Debug)]
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
    /// All tasks of the job have ended and there will be no more. The scheduler forgets the job.
    Ended(JobId),
}

/// Why a task ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It ran on this worker, which died.
    Lost(WorkerId),
    /// Its job was cancelled, or the pool terminated, before it ran.
    Cancelled,
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
    /// How many workers have died that would have begun it next.
    pub deaths: u8,
    /// What to send.
    pub payload: P,
}

/// The size of the pool and the renewal of its workers.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many workers there should be.
    pub processes: usize,
    /// After how many tasks a worker is replaced.
    pub max_tasks: Option<u64>,
}
