//! The hub: scheduler, links and jobs under one lock.
//!
//! The lock is a leaf: it is never held while a front's code runs (sources are taken out of their job while they are asked),
//! nor while sleeping. So a front may call in here while it holds locks of its own, such as an interpreter's.
//!
//! Who drives, that is, takes in what workers say and acts on it:
//! * the *driver*, a caller that waits for a ticket (see [`ticket`]); there is at most one;
//! * whoever submits, for as long as it takes to hand the new work out;
//! * the keeper, when there is something to do and nobody waits.
#![allow(unsafe_code)]

mod deaths;
mod drive;
mod forks;
mod keeper;
mod peers;
mod tail;
mod ticket;

pub use self::deaths::{Ended, LACKING};
use self::drive::{Seat, is_in_source, is_within, let_go};
use self::keeper::Attention;
pub use self::keeper::Chore;
use self::peers::Peer;
pub use self::ticket::Ticket;
use crate::error::{Doing, Error, Result};
use crate::pool::job::{Cell, Feed, Gone, Job, Loss, Settled};
use crate::pool::link::Desk;
use crate::pool::packet::{Packer, Packet};
use crate::pool::rush::Rush;
use crate::pool::scheduler::{Command, Config, JobId, JobShape, Scheduler, Supply, WorkerId};
use crate::pool::seats::{Place, Seats};
use crate::pool::spec::{Filling, Func, JobSpec, SourceKind, Unused};
use crate::process::lifeline::Lifelines;
use crate::wait::spin::Spin;
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::{self as sys, ready};
use rustc_hash::FxHashMap;
use slotmap::SecondaryMap;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Free blocks that a hub keeps for its tasks, in bytes.
const KEPT: usize = 256 << 20;

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
    pub(super) owner: u32,
    // Cheaper to compare than process numbers, which take a system call.
    born: Epoch,
    pub(super) cores: usize,
    pub(super) tapped: bool,
    pub(super) desk: Desk,
    pub(super) lifelines: Lifelines,
    pub(super) kick: ready::Kick,
    pub(super) packer: Packer,
    // Functions that nobody holds any more. A lock of its own: it is taken wherever a value is dropped.
    pub(super) unused: Arc<Unused>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub sched: Scheduler<Packet>,
    peers: SecondaryMap<WorkerId, Peer>,
    // Not by slot: a job stays here until it is collected, long after the scheduler has used its slot again.
    pub jobs: FxHashMap<JobId, Job>,
    pub(super) functions: FxHashMap<u32, Packet>,
    pub(super) next_function: u32,
    /// How many of them hold handles.
    pub(super) holding: usize,
    pub seats: Seats<Arc<Cell>>,
    pub(super) fills: VecDeque<(JobId, usize, usize)>,
    /// Workers to be started by the front.
    pub starts: usize,
    /// Jobs whose end the front wants to be told of.
    pub notices: VecDeque<JobId>,
    pub(super) commands: Vec<Command>,
    // Reused by `listen`.
    pub(super) roster: Vec<WorkerId>,
    /// Something happened that the scheduler has not thought about yet.
    pub(super) unplanned: bool,
    pub(super) spin: Spin,
    /// The death that is being dealt with.
    pub loss: Option<Arc<Loss>>,
    /// Why no worker could be started.
    pub broken: Option<Arc<Loss>>,
    pub terminated: bool,
    /// Workers that were busy or starting when the pool was terminated; true: starting.
    pub(super) unsettled: Vec<(WorkerId, bool)>,
    /// Jobs that have not ended and whose end the front wants to be told of.
    pub(super) watched: usize,
    /// Somebody's outcome came since the driver last looked.
    pub called: bool,
    /// Futures wait: the keeper must look at everything.
    pub attended: bool,
    pub(super) rush: Rush,
    keeper: Attention,
    /// The front wants the keeper back ([`Hub::kick`]).
    pub(super) front_called: bool,
    /// What is to be dropped once the lock is free.
    pub(super) gone: Vec<Gone>,
    /// A source sends its thread back to the front ([`Filling::interrupt`]).
    pub(super) interrupted: bool,
}

