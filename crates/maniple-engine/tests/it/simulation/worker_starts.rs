//! How the front starts workers, and what happens when it cannot.

use super::{Event, MICRO, Peer, Traits, World};

impl World {
    pub(super) fn start_worker(&mut self) {
        if self.starts.begin(self.sched.greeted(), self.now) {
            return self.start_begun();
        }
        // `None`: taken back by a termination.
        if let Some(wait) = self.starts.wait(self.now) {
            self.count("start awaited");
            self.later(wait, Event::Start);
        }
    }

    pub(super) fn start_begun(&mut self) {
        let short = self.traits.short(self.now);
        if short {
            self.count("start in a shortage");
        }
        if short && self.rng.per_mille(500) || self.rng.per_mille(self.traits.start_fails) && self.rng.per_mille(300) {
            note!(self, "a worker cannot even be started");
            self.count("start refused");
            assert!(self.starts.end(), "a start that was not begun");
            self.sched.start_failed();
            self.failed_start(false);
            return self.advance();
        }
        let worker = self.sched.worker_started();
        if !self.ledger.terminated && (short || self.rng.per_mille(self.traits.start_fails)) {
            note!(self, "{worker:?} cannot be started now, and is tried again later");
            self.count("start postponed");
            self.sched.worker_postponed(worker);
            let too_long = self.starts.put_off(self.sched.greeted(), self.sched.is_served(), self.now);
            self.start_later(too_long, self.peers.is_empty());
            return self.advance();
        }
        assert!(self.starts.end(), "a start that was not begun");
        note!(self, "{worker:?} is started");
        self.peers.insert(worker, Peer::new(self.traits.link));
        self.sched.worker_adopted(worker, self.now);
        let boot = Traits::delay(&mut self.rng, self.traits.boot);
        if self.ledger.terminated {
            self.later(boot, Event::Crash(worker));
        } else if self.rng.per_mille(self.traits.start_fails) {
            self.count("start failed");
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.lacking = self.rng.per_mille(500);
            }
            self.later(boot, Event::Crash(worker));
        } else {
            self.later(boot, Event::Booted(worker));
        }
        self.advance();
    }

    /// Something is short. `hopeless`: no worker is ready, or about to be.
    pub(super) fn start_later(&mut self, too_long: bool, hopeless: bool) {
        let is_served = self.peers.values().any(|p| p.greeted && p.alive);
        assert!(!(too_long && is_served), "the jobs are given up although a worker lives");
        // Also at other times than the engine would, which it has to stand.
        if hopeless && (too_long || self.rng.per_mille(200)) {
            self.count(if too_long { "given up after long" } else { "given up early" });
            self.give_up_jobs();
        }
        let wait = self.starts.wait(self.now).expect("a start that is put off");
        self.later(wait, Event::Start);
    }

    /// No worker can be started for long: what is open ends, and the pool continues.
    fn give_up_jobs(&mut self) {
        note!(self, "the open jobs are given up");
        self.count("jobs given up");
        self.ledger.giving_up = true;
        self.ledger.jobs.values_mut().filter(|job| !job.ended).for_each(|job| job.cancelled = true);
        self.sched.drop_open_jobs();
        self.advance();
        self.ledger.giving_up = false;
        if !self.sched.is_broken() {
            self.ledger.jobs.values().for_each(|job| assert!(job.ended, "a job outlives being given up"));
        }
    }

    pub(super) fn failed_start(&mut self, retiring: bool) {
        if retiring || self.ledger.terminated {
            return;
        }
        self.failed_in_row += 1;
        if self.failed_in_row > self.size.processes.max(2) && !self.ledger.broken {
            if self.peers.values().any(|p| p.greeted || p.retired) {
                return self.count("not given up while a worker lives");
            }
            self.ledger.broken = true;
            self.count("pool broken");
        }
    }
}
