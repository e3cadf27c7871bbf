//! How the workers of a terminated pool are ended: a pure state machine, without a clock or a process.
//!
//! | worker | when |
//! | --- | --- |
//! | waits for a task | it reads the end from its link, at once |
//! | runs a task | it is *asked* to end, by a signal that it may handle, at once |
//! | is starting | the same; if it would run a handler of its parent, it gets [`NOTICE`] to read of the end in its link |
//! | has not ended when its [`grace`](EndTerms::grace) is over, or is adopted after that | it is *killed* |
//!
//! A worker whose start takes longer than [`GRACE`] does not belong to the pool any more: the start calls code of the program.
//! A front that does not ask ([`EndTerms::AT_ONCE`]) kills all workers at once.

use super::policy::{GRACE, NOTICE};
use super::scheduler::WorkerId;
use rustc_hash::FxHashSet;
use std::time::Duration;

/// How the workers of one pool are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTerms {
    /// Whether workers that are busy are asked first.
    pub asks: bool,
    /// Whether a starting worker would run a handler of its parent if it was asked to end.
    pub starting_hear_late: bool,
    /// The time after the beginning at which all remaining workers are killed.
    pub grace: Duration,
}

impl EndTerms {
    /// All are killed at once.
    pub const AT_ONCE: EndTerms = EndTerms { asks: false, starting_hear_late: false, grace: Duration::ZERO };

    /// Workers are asked to end. `ignored` says that they ignore the signal.
    pub fn asking(ignored: bool, starting_hear_late: bool) -> EndTerms {
        EndTerms { asks: true, starting_hear_late, grace: if ignored { NOTICE } else { GRACE } }
    }
}

/// What the front has to do to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Ask it to end.
    Ask,
    /// Kill it.
    Kill,
}

/// The end of one pool. Times are nanoseconds on any monotonic clock.
#[derive(Debug)]
pub struct Ending {
    terms: EndTerms,
    kill_at: u64,
    /// When starts that are not over are given up: long after those that succeed are.
    give_up_at: u64,
    /// The workers to ask, and when.
    ask: Vec<(WorkerId, u64)>,
    killed: FxHashSet<WorkerId>,
}

impl Ending {
    /// Begins the end. `unsettled` are the workers that do not end by themselves, and whether each is still starting.
    pub fn new(terms: EndTerms, unsettled: &[(WorkerId, bool)], now: u64) -> Ending {
        let (kill_at, give_up_at) = (after(now, terms.grace), after(now, terms.grace.max(GRACE)));
        let mut ending = Ending { terms, kill_at, give_up_at, ask: Vec::new(), killed: FxHashSet::default() };
        ending.ask_again(unsettled, now);
        ending
    }

    /// Asks the remaining workers of the first time once more.
    pub fn ask_again(&mut self, unsettled: &[(WorkerId, bool)], now: u64) {
        let late = after(now, NOTICE);
        let when = |starting| if starting && self.terms.starting_hear_late { late } else { now };
        self.ask = if self.terms.asks {
            unsettled.iter().map(|&(worker, starting)| (worker, when(starting))).collect()
        } else {
            Vec::new()
        };
    }

    /// Returns what the front has to do now to one of the living workers. It returns each step once.
    pub fn next(&mut self, living: impl Iterator<Item = WorkerId> + Clone, now: u64) -> Option<(WorkerId, End)> {
        if now >= self.kill_at {
            let worker = living.clone().find(|worker| !self.killed.contains(worker))?;
            self.killed.insert(worker);
            return Some((worker, End::Kill));
        }
        while let Some(at) = self.ask.iter().position(|&(_, when)| when <= now) {
            let (worker, _) = self.ask.swap_remove(at);
            if living.clone().any(|one| one == worker) {
                return Some((worker, End::Ask));
            }
        }
        None
    }

    /// How long until a start that is not over does not concern the pool any more.
    pub fn wait_for_starts(&self, now: u64) -> u64 {
        self.give_up_at.saturating_sub(now)
    }

