//! A model of the scheduler's surroundings in production: a hub that executes commands in the order in which they come,
//! workers that claim what is in their links, sources, consumers, and callers that change their minds. Time jumps from event
//! to event.

use super::ledger::{End, Fate, Ledger};
use super::random::Rng;
use super::traits::{LONGEST_DELAY, MICRO, MILLI, Traits};
use super::worker::{Claim, News, Peer};
use callers::Act;
use maniple_engine::pool::scheduler::{Answered, Command, Config, JobId, Scheduler, Took, WorkerId};
use maniple_engine::pool::starts::Starts;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

/// More rounds of commands than this mean that hub and scheduler chase each other forever.
const ROUNDS: usize = 3_000;
/// More events than this mean that the world does not come to rest.
const EVENTS: usize = 400_000;
/// How long (ns) tasks may wait behind a long one while another worker is idle. The scheduler takes back from one worker at a time,
/// every 300 µs, and the hub looks every 400 µs while there is reason to.
const PATIENCE: u64 = 6 * MILLI;
/// How long (ns) a worker may have tasks and begin none while another is idle. The scheduler takes them back after 30 ms.
const SILENCE: u64 = 40 * MILLI;
/// How often the hub tries again to tell a worker to stop.
const NAP: u64 = 400 * MICRO;

/// What a task carries: where the simulator's books keep it, and, as in production, where it was sent last.
#[derive(Debug)]
pub struct Parcel {
    place: usize,
    sent_to: Option<(WorkerId, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The front gets round to starting a worker.
    Start,
    Booted(WorkerId),
    Work(WorkerId),
    Done(WorkerId),
    Crash(WorkerId),
    Exited(WorkerId),
    /// A worker that was stopped continues.
    Continue(WorkerId),
    /// The hub takes in what workers have said.
    Look,
    Filled(JobId),
    Consumed(JobId, usize),
}

/// How often the interesting things happened.
pub type Counts = BTreeMap<&'static str, u64>;
/// What happened, for a report.
pub type Journal = Option<Rc<RefCell<Vec<String>>>>;

macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        if let Some(journal) = &$world.journal {
            journal.borrow_mut().push(format!("{:>9} µs  {}", $world.now / MICRO, format!($($what)*)));
        }
    };
}

pub struct World {
    traits: Traits,
    /// The size of the pool now, the greatest number of workers that it was allowed so far, and whether it was made smaller.
    size: Config,
    most: usize,
    shrunk: bool,
    rng: Rng,
    now: u64,
    sched: Scheduler<Parcel>,
    ledger: Ledger,
    peers: BTreeMap<WorkerId, Peer>,
    starts: Starts,
    failed_in_row: usize,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    look_at: Option<u64>,
    script: Vec<(u64, Act)>,
    commands: Vec<Command>,
    ended_at: Option<u64>,
    pub counts: Counts,
    pub journal: Journal,
}

impl World {
    pub fn new(seed: u64, journal: Journal) -> World {
        let mut rng = Rng::new(seed);
        let traits = Traits::new(&mut rng);
        let script = callers::script(&traits, &mut rng);
        let sched = Scheduler::new(traits.config);
        let world = World {
            size: traits.config,
            most: traits.config.processes + traits.config.spares,
            shrunk: false,
            traits,
            rng,
            now: 1,
            sched,
            ledger: Ledger::default(),
            peers: BTreeMap::new(),
            starts: Starts::default(),
            failed_in_row: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            look_at: None,
            script,
            commands: Vec::new(),
            ended_at: None,
            counts: Counts::new(),
            journal,
        };
        note!(world, "{:?}", world.traits);
        world
    }

    /// From the first event to the last, and a look at what is left.
    pub fn run(&mut self) {
        self.advance();
        for _ in 0..EVENTS {
            let next = self.events.peek().map(|e| e.0.0);
            let scripted = self.script.last().map(|s| s.0);
            match (next, scripted) {
                (None, None) => return self.check_end(),
                (Some(at), act) if act.is_none_or(|act| at <= act) => {
                    let Some(Reverse((at, _, event))) = self.events.pop() else { return };
                    self.now = self.now.max(at);
                    self.happen(event);
                }
                _ => {
                    if next.is_none() {
                        self.check_rest();
                    }
                    let Some((at, act)) = self.script.pop() else { return };
                    self.now = self.now.max(at);
                    self.act(act);
                }
            }
        }
        panic!("the world does not come to rest\n{}", self.sched.describe());
    }

