//! The hub: scheduler, links and jobs under one lock.
//!
//! The lock is a leaf: it is never held while a front's code runs (sources are taken out of their job while they are asked),
//! nor while sleeping. So a front may call in here while it holds locks of its own, such as an interpreter's.
//!
//! Who drives, that is, takes in what workers say and acts on it:
//! * the *driver*, a caller that waits for a ticket (see [`ticket`](super::ticket)); there is at most one;
//! * whoever submits, for as long as it takes to hand the new work out;
//! * the keeper, when there is something to do and nobody waits.
#![allow(unsafe_code)]

use super::deaths::Tail;
use super::job::{Cell, Collect, Feed, Job, Loss, Outcome, Settled};
use super::link::{Desk, HubLink, kind, level};
use super::packet::{Incoming, Packer, Packet};
use super::scheduler::{Chunk, Command, Config, Dropped, JobId, JobShape, Scheduler, Supply, WorkerId};
use super::spin::Spin;
use super::ticket::Ticket;
use crate::error::{Doing, Error, Result};
use crate::process::ExitWatch;
use crate::shm::ring::Head;
use crate::sys::futex::Woken;
use crate::sys::{self, Handle, clock, ready};
use rustc_hash::FxHashMap;
use slotmap::SecondaryMap;
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Free blocks that a hub keeps for its tasks, in bytes.
const KEPT: usize = 256 << 20;
/// How long a driver sleeps at most when it asked to be woken late, or when waiting tasks might need another worker.
const NAP: Duration = Duration::from_micros(400);

/// What a pool is like.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// How many workers.
    pub processes: usize,
    /// After how many tasks a worker is replaced; `None`: never.
    pub max_tasks_per_child: Option<NonZeroU64>,
    /// Whether workers' standard error passes through the hub, so that errors can quote it.
    pub tap_stderr: bool,
}

/// A job to be.
pub struct JobSpec {
    /// What its tasks call.
    pub func: Func,
    /// In which order outcomes are wanted.
    pub collect: Collect,
    /// How many items make a task.
    pub chunk: Chunk,
    /// How many items there are, if that is known.
    pub items: Option<usize>,
    /// How many items, and about how many bytes of payload, may be under way and not consumed.
    pub window: Option<(usize, usize)>,
    /// Whether the keeper reports the job's end ([`super::Chore::Completed`]).
    pub notify: bool,
}

/// Where a job's tasks come from.
pub enum SourceKind {
    /// Here they are (as a rule, one).
    Ready(Vec<(usize, Packet)>),
    /// Asked by whoever drives the hub. It must not block.
    Inline(Box<dyn Source>),
    /// Asked for through [`Hub::wanted`] by a thread of the front's, which may block.
    External,
}

/// Makes a job's tasks when there is room for them.
pub trait Source: Send {
    /// Puts up to `tasks` tasks of up to `items` items each into `out`. True: there are no more.
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool;
}

/// Where a source puts tasks.
pub struct Filling<'a> {
    /// Makes packets.
    pub packer: &'a Packer,
    tasks: Vec<(usize, Result<Packet, Box<dyn Any + Send>>)>,
}

impl<'a> Filling<'a> {
    /// An empty one.
    pub fn new(packer: &'a Packer) -> Self {
        Filling { packer, tasks: Vec::new() }
    }

    /// A task of so many items.
    pub fn task(&mut self, items: usize, packet: Packet) {
        self.tasks.push((items, Ok(packet)));
    }