    /// Whether there is a step now.
    pub fn is_due(&self, living: impl Iterator<Item = WorkerId> + Clone, now: u64) -> bool {
        self.wait(living, now) == Some(0)
    }

    /// How long until the next step; `None`: no step is known.
    pub fn wait(&self, mut living: impl Iterator<Item = WorkerId> + Clone, now: u64) -> Option<u64> {
        let lives = |worker: WorkerId| living.clone().any(|one| one == worker);
        let ask = self.ask.iter().filter(|&&(worker, _)| lives(worker)).map(|&(_, when)| when).min();
        let kill = living.any(|worker| !self.killed.contains(&worker)).then_some(self.kill_at);
        Some(ask.into_iter().chain(kill).min()?.saturating_sub(now))
    }
}

fn after(now: u64, time: Duration) -> u64 {
    now.saturating_add(time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    const MILLI: u64 = 1_000_000;

    fn workers(count: usize) -> Vec<WorkerId> {
        let mut all: SlotMap<WorkerId, ()> = SlotMap::with_key();
        (0..count).map(|_| all.insert(())).collect()
    }

    /// The steps until the end, each with its time in milliseconds.
    fn course(ending: &mut Ending, living: &[WorkerId]) -> Vec<(u64, WorkerId, End)> {
        let (mut now, mut done) = (0, Vec::new());
        while let Some(wait) = ending.wait(living.iter().copied(), now) {
            now += wait;
            assert!(ending.is_due(living.iter().copied(), now));
            while let Some((worker, end)) = ending.next(living.iter().copied(), now) {
                done.push((now / MILLI, worker, end));
            }
        }
        done
    }

    #[test]
    fn busy_workers_are_asked_and_all_that_stay_are_killed() {
        let all = workers(3);
        let mut ending = Ending::new(EndTerms::asking(false, false), &[(all[0], false), (all[1], true)], 0);
        let kill = |worker| (2000, worker, End::Kill);
        let expected = [(0, all[0], End::Ask), (0, all[1], End::Ask), kill(all[0]), kill(all[1]), kill(all[2])];
        let mut done = course(&mut ending, &all);
        done.sort_unstable();
        assert_eq!(done, expected);
    }

    #[test]
    fn a_worker_that_starts_with_a_handler_of_its_parents_is_asked_later() {
        let all = workers(2);
        let mut ending = Ending::new(EndTerms::asking(false, true), &[(all[0], false), (all[1], true)], 0);
        let asked: Vec<_> = course(&mut ending, &all).into_iter().filter(|&(_, _, end)| end == End::Ask).collect();
        assert_eq!(asked, [(0, all[0], End::Ask), (300, all[1], End::Ask)]);
    }

    #[test]
    fn workers_that_ignore_the_signal_have_less_time() {
        let all = workers(1);
        let mut ending = Ending::new(EndTerms::asking(true, false), &[(all[0], false)], 0);
        assert_eq!(course(&mut ending, &all), [(0, all[0], End::Ask), (300, all[0], End::Kill)]);
    }

    #[test]
    fn those_that_have_ended_are_left_alone_and_later_ones_are_killed() {
        let all = workers(3);
        let mut ending = Ending::new(EndTerms::AT_ONCE, &[(all[0], false)], 0);
        assert_eq!(ending.next([all[1]].into_iter(), 0), Some((all[1], End::Kill)));
        assert_eq!(ending.next([all[1]].into_iter(), 0), None);
        assert_eq!(ending.wait([all[1]].into_iter(), 0), None);
        assert_eq!(ending.next([all[1], all[2]].into_iter(), 5), Some((all[2], End::Kill)));
        let mut polite = Ending::new(EndTerms::asking(false, false), &[(all[0], false)], 0);
        assert_eq!(polite.next([all[1]].into_iter(), 0), None, "it is gone");
        polite.ask_again(&[(all[1], false)], 1);
        assert_eq!(polite.next([all[1]].into_iter(), 1), Some((all[1], End::Ask)));
    }
}