    pub fn describe(&self) -> String {
        self.sched.describe()
    }

    fn later(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + delay, self.sequence, event)));
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn look_soon(&mut self, most: u64) {
        let at = self.now + Traits::delay(&mut self.rng, most);
        if self.look_at.is_none_or(|due| due > at || due < self.now) {
            self.look_at = Some(at);
            self.later(at - self.now, Event::Look);
        }
    }

    // ---- what happens by itself ----

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start => self.start_worker(),
            Event::Booted(worker) => self.booted(worker),
            Event::Work(worker) => self.work(worker),
            Event::Done(worker) => self.done(worker),
            Event::Crash(worker) => self.crash(worker),
            Event::Exited(worker) => self.exited(worker),
            Event::Continue(worker) => {
                if let Some(peer) = self.peers.get_mut(&worker) {
                    peer.stopped = false;
                    self.work(worker);
                }
            }
            // An earlier look was due meanwhile, and has planned the next.
            Event::Look if self.look_at != Some(self.now) => {}
            Event::Look => {
                self.look_at = None;
                for worker in self.peers.keys().copied().collect::<Vec<_>>() {
                    self.hear_out(worker);
                }
                self.advance();
                self.check_sharing();
            }
            Event::Filled(job) => self.fill(job),
            Event::Consumed(job, items) => {
                self.ledger.job(job).consumed += items;
                self.sched.consumed(job, items);
                self.advance();
            }
        }
    }

    fn booted(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get_mut(&worker).filter(|p| p.alive) else { return };
        if peer.stopped {
            return self.later(MILLI, Event::Booted(worker));
        }
        peer.booted = true;
        peer.up.push_back(News::Hello);
        self.look_soon(self.traits.look);
        if self.rng.per_mille(self.traits.dies_idle) {
            self.count("died idle");
            let after = Traits::delay(&mut self.rng, MILLI);
            self.later(after, Event::Crash(worker));
        }
        self.work(worker);
    }

    fn work(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        match peer.next() {
            Claim::Nothing => {}
            Claim::Stop => {
                note!(self, "{worker:?} stops");
                let after = Traits::delay(&mut self.rng, self.traits.notice);
                self.later(after, Event::Exited(worker));
            }
            Claim::Task(place) => {
                note!(
                    self,
                    "{worker:?} claims {} of {:?}",
                    self.ledger.tasks[place].index,
                    self.ledger.tasks[place].job
                );
                self.ledger.claimed(place, worker);
                self.peers.entry(worker).and_modify(|p| p.began = self.now);
                let claims = self.peers[&worker].claims;
                assert!(
                    self.traits.config.max_tasks.is_none_or(|most| claims <= most),
                    "a worker got more than max_tasks"
                );
                let (nanos, fate) = (self.ledger.tasks[place].nanos, self.ledger.tasks[place].fate);
                if fate == Fate::KillsItsWorker {
                    self.count("died busy");
                    self.later(nanos / 2, Event::Crash(worker));
                } else {
                    self.later(nanos, Event::Done(worker));
                }
            }
        }
    }

    fn done(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get_mut(&worker).filter(|p| p.alive) else { return };
        if peer.stopped {
            return self.later(MILLI, Event::Done(worker));
        }
        let Some((number, place)) = peer.running.take() else { return };
        let task = &self.ledger.tasks[place];
        peer.up.push_back(match task.fate {
            Fate::FailsFirst(tries) if task.tries < tries => News::Failed(number, task.nanos),
            _ => News::Done(number, task.nanos),
        });
        self.look_soon(self.traits.look);
        if self.rng.per_mille(self.traits.task_kills / 10) {
            self.count("died between tasks");
            return self.crash(worker);
        }
        self.work(worker);
    }

    fn crash(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get_mut(&worker).filter(|p| p.alive) else { return };
        peer.alive = false;
        note!(self, "{worker:?} dies");
        let after = Traits::delay(&mut self.rng, self.traits.notice);
        self.later(after, Event::Exited(worker));
    }

    fn exited(&mut self, worker: WorkerId) {
        self.hear_out(worker);
        let Some(peer) = self.peers.remove(&worker) else { return };
        note!(self, "{worker:?} is found dead");
        if peer.lacking && !self.sched.is_up(worker) && !self.ledger.terminated {
            note!(self, "{worker:?} lacked something before it was ready");
            self.count("lacked something as it started");
            self.sched.worker_postponed(worker);
            let too_long = self.starts.lacked(self.sched.greeted(), self.sched.is_served(), self.now);
            let none_is_ready = self.peers.values().all(|p| !p.greeted && !p.retired);
            self.start_later(too_long, none_is_ready);
            return self.advance();
        }
        if !peer.greeted {
            self.failed_start(peer.retired);
        }
        let next = self.sched.assigned(worker).next().map(|task| task.payload.place);
        if let Some(next) = next
            && self.ledger.tasks[next].claimed_by != Some(worker)
        {
            self.ledger.tasks[next].next_at_deaths += 1;
            if self.ledger.tasks[next].next_at_deaths == 3 {
                self.count("lost as deadly");
            }
        }
        let tasks = &self.ledger.tasks;
        let mut asked = 0;
        let claimed = |parcel: &Parcel| {
            assert!(
                parcel.sent_to.is_some_and(|(to, _)| to == worker),
                "a dead worker had a task that was never sent to it"
            );
            asked += 1;
            tasks[parcel.place].claimed_by == Some(worker)
        };
        let whole = |parcel: &Parcel| tasks[parcel.place].is_whole;
        self.ledger.dying = Some(peer.death);
        self.sched.worker_gone(worker, peer.death, self.now, claimed, whole);
        *self.counts.entry("waiting tasks of the dead").or_default() += asked;
        self.advance();
    }

    fn hear_out(&mut self, worker: WorkerId) {
        loop {
            let Some(news) = self.peers.get_mut(&worker).and_then(|p| p.up.pop_front()) else { return };
            let Some(peer) = self.peers.get_mut(&worker) else { return };
            match news {
                News::Hello => {
                    peer.greeted = true;
                    self.failed_in_row = 0;
                    self.sched.worker_up(worker, self.now);
                }
                News::Failed(number, nanos) => {
                    peer.refused = false;
                    peer.behind_since = None;
                    let tasks = &self.ledger.tasks;
                    let whole = |parcel: &Parcel| tasks[parcel.place].is_whole;
                    let took = Took { nanos, began: peer.began };
                    match self.sched.failed(worker, number, took, Answered::Failed, self.now, whole) {
                        Some(((job, index, _), true)) => {
                            self.count("tried again after a failure");
                            self.ledger.tried(job, index, self.now);
                        }
                        Some(((job, index, items), false)) => self.end_task(job, index, items, End::Failed),
                        None => assert!(self.ledger.terminated || self.ledger.broken, "a failure of an unknown task"),
                    }
                }
                News::Done(number, nanos) => {
                    peer.refused = false;
                    peer.behind_since = None;
                    let took = Took { nanos, began: peer.began };
                    match self.sched.finished(worker, number, took, Answered::Completed, self.now) {
                        Some((job, index, items)) => self.end_task(job, index, items, End::Finished),
                        None => assert!(
                            self.ledger.terminated || self.ledger.broken,
                            "the scheduler does not know of task {number} of {worker:?}, which finished"
                        ),
                    }
                }
            }
        }
    }

    fn end_task(&mut self, job: JobId, index: u64, items: usize, end: End) {
        note!(self, "{index} of {job:?} ends: {end:?}");
        self.ledger.ended(job, index, items, end);
        let job_record = self.ledger.job(job);
        if job_record.eager {
            let after = Traits::delay(&mut self.rng, self.traits.look.max(MICRO));
            self.later(after, Event::Consumed(job, items));
        }
    }

    fn fill(&mut self, id: JobId) {
        let Some((most, items)) = self.ledger.job(id).filling.take() else { return };
        if self.ledger.job(id).ended {
            // The source was busy when its job was dropped: its tasks are not wanted.
            let stray = Parcel { place: usize::MAX, sent_to: None };
            assert_eq!(self.sched.add(id, items, stray, self.now), None, "a task is added to a job that has ended");
            assert_eq!(self.sched.add_settled(id, items), None);
            self.sched.filled(id, false);
            self.count("filled too late");
            return self.advance();
        }
        let dropped = self.ledger.job(id).cancelled || !self.ledger.job(id).input_open;
        let mut tasks = if self.rng.per_mille(100) { self.rng.count(1, most) } else { most };
        if self.ledger.job(id).hiccups > 0 && self.rng.per_mille(100) {
            self.ledger.job(id).hiccups -= 1;
            tasks = 0;
        }
        for _ in 0..tasks {
            let items = items.min(self.ledger.job(id).source);
            if items == 0 {
                break;
            }
            self.ledger.job(id).source -= items;
            if dropped {
                let stray = Parcel { place: usize::MAX, sent_to: None };
                assert_eq!(self.sched.add(id, items, stray, self.now), None, "a task is added to a dropped job");
            } else {
                self.make(id, items);
            }
        }
        let ended = self.ledger.job(id).source == 0 && self.rng.per_mille(700);
        if ended {
            self.ledger.job(id).input_open = false;
        }
        note!(self, "{id:?} is filled with up to {tasks} tasks of {items}, ended: {ended}");
        self.sched.filled(id, ended);
        self.advance();
    }

    fn make(&mut self, id: JobId, items: usize) {
        let (nanos, roll) = (self.traits.work(&mut self.rng), self.rng.between(0, 999));
        let fate = if roll < self.traits.task_kills {
            Fate::KillsItsWorker
        } else if roll >= 1000 - self.traits.unsendable {
            Fate::Unsendable
        } else if self.rng.per_mille(self.traits.task_kills) {
            Fate::FailsFirst(self.rng.between(1, 4) as u32)
        } else {
            Fate::Answers
        };
        let place = self.ledger.made(id, items, nanos, fate);
        self.ledger.tasks[place].is_whole = !self.rng.per_mille(100);
        if self.rng.per_mille(self.traits.settled) {
            self.count("settled on fill");
            let index = self.sched.add_settled(id, items);
            self.ledger.numbered(place, index);
            return self.end_task(id, index.unwrap_or_default(), items, End::Settled);
        }
        let index = self.sched.add(id, items, Parcel { place, sent_to: None }, self.now);
        self.ledger.numbered(place, index);
    }

    // ---- what the scheduler commands ----

    fn advance(&mut self) {
        for worker in self.sched.silent().collect::<Vec<_>>() {
            if self.peers.get(&worker).is_some_and(Peer::has_read) {
                self.count("awake again");
                self.sched.awake(worker);
            }
        }
        if self.sched.has_limits() {
            for (&worker, peer) in &self.peers {
                if let Some((number, _)) = peer.running {
                    self.sched.runs(worker, number, peer.began, self.now);
                }
            }
        }
        for round in 0.. {
            assert!(round < ROUNDS, "plan and commands chase each other for ever: {:?}", self.commands);
            self.sched.plan(self.now);
            let mut commands = std::mem::take(&mut self.commands);
            self.sched.commands(&mut commands);
            if commands.is_empty() {
                break;
            }
            for &command in &commands {
                self.execute(command);
            }
            if round < ROUNDS - 1 {
                commands.clear();
            }
            self.commands = commands;
        }
        for (worker, peer) in &mut self.peers {
            if peer.post_stop() {
                self.sequence += 1;
                self.events.push(Reverse((self.now + MICRO, self.sequence, Event::Work(*worker))));
            }
        }
        self.check_step();
        // A stop for which there was no room is tried again even if nothing else happens.
        let stops = self.peers.values().any(|p| p.stop_due && p.alive);
        if let Some(after) = self.sched.next_look(self.now).into_iter().chain(stops.then_some(NAP)).min() {
            let due = self.now + after;
            if self.look_at.is_none_or(|at| at > due || at < self.now) {
                self.look_at = Some(due);
                self.later(after, Event::Look);
            }
        }
    }
}

#[path = "callers.rs"]
mod callers;
#[path = "checks.rs"]
mod checks;
#[path = "commands.rs"]
mod commands;
#[path = "worker_starts.rs"]
mod worker_starts;
