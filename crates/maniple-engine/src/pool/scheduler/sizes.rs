//! The number of workers: starts, spare workers, and sizes that follow the work.

use super::*;
use rustc_hash::FxHashSet;

impl<P> Scheduler<P> {
    /// How many workers there are to be, without spare ones.
    pub fn processes(&self) -> usize {
        self.config.processes
    }

    /// Sets the number of workers. Surplus workers stay until they end, unless `shrinks`: then they end after their tasks.
    pub fn resize(&mut self, processes: usize, shrinks: bool) {
        self.config.processes = processes;
        self.queue.have_workers(processes);
        self.shrinks |= shrinks;
    }

    /// Sets the number of tasks after which a worker is replaced; `None`: never.
    pub fn set_max_tasks(&mut self, tasks: Option<u64>) {
        self.config.max_tasks = tasks;
    }

    /// Lets spare workers take the places of workers that have ended or are about to.
    pub(super) fn promote(&mut self, now: u64) {
        if !self.has_spares {
            return;
        }
        let missing = self.config.processes.saturating_sub(self.count(Phase::Up));
        for w in self.workers.values_mut().filter(|w| w.phase == Phase::Spare).take(missing) {
            w.phase = Phase::Up;
            w.last_finish = now;
        }
        self.has_spares = self.count(Phase::Spare) > 0;
    }

    /// Whether a worker is ready, and gets no task before it takes the place of another.
    pub fn is_spare(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|w| w.phase == Phase::Spare)
    }

    /// Whether a worker that becomes ready may be surplus, so that the caller has to learn of it at once.
    pub fn awaits_workers(&self) -> bool {
        (self.shrinks || self.config.is_elastic()) && self.count(Phase::Starting) > 0
    }

    fn count(&self, phase: Phase) -> usize {
        self.workers.values().filter(|w| w.phase == phase).count()
    }

    /// Requests workers that are missing, and retires surplus ones.
    pub(super) fn adjust_size(&mut self, now: u64) {
        let most = self.config.processes.saturating_add(self.config.spares);
        let staying = self.workers.len() - self.count(Phase::Retiring) + self.asked;
        let wanted = if self.config.is_elastic() { self.wanted_for_work(staying) } else { most };
        // A retiring worker is replaced when it has ended: the pool never has more processes than its limit.
        let gone = most.saturating_sub(self.workers.len() + self.asked);
        let missing = wanted.saturating_sub(staying).min(gone);
        if missing > 0 {
            if self.is_held(now) {
                return;
            }
            self.asked += missing;
            self.commands.push(Command::Start(missing));
            return;
        }
        if self.shrinks {
            self.retire_surplus(staying.saturating_sub(most));
        }
        if self.config.is_elastic() {
            self.retire_idle(now);
        }
    }

    /// How many workers the work needs, if so many are there or were requested. An elastic pool grows as long as a task
    /// waits that no idle worker takes.
    fn wanted_for_work(&self, staying: usize) -> usize {
        let (processes, least) = (self.config.processes, self.config.least());
        let most = processes.saturating_sub(staying);
        let starting = self.asked + self.count(Phase::Starting);
        let mut waiting = 0;
        for job in self.queue.iter().filter_map(|id| self.jobs.get(id)) {
            waiting += job.pending.len() + usize::from(job.pending.is_empty() && job.input_open && !job.filling);
            if waiting >= most + starting {
                break;
            }
        }
        // Tasks that wait behind another at their worker can be revoked for a new one.
        waiting += self.workers.values().map(|w| w.assigned.len().saturating_sub(1)).sum::<usize>();
        let idle = self.workers.values().filter(|w| w.is_idle()).count();
        let more = waiting.saturating_sub(starting + idle).min(most);
        (staying + more).max(least)
    }

    /// The lowest number that no worker has.
    pub(super) fn free_number(&self) -> usize {
        let taken: FxHashSet<usize> = self.workers.values().map(|w| w.number).collect();
        (0..).find(|number| !taken.contains(number)).unwrap_or_default()
    }

    /// The number of a worker in its pool, from 0 on. No two workers of a pool have the same number at once: a new worker
    /// gets the lowest free number, so a worker that replaces another has that of the other. `None`: it has ended.
    pub fn number_of(&self, worker: WorkerId) -> Option<usize> {
        self.workers.get(worker).map(|w| w.number)
    }

    /// Retires silent workers first, which may be stopped forever, and then the workers with the highest numbers: the others
    /// have the numbers of a pool of their size. A surplus worker that was only requested, or that is starting, retires when
    /// it is ready.
    fn retire_surplus(&mut self, count: usize) {
        let staying = self.workers.iter().filter(|(_, w)| w.phase != Phase::Retiring);
        let mut last: Vec<_> = staying.map(|(worker, w)| ((w.silent, w.number), worker)).collect();
        last.sort_unstable_by_key(|&(rank, _)| std::cmp::Reverse(rank));
        for (_, worker) in last.into_iter().take(count.saturating_sub(self.asked)) {
            if self.workers.get(worker).is_some_and(Worker::may_retire) {
                self.retire(worker);
            }
        }
        self.shrinks = count > 0;
    }

    /// Retires workers that have had no work for long.
    fn retire_idle(&mut self, now: u64) {
        let (least, idle) = (self.config.least(), self.config.idle);
        let mut surplus = (self.workers.len() - self.count(Phase::Retiring)).saturating_sub(least);
        while surplus > 0 {
            let old = |w: &Worker<P>| w.has_nothing() && now.saturating_sub(w.last_finish) >= idle;
            let Some(worker) = self.workers.iter().find(|(_, w)| old(w)).map(|(worker, _)| worker) else { return };
            self.retire(worker);
            surplus -= 1;
        }
    }

    fn retire(&mut self, worker: WorkerId) {
        if let Some(w) = self.workers.get_mut(worker) {
            w.phase = Phase::Retiring;
            self.commands.push(Command::Retire(worker));
        }
    }

    /// When the next worker may have been idle for too long.
    pub(super) fn next_idle_end(&self) -> Option<u64> {
        let (least, idle) = (self.config.least(), self.config.idle);
        if !self.config.is_elastic() || self.workers.len() - self.count(Phase::Retiring) <= least {
            return None;
        }
        let idle_ones = self.workers.values().filter(|w| w.has_nothing());
        idle_ones.map(|w| w.last_finish.saturating_add(idle)).min()
    }
}

impl<P> Worker<P> {
    /// Whether it has no task; also if it gets none, because it was stopped or has no room.
    fn has_nothing(&self) -> bool {
        self.phase == Phase::Up && !self.doomed && self.assigned.is_empty()
    }

    fn may_retire(&self) -> bool {
        matches!(self.phase, Phase::Up | Phase::Spare) && !self.doomed
    }
}
