//! Who runs what: a pure state machine. Events come in as method calls, commands go out through [`Scheduler::commands`].
//! There is no clock, no thread, no I/O in here; time is a number that the caller passes. The same code runs in production and
//! in the seeded simulator (`tests/simulation.rs`).
//!
//! # Life of a task
//! ```text
//!             submit / fill            assign                claim (by the worker)        finished
//!  (source) ───────────────▶ pending ─────────▶ assigned ───────────────────▶ running ─────────────▶ done
//!                               ▲                  │ revoked, or its worker died   │ its worker died
//!                               └──────────────────┘                               └──────────────▶ lost
//! ```
//! Only the worker moves a task from *assigned* to *running* (by claiming its frame), so the scheduler does not know which
//! of a worker's tasks runs until somebody tells it. That is why a death is reported together with a way to ask.
//!
//! # How much a worker is given in advance
//! Enough for about a millisecond of work by what the function's tasks took so far, one task where nothing is known or tasks
//! are longer than that. What waits in one worker's link can be revoked for another, idle one: work given in advance is never stuck
//! behind a long task.
//!
//! # How long a chunk is
//! Where the caller did not say, so long that it takes about two milliseconds, but never more than a share of what is left
//! that keeps all workers busy to the end.

use slotmap::{Key, SlotMap, new_key_type};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

new_key_type! {
    /// A worker, for its whole life; never used again for another.
    pub struct WorkerId;
    /// A job: one call of `map`, `apply`, ...
    pub struct JobId;
}

/// Work given in advance, in nanoseconds.
const AHEAD: u64 = 1_000_000;
/// Tasks given in advance at most.
const DEEPEST: u64 = 1024;
/// What an adaptive chunk should take, in nanoseconds.
const CHUNK: u64 = 2_000_000;
/// Items of an adaptive chunk while nothing is known of their cost.
const FIRST_CHUNK: usize = 16;
/// What it costs to wake a worker, in nanoseconds.
const WAKE: u64 = 8_000;
/// For so long (ns) after its last task a worker is likely to be awake.
const ALERT: u64 = 40_000;
/// A task that has run for so long (ns) is long enough to take from under it what waits behind.
const STUCK: u64 = 300_000;
/// A worker that had no room and has nothing to finish either is tried again after so long (ns).
const RETRY: u64 = 300_000;

/// How a job's items are cut into tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// So many items in each (the last may have fewer).
    Fixed(usize),
    /// By what the items cost.
    Adaptive,
}

/// Where a job's tasks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// All were submitted with it.
    Complete,
    /// They are asked for with [`Command::Fill`], and end some time.
    OnDemand,
}

/// What a job is like.
#[derive(Clone, Copy, Debug)]
pub struct JobShape {
    /// Jobs of the same function share what is known of its cost.
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

/// What the outside has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a task that a worker was assigned ([`Scheduler::task`]); if there is no room, say [`Scheduler::refused`].
    Send {
        /// To whom.
        worker: WorkerId,
        /// The task's number on the worker's link.
        number: u64,
    },
    /// Ask the job's source for tasks of so many items each, then say [`Scheduler::filled`].
    Fill {
        /// Whose source.
        job: JobId,
        /// How many tasks at most.
        tasks: usize,
        /// Items in each.
        items: usize,
    },
    /// Try to take back the worker's newest `count` tasks, newest first, then say [`Scheduler::revoked`].
    Revoke {
        /// From whom.
        worker: WorkerId,
        /// How many at most.
        count: usize,
    },
    /// Tell the worker that nothing more will come: it ends after what it has.
    Retire(WorkerId),
    /// Start so many workers, then say [`Scheduler::worker_started`] for each.
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
    /// All tasks of the job have ended and no more will come. The job is forgotten.
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

/// A task that a worker was given.
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
    /// What to send.
    pub payload: P,
}

#[derive(Debug)]
struct Pending<P> {
    index: u64,
    items: usize,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    Retiring,
}

