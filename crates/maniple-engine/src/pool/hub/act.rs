//! Executes the scheduler's commands. All of it runs with the hub's lock held.

use super::{Inner, State};
use crate::error::Error;
use crate::pool::job::{Feed, Gone, Outcome, Settled};
use crate::pool::link::kind;
use crate::pool::packet::Packet;
use crate::pool::scheduler::{Command, Dropped, WorkerId};
use crate::shm::ring::Head;
use maniple_sys::clock;
use std::sync::PoisonError;

/// Why a worker is killed that lives, and has closed its end of the link.
const CUT_OFF: Error = Error::Damaged("it has closed its connection, so it cannot receive large arguments");
/// Why a worker is killed that has damaged memory that it only reads.
const DAMAGED: Error = Error::Damaged("more was read from a ring than was written");

impl Inner {
    /// Lets the scheduler decide, and executes its commands.
    pub(super) fn advance(&self, st: &mut State) {
        self.advance_at(st, clock::now());
    }

    /// The same at the time `now`. No time passes in here: a plan may take long, and would otherwise take back what the
    /// last one gave.
    pub(super) fn advance_at(&self, st: &mut State, now: u64) {
        self.forget_unused(st);
        self.look_at_silent(st);
        self.look_at_limits(st);
        let mut commands = std::mem::take(&mut st.commands);
        st.unplanned = true;
        loop {
            if std::mem::take(&mut st.unplanned) {
                st.sched.plan(now);
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
        st.give_room();
        let State { slots, sched, terminated, .. } = st;
        for (worker, slot) in slots.iter_mut() {
            if slot.stop_due && !slot.damaged {
                let head = Head::new(kind::STOP, u32::from(*terminated), 0);
                match slot.send(head, &Packet::default(), self.packer.arena()) {
                    Ok(_) if slot.link.is_damaged() => slot.condemn(&DAMAGED),
                    Ok(sent) => slot.stop_due = sent.is_err(),
                    Err(why) => slot.condemn(&why),
                }
            }
            if std::mem::take(&mut slot.dirty) {
                slot.link.ring(sched.halfway(worker).unwrap_or(0));
            }
        }
    }

    /// Revokes all tasks that no worker has begun. Returns the busy workers, and those that are not ready yet (true).
    pub(super) fn take_back_all(&self, st: &mut State) -> Vec<(WorkerId, bool)> {
        let State { slots, sched, .. } = st;
        let mut unsettled = Vec::new();
        for (worker, slot) in slots.iter_mut() {
            let busy = !sched.assigned(worker).rev().all(|task| slot.link.revoke(task.payload.position));
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
                let Some(slot) = st.slots.get_mut(worker) else { return };
                let mut taken = 0;
                let mut begun = None;
                for task in st.sched.assigned(worker).rev().take(count) {
                    if !slot.link.revoke(task.payload.position) {
                        begun = Some(task.number);
                        break;
                    }
                    slot.untaken.retain(|&number| number != task.number);
                    taken += 1;
                }
                if let Some(number) = begun {
                    st.sched.begun(worker, number);
                }
                st.sched.revoked(worker, taken);
                st.unplanned = true;
            }
            Command::Retire(worker) => {
                if let Some(slot) = st.slots.get_mut(worker) {
                    slot.stop_due = true;
                    slot.dirty = true;
                }
            }
            Command::Start(n) => {
                st.starts.ask(n);
                self.kick.kick();
            }
            Command::Drop { job, index, items, why } => {
                let outcome = match (why, &st.loss, &st.broken) {
                    (Dropped::Lost(_), Some(loss), _) | (Dropped::Broken, _, Some(loss)) => Outcome::Lost(loss.clone()),
                    (Dropped::Cancelled, ..) => Outcome::Cancelled,
                    _ => Outcome::Terminated,
                };
                st.settle(job, Settled::unanswered(index, items, outcome));
            }
            Command::Again { job, index } => {
                if let (Some(loss), Some(j)) = (&st.loss, st.jobs.get_mut(&job)) {
                    j.tried(index, Outcome::Lost(loss.clone()));
                }
            }
            Command::Overdue { worker, number } => self.end_overdue(st, worker, number),
            Command::Interrupt { worker, number } => self.interrupt(st, worker, number),
            Command::Unready(worker) => self.end_unready(st, worker),
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
                    if st.report_end(job) {
                        self.kick.kick();
                    }
                } else if j.orphaned {
                    st.discard(job);
                }
            }
        }
    }

    fn send(&self, st: &mut State, worker: WorkerId, number: u64) {
        let State { sched, slots, functions, .. } = st;
        let first = sched.assigned(worker).next().is_none_or(|task| task.number == number);
        let (Some(slot), Some(task)) = (slots.get_mut(worker), sched.task(worker, number)) else { return };
        if slot.damaged {
            sched.refused(worker, number);
            st.unplanned = true;
            return;
        }
        let arena = self.packer.arena();
        let func = task.func;
        let holds = task.payload.holds_handles();
        let needs_wire = holds || !task.payload.blobs.is_empty();
        let sent = (|| {
            let empty = Packet::default();
            let unknown = (!slot.functions.contains(&func)).then(|| functions.get(&func).unwrap_or(&empty));
            if !first && (holds || unknown.is_some_and(Packet::holds_handles)) {
                // Behind a long task the handles would stay open for nothing, and a reader that waits for a pipe's end
                // would wait for that task.
                return Ok(None);
            }
            if let Some(packet) = unknown {
                let head = Head::new(kind::DEFINE, func, 0);
                if slot.send(head, packet, arena)?.is_err() {
                    return Ok(None);
                }
                slot.functions.insert(func);
                slot.account.functions += 1;
            }
            let head = Head::new(kind::TASK, func, task.number);
            slot.send(head, &task.payload, arena).map(Result::ok)
        })();
        match sent {
            Ok(Some(position)) => {
                task.payload.position = position;
                slot.account.sent = number;
                slot.untaken.extend(holds.then_some(number));
            }
            Ok(None) => {
                if slot.is_cut_off_for_long(needs_wire) {
                    slot.condemn(&CUT_OFF);
                }
                sched.refused(worker, number);
                st.unplanned = true;
            }
            Err(error @ Error::Damaged(_)) => {
                slot.condemn(&error);
                sched.refused(worker, number);
                st.unplanned = true;
            }
            Err(error) => {
                // This is not the worker's fault, and another worker would fail as well: the task ends here.
                st.unplanned = true;
                if let Some((job, index, items)) = sched.unsendable(worker, number) {
                    st.settle(job, Settled::unanswered(index, items, Outcome::Unsent(Box::new(error))));
                }
            }
        }
    }

    /// A worker that skips revoked tasks is awake.
    fn look_at_silent(&self, st: &mut State) {
        let State { sched, slots, .. } = st;
        let silent: Vec<WorkerId> = sched.silent().collect();
        for worker in silent {
            if slots.get_mut(worker).is_some_and(|slot| slot.link.has_been_read()) {
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
            if !st.sched.tally().names(func) {
                st.names.remove(&func);
            }
            st.forget_names();
            for slot in st.slots.values_mut() {
                if slot.functions.remove(&func) {
                    // If there is no room, the worker keeps a function that it does not need.
                    let _ = slot.send(Head::new(kind::FORGET, func, 0), &Packet::default(), self.packer.arena());
                }
            }
        }
    }
}