    /// A task that cannot be sent; `why` arrives as its [`Outcome::Unsent`].
    pub fn unsent(&mut self, items: usize, why: Box<dyn Any + Send>) {
        self.tasks.push((items, Err(why)));
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// A function that workers know, or will when they need it. The last clone that goes makes them forget it.
#[derive(Clone, Debug)]
pub struct Func(Arc<FuncHold>);

#[derive(Debug)]
struct FuncHold {
    number: u32,
    hub: Weak<Inner>,
}

impl Drop for FuncHold {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.unused.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

/// The process's side of a pool. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    // Never dropped in a forked child: what it holds belongs to the parent.
    inner: ManuallyDrop<Arc<Inner>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("owner", &self.inner.owner).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    owner: u32,
    cores: usize,
    tapped: bool,
    pub(super) desk: Desk,
    pub(super) kick: ready::Kick,
    packer: Packer,
    // Functions that nobody holds any more. A lock of its own: it is taken wherever a value is dropped.
    unused: Mutex<Vec<u32>>,
    state: Mutex<State>,
}

pub(super) struct Peer {
    pub link: HubLink,
    pub pid: u32,
    pub watch: Option<Arc<ExitWatch>>,
    pub tail: Tail,
    /// What it said when it could not get ready.
    pub unfit: Option<Incoming>,
    pub damaged: bool,
    /// Its exit was seen, and the front has been asked to reap it.
    pub reaping: bool,
    /// The front is still to be asked.
    pub reap_due: bool,
    /// Its end of the wire is not closed.
    pub wire_open: bool,
    stop_due: bool,
}

pub(super) struct State {
    pub sched: Scheduler<Packet>,
    pub peers: SecondaryMap<WorkerId, Peer>,
    // Not by slot: a job stays here until it is collected, long after the scheduler has used its slot again.
    pub jobs: FxHashMap<JobId, Job>,
    functions: HashMap<u32, Packet>,
    next_function: u32,
    /// Somebody drives.
    pub driving: bool,
    pub parked: Vec<Arc<Cell>>,
    fills: VecDeque<(JobId, usize, usize)>,
    /// Workers to be started by the front.
    pub starts: usize,
    /// Jobs whose end the front wants to be told of.
    pub notices: VecDeque<JobId>,
    commands: Vec<Command>,
    spin: Spin,
    /// The death that is being dealt with.
    pub loss: Option<Arc<Loss>>,
    /// Why no worker could be started.
    pub broken: Option<Arc<Loss>>,
    pub terminated: bool,
    /// Jobs that have not ended and whose end the front wants to be told of.
    watched: usize,
    /// Somebody's outcome came since the driver last looked.
    pub called: bool,
    /// Futures wait: the keeper must look at everything.
    pub attended: bool,
}

impl Hub {
    /// A hub without workers.
    ///
    /// # Errors
    /// No shared memory or no descriptor left.
    pub fn new(config: HubConfig) -> Result<Hub> {
        let sched = Scheduler::new(Config {
            processes: config.processes,
            max_tasks: config.max_tasks_per_child.map(NonZeroU64::get),
        });
        let state = State {
            sched,
            peers: SecondaryMap::new(),
            jobs: FxHashMap::default(),
            functions: HashMap::new(),
            next_function: 0,
            driving: false,
            parked: Vec::new(),
            fills: VecDeque::new(),
            starts: 0,
            notices: VecDeque::new(),
            commands: Vec::new(),
            spin: Spin::default(),
            loss: None,
            broken: None,
            terminated: false,
            attended: false,
            called: false,
            watched: 0,
        };
        let inner = Inner {
            owner: sys::process_id(),
            cores: sys::cores(),
            tapped: config.tap_stderr,
            desk: Desk::create()?,
            kick: ready::Kick::new().doing("make the keeper's bell")?,
            packer: Packer::new(KEPT),
            unused: Mutex::default(),
            state: Mutex::new(state),
        };
        Ok(Hub { inner: ManuallyDrop::new(Arc::new(inner)) })
    }

    /// Whether this process made the hub.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it did not.
    pub fn check(&self) -> Result<()> {
        if sys::process_id() == self.inner.owner { Ok(()) } else { Err(Error::Foreign { owner: self.inner.owner }) }
    }

    /// Makes packets for tasks and functions.
    pub fn packer(&self) -> &Packer {
        &self.inner.packer
    }

    // ---- workers ----

    /// A new link: its worker, and the handles that the worker must be given, in this order. The front starts a process with
    /// them and says [`Hub::adopt`].
    ///
    /// # Errors
    /// No shared memory or no descriptor left.
    pub fn create_link(&self) -> Result<(WorkerId, Vec<Handle>)> {
        self.check()?;
        let (link, handles) = HubLink::create(&self.inner.desk, self.inner.tapped)?;
        let mut st = self.lock();
        let worker = st.sched.worker_started();
        let peer = Peer {
            link,
            pid: 0,
            watch: None,
            tail: Tail::default(),
            unfit: None,
            damaged: false,
            reaping: false,
            reap_due: false,
            wire_open: true,
            stop_due: false,
        };
        st.peers.insert(worker, peer);
        Ok((worker, handles.into_vec()))
    }

    /// The link's process runs.
    ///
    /// # Errors
    /// The operating system cannot watch it.
    pub fn adopt(&self, worker: WorkerId, pid: u32) -> Result<()> {
        let watch = ExitWatch::of(pid)?;
        let mut st = self.lock();
        if let Some(peer) = st.peers.get_mut(worker) {
            peer.pid = pid;
            peer.watch = Some(Arc::new(watch));
        }
        drop(st);
        self.inner.kick.kick();
        Ok(())
    }

    /// The link's process could not be started; the link is thrown away.
    pub fn disown(&self, worker: WorkerId) {
        let mut st = self.lock();
        st.peers.remove(worker);
        st.sched.worker_gone(worker, |_| false);
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
    }

    /// The processes of the pool's workers, as far as they were adopted.
    pub fn pids(&self) -> Vec<u32> {
        self.lock().peers.values().map(|p| p.pid).filter(|&p| p != 0).collect()
    }

    // ---- jobs ----

    /// Makes a function known: `packet` reaches each worker once, before its first task of it.
    pub fn define(&self, packet: Packet) -> Func {
        let mut st = self.lock();
        st.next_function += 1;
        let number = st.next_function;
        st.functions.insert(number, packet);
        Func(Arc::new(FuncHold { number, hub: Arc::downgrade(&self.inner) }))
    }

    /// Takes a job on.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Foreign`].
    pub fn submit(&self, spec: JobSpec, source: SourceKind) -> Result<Ticket> {
        self.check()?;
        let shape = JobShape {
            func: spec.func.0.number,
            supply: if matches!(source, SourceKind::Ready(_)) { Supply::Complete } else { Supply::OnDemand },
            chunk: spec.chunk,
            items: spec.items,
            window: spec.window.map(|(items, _)| items),
        };
        let mut st = self.lock();
        // A broken pool takes the job and fails it with what broke the pool.
        let broken = st.sched.is_broken();
        let id = if broken { Some(st.sched.submit_broken(shape)) } else { st.sched.submit(shape) };
        let Some(id) = id else { return Err(Error::NotRunning) };
        let (feed, ready) = match source {
            SourceKind::Ready(tasks) => (Feed::None, Some(tasks)),
            SourceKind::Inline(source) => (Feed::Inline(Some(source)), None),
            SourceKind::External => (Feed::External { wanted: None, cell: Arc::default() }, None),
        };
        let mut job = Job::new(spec.collect, feed, spec.func, spec.notify);
        job.window_bytes = spec.window.map(|(_, bytes)| bytes);
        let cell = job.cell.clone();
        st.watched += usize::from(job.notify);
        st.jobs.insert(id, job);
        if let Some(tasks) = ready.filter(|_| !broken) {
            for (items, packet) in tasks {
                st.sched.add(id, items, packet);
            }
            st.sched.filled(id, true);
        }
        self.inner.follow_up(&mut st);
        drop(st);
        Ok(Ticket { hub: self.clone(), job: id, cell })
    }

    /// For the thread that feeds a job of [`SourceKind::External`]: waits until tasks are wanted, and gives how many, of how
    /// many items each. `None`: the job is over.
    pub fn wanted(&self, job: JobId, timeout: Duration) -> Option<(usize, usize)> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut st = self.lock();
            let Some(Feed::External { wanted, cell }) = st.jobs.get_mut(&job).map(|j| &mut j.feed) else { return None };
            if let Some(wanted) = wanted.take() {
                return Some(wanted);
            }
            let (cell, ticks) = (cell.clone(), cell.ticks());
            drop(st);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some((0, 0));
            }
            cell.sleep(ticks, Some(left));
        }
    }

    /// One task of what is wanted: it is on its way before the thread looks for the next, which may take long to come.
    pub fn feed_one(&self, job: JobId, filling: Filling<'_>) {
        let mut st = self.lock();
        self.inner.take_in(&mut st, job, filling.tasks);
        self.inner.follow_up(&mut st);
    }

    /// What such a thread made of it. `ended`: there is no more.
    pub fn feed(&self, job: JobId, filling: Filling<'_>, ended: bool) {
        let mut st = self.lock();
        self.inner.take_in(&mut st, job, filling.tasks);
        st.sched.filled(job, ended);
        self.inner.follow_up(&mut st);
    }

    pub(crate) fn take_outcomes(&self, job: JobId, most: usize) -> (Vec<Settled>, bool) {
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return (Vec::new(), true) };
        let taken = j.take(most);
        (taken, j.ended && j.is_empty())
    }

    pub(crate) fn consumed(&self, job: JobId, items: usize) {
        let mut st = self.lock();
        st.sched.consumed(job, items);
        if st.driving {
            // The driver acts on it when it next looks; it may be asleep.
            self.inner.advance(&mut st);
            self.inner.stir(&mut st);
            return;
        }
        st.driving = true;
        st = self.inner.drive_once(st);
        self.inner.leave_seat(st);
    }

    pub(crate) fn cancel(&self, job: JobId) {
        let mut st = self.lock();
        st.sched.cancel(job);
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
    }

    pub(crate) fn orphan(&self, job: JobId) {
        if self.check().is_err() {
            return;
        }
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return };
        j.orphaned = true;
        if j.ended && !j.notify {
            let gone = st.jobs.remove(&job);
            drop(st);
            drop(gone);
        }
    }

    // ---- the end ----

    /// No more jobs. What was submitted still runs; then the workers end.
    pub fn close(&self) {
        let mut st = self.lock();
        st.sched.close();
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        drop(st);
        self.inner.kick.kick();
    }

    /// Drops all that has not ended. The front ends the workers.
    pub fn terminate(&self) {
        let mut st = self.lock();
        st.terminated = true;
        st.starts = 0;
        st.sched.terminate();
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        drop(st);
        self.inner.kick.kick();
    }

    /// Whether the pool takes jobs.
    pub fn is_running(&self) -> bool {
        self.lock().sched.is_running()
    }

    /// How many workers should be started now; the caller starts them.
    pub fn take_starts(&self) -> usize {
        let mut st = self.lock();
        self.inner.advance(&mut st);
        std::mem::take(&mut st.starts)
    }

    /// How things stand, for people.
    pub fn describe(&self) -> String {
        let st = self.lock();
        let seat = if st.driving { "somebody drives" } else { "nobody drives" };
        let news = st.peers.values().filter(|p| p.damaged).count();
        let jobs: String = st.jobs.iter().map(|(id, j)| format!("\nheld {id:?}: {}", j.describe())).collect();
        format!("{seat}, bell {}, {} fills due, {news} damaged\n{}{jobs}", self.inner.desk.bell().level(), st.fills.len(), st.sched.describe())
    }

    /// Wakes the keeper.
    pub fn kick(&self) {
        self.inner.kick.kick();
    }

    // ---- driving ----

    /// The driver's seat, if it is free; otherwise what to sleep on until it may be.
    pub(crate) fn take_seat(&self, cell: &Arc<Cell>) -> Result<Seat<'_>, u32> {
        let mut st = self.lock();
        if st.driving {
            if !st.parked.iter().any(|c| Arc::ptr_eq(c, cell)) {
                st.parked.push(cell.clone());
            }
            let ticks = cell.ticks();
            // Readiness is announced under the lock; whoever slept after this look would miss it otherwise.
            return if cell.is_ready() { Err(ticks.wrapping_sub(1)) } else { Err(ticks) };
        }
        st.driving = true;
        // Whatever the keeper wanted to be woken for is this thread's business now.
        self.inner.desk.bell().disarm();
        Ok(Seat { inner: &self.inner, state: Some(st) })
    }

    /// Takes in what workers have said, if nobody else does.
    pub(crate) fn poll(&self) {
        if self.check().is_err() {
            return;
        }
        let mut st = self.lock();
        if !st.driving {
            st.driving = true;
            st = self.inner.drive_once(st);
            self.inner.leave_seat(st);
        }
    }

    /// Somebody waits who cannot drive.
    pub(crate) fn attend(&self) {
        let mut st = self.lock();
        if !st.attended {
            st.attended = true;
            drop(st);
            self.inner.kick.kick();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.lock()
    }

    pub(super) fn shared(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.check().is_ok() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.inner) };
        }
    }
}

