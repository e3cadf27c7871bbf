//! The scheduler's decisions after a batch of events: which worker gets which task, what is requested, revoked and started.

use super::terms::Chunk;
use super::*;
use slotmap::Key;

/// Work given in advance, in nanoseconds.
const AHEAD: u64 = 1_000_000;
/// The greatest number of tasks given in advance.
const DEEPEST: u64 = 1024;
/// What an adaptive chunk should take, in nanoseconds.
const CHUNK: u64 = 2_000_000;
/// Items of an adaptive chunk while their cost is unknown.
const FIRST_CHUNK: usize = 16;
/// What it costs to wake a worker, in nanoseconds.
const WAKE: u64 = 8_000;
/// For so long (ns) after its last task a worker is likely to be awake.
const ALERT: u64 = 40_000;
/// A task that has run for so long (ns) is long enough to revoke the tasks that wait behind it.
const STUCK: u64 = 300_000;
/// As `STUCK`, if another job's task goes before those that wait. They are given to the same worker again, behind it.
const OVERTAKEN: u64 = 5_000_000;
/// A worker that has not begun its first task after so long (ns) will not begin it soon.
pub(super) const SILENT: u64 = 30_000_000;
/// The first pause (ns) after too many failed starts in a row, and the greatest number of times that it doubles.
const PAUSE: (u64, usize) = (10_000_000, 7);
/// A worker that had no room and has no task to finish is retried after so long (ns).
const RETRY: u64 = 300_000;

impl<P> Scheduler<P> {
    /// Decides what to do after a batch of events.
    pub fn plan(&mut self, now: u64) {
        self.overtake_at = None;
        if matches!(self.state, State::Running | State::Closing) {
            self.forgive(now);
            self.resume(now);
            self.promote(now);
            self.hand_out(now);
            self.pull_back(now);
            self.share_out(now);
            // By the next plan, the commands have been executed.
            self.workers.values_mut().for_each(|w| w.recalled = false);
        }
        if self.state != State::Terminated {
            self.enforce_limits(now);
        }
        self.renew(now);
    }

    /// Usually the answer to a task makes room. If no answer will arrive (all tasks were revoked, or the wire was
    /// full), the worker is retried after some time.
    fn forgive(&mut self, now: u64) {
        for w in self.workers.values_mut().filter(|w| w.full && w.assigned.is_empty()) {
            if now >= *w.retry_at.get_or_insert(now + RETRY) {
                w.full = false;
                w.retry_at = None;
            }
        }
    }

    /// A silent worker has skipped its revoked tasks: it is awake.
    pub fn awake(&mut self, worker: WorkerId) {
        if let Some(w) = self.workers.get_mut(worker) {
            w.silent = false;
        }
    }

    fn hand_out(&mut self, now: u64) {
        if self.queue.is_empty() {
            return;
        }
        self.assign(now);
        self.note_busy();
    }