#[derive(Debug)]
struct Worker<P> {
    phase: Phase,
    assigned: VecDeque<Assigned<P>>,
    next_number: u64,
    given: u64,
    full: bool,
    /// When to try a full worker again that no answer will declare to have room.
    retry_at: Option<u64>,
    /// Its newest tasks are being taken back: none may be added behind them before that is done.
    recalled: bool,
    /// When it last finished a task, or was given one after it had none.
    last_finish: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Closing,
    Terminated,
    Broken,
}

/// How large the pool is and how its workers are renewed.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many workers there should be.
    pub processes: usize,
    /// After how many tasks a worker is replaced.
    pub max_tasks: Option<u64>,
}

/// The state machine. `P` is a task's payload, never looked at.
#[derive(Debug)]
pub struct Scheduler<P> {
    config: Config,
    state: State,
    workers: SlotMap<WorkerId, Worker<P>>,
    jobs: SlotMap<JobId, Job<P>>,
    queue: VecDeque<JobId>,
    cost: HashMap<u32, u64>,
    asked: usize,
    failed_starts: usize,
    last_revoke: u64,
    commands: Vec<Command>,
}

impl<P> Scheduler<P> {
    /// A pool without workers; the first [`plan`](Self::plan) asks for them.
    pub fn new(config: Config) -> Self {
        Scheduler {
            config,
            state: State::Running,
            workers: SlotMap::with_key(),
            jobs: SlotMap::with_key(),
            queue: VecDeque::new(),
            cost: HashMap::new(),
            asked: 0,
            failed_starts: 0,
            last_revoke: 0,
            commands: Vec::new(),
        }
    }

    // ---- events: workers ----

    /// The outside starts a worker of its own accord or because it was asked to.
    pub fn worker_started(&mut self) -> WorkerId {
        self.asked = self.asked.saturating_sub(1);
        self.workers.insert(Worker {
            phase: Phase::Starting,
            assigned: VecDeque::new(),
            next_number: 1,
            given: 0,
            full: false,
            retry_at: None,
            recalled: false,
            last_finish: 0,
        })
    }

    /// A worker that was asked for could not even be started: the outside will not try again by itself.
    pub fn start_failed(&mut self) {
        self.asked = self.asked.saturating_sub(1);
        self.failed_start();
    }

    /// A worker said that it is ready for tasks.
    pub fn worker_up(&mut self, worker: WorkerId, now: u64) {
        self.failed_starts = 0;
        if let Some(w) = self.workers.get_mut(worker) {
            w.last_finish = now;
            if w.phase == Phase::Starting {
                w.phase = Phase::Up;
            }
        }
    }

    /// A worker is gone, and all that it had published was taken in before. `claimed` tells whether it had claimed a task
    /// that it was given: then the task is lost, otherwise it goes to another worker.
    pub fn worker_gone(&mut self, worker: WorkerId, mut claimed: impl FnMut(&P) -> bool) {
        let Some(w) = self.workers.remove(worker) else { return };
        if w.phase == Phase::Starting && self.state != State::Terminated {
            self.failed_start();
        }
        let (lost, waiting): (Vec<_>, Vec<_>) = w.assigned.into_iter().partition(|task| claimed(&task.payload));
        for task in lost {
            self.drop_task(task.job, task.index, task.items, Dropped::Lost(worker));
        }
        for task in waiting.into_iter().rev() {
            self.give_back(task);
        }
    }

    fn failed_start(&mut self) {
        self.failed_starts += 1;
        if self.failed_starts > self.config.processes.max(2) && self.state != State::Terminated {
            self.state = State::Broken;
            self.drop_all(Dropped::Broken);
        }
    }

    // ---- events: tasks ----

    /// The worker finished the task with this number, after `nanos` of work. Gives its job, number in the job and items;
    /// `None` when the worker was not given that task, which no healthy worker says.
    pub fn finished(&mut self, worker: WorkerId, number: u64, nanos: u64, now: u64) -> Option<(JobId, u64, usize)> {
        let w = self.workers.get_mut(worker)?;
        if w.assigned.front()?.number != number {
            return None;
        }
        let task = w.assigned.pop_front()?;
        w.full = false;
        w.retry_at = None;
        w.last_finish = now;
        let each = nanos / task.items.max(1) as u64;
        self.cost.entry(task.func).and_modify(|c| *c = (*c * 3 + each) / 4).or_insert(each);
        self.settle(task.job);
        Some((task.job, task.index, task.items))
    }