/// The hub's state, locked. Values of the front's that come to their end meanwhile are dropped after the lock is free, and futures are
/// woken then: both may run anybody's code.
pub(super) struct Locked<'a>(ManuallyDrop<MutexGuard<'a, State>>);

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let gone = std::mem::take(&mut self.0.gone);
        // SAFETY: the guard is not used after this.
        unsafe { ManuallyDrop::drop(&mut self.0) };
        let_go(gone);
    }
}

impl Inner {
    pub(super) fn lock(&self) -> Locked<'_> {
        Locked(ManuallyDrop::new(self.state.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same, if no thread has it.
    pub(super) fn try_lock(&self) -> Option<Locked<'_>> {
        self.state.try_lock().ok().map(|guard| Locked(ManuallyDrop::new(guard)))
    }
}

impl Hub {
    /// A hub without workers.
    ///
    /// # Errors
    /// No shared memory or no descriptor left.
    pub fn new(config: HubConfig) -> Result<Hub> {
        count_forks().doing("count forks")?;
        let sched = Scheduler::new(Config {
            processes: config.processes,
            max_tasks: config.max_tasks_per_child.map(NonZeroU64::get),
        });
        let state = State {
            sched,
            peers: SecondaryMap::new(),
            jobs: FxHashMap::default(),
            functions: FxHashMap::default(),
            next_function: 0,
            holding: 0,
            seats: Seats::default(),
            fills: VecDeque::new(),
            starts: 0,
            notices: VecDeque::new(),
            commands: Vec::new(),
            roster: Vec::new(),
            unplanned: false,
            spin: Spin::default(),
            loss: None,
            broken: None,
            terminated: false,
            unsettled: Vec::new(),
            attended: false,
            called: false,
            watched: 0,
            rush: Rush::default(),
            keeper: Attention::default(),
            front_called: false,
            interrupted: false,
            gone: Vec::new(),
        };
        let inner = Inner {
            owner: sys::process_id(),
            born: Epoch::now(),
            cores: sys::cores(),
            tapped: config.tap_stderr,
            desk: Desk::create()?,
            lifelines: Lifelines::new()?,
            kick: ready::Kick::new().doing("make the keeper's bell")?,
            packer: Packer::new(KEPT),
            unused: Arc::default(),
            state: Mutex::new(state),
        };
        let inner = Arc::new(inner);
        forks::register(&inner).doing("watch forks")?;
        Ok(Hub { inner: ManuallyDrop::new(inner) })
    }

    /// Whether this process made the hub.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it did not.
    pub fn check(&self) -> Result<()> {
        if self.is_foreign() { Err(Error::Foreign { owner: self.inner.owner }) } else { Ok(()) }
    }

    /// Whether this is a forked child, whose copy of the hub is to be left as it is: the workers and their links are the parent's.
    fn is_foreign(&self) -> bool {
        self.inner.born.since() == Since::Born
    }

    /// Makes packets for tasks and functions.
    pub fn packer(&self) -> &Packer {
        &self.inner.packer
    }

    // ---- jobs ----

    /// Makes a function known: `packet` reaches each worker once, before its first task of it.
    pub fn define(&self, packet: Packet) -> Func {
        let mut st = self.lock();
        st.next_function += 1;
        let number = st.next_function;
        st.holding += usize::from(packet.holds_handles());
        st.functions.insert(number, packet);
        Func::new(number, &self.inner.unused)
    }

