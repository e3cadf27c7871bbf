//! What must hold after every step, when nothing moves any more, and at the end.

use super::{LONGEST_DELAY, PATIENCE, SILENCE, World};
use crate::simulation::ledger::Account;
use crate::simulation::traits::MILLI;
use maniple_engine::pool::scheduler::{Config, Supply, WorkerId};

/// How long (ns) a task may run beyond its limit before its worker is ended, in a hub that looks when it should.
const LATE: u64 = MILLI;

impl World {
    fn is_over(&self) -> bool {
        self.ledger.terminated || self.sched.is_broken()
    }

    /// A worker that could run something at once, as far as the hub can know.
    fn is_idle(&self, worker: WorkerId) -> bool {
        let peer = &self.peers[&worker];
        let silent = self.sched.silent().any(|silent| silent == worker) || self.sched.is_spare(worker);
        peer.greeted
            && !peer.retired
            && !peer.unready
            && !peer.refused
            && !silent
            && self.sched.assigned(worker).next().is_none()
    }

    /// After every event and what followed from it.
    pub fn check_step(&mut self) {
        assert_eq!(self.sched.open_jobs(), self.ledger.open_jobs, "jobs that have not ended");
        assert_eq!(self.sched.alive(), self.peers.len(), "workers");
        self.check_account();
        if !self.ledger.terminated {
            assert_eq!(self.sched.is_broken(), self.ledger.broken, "broken by starts that failed one after the other");
        }
        assert!(self.peers.len() + self.starts.due() <= self.most, "more workers than there should be");
        let mut assigned = 0;
        for &worker in self.peers.keys() {
            let mut last = 0;
            for task in self.sched.assigned(worker) {
                assert!(task.number > last, "numbers on a link ascend");
                last = task.number;
                let record = &self.ledger.tasks[task.payload.place];
                assert_eq!(record.end, None, "a worker has a task that has ended");
                assert_eq!((record.job, record.index, record.items), (task.job, task.index, task.items));
                assert_eq!(task.payload.sent_to, Some((worker, task.number)), "a task that was assigned but not sent");
                assigned += 1;
            }
        }
        assert!(assigned <= self.ledger.open_tasks, "a task is in two places");
        for (worker, peer) in self.peers.iter().filter(|(_, p)| p.alive) {
            let Some((number, place)) = peer.running.filter(|_| !self.is_over()) else { continue };
            let Some(limit) = self.ledger.limit_of(place) else { continue };
            let late = self.now.saturating_sub(peer.began + limit);
            let known = self.sched.assigned(*worker).next().is_some_and(|task| task.number == number);
            assert!(!known || late <= LATE, "{number} of {worker:?} has run {late} ns beyond its limit");
        }
        if self.is_over() {
            assert_eq!(self.ledger.open_tasks, 0, "a pool that is over has tasks");
            assert_eq!(self.ledger.open_jobs, 0, "a pool that is over has jobs");
        } else if assigned + self.ledger.delayed(self.now) < self.ledger.open_tasks {
            let idle = self.peers.keys().find(|&&w| self.is_idle(w));
            assert!(idle.is_none(), "{} tasks wait while {idle:?} is idle", self.ledger.open_tasks - assigned);
        }
    }

    /// What the scheduler counts is what has happened, at every moment.
    fn check_account(&self) {
        let (tally, account) = (self.sched.tally(), self.ledger.account);
        let counted = Account {
            received: tally.received,
            completed: tally.completed,
            failed: tally.failed,
            lost: tally.lost,
            timed_out: tally.timed_out,
            cancelled: tally.cancelled,
            retried: tally.retried,
            items_done: tally.items_done,
            claims: account.claims,
        };
        assert_eq!(counted, account, "the scheduler's counters");
        assert_eq!(tally.open(), self.ledger.open_tasks as u64, "tasks that have not ended");
        if self.ledger.tasks.len() < 200 || self.sequence.is_multiple_of(64) {
            assert_eq!(tally.open(), self.sched.count_open() as u64, "tasks that wait or run");
            assert_eq!(self.sched.unmade_items(), self.sched.count_unmade(), "items without a task");
        }
        let launched = tally.launched;
        assert!(launched >= tally.completed && launched <= account.claims, "{launched} launched, {account:?}");
        assert_eq!((tally.waiting.count(), tally.running.count()), (tally.running.count(), tally.waiting.count()));
        assert!(tally.most_busy <= self.most.max(self.peers.len()));
        assert!(tally.slowest().is_sorted_by(|(one, _), (two, _)| one >= two) && tally.slowest().len() <= 5);
    }

