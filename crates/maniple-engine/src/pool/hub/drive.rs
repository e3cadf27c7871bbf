//! Driving the hub: taking in what workers say, doing what the scheduler decides, handing the seat on, sleeping.
//!
//! Everything here runs with the hub's lock held, but for a source's code and sleep.

use super::{Inner, Locked, State};
use crate::error::Error;
use crate::pool::job::{Cell, Feed, Gone, Outcome, Settled};
use crate::pool::link::{kind, level};
use crate::pool::packet::{Incoming, Packet};
use crate::pool::scheduler::{Command, Dropped, JobId, WorkerId};
use crate::pool::spec::{Filling, NewTask};
use crate::shm::bell::AWAKE;
use crate::shm::ring::Head;
use maniple_sys::clock;
use maniple_sys::futex::Woken;
use std::cell::Cell as Counter;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How long a driver sleeps at most when it asked to be woken late, or when waiting tasks might need another worker.
const NAP: Duration = Duration::from_micros(400);

/// The right to drive, and the duty to hand it on.
pub(crate) struct Seat<'a> {
    pub(super) inner: &'a Inner,
    pub(super) state: Option<Locked<'a>>,
    /// The seat is this thread's already: it waits in the middle of a source's code, as in a signal's handler.
    pub(super) nested: bool,
}

thread_local! {
    static IN_SOURCES: Counter<u32> = const { Counter::new(0) };
    static LETTING_GO: Counter<u32> = const { Counter::new(0) };
}

/// Whether this thread runs code of the front's that may have been begun by the hub, which it drives: then the seat may be its own.
pub(super) fn is_within() -> bool {
    is_in_source() || LETTING_GO.get() > 0
}

/// Wakes and drops what was put off until the hub's lock was free. That may run anybody's code.
pub(super) fn let_go(gone: Vec<Gone>) {
    if gone.is_empty() {
        return;
    }
    struct Within;
    impl Drop for Within {
        fn drop(&mut self) {
            LETTING_GO.set(LETTING_GO.get() - 1);
        }
    }
    LETTING_GO.set(LETTING_GO.get() + 1);
    let _within = Within;
    gone.into_iter().for_each(Gone::go);
}

/// Whether this thread is in the middle of a source's code, asked by the hub that it drives.
pub(super) fn is_in_source() -> bool {
    IN_SOURCES.get() > 0
}

impl Seat<'_> {
    /// Drives until `cell` is ready, `until`, or a signal.
    pub fn drive(mut self, cell: &Cell, until: Instant) -> Woken {
        let inner = self.inner;
        let Some(mut st) = self.state.take() else { return Woken::Rung };
        let outcome = loop {
            st = inner.drive_once(st);
            if std::mem::take(&mut st.interrupted) {
                break Woken::Signal;
            }
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
            if brisk {
                limit = limit.min(NAP);
            }
            if let Some(nanos) = st.sched.next_look(clock::now()) {
                limit = limit.min(Duration::from_nanos(nanos).max(NAP));
            }
            drop(st);
            let woken = bell.sleep(level, Some(limit));
            st = inner.lock();
            bell.disarm();
            if woken == Woken::Signal {
                break Woken::Signal;
            }
        };
        if self.nested {
            drop(st);
            // Where the seat is another thread's, that thread may sleep on news that was heard here.
            inner.desk.bell().wake();
        } else {
            inner.leave_seat(st);
        }
        outcome
    }
}

/// A source that is being asked. Where it panics, its job is cancelled and the seat is left: the panic is that of one call.
struct Asked<'a> {
    inner: &'a Inner,
    job: JobId,
}