    /// Takes a job on.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Foreign`].
    pub fn submit(&self, spec: JobSpec, source: SourceKind) -> Result<Ticket> {
        self.check()?;
        let shape = JobShape {
            func: spec.func.number(),
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
        let mut job = Job::new(spec.collect, feed, spec.func, spec.notify, spec.items == Some(1));
        job.window_bytes = spec.window.map(|(_, bytes)| bytes);
        let cell = job.cell.clone();
        st.watched += usize::from(job.notify);
        st.keeper.calls += 1;
        st.jobs.insert(id, job);
        if let Some(tasks) = ready.filter(|_| !broken) {
            for (items, packet) in tasks {
                st.sched.add(id, items, packet);
            }
            st.sched.filled(id, true);
        }
        self.inner.follow_up(&mut st);
        drop(st);
        Ok(Ticket::new(self.clone(), id, cell))
    }

    /// For the thread that feeds a job of [`SourceKind::External`]: waits until tasks are wanted, and gives how many, of how
    /// many items each. `None`: the job is over.
    pub fn wanted(&self, job: JobId, timeout: Duration) -> Option<(usize, usize)> {
        if self.is_foreign() {
            return None;
        }
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
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        self.inner.take_in(&mut st, job, filling.tasks);
        self.inner.follow_up(&mut st);
    }

    /// What such a thread made of it. `ended`: there is no more.
    pub fn feed(&self, job: JobId, filling: Filling<'_>, ended: bool) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        self.inner.take_in(&mut st, job, filling.tasks);
        st.sched.filled(job, ended);
        self.inner.follow_up(&mut st);
    }

    pub(crate) fn take_outcomes(&self, job: JobId, most: usize) -> (Vec<Settled>, bool) {
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return (Vec::new(), true) };
        let taken = j.take(most);
        let over = j.ended && j.is_empty();
        if over && !j.notify {
            // The ticket knows; there is nothing to come back for.
            st.discard(job);
        }
        (taken, over)
    }

    pub(crate) fn consumed(&self, job: JobId, items: usize) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        st.sched.consumed(job, items);
        if !st.seats.take() {
            // The driver acts on it when it next looks; it may be asleep.
            self.inner.advance(&mut st);
            self.inner.stir(&mut st);
            return;
        }
        st = self.inner.drive_once(st);
        self.inner.leave_seat(st);
    }

