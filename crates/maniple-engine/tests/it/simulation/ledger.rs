//! The simulator's own books: every task and job from the outside, and the promises that are checked whenever something is
//! entered. It knows nothing of how the scheduler works.

use maniple_engine::pool::scheduler::{Chunk, Death, Dropped, JobId, JobShape, Supply, WorkerId};
use std::collections::BTreeMap;

/// What a task will do when a worker gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Answers,
    KillsItsWorker,
    /// It fails at its first tries, with an error after which its caller wants another try.
    FailsFirst(u32),
    Unsendable,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    Failed,
    Unsendable,
    /// Its payload could not be made.
    Settled,
    /// In place of what a dropped job's source did not supply.
    NeverMade,
    Dropped(Dropped),
}

#[derive(Debug)]
pub struct Task {
    pub job: JobId,
    pub index: u64,
    pub items: usize,
    pub nanos: u64,
    pub fate: Fate,
    pub claimed_by: Option<WorkerId>,
    /// At how many deaths it was the next to be begun.
    pub next_at_deaths: u32,
    /// How often it was tried and failed, and when it may be tried again.
    pub tries: u32,
    pub again_at: u64,
    /// Its payload can be sent more than once.
    pub is_whole: bool,
    /// Its caller cancelled it while it ran.
    pub is_ended_by_caller: bool,
    pub end: Option<End>,
    pub sent: bool,
}

#[derive(Debug)]
pub struct Job {
    pub shape: JobShape,
    pub window: Option<usize>,
    /// Where its tasks stand in [`Ledger::tasks`], by their number in the job.
    pub tasks: Vec<usize>,
    pub open_tasks: usize,
    pub made: usize,
    pub settled: usize,
    pub consumed: usize,
    /// Items that its source still has.
    pub source: usize,
    /// How often its source may still give nothing without having ended.
    pub hiccups: usize,
    pub input_open: bool,
    pub filling: Option<(usize, usize)>,
    pub cancelled: bool,
    pub ended: bool,
    pub eager: bool,
    last_sent: Option<u64>,
}

/// All jobs and tasks there ever were.
#[derive(Debug, Default)]
pub struct Ledger {
    pub jobs: BTreeMap<JobId, Job>,
    pub tasks: Vec<Task>,
    pub open_jobs: usize,
    pub open_tasks: usize,
    pub closed: bool,
    pub terminated: bool,
    pub broken: bool,
    /// No worker is there, and none comes: the jobs of now are dropped.
    pub giving_up: bool,
    pub account: Account,
    /// How the last worker that has ended did so.
    pub dying: Option<Death>,
}

/// How many tasks there were, by their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub received: u64,
    pub completed: u64,
    pub failed: u64,
    pub lost: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    pub retried: u64,
    pub items_done: u64,
    /// Claims by workers, also those whose end the scheduler never learns.
    pub claims: u64,
}

impl Account {
    fn end(&mut self, end: End, items: usize, dying: Option<Death>) {
        match end {
            End::NeverMade => {
                self.received -= 1;
                return;
            }
            End::Finished => self.completed += 1,
            End::Failed | End::Unsendable | End::Settled => self.failed += 1,
            End::Dropped(Dropped::Lost(_)) if dying == Some(Death::Overdue) => self.timed_out += 1,
            End::Dropped(Dropped::Lost(_) | Dropped::Broken) => self.lost += 1,
            End::Dropped(Dropped::Cancelled | Dropped::Terminated) => self.cancelled += 1,
        }
        self.items_done += items as u64;
    }
}

impl Ledger {
    pub fn submitted(&mut self, id: JobId, shape: JobShape, source: usize, eager: bool, hiccups: usize) {
        let job = Job {
            window: shape.window,
            shape,
            tasks: Vec::new(),
            open_tasks: 0,
            made: 0,
            settled: 0,
            consumed: 0,
            source,
            hiccups,
            input_open: true,
            filling: None,
            cancelled: false,
            ended: false,
            eager,
            last_sent: None,
        };
        assert!(self.jobs.insert(id, job).is_none(), "a job's name was used twice");
        self.open_jobs += 1;
    }