/// The right to drive, and the duty to hand it on.
pub(crate) struct Seat<'a> {
    inner: &'a Inner,
    state: Option<MutexGuard<'a, State>>,
}

impl Seat<'_> {
    /// Drives until `cell` is ready, `until`, or a signal.
    pub fn drive(mut self, cell: &Cell, until: Instant) -> Woken {
        let inner = self.inner;
        let Some(mut st) = self.state.take() else { return Woken::Rung };
        let outcome = loop {
            st = inner.drive_once(st);
            if cell.is_ready() {
                break Woken::Rung;
            }
            let now = Instant::now();
            if now >= until {
                break Woken::TimedOut;
            }
            let alone = st.sched.busy() < inner.cores;
            let mut spin = std::mem::take(&mut st.spin);
            drop(st);
            let news = spin.until(alone, || inner.may_have_news() || cell.is_ready());
            st = inner.lock();
            st.spin = spin;
            if news || inner.has_news(&mut st) || cell.is_ready() {
                continue;
            }
            let brisk = st.is_brisk();
            let level = if brisk { level::CALLER_HALF } else { level::CALLER };
            let bell = inner.desk.bell();
            bell.arm(level);
            if inner.has_news(&mut st) || cell.is_ready() || !st.fills.is_empty() {
                bell.disarm();
                continue;
            }
            let mut limit = until.saturating_duration_since(now);
            if brisk || st.sched.wants_tick() {
                limit = limit.min(NAP);
            }
            drop(st);
            let woken = bell.sleep(level, Some(limit));
            st = inner.lock();
            bell.disarm();
            if woken == Woken::Signal {
                break Woken::Signal;
            }
        };
        inner.leave_seat(st);
        outcome
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all news, acts on it, and asks sources for what is wanted. The caller holds the seat.
    pub(super) fn drive_once<'a>(&'a self, mut st: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        loop {
            self.listen(&mut st);
            self.advance(&mut st);
            st.called = false;
            let Some((job, tasks, items)) = st.fills.pop_front() else { return st };
            let Some(Feed::Inline(source)) = st.jobs.get_mut(&job).map(|j| &mut j.feed) else { continue };
            let Some(mut source) = source.take() else { continue };
            drop(st);
            let mut filling = Filling::new(&self.packer);
            let ended = source.fill(tasks, items, &mut filling);
            let tasks = filling.tasks;
            st = self.lock();
            let over = match st.jobs.get_mut(&job).map(|j| &mut j.feed) {
                Some(Feed::Inline(place)) if !ended => {
                    *place = Some(source);
                    None
                }
                _ => Some(source),
            };
            self.take_in(&mut st, job, tasks);
            st.sched.filled(job, ended);
            if over.is_some() {
                // A source's end may run a front's code.
                self.advance(&mut st);
                drop(st);
                drop(over);
                st = self.lock();
            }
        }
    }

    fn take_in(
        &self,
        st: &mut State,
        job: JobId,
        tasks: Vec<(usize, Result<Packet, Box<dyn Any + Send>>)>,
    ) {
        for (items, task) in tasks {
            match task {
                Ok(packet) => {
                    st.weigh(job, items, packet.size());
                    st.sched.add(job, items, packet);
                }
                Err(why) => {
                    if let Some(index) = st.sched.add_settled(job, items) {
                        st.settle(job, Settled { index, items, outcome: Outcome::Unsent(why) });
                    }
                }
            }
        }
    }

    /// After an event from a thread that does not drive: hands out, and sees to it that what came up is seen to.
    fn follow_up(&self, st: &mut State) {
        let driven = st.driving;
        if !driven {
            // What was answered meanwhile makes room, and says who is idle.
            self.listen(st);
        }
        self.advance(st);
        self.settle_down(st, driven);
    }

    /// Hands the seat on: to somebody who waits, or to nobody.
    pub(super) fn leave_seat(&self, mut st: MutexGuard<'_, State>) {
        st.driving = false;
        let next = loop {
            match st.parked.pop() {
                Some(cell) if cell.is_ready() => cell.call(),
                other => break other,
            }
        };
        match next {
            Some(cell) => cell.call(),
            None => self.settle_down(&mut st, false),
        }
    }

    /// Nobody drives now: sees to it that somebody comes when there is need.
    fn settle_down(&self, st: &mut State, driven: bool) {
        if driven || st.driving {
            self.stir(st);
            return;
        }
        let bell = self.desk.bell();
        match st.unattended_level() {
            None => bell.disarm(),
            Some(level) => {
                bell.arm(level);
                if (level == level::KEEPER && self.has_news(st)) || st.has_chores() || !st.fills.is_empty() {
                    bell.disarm();
                    self.kick.kick();
                }
            }
        }
        if st.has_chores() {
            self.kick.kick();
        }
    }

    /// If somebody drives: wakes it where there is something for it to do, or an outcome that may be its own.
    pub(super) fn stir(&self, st: &mut State) {
        if st.driving && (std::mem::take(&mut st.called) || !st.fills.is_empty()) {
            if let Some(level) = self.desk.bell().ring(|_| true) {
                if matches!(level, level::CALLER | level::CALLER_HALF) { self.desk.bell().wake() } else { self.kick.kick() }
            }
        }
    }

    fn may_have_news(&self) -> bool {
        // The lock is free for a moment at a time; a spinner that finds it taken looks again.
        self.state.try_lock().is_ok_and(|mut st| self.has_news(&mut st))
    }

    pub(super) fn has_news(&self, st: &mut State) -> bool {
        st.peers.values_mut().any(|p| !p.damaged && p.link.has_news())
    }

    /// Takes in what workers have said.
    pub(super) fn listen(&self, st: &mut State) -> bool {
        let mut any = false;
        let workers: Vec<WorkerId> = st.peers.keys().collect();
        for worker in workers {
            any |= self.hear_out(st, worker);
        }
        any
    }

    /// Takes in what one worker has said.
    pub(super) fn hear_out(&self, st: &mut State, worker: WorkerId) -> bool {
        let mut any = false;
        let now = clock::now();
        loop {
            let Some(peer) = st.peers.get_mut(worker).filter(|p| !p.damaged) else { return any };
            let heard = match peer.link.hear() {
                Ok(None) => return any,
                Ok(Some(said)) => match said.kind {
                    kind::HELLO => {
                        st.sched.worker_up(worker, now);
                        Ok(())
                    }
                    kind::UNFIT => {
                        peer.unfit = Some(said.content);
                        Ok(())
                    }
                    kind::DONE | kind::FAILED => match st.sched.finished(worker, said.number, said.nanos, now) {
                        Some((job, index, items)) => {
                            st.weigh(job, items, said.content.size());
                            let done = said.kind == kind::DONE;
                            let outcome = if done { Outcome::Done(said.content) } else { Outcome::Failed(said.content) };
                            st.settle(job, Settled { index, items, outcome });
                            Ok(())
                        }
                        // After a termination the scheduler knows nothing of what still runs.
                        None if st.terminated => Ok(()),
                        None => Err(Error::Damaged("an answer to a task that the worker was not given")),
                    },
                    _ => Err(Error::Damaged("a frame of a kind that does not exist")),
                },
                Err(e) => Err(e),
            };
            any = true;
            if heard.is_err()
                && let Some(peer) = st.peers.get_mut(worker)
            {
                // It has gone mad: its death, which follows, settles what it had.
                peer.damaged = true;
                if let Some(watch) = &peer.watch {
                    let _ = watch.signal(9);
                }
            }
        }
    }

    /// Lets the scheduler decide, and does what it says.
    pub(super) fn advance(&self, st: &mut State) {
        self.forget_unused(st);
        let mut commands = std::mem::take(&mut st.commands);
        loop {
            st.sched.plan(clock::now());
            st.sched.commands(&mut commands);
            if commands.is_empty() {
                break;
            }
            for command in commands.drain(..) {
                self.execute(st, command);
            }
        }
        st.commands = commands;
        let State { peers, sched, .. } = st;
        for (worker, peer) in peers.iter_mut() {
            if peer.stop_due {
                peer.stop_due = !peer.link.signal(kind::STOP, 0);
            }
            if peer.link.dirty {
                peer.link.set_halfway(sched.halfway(worker).unwrap_or(0));
                peer.link.ring();
            }
        }
    }

    fn execute(&self, st: &mut State, command: Command) {
        match command {
            Command::Send { worker, number } => self.send(st, worker, number),
            Command::Fill { job, tasks, items } => match st.jobs.get_mut(&job).map(|j| &mut j.feed) {
                Some(Feed::External { wanted, cell }) => {
                    *wanted = Some((tasks, items));
                    cell.call();
                }
                Some(Feed::Inline(_)) => st.fills.push_back((job, tasks, items)),
                _ => st.sched.filled(job, true),
            },
            Command::Revoke { worker, count } => {
                let Some(peer) = st.peers.get_mut(worker) else { return };
                let sender = peer.link.sender();
                let mut taken = 0;
                for task in st.sched.assigned(worker).rev().take(count) {
                    if !sender.revoke(task.payload.position) {
                        break;
                    }
                    sender.release(&task.payload);
                    taken += 1;
                }
                st.sched.revoked(worker, taken);
            }
            Command::Retire(worker) => {
                if let Some(peer) = st.peers.get_mut(worker) {
                    peer.stop_due = true;
                    peer.link.dirty = true;
                }
            }
            Command::Start(n) => {
                st.starts += n;
                self.kick.kick();
            }
            Command::Drop { job, index, items, why } => {
                let outcome = match (why, &st.loss, &st.broken) {
                    (Dropped::Lost(_), Some(loss), _) | (Dropped::Broken, _, Some(loss)) => Outcome::Lost(loss.clone()),
                    _ => Outcome::Cancelled,
                };
                st.settle(job, Settled { index, items, outcome });
            }
            Command::Ended(job) => {
                let Some(j) = st.jobs.get_mut(&job) else { return };
                if let Feed::External { cell, .. } = &j.feed {
                    cell.call();
                }
                j.end();
                j.cell.call();
                st.called = true;
                let Some(j) = st.jobs.get(&job) else { return };
                if j.notify {
                    st.watched -= 1;
                    st.notices.push_back(job);
                    self.kick.kick();
                } else if j.orphaned {
                    st.jobs.remove(&job);
                }
            }
        }
    }

    fn send(&self, st: &mut State, worker: WorkerId, number: u64) {
        let State { sched, peers, functions, .. } = st;
        let (Some(peer), Some(task)) = (peers.get_mut(worker), sched.task(worker, number)) else { return };
        let arena = self.packer.arena();
        let func = task.func;
        let sent = (|| {
            if !peer.link.functions.contains(&func) {
                let empty = Packet::default();
                let packet = functions.get(&func).unwrap_or(&empty);
                let head = Head::new(kind::DEFINE, func, 0);
                if peer.link.send(head, packet, arena)?.is_err() {
                    return Ok(None);
                }
                peer.link.functions.insert(func);
            }
            let head = Head::new(kind::TASK, func, task.number);
            peer.link.send(head, &task.payload, arena).map(Result::ok)
        })();
        match sent {
            Ok(Some(position)) => task.payload.position = position,
            Ok(None) => sched.refused(worker, number),
            Err(error) => {
                // Not this worker's fault, and another would fare no better: the task ends here.
                if let Some((job, index, items)) = sched.unsendable(worker, number) {
                    st.settle(job, Settled { index, items, outcome: Outcome::Unsent(Box::new(error)) });
                }
            }
        }
    }

    fn forget_unused(&self, st: &mut State) {
        let unused = std::mem::take(&mut *self.unused.lock().unwrap_or_else(PoisonError::into_inner));
        for func in unused {
            st.functions.remove(&func);
            st.sched.forget_cost(func);
            for peer in st.peers.values_mut() {
                if peer.link.functions.remove(&func) && !peer.link.signal(kind::FORGET, func) {
                    // No room: the worker keeps a function that it does not need.
                    continue;
                }
            }
        }
    }
}

