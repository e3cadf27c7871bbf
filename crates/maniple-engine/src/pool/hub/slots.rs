//! The hub's workers: a link for each, which is made before its process is started and dropped after the process has
//! ended.

use super::Hub;
use super::limits::Doom;
use super::tail::Tail;
use crate::error::{Error, Result};
use crate::pool::link::HubLink;
use crate::pool::link::counters::unpack;
use crate::pool::link::reader::Said;
use crate::pool::packet::Packet;
use crate::pool::packet::ReceivedPacket;
use crate::pool::scheduler::{Took, WorkerId, weight};
use crate::process::{Exit, ExitWatch};
use crate::shm::blocks::Arena;
use crate::shm::ring::{Full, Head};
use maniple_sys::atfork::{HubOnly, NotForChildren};
use maniple_sys::process::{limits, memory_group::MemoryGroup, usage};
use maniple_sys::{BorrowedHandle, OwnedHandle, clock};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// A worker, from before it is started until it has ended.
pub(super) struct WorkerSlot {
    pub link: HubLink,
    /// A frame was sent since the worker was last rung.
    pub dirty: bool,
    /// Functions that the worker knows.
    pub functions: FxHashSet<u32>,
    /// The hub's end of the worker's standard error.
    pub stderr: Option<Arc<HubOnly>>,
    pub pid: u32,
    /// The limits of this program that its process began with, as far as they were not raised since.
    pub limits: limits::Soft,
    pub watch: Option<Arc<ExitWatch>>,
    /// The watch is by a handle of the front.
    pub _sentinel: Option<NotForChildren>,
    pub tail: Tail,
    /// What it said when it could not get ready.
    pub unfit: Option<ReceivedPacket>,
    /// It wrote what no healthy worker writes: it is not read or written to any more, and is killed.
    pub damaged: bool,
    /// The memory (bytes) that it had from its parent when it began. It has as much at most.
    pub inherited: u64,
    /// The group that limits its memory, where the system allows one.
    pub group: Option<MemoryGroup>,
    /// Its messages wait until its process is known, and is in the group: no task runs in a process that cannot be ended, or
    /// outside of the group.
    pub waits_for_process: bool,
    /// Why the pool ends it, if it does.
    pub doom: Option<Doom>,
    /// What it was sent, and which messages it may still send.
    pub account: Account,
    /// Its exit was detected, and the front has been asked to reap it.
    pub reaping: bool,
    /// The front has not been asked yet.
    pub reap_due: bool,
    /// Its end of the wire is not closed.
    pub wire_open: bool,
    /// A resource was missing when the wire was read: the wire is not read for a moment.
    pub wire_rests: bool,
    /// When it was found that its end of the link is closed.
    pub cut_off_since: Option<u64>,
    pub stop_due: bool,
    /// Tasks with handles that it has been sent and has not taken.
    pub untaken: Vec<u64>,
    /// A handle of the front that the keeper also watches, and whether the front was notified.
    pub extra: Option<Arc<OwnedHandle>>,
    pub extra_due: bool,
    /// When its link was made.
    pub made: u64,
}

/// What a worker was sent. Each of its messages answers one of these items, once. So the work that a faulty worker can
/// cause is bounded by what it was asked to do.
#[derive(Debug, Default)]
pub(super) struct Account {
    greeted: bool,
    unfit: bool,
    /// Functions sent, and those of them that it reported as missing.
    pub functions: u64,
    missed: u64,
    /// The newest task that it was sent, and the newest that it has answered.
    pub sent: u64,
    answered: u64,
}

impl Account {
    /// The worker is ready.
    pub fn greet(&mut self) -> Result<()> {
        check(!std::mem::replace(&mut self.greeted, true) && !self.unfit, "a second greeting")
    }

    /// It cannot get ready.
    pub fn fail(&mut self) -> Result<()> {
        check(
            !std::mem::replace(&mut self.unfit, true) && !self.greeted,
            "a worker that was ready reports that it is not",
        )
    }

    /// It has not got a function.
    pub fn miss(&mut self) -> Result<()> {
        self.missed += 1;
        check(self.missed <= self.functions, "the worker reports that a function is missing that it was never sent")
    }