    fn assign(&mut self, now: u64) {
        self.plans += 1;
        let plan = self.plans;
        let Some(mut turn) = self.queue.next(&self.jobs, plan) else { return };
        // Waking a worker that has been idle for a while costs as much as some short tasks, which another worker runs
        // meanwhile, unless that worker hangs itself.
        let each = self.jobs.get(turn.job).and_then(|j| self.cost.get(&j.shape.func)).copied();
        let mut waking = each.map_or(0, |each| (WAKE / each.max(1)).min(16));
        let mut open = by_load(&self.workers, now, waking);
        // Only a job with a source asks. Most jobs have none, and there may be many that wait at workers.
        let alone = self.queue.len() == 1
            && self.jobs.get(turn.job).is_some_and(|job| job.input_open)
            && !self.jobs.iter().any(|(id, job)| job.filling && id != turn.job);
        while !open.is_empty() {
            let Some(job) = self.jobs.get_mut(turn.job) else { return };
            let each = self.cost.get(&job.shape.func).copied();
            let mut given = 0;
            while let Some(task) = job.pending.front() {
                let Some(&Reverse((load, seen, worker))) = open.peek() else { break };
                if self.workers.get(worker).is_some_and(|w| w.is_to_be_overtaken(turn.job, job, now)) {
                    // It waits until those are done or taken back.
                    open.pop();
                    continue;
                }
                // The wake-up counts for the choice of a worker, not against the limit.
                let has = self.workers.get(worker).map_or(0, |w| w.assigned.len() as u64);
                if has >= depth(each, task.items) {
                    if std::mem::take(&mut waking) > 0 {
                        // The awake workers have enough tasks: now the others must be woken.
                        open = by_load(&self.workers, now, 0);
                        continue;
                    }
                    return;
                }
                open.pop();
                let (Some(task), Some(w)) = (job.pending.pop_front(), self.workers.get_mut(worker)) else { break };
                if w.assigned.is_empty() {
                    w.last_finish = now;
                }
                let nanos = each.map_or(CHUNK, |each| each.saturating_mul(task.items as u64));
                let number = w.give(turn.job, job, task, nanos);
                self.commands.push(Command::Send { worker, number });
                if self.config.max_tasks.is_some_and(|most| w.given >= most) {
                    w.phase = Phase::Retiring;
                    self.commands.push(Command::Retire(worker));
                } else {
                    open.push(Reverse((load + 1, seen, worker)));
                }
                self.queue.charge(&turn, job, nanos);
                given += 1;
                if !turn.alone {
                    break;
                }
            }
            if job.pending.is_empty() {
                let loads = open.iter().filter_map(|r| Some(self.workers.get(r.0.2)?.assigned.len() as u64));
                if let Some(fill) = job.wanted(turn.job, each, loads, self.config.processes, alone) {
                    job.filling = true;
                    self.commands.push(fill);
                }
                if !job.can_give() {
                    self.queue.remove(&turn, job);
                } else {
                    // Later jobs get what it leaves.
                    job.passed = plan;
                }
            } else if given == 0 {
                return;
            }
            match self.queue.next(&self.jobs, plan) {
                Some(next) => turn = next,
                None => return,
            }
        }
    }

    /// Takes back what was given in advance and waits behind a task that runs for longer than was expected, if a task of
    /// another job goes first.
    fn pull_back(&mut self, now: u64) {
        if self.queue.is_empty() || self.workers.values().all(|w| w.assigned.len() < 2) {
            return;
        }
        let Some(turn) = self.queue.next(&self.jobs, self.plans) else { return };
        let Some(next) = self.jobs.get(turn.job).filter(|job| !job.pending.is_empty()) else { return };
        let is_overtaken = |task: &&Assigned<P>| task.job != turn.job && next.may_overtake(task.rank);
        let not_before = self.last_revoke + OVERTAKEN;
        for (worker, w) in &self.workers {
            if w.assigned.len() < 2 || w.assigned.back().filter(is_overtaken).is_none() {
                continue;
            }
            let at = not_before.max(w.last_finish + OVERTAKEN);
            if now < at {
                self.overtake_at = Some(self.overtake_at.map_or(at, |earlier| earlier.min(at)));
                continue;
            }
            let count = w.assigned.iter().skip(1).rev().take_while(is_overtaken).count();
            self.last_revoke = now;
            self.commands.push(Command::Revoke { worker, count });
        }
    }

    /// An idle worker takes over what waits behind another's long task.
    fn share_out(&mut self, now: u64) {
        let idle = self.workers.values().filter(|w| w.is_idle()).count();
        let something_else = || self.queue.iter().any(|j| self.jobs.get(j).is_some_and(|j| !j.pending.is_empty()));
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
            // Not again at once: a task that cannot be revoked now has been claimed, and its worker will report it.
            self.last_revoke = now;
            self.commands.push(Command::Revoke { worker, count: waiting - waiting / (idle + 1) });
            return;
        }
        for (worker, w) in self.workers.iter_mut() {
            if w.begins_at().is_some_and(|at| now >= at) {
                w.silent = true;
                w.recalled = true;
                self.commands.push(Command::Revoke { worker, count: w.assigned.len() });
            }
        }
    }

    /// Whether no worker is requested at present.
    pub(super) fn is_held(&mut self, now: u64) -> bool {
        let excess = self.failures_in_excess();
        if excess == 0 {
            return false;
        }
        let (first, doublings) = PAUSE;
        let until = *self.hold.get_or_insert(now + (first << excess.min(doublings)));
        if now >= until {
            self.hold = None;
        }
        now < until
    }

    fn renew(&mut self, now: u64) {
        match self.state {
            State::Running => {}
            State::Closing if !self.jobs.is_empty() => {}
            State::Terminated => {
                self.hold = None;
                return;
            }
            State::Closing | State::Broken => {
                self.hold = None;
                for (id, w) in self.workers.iter_mut().filter(|(_, w)| w.phase != Phase::Retiring) {
                    w.phase = Phase::Retiring;
                    self.commands.push(Command::Retire(id));
                }
                return;
            }
        }
        self.adjust_size(now);
    }
}