    /// The worker had no room for a task: it and those after it, which were not sent either, go back to the front of their jobs.
    pub fn refused(&mut self, worker: WorkerId, number: u64) {
        let Some(w) = self.workers.get_mut(worker) else { return };
        w.full = true;
        let count = w.assigned.iter().rev().take_while(|t| t.number >= number).count();
        self.revoked(worker, count);
    }

    /// A task cannot be sent to anybody: it ends. Gives its job, number in the job and items.
    pub fn unsendable(&mut self, worker: WorkerId, number: u64) -> Option<(JobId, u64, usize)> {
        let w = self.workers.get_mut(worker)?;
        let at = w.place(number)?;
        w.given = w.given.saturating_sub(1);
        let task = w.assigned.remove(at)?;
        self.settle(task.job);
        Some((task.job, task.index, task.items))
    }

    /// Nobody will submit this function again.
    pub fn forget_cost(&mut self, func: u32) {
        self.cost.remove(&func);
    }

    /// The newest `count` tasks of a worker were taken back before it claimed them.
    pub fn revoked(&mut self, worker: WorkerId, count: usize) {
        for _ in 0..count {
            let Some(w) = self.workers.get_mut(worker) else { return };
            w.given = w.given.saturating_sub(1);
            let Some(task) = w.assigned.pop_back() else { return };
            self.give_back(task);
        }
    }

    // ---- events: jobs ----

    /// A new job. `None`: the pool does not take any more.
    pub fn submit(&mut self, shape: JobShape) -> Option<JobId> {
        if self.state != State::Running {
            return None;
        }
        let job = self.insert(shape);
        self.queue.push_back(job);
        Some(job)
    }

    fn insert(&mut self, shape: JobShape) -> JobId {
        self.jobs.insert(Job {
            shape,
            pending: VecDeque::new(),
            filling: false,
            input_open: true,
            next_index: 0,
            unfinished: 0,
            items_left: shape.items,
            in_window: 0,
            cancelled: false,
            queued: true,
        })
    }

    /// A job for a pool that could not start any worker: it is dropped at once.
    pub fn submit_broken(&mut self, shape: JobShape) -> JobId {
        let job = self.insert(shape);
        self.drop_job(job, Dropped::Broken);
        job
    }

    /// Adds a task to a job whose input is still open. Gives its number; `None` when the job is gone or cancelled.
    pub fn add(&mut self, job: JobId, items: usize, payload: P) -> Option<u64> {
        let broken = self.state == State::Broken;
        let j = self.jobs.get_mut(job)?;
        if j.cancelled {
            return None;
        }
        let index = j.take_number(items);
        j.unfinished += 1;
        if broken {
            self.drop_task(job, index, items, Dropped::Broken);
            return Some(index);
        }
        j.pending.push_back(Pending { index, items, payload });
        if !j.queued {
            j.queued = true;
            self.queue.push_back(job);
        }
        Some(index)
    }

    /// Counts a task that was decided before it could be sent (its payload could not be made). Gives its number.
    pub fn add_settled(&mut self, job: JobId, items: usize) -> Option<u64> {
        Some(self.jobs.get_mut(job)?.take_number(items))
    }

