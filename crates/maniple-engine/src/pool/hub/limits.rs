//! Limits of tasks and workers: what exceeds one is ended with its worker. All of it runs with the hub's lock held.

use super::{Inner, State};
use crate::pool::job::LossCause;
use crate::pool::scheduler::{Death, JobId, WorkerId};
use crate::process::Exit;
use maniple_sys::{clock, process};
use std::time::Duration;

/// How often (ns) the memory of busy workers is read.
const MEMORY_LOOK: u64 = 20_000_000;

/// Limits of a pool's workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerLimits {
    /// How long a worker may take from its start until it is ready.
    pub start: Option<Duration>,
    /// How many bytes of memory a worker may use, before it is ended with its task.
    pub memory: Option<u64>,
    /// How many bytes of memory a worker may use, before it is replaced after its task.
    pub recycle: Option<u64>,
}

/// Why the pool ends a worker.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doom {
    Overdue { limit: Duration, ran: Duration },
    TooLarge { limit: u64, peak: u64 },
    Cancelled,
    Unready { limit: Duration },
}

impl Doom {
    /// What the caller of the worker's task learns.
    pub fn cause(self) -> LossCause {
        match self {
            Doom::Overdue { limit, ran } => LossCause::Overdue { limit, ran },
            Doom::TooLarge { limit, peak } => LossCause::TooLarge { limit, peak },
            Doom::Unready { limit } => LossCause::Unready { limit },
            Doom::Cancelled => LossCause::Died,
        }
    }

