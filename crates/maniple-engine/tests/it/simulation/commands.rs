//! How the hub executes the commands of the scheduler.

use super::{End, Event, Fate, MICRO, Traits, World};
use maniple_engine::pool::scheduler::{Command, Death, Dropped, JobId, WorkerId};

impl World {
    pub(super) fn execute(&mut self, command: Command) {
        match command {
            Command::Send { worker, number } => self.send(worker, number),
            Command::Fill { job, tasks, items } => {
                note!(self, "{job:?} is asked for {tasks} tasks of {items}");
                self.ledger.fill_wanted(job, tasks, items);
                let after = Traits::delay(&mut self.rng, self.traits.look);
                self.later(after, Event::Filled(job));
            }
            Command::Revoke { worker, count } => self.revoke(worker, count),
            Command::Retire(worker) => {
                note!(self, "{worker:?} is to retire");
                self.count("retired");
                let peer = self.peers.get_mut(&worker).expect("a worker to retire");
                if peer.death != Death::Unasked {
                    // It is being ended since the scheduler decided this.
                    return;
                }
                assert!(!std::mem::replace(&mut peer.retired, true), "a worker is retired twice");
                peer.stop_due = true;
            }
            Command::Start(count) => {
                note!(self, "{count} workers are wanted");
                assert!(!self.ledger.terminated && !self.sched.is_broken() && count > 0, "a start that nobody needs");
                self.starts.ask(count);
                for _ in 0..count {
                    let after = Traits::delay(&mut self.rng, self.traits.boot);
                    self.later(after, Event::Start);
                }
            }
            Command::Drop { job, index, items, why } => {
                if let Dropped::Lost(_) = why {
                    self.count("task lost");
                }
                self.end_task(job, index, items, End::Dropped(why));
            }
            Command::Again { job, index } => {
                note!(self, "{index} of {job:?} is tried again after its worker's end");
                self.count("tried again after a loss");
                self.ledger.tried(job, index, self.now);
            }
            Command::Overdue { worker, number } => {
                let running = self.peers.get(&worker).and_then(|p| p.running);
                if let Some((of, place)) = running.filter(|&(of, _)| of == number) {
                    let limit = self.ledger.limit_of(place).expect("only a task with a limit is overdue");
                    assert!(self.now >= self.peers[&worker].began + limit, "{of} of {worker:?} is ended too early");
                }
                if self.doom(worker, number, Death::Overdue) {
                    self.count("ended as overdue");
                } else {
                    self.count("answered in time after all");
                }
            }
            Command::Interrupt { worker, number } => {
                note!(self, "{worker:?} is interrupted in {number}");
                self.count("interrupted");
            }
            Command::Unready(worker) => {
                self.hear_out(worker);
                if !self.sched.is_up(worker) {
                    note!(self, "{worker:?} is not ready in time");
                    self.count("not ready in time");
                    self.sched.doomed(worker);
                    self.peers.entry(worker).and_modify(|p| p.unready = true);
                    self.crash(worker);
                }
            }
            Command::Ended(job) => {
                note!(self, "{job:?} has ended");
                self.ledger.job_ended(job);
            }
        }
    }

    /// Ends a worker with the task that it runs, unless that task has ended.
    pub(super) fn doom(&mut self, worker: WorkerId, number: u64, death: Death) -> bool {
        self.hear_out(worker);
        let Some(peer) = self.peers.get_mut(&worker).filter(|p| p.death == Death::Unasked) else { return false };
        if self.sched.assigned(worker).next().is_none_or(|task| task.number != number) {
            return false;
        }
        let (mut taken, mut begun) = (0, false);
        for task in self.sched.assigned(worker).rev().take_while(|task| task.number != number) {
            if !peer.revoke(task.number) {
                begun = true;
                break;
            }
            taken += 1;
        }
        self.sched.revoked(worker, taken);
        if begun {
            return false;
        }
        self.sched.doomed(worker);
        note!(self, "{worker:?} is ended: {death:?}");
        let peer = self.peers.get_mut(&worker).expect("it was there");
        peer.death = death;
        peer.retired = true;
        peer.stop_due = false;
        self.crash(worker);
        true
    }

    pub(super) fn end_tasks_of(&mut self, job: JobId) {
        for worker in self.peers.keys().copied().collect::<Vec<_>>() {
            let first = self.sched.assigned(worker).next().map(|task| (task.job, task.number, task.payload.place));
            let Some((_, number, place)) = first.filter(|&(of, ..)| of == job) else { continue };
            if self.ledger.tasks[place].claimed_by == Some(worker) && self.doom(worker, number, Death::Cancelled) {
                self.ledger.tasks[place].is_ended_by_caller = true;
                self.count("cancelled as it ran");
            }
        }
    }

    fn send(&mut self, worker: WorkerId, number: u64) {
        let (Some(peer), Some(task)) = (self.peers.get_mut(&worker), self.sched.task(worker, number)) else { return };
        let place = task.payload.place;
        assert!(!peer.retired, "a task for a worker that was told to stop");
        if self.ledger.tasks[place].fate == Fate::Unsendable {
            self.count("unsendable");
            if let Some((job, index, items)) = self.sched.unsendable(worker, number) {
                self.end_task(job, index, items, End::Unsendable);
            }
            return;
        }
        let short = self.traits.short(self.now) && self.rng.per_mille(200);
        if peer.is_full() || short || self.rng.per_mille(self.traits.refuses) {
            note!(self, "{worker:?} refuses {number}");
            peer.refused = true;
            self.count("refused");
            return self.sched.refused(worker, number);
        }
        task.payload.sent_to = Some((worker, number));
        let (job, index) = (task.job, task.index);
        note!(self, "{index} of {job:?} is sent to {worker:?} as {number}");
        let in_order = !self.counts.contains_key("refused");
        self.ledger.sent(place, in_order, self.now);
        let peer = self.peers.get_mut(&worker).expect("it was there");
        peer.post(number, place);
        let after = Traits::delay(&mut self.rng, 5 * MICRO);
        self.later(after, Event::Work(worker));
    }

    fn revoke(&mut self, worker: WorkerId, count: usize) {
        let Some(peer) = self.peers.get_mut(&worker) else { return };
        let (mut taken, mut begun) = (0, None);
        for task in self.sched.assigned(worker).rev().take(count) {
            assert_eq!(
                task.payload.sent_to,
                Some((worker, task.number)),
                "a task is to be taken back from where it was not sent"
            );
            if !peer.revoke(task.number) {
                begun = Some(task.number);
                break;
            }
            taken += 1;
        }
        if let Some(number) = begun {
            self.sched.begun(worker, number);
        }
        note!(self, "{worker:?} gives back {taken} of {count}");
        if self.sched.silent().any(|silent| silent == worker) {
            self.count("taken from a silent worker");
        }
        self.count(if taken == count { "revoked" } else { "not all revoked" });
        self.sched.revoked(worker, taken);
    }
}
