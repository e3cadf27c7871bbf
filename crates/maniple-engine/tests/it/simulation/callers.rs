//! What callers do, and when.

use super::{Event, LONGEST_DELAY, MICRO, MILLI, Rng, Traits, World};
use maniple_engine::pool::scheduler::{JobId, Supply, WorkerId};
use std::cmp::Reverse;

#[derive(Clone, Copy, Debug)]
pub enum Act {
    Submit,
    Cancel,
    /// A job is cancelled, and the workers that run its tasks are ended.
    CancelAndEnd,
    Narrow,
    /// A caller calls in that does not receive the workers' messages first.
    Poke,
    Kill,
    /// A worker is stopped, as by SIGSTOP, and continues later.
    Stop,
    /// The pool gets another size; surplus workers end (true) or stay.
    Resize(usize, bool),
    Close,
    Terminate,
}

/// All that callers will do, the last first.
pub fn script(traits: &Traits, rng: &mut Rng) -> Vec<(u64, Act)> {
    let mut script = Vec::new();
    let plan = [
        (Act::Submit, traits.jobs),
        (Act::Cancel, traits.cancels),
        (Act::CancelAndEnd, traits.cancels),
        (Act::Narrow, traits.cancels),
        (Act::Poke, traits.pokes),
        (Act::Kill, traits.kills),
        (Act::Stop, traits.stops),
    ];
    for (act, times) in plan {
        for _ in 0..times {
            script.push((rng.between(0, traits.span), act));
        }
    }
    for _ in 0..traits.resizes {
        script.push((rng.between(0, traits.span), Act::Resize(rng.count(1, 6), rng.per_mille(500))));
    }
    let late = rng.pick(&[traits.span / 2, traits.span, 100 * traits.span]);
    // A caller that does not close terminates: nothing may be left at the end.
    if traits.close {
        script.push((rng.between(0, late), Act::Close));
    }
    if traits.terminate || !traits.close {
        script.push((rng.between(0, late), Act::Terminate));
    }
    script.sort_by_key(|&(at, _)| Reverse(at));
    script
}

impl World {
    pub fn act(&mut self, act: Act) {
        note!(self, "caller: {act:?}");
        match act {
            Act::Submit => self.submit(),
            Act::Cancel | Act::CancelAndEnd => {
                let open: Vec<JobId> = self.ledger.jobs.iter().filter(|(_, j)| !j.ended).map(|(&id, _)| id).collect();
                if let Some(&job) = open.get(self.rng.count(0, open.len().max(1) - 1)) {
                    self.count("cancelled");
                    self.ledger.job(job).cancelled = true;
                    self.sched.cancel(job);
                    if matches!(act, Act::CancelAndEnd) {
                        self.advance();
                        self.end_tasks_of(job);
                    }
                }
            }
            Act::Narrow => {
                let least = self.size.processes * 2;
                let to = self.rng.count(0, 20);
                let windowed = self.ledger.jobs.iter_mut().find(|(_, j)| !j.ended && j.window.is_some());
                if let Some((&id, job)) = windowed {
                    job.window = job.window.map(|w| w.min(to.max(least)));
                    self.count("narrowed");
                    self.sched.narrow(id, to);
                }
            }
            Act::Poke => {}
            Act::Kill => {
                let alive: Vec<WorkerId> = self.peers.iter().filter(|(_, p)| p.alive).map(|(&id, _)| id).collect();
                if let Some(&worker) = alive.get(self.rng.count(0, alive.len().max(1) - 1)) {
                    self.count("killed");
                    self.crash(worker);
                }
            }
            Act::Stop => {
                let awake: Vec<WorkerId> =
                    self.peers.iter().filter(|(_, p)| p.alive && !p.stopped).map(|(&id, _)| id).collect();
                if let Some(&worker) = awake.get(self.rng.count(0, awake.len().max(1) - 1)) {
                    note!(self, "{worker:?} is stopped");
                    self.count("stopped");
                    self.peers.entry(worker).and_modify(|p| p.stopped = true);
                    let after = self.rng.pick(&[MICRO, MILLI, 100 * MILLI]);
                    self.later(after, Event::Continue(worker));
                }
            }
            Act::Resize(processes, shrinks) => {
                self.count(if shrinks { "resized" } else { "resized without an end" });
                let before = self.size;
                self.sched.resize(processes, shrinks);
                self.size.processes = processes;
                self.most = self.most.max(processes + before.spares);
                self.shrunk |= processes < before.processes;
            }
            Act::Close => {
                self.ledger.closed = true;
                self.ended_at = Some(self.now);
                self.sched.close();
                if self.rng.per_mille(500) {
                    for (id, items) in self.unconsumed() {
                        self.later(LONGEST_DELAY, Event::Consumed(id, items));
                    }
                }
            }
            Act::Terminate => {
                self.ledger.terminated = true;
                self.ledger.closed = true;
                self.ended_at = Some(self.now);
                // Starts that the front has not taken are forgotten; a start that it is busy with continues.
                let busy = self.rng.per_mille(500) && self.starts.begin(self.sched.greeted(), self.now);
                self.starts.call_off();
                self.sched.terminate();
                if busy {
                    self.start_begun();
                }
                for worker in self.peers.keys().copied().collect::<Vec<_>>() {
                    let after = Traits::delay(&mut self.rng, MILLI);
                    self.later(after, Event::Crash(worker));
                }
            }
        }
        self.advance();
    }

    fn unconsumed(&mut self) -> Vec<(JobId, usize)> {
        let lazy = self.ledger.jobs.iter().filter(|(_, j)| !j.eager);
        lazy.map(|(&id, j)| (id, j.settled - j.consumed)).collect()
    }

    fn submit(&mut self) {
        let (shape, items) = self.traits.job(&mut self.rng);
        let broken = self.sched.is_broken();
        let id = if broken { Some(self.sched.submit_broken(shape.clone())) } else { self.sched.submit(shape.clone()) };
        let Some(id) = id else {
            assert!(self.ledger.closed, "a running pool refuses a job");
            return;
        };
        assert!(broken || !self.ledger.closed, "a closed pool takes a job");
        note!(self, "{id:?} is submitted: {shape:?}, really {items} items");
        let eager = self.rng.per_mille(800);
        let hiccups = self.rng.count(0, 2);
        let complete = shape.supply == Supply::Complete;
        self.ledger.submitted(id, shape, if complete { 0 } else { items }, eager, hiccups);
        if broken {
            self.ledger.job(id).cancelled = true;
        } else if complete {
            let each = self.rng.pick(&[1, 1, 5, items.max(1)]);
            let mut left = items;
            while left > 0 {
                let items = each.min(left);
                left -= items;
                self.make(id, items);
            }
            self.ledger.job(id).input_open = false;
            self.sched.filled(id, true);
        }
    }
}