    /// After the hub has looked at everything: no task waits behind a long one for long while another worker is idle.
    pub fn check_sharing(&mut self) {
        let nobody = self.is_over() || !self.peers.keys().any(|&w| self.is_idle(w));
        for silent in self.sched.silent() {
            assert!(!self.peers[&silent].has_read(), "{silent:?} is awake, and counts as silent");
        }
        for (worker, peer) in &mut self.peers {
            let waiting = peer.waiting();
            let unbegun = !nobody && peer.running.is_none() && waiting > 0;
            let since = *peer.unbegun_since.get_or_insert(self.now);
            if !unbegun {
                peer.unbegun_since = None;
            } else if self.now - since > SILENCE {
                panic!("{worker:?} does not begin its tasks, and another worker is idle");
            }
            let behind = !nobody && self.sched.assigned(*worker).count() > 1 && waiting > 0;
            let since = *peer.behind_since.get_or_insert(self.now);
            if !behind {
                peer.behind_since = None;
            } else if self.now - since > PATIENCE {
                panic!("{waiting} tasks wait behind a long one at {worker:?} while another worker is idle");
            }
        }
    }

    /// Nothing moves but the callers: nothing may be waiting for anything but them.
    pub fn check_rest(&self) {
        assert_eq!(self.ledger.open_tasks, 0, "tasks wait, and nothing moves\n{}", self.sched.describe());
        if !self.ledger.closed && !self.is_over() {
            let Config { processes, least, spares, .. } = self.size;
            let size = least.filter(|&least| least < processes).unwrap_or(processes + spares);
            let surplus = self.shrunk && self.peers.len() > size;
            assert!(self.peers.len() == size || surplus, "the pool has not {size} workers again");
        }
        for (id, job) in self.ledger.jobs.iter().filter(|(_, j)| !j.ended) {
            assert_eq!(
                job.shape.supply,
                Supply::OnDemand,
                "{id:?} has all its tasks, none is open, and it has not ended"
            );
            let held = job.made - job.consumed;
            assert!(held > 0 && job.window.is_some(), "{id:?} waits, and nobody asks its source");
        }
    }

    /// Nothing moves, and no event will come: the pool must be gone, with nothing left.
    pub fn check_end(&mut self) {
        let state = self.sched.describe();
        assert!(self.sched.is_drained(), "the pool never drains\n{state}");
        assert_eq!((self.ledger.open_tasks, self.ledger.open_jobs), (0, 0), "something never ended\n{state}");
        for (id, job) in &self.ledger.jobs {
            assert!(job.ended, "{id:?} never ended");
            let dropped = job.cancelled || self.ledger.terminated || self.ledger.broken;
            assert!(job.source == 0 || dropped, "{id:?} ended before its source");
        }
        let work: u64 = self.ledger.tasks.iter().map(|t| (t.nanos + 30 * MILLI) * u64::from(t.tries + 1)).sum();
        let steps = (self.ledger.tasks.len() as u64 + self.sequence / 8) * LONGEST_DELAY;
        let took = self.now - self.ended_at.unwrap_or(self.now);
        // A pool that a worker still lives in waits before it starts others, where that has failed.
        let pauses = if self.counts.contains_key("not given up while a worker lives") { 4000 * MILLI } else { 0 };
        // So does one for which something is short, a second at most each time.
        let put_off = ["start postponed", "lacked something as it started"];
        let pauses = pauses + 1000 * MILLI * put_off.iter().filter_map(|what| self.counts.get(what)).sum::<u64>();
        assert!(took <= work + steps + pauses + 1000 * MILLI, "it took {took} ns to drain");
    }
}
