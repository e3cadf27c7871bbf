//! The hub: scheduler, links and jobs under one lock.
//!
//! The lock is a leaf: no thread holds it while a front's code runs (a source is taken out of its job while it is
//! called) or while it sleeps. So a front may call the hub while it holds its own locks, such as an interpreter's.
//!
//! These threads drive, that is, receive the workers' messages and act on them:
//! * the *driver*, a caller that waits for a ticket (see [`ticket`]); there is at most one;
//! * a thread that submits, for as long as it takes to distribute the new work;
//! * the keeper, when there is work and no caller waits;
//! * the deputy, when a limit is due and the others are away.
#![allow(unsafe_code)]

mod act;
mod deaths;
mod deputy;
mod drive;
mod ends;
mod fill;
mod forks;
mod helper;
mod jobs;
mod keeper;
mod limits;
mod listen;
mod outlet;
mod room;
mod slots;
mod starting;
mod statistics;
mod tail;
mod terminate;
mod ticket;

pub use self::deaths::LACKING;
use self::deputy::Deputy;
use self::drive::{Right, Seat, is_letting_go, let_go};
pub use self::ends::Collector;
use self::ends::Ends;
use self::fill::{Due, RELIEF, is_in_source};
pub(crate) use self::forks::watch_forks;
use self::helper::Helper;
use self::keeper::Attention;
pub use self::keeper::Chore;
pub use self::limits::WorkerLimits;
use self::outlet::Outlet;
pub use self::room::Room;
use self::slots::WorkerSlot;
use self::statistics::Row;
pub use self::statistics::{Latency, Name, PoolStats, SlowTask, WorkerState, WorkerStats};
pub use self::ticket::Ticket;
use crate::error::{Doing, Error, Result};
use crate::pool::burst::Burst;
use crate::pool::ending::Ending;
use crate::pool::job::{Cell, Gone, Job, Loss};
use crate::pool::link::hub_page::HubPage;
use crate::pool::packet::{Packer, Packet};
use crate::pool::scheduler::{Command, Config, JobId, Scheduler, WorkerId};
use crate::pool::seats::{Place, Seats};
use crate::pool::spec::Unused;
use crate::pool::starts::Starts;
use crate::process::lifeline::Lifelines;
use crate::wait::spin::Spin;
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::{self as sys, clock, process::memory_group::MemoryGroups, ready};
use rustc_hash::FxHashMap;
use slotmap::SecondaryMap;
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Free blocks that a hub keeps for its tasks, in bytes.
const KEPT: usize = 256 << 20;

/// The properties of a pool.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// How many workers.
    pub processes: usize,
    /// After how many tasks a worker is replaced; `None`: never.
    pub max_tasks_per_child: Option<NonZeroU64>,
    /// Whether the hub reads the workers' standard error, so that errors can quote it.
    pub tap_stderr: bool,
    /// Limits of the workers.
    pub limits: WorkerLimits,
    /// How the number of workers follows the work.
    pub size: Size,
}

/// How the number of a pool's workers follows the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many workers there are at least; `None`: all of them, always.
    pub least: Option<usize>,
    /// After how long without work a worker beyond that number ends.
    pub idle: Duration,
    /// How many spare workers are ready to take the place of a worker that ends.
    pub spares: usize,
}

/// This process's side of a pool. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    // Never dropped in a forked child: its content belongs to the parent.
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
    pub(super) limits: WorkerLimits,
    /// How many processes the system had ended for lack of memory when the pool began.
    pub(super) memory_kills: Option<u64>,
    pub(super) groups: Option<MemoryGroups>,
    pub(super) page: HubPage,
    outlet: Outlet,
    pub(super) lifelines: Lifelines,
    pub(super) kick: ready::Kick,
    pub(super) packer: Packer,
    // Functions without a holder. They have a separate lock, which is acquired wherever a value is dropped.
    pub(super) unused: Arc<Unused>,
    pub(super) state: Mutex<State>,
}