    pub fn job(&mut self, id: JobId) -> &mut Job {
        self.jobs.get_mut(&id).expect("a job that was never submitted")
    }

    /// Enters a task that is about to be added. Returns its index in the ledger.
    pub fn made(&mut self, id: JobId, items: usize, nanos: u64, fate: Fate) -> usize {
        let place = self.tasks.len();
        self.account.received += 1;
        let job = self.job(id);
        assert!(job.input_open && !job.ended, "a task for a job that takes no more");
        let index = job.tasks.len() as u64;
        job.tasks.push(place);
        job.made += items;
        job.open_tasks += 1;
        self.open_tasks += 1;
        self.tasks.push(Task {
            job: id,
            index,
            items,
            nanos,
            fate,
            claimed_by: None,
            next_at_deaths: 0,
            tries: 0,
            again_at: 0,
            is_whole: true,
            is_ended_by_caller: false,
            end: None,
            sent: false,
        });
        place
    }

    /// Numbers are given without gaps, in the order in which tasks were made.
    pub fn numbered(&self, place: usize, index: Option<u64>) {
        assert_eq!(index, Some(self.tasks[place].index), "a task's number");
    }

    /// The time limit of a task.
    pub fn limit_of(&self, place: usize) -> Option<u64> {
        self.jobs[&self.tasks[place].job].shape.terms.as_ref()?.limit
    }

    /// How often a task may be tried in all.
    pub fn most_tries(&self, place: usize) -> u32 {
        self.jobs[&self.tasks[place].job].shape.terms.as_ref().map_or(0, |terms| terms.retries.most) + 1
    }

    /// A try of a task has failed, and it will be tried again.
    pub fn tried(&mut self, id: JobId, index: u64, now: u64) {
        let place = self.jobs[&id].tasks[index as usize];
        let most = self.most_tries(place);
        let terms = self.jobs[&id].shape.terms.clone().expect("only a task with terms is tried again");
        assert!(!self.jobs[&id].cancelled && !self.terminated, "a task that nobody wants is tried again");
        let task = &mut self.tasks[place];
        let is_deadly = task.next_at_deaths >= 3;
        assert!(task.claimed_by.take().is_some() || is_deadly, "a task that did not run is tried again");
        assert!(task.is_whole, "a task is tried again that cannot be sent again");
        task.tries += 1;
        self.account.retried += 1;
        assert!(task.tries < most, "a task is tried more often than wanted");
        let pause = terms.retries.first as f64 * terms.retries.factor.powi(task.tries as i32 - 1);
        task.again_at = now + (pause as u64).min(terms.retries.longest);
        task.next_at_deaths = 0;
    }

    /// How many tasks wait for their next try.
    pub fn delayed(&self, now: u64) -> usize {
        self.tasks.iter().filter(|t| t.end.is_none() && t.again_at > now).count()
    }

    /// `in_order`: no link refused anything, so older tasks go first.
    pub fn sent(&mut self, place: usize, in_order: bool, now: u64) {
        let task = &mut self.tasks[place];
        assert!(now >= task.again_at, "a task is tried again before its pause is over");
        assert!(task.end.is_none(), "an ended task is sent");
        assert!(task.claimed_by.is_none(), "a task that was claimed is sent again");
        let (id, index, again) = (task.job, task.index, std::mem::replace(&mut task.sent, true));
        let job = self.job(id);
        assert!(!job.cancelled, "a cancelled job's task is sent");
        if !again {
            assert!(!in_order || job.last_sent < Some(index), "a task is sent before an older one of its job");
            job.last_sent = Some(index);
        }
    }

    pub fn claimed(&mut self, place: usize, worker: WorkerId) {
        let over = self.terminated || self.broken;
        let task = &mut self.tasks[place];
        assert!(task.claimed_by.is_none(), "task {} of {:?} runs twice", task.index, task.job);
        assert!(task.end.is_none() || over, "task {} of {:?} runs after its end", task.index, task.job);
        task.claimed_by = Some(worker);
        self.account.claims += 1;
        let id = task.job;
        assert!(over || !self.job(id).cancelled, "a task begins although its job was cancelled");
    }