    /// It answers a task.
    pub fn answer(&mut self, number: u64) -> Result<()> {
        let known = number > self.answered && number <= self.sent && self.greeted;
        self.answered = number;
        check(known, "an answer to a task that the worker was not given")
    }
}

fn check(healthy: bool, what: &'static str) -> Result<()> {
    if healthy { Ok(()) } else { Err(Error::Damaged(what)) }
}

impl WorkerSlot {
    pub fn new(link: HubLink, stderr: Option<Arc<HubOnly>>, stop_due: bool) -> WorkerSlot {
        WorkerSlot {
            link,
            dirty: false,
            functions: FxHashSet::default(),
            stderr,
            pid: 0,
            limits: limits::own(),
            watch: None,
            _sentinel: None,
            tail: Tail::default(),
            unfit: None,
            damaged: false,
            inherited: 0,
            group: None,
            waits_for_process: false,
            doom: None,
            account: Account::default(),
            reaping: false,
            reap_due: false,
            wire_open: true,
            wire_rests: false,
            cut_off_since: None,
            stop_due,
            untaken: Vec::new(),
            extra: None,
            extra_due: false,
            made: clock::now(),
        }
    }

    /// It answers a task: returns how long the task took.
    pub fn answer(&mut self, said: &Said) -> Result<Took> {
        self.account.answer(said.number)?;
        let nanos = unpack(said.aux);
        // The worker writes there all the time: a read costs as much as it costs to fetch the line from its processor.
        let began = if weight(said.number, nanos) > 0 { self.link.begin_of(said.number) } else { 0 };
        Ok(Took { nanos, began })
    }

    /// Sends a frame; see [`Link::send`](crate::pool::link::Link::send).
    pub fn send(&mut self, head: Head, packet: &Packet, arena: &Arena) -> Result<Result<u64, Full>> {
        self.dirty = true;
        self.link.send(head, packet, arena)
    }

    /// Ends all communication with a faulty worker. Its death, which follows, decides about its tasks.
    pub fn condemn(&mut self, why: &Error) {
        if !std::mem::replace(&mut self.damaged, true) {
            self.tail.add(format!("maniple: this worker was killed, because {why}\n").as_bytes());
            self.kill();
        }
    }

    /// Whether its end of the link has been closed for a while, although its process runs. It is asked when a frame was
    /// refused; `needs_wire`: the frame has what only the wire carries.
    pub fn is_cut_off_for_long(&mut self, needs_wire: bool) -> bool {
        /// The end of a worker's process follows the end of its link, usually within milliseconds.
        const PATIENCE: u64 = 1_000_000_000;
        if !needs_wire || !self.is_living() || !self.link.is_cut_off() {
            return false;
        }
        let now = clock::now();
        now.saturating_sub(*self.cut_off_since.get_or_insert(now)) > PATIENCE
    }

    /// Returns the part of a worker's memory that it has not inherited: a forked worker has all pages of its parent. A page that
    /// it has written to since counts in its group only.
    pub(super) fn own_memory(&mut self, memory: u64) -> u64 {
        self.inherited = self.inherited.min(memory);
        memory - self.inherited
    }

    /// The worker is ready: from now on its group limits its memory. An initializer has no limit.
    pub(super) fn confine(&mut self, limit: Option<u64>) {
        if let (Some(group), Some(limit)) = (&mut self.group, limit) {
            group.confine(limit);
        }
    }

    /// Notes that the kernel has ended the worker at its group's limit, if it has.
    pub(super) fn note_kill(&mut self, limit: Option<u64>, exit: Option<Exit>) {
        let killed = self.doom.is_none() && exit.is_some_and(Exit::is_kill);
        if let (true, Some(group), Some(limit)) = (killed, &self.group, limit) {
            self.doom = group.killed().map(|peak| Doom::TooLarge { limit, peak });
        }
    }

    /// Whether its messages are received.
    pub fn is_heard(&self) -> bool {
        !self.damaged && !self.waits_for_process
    }

    /// Whether its process runs, as far as is known.
    pub fn is_living(&self) -> bool {
        self.pid != 0 && !self.reaping
    }

    /// Kills its process, and the processes that it has started.
    pub fn kill_family(&self) {
        if let Some(watch) = &self.watch {
            let _ = watch.kill_family();
        }
    }