pub(super) struct State {
    pub sched: Scheduler<Packet>,
    slots: SecondaryMap<WorkerId, WorkerSlot>,
    // Not by slot: a job stays here until it is collected, long after the scheduler has reused its slot.
    pub jobs: FxHashMap<JobId, Job>,
    pub(super) functions: FxHashMap<u32, Packet>,
    pub(super) next_function: u32,
    /// The functions' names, as far as the front has named them; also of forgotten functions among the slowest tasks.
    names: FxHashMap<u32, Name>,
    /// What was counted of the workers, by their number in the pool.
    rows: Vec<Row>,
    /// How many of the jobs hold handles.
    pub(super) holding: usize,
    pub seats: Seats<Arc<Cell>>,
    pub(super) fills: VecDeque<Due>,
    filler: Helper,
    starter: Helper,
    deputy: Deputy,
    /// Calls that wait for room in the backlog.
    rooms: room::Rooms,
    /// Workers to be started by the front.
    pub starts: Starts,
    /// How the workers of a terminated pool are ended.
    pub(super) ending: Option<Ending>,
    /// Jobs whose end is reported to the front.
    pub notices: VecDeque<JobId>,
    /// Jobs whose end is reported with others.
    pub(super) ends: Ends,
    pub(super) commands: Vec<Command>,
    // Reused by `listen`.
    pub(super) roster: Vec<WorkerId>,
    /// There is an event that the scheduler has not processed yet.
    pub(super) unplanned: bool,
    pub(super) spin: Spin,
    /// The death that is being processed.
    pub loss: Option<Arc<Loss>>,
    /// Why no worker could be started.
    pub broken: Option<Arc<Loss>>,
    pub terminated: bool,
    /// Workers that were busy or starting when the pool was terminated; true: starting.
    pub(super) unsettled: Vec<(WorkerId, bool)>,
    /// Jobs that have not ended and whose end is reported to the front.
    pub(super) watched: usize,
    /// An outcome of another caller has arrived since the driver's last check.
    pub called: bool,
    /// Futures wait: the keeper must check everything.
    pub attended: bool,
    pub(super) burst: Burst,
    keeper: Attention,
    /// When the driver looks at everything again, if it sleeps.
    pub(super) driver_until: u64,
    /// When the memory of busy workers is read again.
    pub(super) memory_at: u64,
    /// The front requests the keeper's return ([`Hub::kick`]).
    pub(super) front_called: bool,
    /// When the last worker had ended, and only its output was left.
    over_at: Option<u64>,
    /// Values to drop once the lock is free.
    pub(super) gone: Vec<Gone>,
    /// A source sends its thread back to the front ([`Filling::interrupt`](super::spec::Filling::interrupt)).
    pub(super) interrupted: bool,
}