    /// A fill is done; `ended`: there will be no more.
    pub fn filled(&mut self, job: JobId, ended: bool) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.filling = false;
            j.input_open &= !ended;
            if !j.queued && j.input_open {
                j.queued = true;
                self.queue.push_back(job);
            }
        }
        self.end_if_done(job);
    }

    /// The caller took so many items' results out of the window.
    pub fn consumed(&mut self, job: JobId, items: usize) {
        if let Some(j) = self.jobs.get_mut(job) {
            j.in_window = j.in_window.saturating_sub(items);
            if !j.queued && j.input_open {
                j.queued = true;
                self.queue.push_back(job);
            }
        }
    }

    /// The job's items are large: at most so many more under way than one for each worker.
    pub fn narrow(&mut self, job: JobId, window: usize) {
        let least = self.config.processes * 2;
        if let Some(w) = self.jobs.get_mut(job).and_then(|j| j.shape.window.as_mut()) {
            *w = (*w).min(window.max(least));
        }
    }

    /// Nobody wants the job's results any more: what has not begun does not begin.
    pub fn cancel(&mut self, job: JobId) {
        self.drop_job(job, Dropped::Cancelled);
        for (worker, w) in self.workers.iter_mut() {
            if let Some(first) = w.assigned.iter().position(|t| t.job == job) {
                w.recalled = true;
                self.commands.push(Command::Revoke { worker, count: w.assigned.len() - first });
            }
        }
        self.end_if_done(job);
    }

    /// No more jobs; workers end when all is done.
    pub fn close(&mut self) {
        if self.state == State::Running {
            self.state = State::Closing;
            for job in self.jobs.keys().collect::<Vec<_>>() {
                self.jobs[job].shape.window = None;
                if !self.jobs[job].queued && self.jobs[job].input_open {
                    self.jobs[job].queued = true;
                    self.queue.push_back(job);
                }
            }
        }
    }

    /// No more of anything: whatever has not ended is dropped. The outside kills the workers.
    pub fn terminate(&mut self) {
        self.state = State::Terminated;
        // Starts that were asked for and not begun are called off; the pool does not wait for them.
        self.asked = 0;
        self.drop_all(Dropped::Cancelled);
        for w in self.workers.values_mut() {
            w.phase = Phase::Retiring;
        }
    }

    // ---- decisions ----

    /// Decides what to do after a batch of events.
    pub fn plan(&mut self, now: u64) {
        if matches!(self.state, State::Running | State::Closing) {
            self.forgive(now);
            self.hand_out(now);
            self.share_out(now);
            // By the next plan, what was commanded has been done.
            self.workers.values_mut().for_each(|w| w.recalled = false);
        }
        self.renew();
    }

    /// Room is as a rule made by the answer to a task. Where there is none to come (all were taken back, or it was the wire
    /// that was full), only time can tell.
    fn forgive(&mut self, now: u64) {
        for w in self.workers.values_mut().filter(|w| w.full && w.assigned.is_empty()) {
            if now >= *w.retry_at.get_or_insert(now + RETRY) {
                w.full = false;
                w.retry_at = None;
            }
        }
    }

    fn hand_out(&mut self, now: u64) {
        if self.queue.is_empty() {
            return;
        }
        // Waking a worker that has been idle for a while costs as much as some short tasks, which another one does meanwhile, unless
        // that one is stuck itself.
        let first = self.queue.front().and_then(|&j| self.jobs.get(j));
        let each = first.and_then(|j| self.cost.get(&j.shape.func)).copied();
        let mut waking = each.map_or(0, |each| (WAKE / each.max(1)).min(16));
        let mut open = by_load(&self.workers, now, waking);
        let mut at = 0;
        while at < self.queue.len() && !open.is_empty() {
            let id = self.queue[at];
            let Some(job) = self.jobs.get_mut(id) else {
                self.queue.remove(at);
                continue;
            };
            let mut stalled = false;
            while let Some(task) = job.pending.front() {
                let Some(&Reverse((load, seen, worker))) = open.peek() else { break };
                let each = self.cost.get(&job.shape.func).copied();
                // The wake-up counts where there is a choice, not against the limit.
                let given = self.workers.get(worker).map_or(0, |w| w.assigned.len() as u64);
                if given >= depth(each, task.items) {
                    if std::mem::take(&mut waking) > 0 {
                        // Those who are awake have enough: now the others must come.
                        open = by_load(&self.workers, now, 0);
                        continue;
                    }
                    stalled = true;
                    break;
                }
                open.pop();
                let (Some(task), Some(w)) = (job.pending.pop_front(), self.workers.get_mut(worker)) else { break };
                if w.assigned.is_empty() {
                    w.last_finish = now;
                }
                let number = w.give(id, job.shape.func, task);
                self.commands.push(Command::Send { worker, number });
                if self.config.max_tasks.is_some_and(|most| w.given >= most) {
                    w.phase = Phase::Retiring;
                    self.commands.push(Command::Retire(worker));
                } else {
                    open.push(Reverse((load + 1, seen, worker)));
                }
            }
            if job.pending.is_empty() {
                let loads = open.iter().filter_map(|r| Some(self.workers.get(r.0.2)?.assigned.len() as u64));
                let each = self.cost.get(&job.shape.func).copied();
                if let Some(fill) = job.wanted(id, each, loads, self.config.processes) {
                    job.filling = true;
                    self.commands.push(fill);
                }
                if !job.can_give() {
                    job.queued = false;
                    self.queue.remove(at);
                    continue;
                }
                if job.filling && job.shape.supply == Supply::OnDemand {
                    // Its turn is now: later jobs get only what it leaves.
                    at += 1;
                    continue;
                }
            }
            if stalled {
                break;
            }
            at += 1;
        }
    }

    /// An idle worker takes over what waits behind another's long task.
    fn share_out(&mut self, now: u64) {
        let idle = self.workers.values().filter(|w| w.phase == Phase::Up && !w.full && w.assigned.is_empty()).count();
        let something_else = || self.queue.iter().any(|&j| self.jobs.get(j).is_some_and(|j| !j.pending.is_empty()));
        if idle == 0 || something_else() || now.saturating_sub(self.last_revoke) < STUCK {
            return;
        }
        let fullest = self
            .workers
            .iter()
            .filter(|(_, w)| w.assigned.len() > 1 && now.saturating_sub(w.last_finish) > STUCK)
            .max_by_key(|(_, w)| w.assigned.len());
        if let Some((worker, w)) = fullest {
            let waiting = w.assigned.len() - 1;
            // Not again at once: what cannot be revoked now has been claimed, and its worker will say so.
            self.last_revoke = now;
            self.commands.push(Command::Revoke { worker, count: waiting - waiting / (idle + 1) });
        }
    }

    fn renew(&mut self) {
        match self.state {
            State::Running => {}
            State::Closing if !self.jobs.is_empty() => {}
            State::Terminated => return,
            State::Closing | State::Broken => {
                for (id, w) in self.workers.iter_mut().filter(|(_, w)| w.phase != Phase::Retiring) {
                    w.phase = Phase::Retiring;
                    self.commands.push(Command::Retire(id));
                }
                return;
            }
        }
        let staying = self.workers.values().filter(|w| w.phase != Phase::Retiring).count() + self.asked;
        // A retiring worker is replaced when it is gone: the pool never has more processes than it was told to have.
        let gone = self.config.processes.saturating_sub(self.workers.len() + self.asked);
        let missing = self.config.processes.saturating_sub(staying).min(gone);
        if missing > 0 {
            self.asked += missing;
            self.commands.push(Command::Start(missing));
        }
    }

    // ---- questions ----

    /// Takes the commands that came up since the last time.
    pub fn commands(&mut self, into: &mut Vec<Command>) {
        into.append(&mut self.commands);
    }

    /// A task that a worker was given and has not finished.
    pub fn task(&mut self, worker: WorkerId, number: u64) -> Option<&mut Assigned<P>> {
        let w = self.workers.get_mut(worker)?;
        let at = w.place(number)?;
        w.assigned.get_mut(at)
    }

    /// What a worker has been given and not finished, oldest first.
    pub fn assigned(&self, worker: WorkerId) -> impl DoubleEndedIterator<Item = &Assigned<P>> {
        self.workers.get(worker).into_iter().flat_map(|w| &w.assigned)
    }

    /// How many workers have something to do.
    pub fn busy(&self) -> usize {
        self.workers.values().filter(|w| !w.assigned.is_empty()).count()
    }

    /// How many workers there are, in any phase of life.
    pub fn alive(&self) -> usize {
        self.workers.len()
    }

    /// Whether a worker is known and has said that it is ready.
    pub fn is_up(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|w| w.phase != Phase::Starting)
    }

    /// How many jobs have not ended.
    pub fn open_jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the job's window is full or its input waits for somebody to ask.
    pub fn is_open(&self, job: JobId) -> bool {
        self.jobs.contains_key(job)
    }

    /// Whether the pool still takes jobs.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whether no worker could be started, time and again.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether all work is done (or dropped) and all workers are gone.
    pub fn is_drained(&self) -> bool {
        self.state != State::Running && self.workers.is_empty() && self.asked == 0 && self.jobs.is_empty()
    }

    /// Whether [`plan`](Self::plan) should be called a little later, though nothing happens: idle workers might then take over
    /// waiting tasks, or one that had no room have some.
    pub fn wants_tick(&self) -> bool {
        let mut up = self.workers.values().filter(|w| w.phase == Phase::Up);
        if !self.queue.is_empty() && up.clone().any(|w| w.retry_at.is_some()) {
            return true;
        }
        up.any(|w| w.assigned.is_empty()) && self.workers.values().any(|w| w.assigned.len() > 1)
    }

    /// Whether anything waits: to be handed out, to be asked for, or behind another task.
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.workers.values().any(|w| w.assigned.len() > 1)
    }

    /// The number of the task at which half of what the worker has is done, if it has several short ones.
    pub fn halfway(&self, worker: WorkerId) -> Option<u64> {
        let w = self.workers.get(worker)?;
        if w.assigned.len() < 4 {
            return None;
        }
        Some(w.assigned[w.assigned.len() / 2].number)
    }

    /// How things stand, for people: a line for the pool, one for each worker, one for each job.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}, {} workers asked for, {} jobs queued", self.state, self.asked, self.queue.len());
        for (id, w) in &self.workers {
            let (load, full) = (w.assigned.len(), if w.full { ", link full" } else { "" });
            text += &format!("\nworker {id:?}: {:?}, {load} tasks assigned, {} given so far{full}", w.phase, w.given);
        }
        for (id, j) in &self.jobs {
            text += &format!(
                "\njob {id:?}: {} pending, {} unfinished, {} made, input {}{}{}, window {:?} of {:?}",
                j.pending.len(),
                j.unfinished,
                j.next_index,
                if j.input_open { "open" } else { "closed" },
                if j.filling { ", being filled" } else { "" },
                if j.queued { ", queued" } else { "" },
                j.in_window,
                j.shape.window,
            );
        }
        text
    }

    // ---- inner steps ----

    fn give_back(&mut self, task: Assigned<P>) {
        let dropped = match self.state {
            State::Terminated => Some(Dropped::Cancelled),
            State::Broken => Some(Dropped::Broken),
            _ => None,
        };
        let Some(job) = self.jobs.get_mut(task.job) else { return };
        if let Some(why) = dropped.or(job.cancelled.then_some(Dropped::Cancelled)) {
            return self.drop_task(task.job, task.index, task.items, why);
        }
        // Several workers may give back what they were given in turn: older tasks go first all the same.
        let at = job.pending.partition_point(|p| p.index < task.index);
        job.pending.insert(at, Pending { index: task.index, items: task.items, payload: task.payload });
        if !job.queued {
            job.queued = true;
            // It is older than whatever has no task running yet.
            self.queue.push_front(task.job);
        }
    }

    fn drop_task(&mut self, job: JobId, index: u64, items: usize, why: Dropped) {
        self.commands.push(Command::Drop { job, index, items, why });
        self.settle(job);
    }

    fn drop_job(&mut self, job: JobId, why: Dropped) {
        let Some(j) = self.jobs.get_mut(job) else { return };
        j.cancelled = true;
        if std::mem::take(&mut j.input_open) {
            // Tasks that were never made count as one, so that the job is not taken for complete.
            let index = j.take_number(1);
            j.unfinished += 1;
            self.drop_task(job, index, 1, why);
        }
        let Some(j) = self.jobs.get_mut(job) else { return };
        let pending = std::mem::take(&mut j.pending);
        for task in pending {
            self.drop_task(job, task.index, task.items, why);
        }
    }

    fn drop_all(&mut self, why: Dropped) {
        for job in self.jobs.keys().collect::<Vec<_>>() {
            self.drop_job(job, why);
        }
        for (_, w) in self.workers.iter_mut() {
            let assigned = std::mem::take(&mut w.assigned);
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
        // A cancelled job does not wait for its source, which may be stuck in somebody's code.
        if j.unfinished == 0 && !j.input_open && j.pending.is_empty() && (!j.filling || j.cancelled) {
            self.jobs.remove(job);
            self.commands.push(Command::Ended(job));
        }
    }
}