impl<'a> Asked<'a> {
    fn new(inner: &'a Inner, job: JobId) -> Asked<'a> {
        IN_SOURCES.set(IN_SOURCES.get() + 1);
        Asked { inner, job }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        IN_SOURCES.set(IN_SOURCES.get() - 1);
        if std::thread::panicking() {
            let mut st = self.inner.lock();
            st.sched.cancel(self.job);
            st.sched.filled(self.job, true);
            self.inner.advance(&mut st);
            self.inner.leave_seat(st);
        }
    }
}

impl Inner {
    /// Takes in all news, acts on it, and asks sources for what is wanted, unless one sends this thread back. The caller holds the seat.
    pub(super) fn drive_once<'a>(&'a self, mut st: Locked<'a>) -> Locked<'a> {
        st.interrupted = false;
        loop {
            self.listen(&mut st);
            self.advance(&mut st);
            st.called = false;
            let Some((job, tasks, items)) = st.fills.pop_front() else { return st };
            let Some(Feed::Inline(source)) = st.jobs.get_mut(&job).map(|j| &mut j.feed) else { continue };
            let Some(mut source) = source.take() else { continue };
            drop(st);
            let mut filling = Filling::new(&self.packer);
            let asked = Asked::new(self, job);
            let ended = source.fill(tasks, items, &mut filling);
            drop(asked);
            let (tasks, interrupted) = (filling.tasks, filling.interrupted);
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
            if interrupted {
                self.advance(&mut st);
                st.interrupted = true;
                return st;
            }
        }
    }

    pub(super) fn take_in(&self, st: &mut State, job: JobId, tasks: Vec<NewTask>) {
        for (items, task) in tasks {
            match task {
                Ok(packet) => {
                    st.weigh(job, items, packet.size());
                    st.sched.add(job, items, packet);
                }
                Err(why) => match st.sched.add_settled(job, items) {
                    Some(index) => {
                        st.settle(job, Settled { index, number: 0, items, outcome: Outcome::Unsent(why) });
                    }
                    None => st.gone.push(Gone::Value(why)),
                },
            }
        }
    }

    /// After an event from a thread that does not drive: hands out, and sees to it that what came up is seen to.
    pub(super) fn follow_up(&self, st: &mut State) {
        let driven = st.seats.is_taken();
        if !driven {
            let advice = st.rush.call(clock::now());
            if advice.listen {
                // What was answered meanwhile makes room, and says who is idle.
                self.listen(st);
            }
            if advice.begin {
                self.desk.bell().disarm();
                self.kick.kick();
            }
        }
        self.advance(st);
        self.settle_down(st, driven);
    }

    /// Hands the seat on: to somebody who waits, or to nobody.
    pub(super) fn leave_seat(&self, mut st: Locked<'_>) {
        if !st.call_next() {
            self.settle_down(&mut st, false);
        }
    }

    /// Nobody drives now: sees to it that somebody comes when there is need.
    pub(super) fn settle_down(&self, st: &mut State, driven: bool) {
        if driven || st.seats.is_taken() {
            self.stir(st);
            return;
        }
        let bell = self.desk.bell();
        match st.unattended_level() {
            None => bell.disarm(),
            // The keeper comes by, or is on its way.
            Some(_) if st.rush.patrolled => bell.disarm(),
            // It is armed, and whoever has spoken since has rung it.
            Some(level) if bell.level() == level && st.fills.is_empty() => {}
            Some(level) => {
                bell.arm(level);
                if self.has_stale_news(st, level) || !st.fills.is_empty() {
                    bell.disarm();
                    self.kick.kick();
                }
            }
        }
        let missed = !st.keeper.ticks && st.wants_tick() || !st.keeper.near && st.wants_look();
        if missed || st.has_chores() {
            // It comes, and need not be called again before it has looked.
            (st.keeper.ticks, st.keeper.near) = (true, true);
            self.kick.kick();
        }
    }

    /// If somebody drives: wakes it where there is something for it to do, or an outcome that may be its own.
    pub(super) fn stir(&self, st: &mut State) {
        if st.seats.is_taken()
            && (std::mem::take(&mut st.called) || !st.fills.is_empty())
            && let Some(level) = self.desk.bell().ring(|_| true)
        {
            match level {
                level::CALLER | level::CALLER_HALF => self.desk.bell().wake(),
                _ => self.kick.kick(),
            }
        }
    }