    pub(crate) fn cancel(&self, job: JobId) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        st.sched.cancel(job);
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
    }

    /// Nobody collects the outcomes. `begun`: somebody had begun to, one by one, and does not go on; what has not begun does not begin.
    /// Otherwise all of the work is done, as far as its input goes, and without a window, which no caller would move.
    pub(crate) fn orphan(&self, job: JobId, begun: bool) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        let Some(j) = st.jobs.get_mut(&job) else { return };
        j.orphaned = true;
        if j.ended {
            if !j.notify {
                st.discard(job);
            }
            return;
        }
        if j.window_bytes.is_none() {
            return;
        }
        let mut gone = vec![j.drop_settled()];
        if begun {
            // Not only with the last task that still runs, of whose end no caller is told.
            gone.push(j.drop_feed());
        }
        st.gone.append(&mut gone);
        if begun {
            st.sched.cancel(job);
        } else {
            st.sched.unbound(job);
        }
        self.inner.advance(&mut st);
        let driven = st.seats.is_taken();
        self.inner.settle_down(&mut st, driven);
    }

    // ---- how things stand ----

    /// The jobs that have not ended, each with its number of items that have an outcome. Takes in what workers have said.
    pub fn open_jobs(&self) -> Vec<(JobId, usize)> {
        self.poll();
        self.lock().jobs.iter().filter(|(_, job)| !job.ended).map(|(&id, job)| (id, job.cell.done())).collect()
    }

    /// How many jobs wait that no worker was given a task of, and how many tasks wait behind others at their worker.
    pub fn waiting(&self) -> (usize, usize) {
        self.poll();
        let st = self.lock();
        (st.sched.untouched_jobs(), st.sched.queued_tasks())
    }

    // ---- changes ----

    /// How many workers there should be from now on. Gives how many should be started now; the caller starts them. Workers that
    /// are too many stay until they end.
    pub fn resize(&self, processes: usize) -> usize {
        if self.is_foreign() {
            return 0;
        }
        let mut st = self.lock();
        st.sched.resize(processes);
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        std::mem::take(&mut st.starts)
    }

    /// After how many tasks a worker is replaced from now on; `None`: never.
    pub fn set_max_tasks(&self, tasks: Option<NonZeroU64>) {
        self.lock().sched.set_max_tasks(tasks.map(NonZeroU64::get));
    }

    // ---- the end ----

    /// No more jobs. What was submitted still runs; then the workers end.
    pub fn close(&self) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        st.sched.close();
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        drop(st);
        self.inner.kick.kick();
    }

    /// Drops all that has not ended, and tells the workers to stop. A worker that waits for tasks stops by itself. Gives the others,
    /// which the front has to end, and whether each is still starting; asked again, those of the first time that are left.
    pub fn terminate(&self) -> Vec<(WorkerId, bool)> {
        if self.is_foreign() {
            return Vec::new();
        }
        let mut st = self.lock();
        if !st.terminated {
            st.terminated = true;
            st.starts = 0;
            st.unsettled = self.inner.take_back_all(&mut st);
            for peer in st.peers.values_mut() {
                peer.stop_due = true;
                peer.link.dirty = true;
                // Partner: `PoolEnd::is_terminated`; the signal that follows orders the two.
                peer.link.board.terminated().store(1, Ordering::Release);
            }
        }
        st.sched.terminate();
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        let State { unsettled, peers, .. } = &mut *st;
        unsettled.retain(|(worker, _)| peers.contains_key(*worker));
        let left = unsettled.clone();
        drop(st);
        self.inner.kick.kick();
        left
    }

    /// Whether this thread is in the middle of making tasks for a call, as a signal's handler may be: what it waits for must not be that
    /// call's end.
    pub fn is_in_source(&self) -> bool {
        is_in_source()
    }

    /// Whether the pool takes jobs.
    pub fn is_running(&self) -> bool {
        self.lock().sched.is_running()
    }

    /// How many workers should be started now; the caller starts them.
    pub fn take_starts(&self) -> usize {
        if self.is_foreign() {
            return 0;
        }
        let mut st = self.lock();
        self.inner.advance(&mut st);
        std::mem::take(&mut st.starts)
    }

    /// How things stand, for people.
    pub fn describe(&self) -> String {
        let st = self.lock();
        let seat = if st.seats.is_taken() { "somebody drives" } else { "nobody drives" };
        let damaged = st.peers.values().filter(|p| p.damaged).count();
        let jobs: String = st.jobs.iter().map(|(id, j)| format!("\nheld {id:?}: {}", j.describe())).collect();
        format!(
            "{seat}, bell {}, {} fills due, {damaged} damaged\n{}{jobs}",
            self.inner.desk.bell().level(),
            st.fills.len(),
            st.sched.describe()
        )
    }

    /// Makes the keeper come back to the front.
    pub fn kick(&self) {
        if self.is_foreign() {
            return;
        }
        self.lock().front_called = true;
        self.inner.kick.kick();
    }

    // ---- driving ----

    /// The driver's seat, if it is free; otherwise a place among those that wait for it, and what to sleep on. `parked` is the place
    /// that this thread had until now.
    pub(crate) fn take_seat(&self, cell: &Arc<Cell>, parked: Option<Place>) -> Result<Seat<'_>, (Place, u32)> {
        let mut st = self.lock();
        if let Some(place) = parked {
            st.seats.unpark(&place);
        }
        let free = st.seats.take();
        let nested = !free && is_within();
        if !free && !nested {
            let place = st.seats.park(cell.clone());
            let ticks = cell.ticks();
            // Readiness is announced under the lock; whoever slept after this look would miss it otherwise.
            return Err((place, if cell.is_ready() { ticks.wrapping_sub(1) } else { ticks }));
        }
        // Whatever the keeper wanted to be woken for is this thread's business now.
        self.inner.desk.bell().disarm();
        Ok(Seat { inner: &self.inner, state: Some(st), nested })
    }

    /// Gives a place among those that wait for the seat back. Where this thread was called to take the seat, the next one is.
    pub(crate) fn unpark(&self, place: &Place) {
        let mut st = self.lock();
        if st.seats.unpark(place) {
            self.inner.leave_seat(st);
        }
    }

    /// Takes in what workers have said, if nobody else does.
    pub(crate) fn poll(&self) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        if st.seats.take() {
            st = self.inner.drive_once(st);
            self.inner.leave_seat(st);
        }
    }

    /// Somebody waits who cannot drive.
    pub(crate) fn attend(&self) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        if !st.attended {
            st.attended = true;
            drop(st);
            self.inner.kick.kick();
        }
    }

    pub(super) fn lock(&self) -> Locked<'_> {
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