impl<P> Worker<P> {
    fn place(&self, number: u64) -> Option<usize> {
        self.assigned.binary_search_by_key(&number, |t| t.number).ok()
    }

    fn give(&mut self, job: JobId, func: u32, task: Pending<P>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.given += 1;
        let Pending { index, items, payload } = task;
        self.assigned.push_back(Assigned { number, job, index, items, func, payload });
        number
    }
}

impl<P> Job<P> {
    fn take_number(&mut self, items: usize) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        self.in_window += items;
        if let Some(left) = &mut self.items_left {
            *left = left.saturating_sub(items);
        }
        index
    }

    /// Whether the job may have tasks to give, now or after a fill.
    fn can_give(&self) -> bool {
        let room = self.shape.window.is_none_or(|w| self.in_window < w);
        !self.pending.is_empty() || (self.input_open && (room || self.filling))
    }

    fn wanted(
        &self,
        id: JobId,
        each: Option<u64>,
        loads: impl Iterator<Item = u64>,
        processes: usize,
    ) -> Option<Command> {
        if !self.input_open || self.filling || self.shape.supply == Supply::Complete || id.is_null() {
            return None;
        }
        let items = match self.shape.chunk {
            Chunk::Fixed(n) => n.max(1),
            Chunk::Adaptive => {
                let by_cost = each.map_or(FIRST_CHUNK, |each| (CHUNK / each.max(1)) as usize);
                let share = self.items_left.map_or(by_cost, |left| left.div_ceil(processes.max(1) * 4));
                // Several chunks fit into the window, so that one can be worked on while another is handed out.
                let part = self.shape.window.map_or(usize::MAX, |w| w / 4);
                by_cost.min(share).min(part).max(1)
            }
        };
        let deepest = depth(each, items);
        let (mut room, mut idle) = (0, false);
        for load in loads {
            room += deepest.saturating_sub(load);
            idle |= load == 0;
        }
        let mut tasks = room as usize;
        if let Some(window) = self.shape.window {
            let open = window.saturating_sub(self.in_window);
            // A chunk larger than the whole window still has to pass, alone.
            tasks = tasks.min(if self.in_window == 0 { (open / items).max(1) } else { open / items });
            idle &= open >= window / 8 || self.unfinished == 0;
            room = room.min(if open >= window / 4 { u64::MAX } else { 0 });
        }
        // Ask rarely, for much: unless somebody is idle, wait until there is room for half.
        let enough = idle || room >= deepest;
        (tasks > 0 && enough).then_some(Command::Fill { job: id, tasks, items })
    }
}

/// A worker's tasks, with what counts as such; how long ago it was last busy; the worker.
type Load = Reverse<(u64, Reverse<u64>, WorkerId)>;

/// Who can be given tasks: least loaded first; among equals the one that was busy last, whose caches are warm. One that has slept,
/// or has been stuck, for long counts as if it had `late` more tasks.
fn by_load<P>(workers: &SlotMap<WorkerId, Worker<P>>, now: u64, late: u64) -> BinaryHeap<Load> {
    let open = workers.iter().filter(|(_, w)| w.phase == Phase::Up && !w.full && !w.recalled);
    open.map(|(id, w)| {
        let patience = if w.assigned.is_empty() { ALERT } else { STUCK };
        let is_late = now.saturating_sub(w.last_finish) > patience;
        Reverse((w.assigned.len() as u64 + if is_late { late } else { 0 }, Reverse(w.last_finish), id))
    })
    .collect()
}

/// How many tasks of so many items a worker may have at a time.
fn depth(each: Option<u64>, items: usize) -> u64 {
    match each {
        None => 1,
        Some(each) => (1 + AHEAD / (each * items as u64).max(1)).min(DEEPEST),
    }
}