    /// Whether something was said, before the bell was armed, by somebody who will not ring it again.
    pub(super) fn has_stale_news(&self, st: &mut State, level: u32) -> bool {
        st.peers.values_mut().any(|p| {
            !p.damaged && p.link.has_news() && (level == level::KEEPER || p.link.board.bell().level() != AWAKE)
        })
    }

    fn may_have_news(&self) -> bool {
        // The lock is free for a moment at a time; a spinner that finds it taken looks again.
        self.try_lock().is_some_and(|mut st| self.has_news(&mut st))
    }

    pub(super) fn has_news(&self, st: &mut State) -> bool {
        st.peers.values_mut().any(|p| !p.damaged && p.link.has_news())
    }

    /// Takes in what workers have said.
    pub(super) fn listen(&self, st: &mut State) -> bool {
        let mut any = false;
        // The list is kept, and its memory: this is done for every few tasks.
        let mut workers = std::mem::take(&mut st.roster);
        workers.clear();
        workers.extend(st.peers.keys());
        for &worker in &workers {
            any |= self.hear_out(st, worker);
        }
        st.roster = workers;
        any
    }

    /// Takes in what one worker has said.
    pub(super) fn hear_out(&self, st: &mut State, worker: WorkerId) -> bool {
        let mut any = false;
        let mut now = None;
        loop {
            let Some(peer) = st.peers.get_mut(worker).filter(|p| !p.damaged) else { return any };
            let heard = match peer.link.hear() {
                Ok(None) => return any,
                Ok(Some(said)) => match said.kind {
                    kind::HELLO => {
                        peer.account.greet().map(|()| st.sched.worker_up(worker, *now.get_or_insert_with(clock::now)))
                    }
                    kind::UNFIT => peer.account.fail().map(|()| peer.unfit = said.content.ok()),
                    kind::MISSED => peer.account.miss().map(|()| {
                        peer.link.functions.remove(&said.aux);
                    }),
                    kind::TAKEN => match peer.untaken.iter().position(|&number| number == said.number) {
                        Some(at) => {
                            peer.untaken.swap_remove(at);
                            if let Some(task) = st.sched.task(worker, said.number) {
                                task.payload.handles = Box::default();
                            }
                            Ok(())
                        }
                        None => Err(Error::Damaged("handles are taken that were not sent")),
                    },
                    kind::DONE | kind::FAILED => peer.account.answer(said.number).and_then(|()| {
                        let now = *now.get_or_insert_with(clock::now);
                        match st.sched.finished(worker, said.number, u64::from(said.aux), now) {
                            Some((job, index, items)) => {
                                st.weigh(job, items, said.content.as_ref().map_or(0, Incoming::size));
                                let outcome = match said.content {
                                    Ok(content) if said.kind == kind::DONE => Outcome::Done(content),
                                    Ok(content) => Outcome::Failed(content),
                                    Err(why) => Outcome::Unreceived(Box::new(why)),
                                };
                                st.settle(job, Settled { index, number: said.number, items, outcome });
                                Ok(())
                            }
                            // After a termination, or when the pool was given up, the scheduler knows nothing of what still runs.
                            None if st.terminated || st.sched.is_broken() => Ok(()),
                            None => Err(Error::Damaged("an answer to a task that the worker was not given")),
                        }
                    }),
                    _ => Err(Error::Damaged("a frame of a kind that does not exist")),
                },
                Err(e) => Err(e),
            };
            any = true;
            if let Err(why) = heard
                && let Some(peer) = st.peers.get_mut(worker)
            {
                peer.condemn(&why);
            }
        }
    }