impl<P> Job<P> {
    pub(super) fn take_number(&mut self, items: usize) -> u64 {
        let index = self.next_index;
        self.next_index += 1;
        self.in_window += items;
        if let Some(left) = &mut self.items_left {
            *left = left.saturating_sub(items);
        }
        index
    }

    /// Whether the job has tasks, or can be asked for some. It is asked once: the end of the fill puts it into the queue again.
    fn can_give(&self) -> bool {
        let room = self.shape.window.is_none_or(|w| self.in_window < w);
        !self.pending.is_empty() || (self.input_open && room && !self.filling)
    }

    fn wanted(
        &self,
        id: JobId,
        each: Option<u64>,
        loads: impl Iterator<Item = u64>,
        processes: usize,
        alone: bool,
    ) -> Option<Command> {
        if !self.input_open || self.filling || self.shape.supply == Supply::Complete || id.is_null() {
            return None;
        }
        let items = match self.shape.chunk {
            Chunk::Fixed(n) => n.max(1),
            Chunk::Adaptive => {
                let by_cost = each.map_or(FIRST_CHUNK, |each| (CHUNK / each.max(1)) as usize);
                let share = self.items_left.map_or(by_cost, |left| left.div_ceil(processes.max(1) * 4));
                // Several chunks fit into the window, so that workers can run one while another is returned.
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
        if !alone {
            // Other jobs take all room that there is. It is this job's turn when there is room again.
            room = room.max(deepest);
        }
        let mut tasks = room as usize;
        if let Some(window) = self.shape.window {
            let open = window.saturating_sub(self.in_window);
            // A chunk larger than the whole window still has to pass, alone.
            tasks = tasks.min(if self.in_window == 0 { (open / items).max(1) } else { open / items });
            idle &= open >= window / 8 || self.unfinished == 0;
            room = room.min(if open >= window / 4 { u64::MAX } else { 0 });
        }
        // Requests are rare and large: unless a worker is idle, wait until there is room for half of the window.
        let enough = idle || room >= deepest;
        (tasks > 0 && enough).then_some(Command::Fill { job: id, tasks, items })
    }
}

impl<P> Worker<P> {
    /// Whether a task of this job must not wait behind those that the worker has.
    fn is_to_be_overtaken(&self, id: JobId, job: &Job<P>, now: u64) -> bool {
        let Some(last) = self.assigned.back().filter(|_| self.assigned.len() > 1) else { return false };
        let is_late = now.saturating_sub(self.last_finish) > OVERTAKEN;
        last.job != id && job.may_overtake(last.rank) && (last.rank.0 > job.priority() || is_late)
    }

    /// Whether it could run a task at once.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Up && !self.full && !self.silent && self.assigned.is_empty()
    }

    /// When it should have begun its oldest task, if it is not known to have begun it.
    pub(super) fn begins_at(&self) -> Option<u64> {
        let waits = self.phase != Phase::Starting && self.assigned.front().is_some_and(|t| t.number > self.begun);
        waits.then_some(self.last_finish + SILENT)
    }
}

/// A worker's number of tasks, including what counts as tasks; how long ago it was last busy; the worker.
type Load = Reverse<(u64, Reverse<u64>, WorkerId)>;

/// The workers that can get tasks: least loaded first; among equals first the worker that was busy last, whose caches
/// are warm. A worker that has slept, or has not responded, for long counts as if it had `late` more tasks.
fn by_load<P>(workers: &SlotMap<WorkerId, Worker<P>>, now: u64, late: u64) -> BinaryHeap<Load> {
    let open = workers.iter().filter(|(_, w)| w.phase == Phase::Up && !w.full && !w.recalled && !w.silent);
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