    pub fn death(self) -> Death {
        match self {
            Doom::Overdue { .. } => Death::Overdue,
            Doom::TooLarge { .. } => Death::TooLarge,
            Doom::Cancelled => Death::Cancelled,
            Doom::Unready { .. } => Death::Unasked,
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    time.as_nanos().min(u128::from(u64::MAX)) as u64
}

impl State {
    /// The worker has ended: its process will not become known, or be in a group.
    pub(super) fn end_wait_for_process(&mut self, worker: WorkerId) {
        if let Some(slot) = self.slots.get_mut(worker) {
            slot.waits_for_process = false;
        }
    }
}

impl State {
    /// Raises the workers' limits to those of this program, if they were raised since the workers began: a shortage that
    /// is over here is over there.
    pub(super) fn lend_limits(&mut self) {
        let own = process::limits::own();
        for slot in self.slots.values_mut().filter(|slot| slot.limits != own && slot.is_living()) {
            slot.limits = process::limits::lend(slot.pid, slot.limits);
        }
    }
}

impl Inner {
    /// Tells the scheduler since when workers run their tasks, and looks at the workers' memory.
    pub(super) fn look_at_limits(&self, st: &mut State) {
        if st.sched.has_limits() {
            let State { slots, sched, .. } = st;
            let now = clock::now();
            for (worker, slot) in slots.iter() {
                let (number, began) = slot.link.running();
                sched.runs(worker, number, began, now);
            }
        }
        self.look_at_memory(st);
    }

    pub(super) fn watches_memory(&self) -> bool {
        self.limits.memory.is_some() || self.limits.recycle.is_some()
    }

    /// Reads the memory of busy workers, if it is time. Any thread may call it, whether it drives or not.
    pub(super) fn look_at_memory(&self, st: &mut State) {
        if !self.watches_memory() {
            return;
        }
        let now = clock::now();
        if now < st.memory_at {
            return;
        }
        st.memory_at = now.saturating_add(MEMORY_LOOK);
        let busy: Vec<(WorkerId, u64, u32)> = st
            .slots
            .iter()
            .filter(|(_, slot)| slot.is_living() && slot.doom.is_none() && !slot.damaged)
            .filter_map(|(worker, slot)| Some((worker, st.sched.assigned(worker).next()?.number, slot.pid)))
            .collect();
        for (worker, number, pid) in busy {
            let Some(slot) = st.slots.get_mut(worker) else { continue };
            let own = process::usage::memory_of(pid).map(|memory| slot.own_memory(memory));
            // With the processes that the task has started.
            let group = slot.group.as_mut().and_then(|group| group.excess());
            let Some(used) = own.max(group) else { continue };
            if let Some(limit) = self.limits.memory.filter(|&limit| used > limit) {
                let peak = process::usage::peak_memory_of(pid).map_or(used, |peak| peak - slot.inherited.min(peak));
                let peak = peak.max(used);
                self.doom(st, worker, number, Doom::TooLarge { limit, peak });
            } else if self.limits.recycle.is_some_and(|limit| used > limit) {
                st.sched.recycle(worker);
            }
        }
    }

    /// After how long (ns) the hub has to look at everything, although nothing happens.
    pub(super) fn next_look(&self, st: &State, now: u64) -> Option<u64> {
        st.sched.next_look(now).into_iter().chain(self.next_memory_look(st, now)).min()
    }

    /// After how long (ns) the memory of busy workers has to be read.
    pub(super) fn next_memory_look(&self, st: &State, now: u64) -> Option<u64> {
        (self.watches_memory() && st.sched.busy() > 0).then(|| st.memory_at.saturating_sub(now))
    }

    /// Whether the system has ended a process for lack of memory, so that it may have ended a worker with this exit.
    pub(super) fn out_of_memory(&self, exit: Option<Exit>) -> bool {
        let killed = exit.is_some_and(Exit::is_kill);
        killed && self.memory_kills.is_some_and(|before| process::usage::memory_kills().is_some_and(|now| now > before))
    }

    pub(super) fn end_overdue(&self, st: &mut State, worker: WorkerId, number: u64) {
        let Some(terms) = st.sched.terms_of(worker, number) else { return };
        let limit = Duration::from_nanos(terms.limit.unwrap_or(0));
        let ran = st.sched.ran_for(worker, clock::now()).map_or(limit, Duration::from_nanos);
        self.doom(st, worker, number, Doom::Overdue { limit, ran });
    }

    pub(super) fn end_unready(&self, st: &mut State, worker: WorkerId) {
        let Some(limit) = self.limits.start else { return };
        self.hear_out(st, worker);
        if st.sched.is_up(worker) {
            return;
        }
        if let Some(slot) = st.slots.get_mut(worker) {
            st.sched.doomed(worker);
            slot.doom = Some(Doom::Unready { limit });
            slot.kill_family();
        }
    }

    pub(super) fn interrupt(&self, st: &mut State, worker: WorkerId, number: u64) {
        self.hear_out(st, worker);
        let runs = st.sched.assigned(worker).next().is_some_and(|task| task.number == number);
        if let Some(slot) = st.slots.get(worker).filter(|_| runs)
            && slot.link.is_interruptible()
            && let Some(watch) = &slot.watch
        {
            let _ = watch.interrupt();
        }
    }

    /// The tasks of this job that workers run.
    pub(super) fn running_tasks_of(&self, st: &mut State, job: JobId) -> Vec<(WorkerId, u64)> {
        let State { slots, sched, .. } = st;
        let running = slots.iter().filter_map(|(worker, slot)| {
            let task = sched.assigned(worker).next().filter(|task| task.job == job)?;
            slot.link.claimed(task.payload.position).then_some((worker, task.number))
        });
        running.collect()
    }

    /// Ends the workers that run a task of this job, and with each of them only this task. Returns their number.
    pub(super) fn end_tasks_of(&self, st: &mut State, job: JobId) -> usize {
        let running = self.running_tasks_of(st, job);
        running.into_iter().filter(|&(worker, number)| self.doom(st, worker, number, Doom::Cancelled)).count()
    }

    /// Ends a worker, and with it only the task `number`, which it runs. Returns false if that task has ended meanwhile.
    fn doom(&self, st: &mut State, worker: WorkerId, number: u64, doom: Doom) -> bool {
        // If its answer has arrived, the answer counts.
        self.hear_out(st, worker);
        let State { slots, sched, .. } = st;
        let Some(slot) = slots.get_mut(worker).filter(|slot| !slot.damaged && slot.doom.is_none()) else {
            return false;
        };
        if sched.assigned(worker).next().is_none_or(|task| task.number != number) {
            return false;
        }
        // The worker must not begin another task, which would be lost with it.
        let (mut revoked, mut begun) = (0, false);
        for task in sched.assigned(worker).rev().take_while(|task| task.number != number) {
            if !slot.link.revoke(task.payload.position) {
                begun = true;
                break;
            }
            slot.untaken.retain(|&untaken| untaken != task.number);
            revoked += 1;
        }
        st.unplanned = true;
        sched.revoked(worker, revoked);
        if !begun {
            sched.doomed(worker);
            slot.doom = Some(doom);
            slot.kill_family();
        }
        !begun
    }
}