    /// Lets the scheduler decide, and does what it says.
    pub(super) fn advance(&self, st: &mut State) {
        self.forget_unused(st);
        self.look_at_silent(st);
        let mut commands = std::mem::take(&mut st.commands);
        st.unplanned = true;
        loop {
            if std::mem::take(&mut st.unplanned) {
                st.sched.plan(clock::now());
            }
            st.sched.commands(&mut commands);
            if commands.is_empty() {
                break;
            }
            for command in commands.drain(..) {
                self.execute(st, command);
            }
        }
        st.commands = commands;
        let State { peers, sched, terminated, .. } = st;
        for (worker, peer) in peers.iter_mut() {
            if peer.stop_due && !peer.damaged {
                peer.stop_due = !peer.link.signal(kind::STOP, u32::from(*terminated));
                if peer.link.sender().is_damaged() {
                    peer.condemn(&Error::Damaged("more was read from a ring than was written"));
                }
            }
            if peer.link.dirty {
                peer.link.set_halfway(sched.halfway(worker).unwrap_or(0));
                peer.link.ring();
            }
        }
    }

    /// Takes back what no worker has begun. Gives the workers that are at work, and those that are not ready yet (true).
    pub(super) fn take_back_all(&self, st: &mut State) -> Vec<(WorkerId, bool)> {
        let State { peers, sched, .. } = st;
        let mut unsettled = Vec::new();
        for (worker, peer) in peers.iter_mut() {
            let sender = peer.link.sender();
            let mut busy = false;
            for task in sched.assigned(worker).rev() {
                if !sender.revoke(task.payload.position) {
                    busy = true;
                    break;
                }
                sender.release(task.payload.position);
            }
            let starting = !sched.is_up(worker);
            if busy || starting {
                unsettled.push((worker, starting));
            }
        }
        unsettled
    }

    fn execute(&self, st: &mut State, command: Command) {
        match command {
            Command::Send { worker, number } => self.send(st, worker, number),
            Command::Fill { job, tasks, items } => match st.jobs.get_mut(&job).map(|j| &mut j.feed) {
                Some(Feed::External { wanted, cell }) => {
                    *wanted = Some((tasks, items));
                    // A thread sleeps there, not a future.
                    let _ = cell.call();
                }
                Some(Feed::Inline(_)) => st.fills.push_back((job, tasks, items)),
                _ => {
                    st.sched.filled(job, true);
                    st.unplanned = true;
                }
            },
            Command::Revoke { worker, count } => {
                let Some(peer) = st.peers.get_mut(worker) else { return };
                let sender = peer.link.sender();
                let mut taken = 0;
                let mut begun = None;
                for task in st.sched.assigned(worker).rev().take(count) {
                    if !sender.revoke(task.payload.position) {
                        begun = Some(task.number);
                        break;
                    }
                    sender.release(task.payload.position);
                    peer.untaken.retain(|&number| number != task.number);
                    taken += 1;
                }
                if let Some(number) = begun {
                    st.sched.begun(worker, number);
                }
                st.sched.revoked(worker, taken);
                st.unplanned = true;
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
                st.settle(job, Settled { index, number: 0, items, outcome });
            }
            Command::Ended(job) => {
                let Some(j) = st.jobs.get_mut(&job) else { return };
                let gone = j.end();
                let awaited = j.cell.call().map(Gone::Awaited);
                st.called = true;
                st.gone.push(gone);
                st.gone.extend(awaited);
                let Some(j) = st.jobs.get(&job) else { return };
                if j.notify {
                    st.watched -= 1;
                    st.notices.push_back(job);
                    self.kick.kick();
                } else if j.orphaned {
                    st.discard(job);
                }
            }
        }
    }