/// The hub's state, locked. Values of the front are dropped, and futures are woken, after the lock is free: both may
/// run code of the program.
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

    /// As `lock`, if no thread has the lock.
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
            least: config.size.least,
            idle: limits::nanos(config.size.idle),
            // An elastic pool starts workers when there is work for them.
            spares: if config.size.least.is_some() { 0 } else { config.size.spares },
            processes: config.processes,
            max_tasks: config.max_tasks_per_child.map(NonZeroU64::get),
            start_limit: config.limits.start.map(limits::nanos),
            is_uncounted: !crate::pool::worker::counts(),
        });
        let state = State {
            sched,
            slots: SecondaryMap::new(),
            jobs: FxHashMap::default(),
            functions: FxHashMap::default(),
            next_function: 0,
            names: FxHashMap::default(),
            rows: Vec::new(),
            holding: 0,
            seats: Seats::default(),
            fills: VecDeque::new(),
            filler: Helper::default(),
            starter: Helper::default(),
            deputy: Deputy::default(),
            rooms: room::Rooms::default(),
            starts: Starts::default(),
            ending: None,
            notices: VecDeque::new(),
            ends: Ends::default(),
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
            burst: Burst::default(),
            keeper: Attention::default(),
            driver_until: 0,
            memory_at: 0,
            front_called: false,
            over_at: None,
            interrupted: false,
            gone: Vec::new(),
        };
        let inner = Inner {
            owner: sys::process_id(),
            born: Epoch::now(),
            cores: sys::cores(),
            tapped: config.tap_stderr,
            limits: config.limits,
            memory_kills: sys::process::usage::memory_kills(),
            groups: config.limits.memory.and_then(|_| MemoryGroups::new()),
            page: HubPage::create()?,
            outlet: Outlet::default(),
            lifelines: Lifelines::new()?,
            kick: ready::Kick::new().doing("make the bell of a pool's thread (eventfd2)")?,
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

    /// Whether this is a forked child, which must not change its copy of the hub: the workers and their links belong to
    /// the parent.
    fn is_foreign(&self) -> bool {
        self.inner.born.since() == Since::Born
    }

    /// Makes packets for tasks and functions.
    pub fn packer(&self) -> &Packer {
        &self.inner.packer
    }

    // ---- how things stand ----

    /// Returns the jobs that have not ended, each with its number of items that have an outcome. Receives the workers'
    /// messages first.
    pub fn open_jobs(&self) -> Vec<(JobId, usize)> {
        self.poll();
        self.lock().jobs.iter().filter(|(_, job)| !job.ended).map(|(&id, job)| (id, job.cell.done())).collect()
    }

    /// Returns how many jobs wait of which no worker has a task, and how many tasks wait behind others at their worker.
    pub fn waiting(&self) -> (usize, usize) {
        self.poll();
        let st = self.lock();
        (st.sched.untouched_jobs(), st.sched.queued_tasks())
    }

    // ---- changes ----

    /// Returns the number of workers that the pool is to have, without spare ones.
    pub fn processes(&self) -> usize {
        self.lock().sched.processes()
    }

    /// Sets the number of workers: starts may be due then ([`Hub::begin_start`]). Surplus workers stay until they end,
    /// unless `shrinks`: then they end after their tasks.
    pub fn resize(&self, processes: usize, shrinks: bool) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        st.sched.resize(processes, shrinks);
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        drop(st);
        self.inner.kick.kick();
    }

    /// Sets the number of tasks after which a worker is replaced; `None`: never.
    pub fn set_max_tasks(&self, tasks: Option<NonZeroU64>) {
        self.lock().sched.set_max_tasks(tasks.map(NonZeroU64::get));
    }

    // ---- the end ----

    /// Closes the pool for new jobs. Submitted jobs still run; then the workers end.
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

    /// Whether this thread is in the middle of making tasks for a call, as a signal handler may be: it must not wait
    /// for that call's end.
    pub fn is_in_source(&self) -> bool {
        is_in_source()
    }

    /// Whether the pool was closed or terminated. A pool whose workers cannot be started was not.
    pub fn is_closed(&self) -> bool {
        let st = self.lock();
        !st.sched.is_running() && !st.sched.is_broken()
    }

    /// Whether the pool was terminated.
    pub fn is_terminated(&self) -> bool {
        self.lock().terminated
    }

    /// Whether the pool takes jobs.
    pub fn is_running(&self) -> bool {
        self.lock().sched.is_running()
    }

    /// Describes the state of the hub, for users.
    pub fn describe(&self) -> String {
        let st = self.lock();
        let seat = if st.seats.is_taken() { "somebody drives" } else { "nobody drives" };
        let damaged = st.slots.values().filter(|p| p.damaged).count();
        let jobs: String = st.jobs.iter().map(|(id, j)| format!("\nheld {id:?}: {}", j.describe())).collect();
        format!(
            "{seat}, bell {}, {} fills due, {damaged} damaged, {:?}\n{}{jobs}",
            self.inner.page.level(),
            st.fills.len(),
            st.starts,
            st.sched.describe()
        )
    }

    /// Makes the keeper return to the front.
    pub fn kick(&self) {
        if self.is_foreign() {
            return;
        }
        self.lock().front_called = true;
        self.inner.kick.kick();
    }

    // ---- driving ----

    /// Takes the driver's seat if it is free. Otherwise returns a place among the threads that wait for it, and what to
    /// sleep on. `parked` is the place that this thread had until now.
    pub(crate) fn take_seat(&self, cell: &Arc<Cell>, parked: Option<Place>) -> Result<Seat<'_>, (Place, u32)> {
        let mut st = self.lock();
        if let Some(place) = parked {
            st.seats.unpark(&place);
        }
        let right = if let Some(turn) = st.seats.take() {
            Right::Turn(turn)
        } else if let Some(turn) = self.inner.resume_turn(&mut st) {
            Right::Resumed(turn)
        } else if let Some(turn) = st.seats.relieve(clock::now().saturating_sub(RELIEF)) {
            Right::Turn(turn)
        } else if is_letting_go() {
            Right::Within
        } else {
            let place = st.seats.park(cell.clone());
            if st.seats.away_since().is_some() {
                self.inner.ensure_relief(&st);
            }
            let ticks = cell.ticks();
            // Readiness is announced under the lock; otherwise a thread that sleeps after this check would miss it.
            return Err((place, if cell.is_ready() { ticks.wrapping_sub(1) } else { ticks }));
        };
        // This thread now does what the keeper wanted to be woken for.
        self.inner.page.disarm();
        Ok(Seat { inner: &self.inner, state: Some(st), right })
    }

    /// Releases a place among the threads that wait for the seat. If this thread was called to take the seat, the next one is.
    pub(crate) fn unpark(&self, place: &Place) {
        let mut st = self.lock();
        if st.seats.unpark(place)
            && let Some(turn) = st.seats.take()
        {
            self.inner.leave_seat(st, turn);
        }
    }

    /// Receives the workers' messages, unless another thread does so.
    pub(crate) fn poll(&self) {
        if self.is_foreign() {
            return;
        }
        let mut st = self.lock();
        if let Some(turn) = st.seats.take() {
            st = self.inner.drive_once(st, Some(turn));
            self.inner.leave_seat(st, turn);
        }
    }

    /// A thread that cannot drive waits.
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