    pub fn ended(&mut self, id: JobId, index: u64, items: usize, end: End) {
        let job = self.jobs.get_mut(&id).expect("a task's job");
        assert!(!job.ended, "a task ends after its job");
        if index as usize == job.tasks.len() {
            // The rest of an input, dropped.
            assert!(matches!(end, End::Dropped(_)) && job.input_open, "a task ended that was never made");
            job.input_open = false;
            let place = self.made_nothing(id, items);
            return self.close_task(place, End::NeverMade);
        }
        let place = job.tasks[index as usize];
        let task = &self.tasks[place];
        assert_eq!(task.items, items, "a task's items");
        match end {
            End::Failed => assert!(task.claimed_by.is_some(), "a task failed that did not run"),
            End::Finished => assert!(task.claimed_by.is_some(), "a task finished that did not run"),
            End::Dropped(Dropped::Lost(worker)) => {
                let deadly = task.next_at_deaths >= 3;
                assert!(task.claimed_by == Some(worker) || deadly, "a task is lost with a worker that did not run it");
            }
            End::Dropped(Dropped::Cancelled) => {
                let begun = task.claimed_by.is_some() && !task.is_ended_by_caller;
                assert!(job.cancelled && !begun, "a task is cancelled for no reason");
            }
            End::Dropped(Dropped::Terminated) => assert!(self.terminated, "a task ends with a pool that runs"),
            End::Dropped(Dropped::Broken) => {
                assert!(self.broken || self.giving_up, "a task of a sound pool is dropped as if it were broken")
            }
            End::Unsendable | End::Settled | End::NeverMade => {
                assert!(task.claimed_by.is_none(), "a task ended unsent that was sent");
            }
        }
        self.close_task(place, end);
    }

    fn made_nothing(&mut self, id: JobId, items: usize) -> usize {
        self.job(id).input_open = true;
        let place = self.made(id, items, 0, Fate::Unsendable);
        self.job(id).input_open = false;
        place
    }

    fn close_task(&mut self, place: usize, end: End) {
        let task = &mut self.tasks[place];
        assert_eq!(task.end, None, "task {} of {:?} ends twice; now {end:?}", task.index, task.job);
        task.end = Some(end);
        let (id, items) = (task.job, task.items);
        self.account.end(end, items, self.dying);
        self.open_tasks -= 1;
        let job = self.job(id);
        job.open_tasks -= 1;
        job.settled += items;
    }

    pub fn job_ended(&mut self, id: JobId) {
        let job = self.job(id);
        assert!(!job.ended, "a job ends twice");
        assert_eq!(job.open_tasks, 0, "a job ends before its tasks");
        assert!(!job.input_open, "a job ends before its input");
        job.ended = true;
        self.open_jobs -= 1;
    }

    /// A fill is asked for: it must keep within the window, and keep a given chunk size.
    pub fn fill_wanted(&mut self, id: JobId, tasks: usize, items: usize) {
        let closed = self.closed;
        let job = self.job(id);
        assert!(!job.ended && job.input_open && !job.cancelled, "a fill for a job that takes no more");
        assert_eq!(job.shape.supply, Supply::OnDemand);
        assert_eq!(job.filling, None, "two fills at a time");
        assert!(tasks > 0 && items > 0, "a fill of nothing");
        job.filling = Some((tasks, items));
        let fixed = match job.shape.chunk {
            Chunk::Fixed(size) => {
                assert_eq!(items, size.max(1), "a given chunk size is kept");
                true
            }
            Chunk::Adaptive => false,
        };
        if let Some(window) = job.window.filter(|_| !closed) {
            let under_way = job.made - job.consumed;
            let alone = fixed && tasks == 1 && under_way == 0;
            assert!(
                alone || under_way + tasks * items <= window,
                "{tasks} tasks of {items} items do not fit into a window of {window} with {under_way} under way"
            );
        }
    }
}