    fn send(&self, st: &mut State, worker: WorkerId, number: u64) {
        let State { sched, peers, functions, .. } = st;
        let first = sched.assigned(worker).next().is_none_or(|task| task.number == number);
        let (Some(peer), Some(task)) = (peers.get_mut(worker), sched.task(worker, number)) else { return };
        if peer.damaged {
            sched.refused(worker, number);
            st.unplanned = true;
            return;
        }
        let arena = self.packer.arena();
        let func = task.func;
        let holds = task.payload.holds_handles();
        let sent = (|| {
            let empty = Packet::default();
            let unknown = (!peer.link.functions.contains(&func)).then(|| functions.get(&func).unwrap_or(&empty));
            if !first && (holds || unknown.is_some_and(Packet::holds_handles)) {
                // Behind a long task they would be held open for nothing, and whoever waits for a pipe's end would wait for that task.
                return Ok(None);
            }
            if let Some(packet) = unknown {
                let head = Head::new(kind::DEFINE, func, 0);
                if peer.link.send(head, packet, arena)?.is_err() {
                    return Ok(None);
                }
                peer.link.functions.insert(func);
                peer.account.functions += 1;
            }
            let head = Head::new(kind::TASK, func, task.number);
            peer.link.send(head, &task.payload, arena).map(Result::ok)
        })();
        match sent {
            Ok(Some(position)) => {
                task.payload.position = position;
                peer.account.sent = number;
                peer.untaken.extend(holds.then_some(number));
            }
            Ok(None) => {
                sched.refused(worker, number);
                st.unplanned = true;
            }
            Err(error @ Error::Damaged(_)) => {
                peer.condemn(&error);
                sched.refused(worker, number);
                st.unplanned = true;
            }
            Err(error) => {
                // Not this worker's fault, and another would fare no better: the task ends here.
                st.unplanned = true;
                if let Some((job, index, items)) = sched.unsendable(worker, number) {
                    st.settle(job, Settled { index, number: 0, items, outcome: Outcome::Unsent(Box::new(error)) });
                }
            }
        }
    }

    /// A worker that passes over what was taken back from it is awake.
    fn look_at_silent(&self, st: &mut State) {
        let State { sched, peers, .. } = st;
        let silent: Vec<WorkerId> = sched.silent().collect();
        for worker in silent {
            if peers.get_mut(worker).is_some_and(|peer| peer.link.sender().has_been_read()) {
                sched.awake(worker);
            }
        }
    }

    fn forget_unused(&self, st: &mut State) {
        let unused = std::mem::take(&mut *self.unused.lock().unwrap_or_else(PoisonError::into_inner));
        for func in unused {
            let gone = st.functions.remove(&func);
            st.holding -= usize::from(gone.is_some_and(|packet| packet.holds_handles()));
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
        match self.jobs.get_mut(&job).map(|j| (j.settle(settled), &j.cell)) {
            Some((Ok(true), cell)) => {
                self.gone.extend(cell.call().map(Gone::Awaited));
                self.called = true;
            }
            Some((Err(unwanted), _)) => self.gone.push(Gone::One(unwanted)),
            Some((Ok(false), _)) | None => {}
        }
    }

    /// Leaves the seat, and calls one of those that wait for it. False: nobody does.
    pub(super) fn call_next(&mut self) -> bool {
        let next = self.seats.leave(|cell| !cell.is_ready());
        if let Some(cell) = &next {
            self.gone.extend(cell.call().map(Gone::Awaited));
        }
        next.is_some()
    }

    /// Forgets a job.
    pub(super) fn discard(&mut self, job: JobId) {
        self.gone.extend(self.jobs.remove(&job).map(|job| Gone::Job(Box::new(job))));
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

    /// Whether somebody must look again within a millisecond or so, though nothing happens.
    fn wants_tick(&self) -> bool {
        self.sched.wants_tick() || self.peers.values().any(|p| p.stop_due && !p.damaged)
    }

    /// Whether somebody must look again now and then.
    pub(super) fn wants_look(&self) -> bool {
        self.sched.open_jobs() > 0 || self.sched.is_holding()
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
        // Handles are closed here as soon as a worker has them, or needs them no more: somebody may wait for a pipe's end.
        let watched = watched || self.holding > 0 || self.peers.values().any(|p| !p.untaken.is_empty());
        Some(if watched {
            level::KEEPER
        } else if self.sched.has_waiting() {
            level::KEEPER_HALF
        } else {
            level::KEEPER_FULL
        })
    }
}