    pub(super) fn kill(&self) {
        if let Some(watch) = &self.watch {
            let _ = watch.kill();
        }
    }
}

impl Hub {
    /// Adds the link of a worker that is about to be started.
    pub(super) fn take_in_link(&self, link: HubLink, stderr: Option<Arc<HubOnly>>) -> WorkerId {
        let mut st = self.lock();
        let worker = st.sched.worker_started();
        st.begin_row(worker);
        let mut slot = WorkerSlot::new(link, stderr, st.terminated);
        // Workers of the other kind are threads.
        slot.waits_for_process = matches!(slot.link, HubLink::Shm(_));
        st.slots.insert(worker, slot);
        worker
    }

    /// The number of a worker in its pool, from 0 on, which no other worker has. `None`: it has ended.
    pub fn number_of(&self, worker: WorkerId) -> Option<usize> {
        self.lock().sched.number_of(worker)
    }

    /// The link's process runs. Returns false if its pool was terminated before it started: the front ends the process, which
    /// the hub does not know.
    ///
    /// # Errors
    /// The operating system cannot watch it.
    pub fn adopt(&self, worker: WorkerId, pid: u32) -> Result<bool> {
        Ok(self.adopt_watched(worker, pid, Arc::new(ExitWatch::of(pid)?)))
    }

    /// As [`adopt`](Hub::adopt); the front has a handle that becomes readable when the process ends. The front owns
    /// the handle and keeps it open until it has called [`Hub::exited`]; forked children do not have it.
    pub fn adopt_by(&self, worker: WorkerId, pid: u32, sentinel: BorrowedHandle<'_>) -> bool {
        // If that fails, children have one more descriptor.
        let kept = NotForChildren::new(sentinel).ok();
        self.take_up(worker, pid, Arc::new(ExitWatch::by_lent(pid, sentinel)), kept)
    }

    /// As [`adopt`](Hub::adopt); the front already watches the process.
    pub fn adopt_watched(&self, worker: WorkerId, pid: u32, watch: Arc<ExitWatch>) -> bool {
        self.take_up(worker, pid, watch, None)
    }

    fn take_up(&self, worker: WorkerId, pid: u32, watch: Arc<ExitWatch>, sentinel: Option<NotForChildren>) -> bool {
        let inner = self.shared();
        // At once, before its initializer uses memory.
        let inherited = inner.watches_memory().then(|| usage::memory_of(pid)).flatten();
        // Before the lock is taken: the kernel takes some milliseconds to move a process.
        let group = inner.groups.as_ref().and_then(|groups| groups.hold(pid));
        let mut st = self.lock();
        let is_member = st.slots.contains_key(worker);
        if is_member {
            st.starts.end();
        }
        if let Some(slot) = st.slots.get_mut(worker) {
            slot.pid = pid;
            slot.inherited = inherited.unwrap_or(0);
            slot.group = group;
            slot.waits_for_process = false;
            slot.watch = Some(watch);
            slot._sentinel = sentinel;
            if slot.damaged || slot.doom.is_some() {
                slot.kill();
            }
            st.sched.worker_adopted(worker, clock::now());
            // Its greeting may have arrived, and the driver sleeps.
            st.called = true;
            inner.stir(&mut st);
        }
        drop(st);
        inner.kick.kick();
        is_member
    }

    /// Makes the keeper watch a handle of the front as long as the worker runs; see
    /// [`Chore::Heard`](super::Chore::Heard).
    pub fn listen_to(&self, worker: WorkerId, handle: Arc<OwnedHandle>) {
        if let Some(slot) = self.lock().slots.get_mut(worker) {
            slot.extra = Some(handle);
        }
        self.shared().kick.kick();
    }

    /// The handle that was passed to [`Hub::listen_to`] is at its end.
    pub fn listen_no_more(&self, worker: WorkerId) {
        if let Some(slot) = self.lock().slots.get_mut(worker) {
            slot.extra = None;
        }
    }

    /// The processes of the pool's adopted workers.
    pub fn pids(&self) -> Vec<u32> {
        self.lock().slots.values().map(|p| p.pid).filter(|&p| p != 0).collect()
    }
}