impl State {
    fn settle(&mut self, job: JobId, settled: Settled) {
        if let Some(j) = self.jobs.get_mut(&job)
            && j.settle(settled)
        {
            j.cell.call();
            self.called = true;
        }
    }

    /// Narrows the window of a job whose payloads are large.
    fn weigh(&mut self, job: JobId, items: usize, bytes: usize) {
        if let Some(window) = self.jobs.get_mut(&job).and_then(|j| j.weigh(items, bytes)) {
            self.sched.narrow(job, window);
        }
    }

    /// Whether tasks are so short, and so many are under way, that being told of each costs more than it is worth.
    fn is_brisk(&self) -> bool {
        self.peers.keys().any(|w| self.sched.halfway(w).is_some())
    }

    pub(super) fn has_chores(&self) -> bool {
        self.starts > 0 || !self.notices.is_empty() || (self.sched.is_drained() && self.peers.is_empty())
    }

    /// What the keeper wants to be woken for while nobody drives.
    pub(super) fn unattended_level(&self) -> Option<u32> {
        if self.sched.open_jobs() == 0 {
            return None;
        }
        // A pool that closes ends with its last job: somebody must see that.
        let watched = self.attended || self.watched > 0 || !self.sched.is_running();
        Some(if watched {
            level::KEEPER
        } else if self.sched.has_waiting() {
            level::KEEPER_HALF
        } else {
            level::KEEPER_FULL
        })
    }
}
