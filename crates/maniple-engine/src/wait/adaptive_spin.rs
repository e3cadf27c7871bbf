//! Waiting for a message over a socket awake or asleep, whichever is faster here and now.
//!
//! An answer to what was sent a moment ago is there sooner than a thread has fallen asleep and been woken. So looking for it awake
//! saves most of a round trip's time where two cores are idle; on a busy machine it costs more than it saves, and keeps the two
//! processes from sharing a core, where one wakes the other cheaply. Neither load nor cores tell which is the case. So both ways
//! are tried for some messages each, and the better one is taken for a while, the longer the more often it won. What has won before (at
//! first, sleep) is tried first: then the other's trial need not last longer than it takes to lose.

use crate::wait::spin::Spin;
use maniple_sys::BorrowedHandle;
use maniple_sys::{OwnedHandle, clock, stream};
use std::io;
use std::sync::Mutex;

/// Messages of one trial, and those at its beginning that don't count: the processes are still finding their cores.
const TRIAL: u32 = 64;
const SETTLING: u32 = 16;
/// Nanoseconds that one wait counts at most: longer ones are not for an answer, or were disturbed.
const LONG: u64 = 100_000;
/// Messages for which the winner is taken.
const SHORTEST: u32 = 512;
const LONGEST: u32 = 16 * 1024;

/// One end's experience with waiting for messages.
#[derive(Debug, Default)]
pub struct AdaptiveSpin(Mutex<Experience>);

#[derive(Debug, Default)]
struct Experience {
    spin: Spin,
    contest: Contest,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Incumbent,
    Challenger,
    Decided,
}

#[derive(Debug, Default)]
struct Contest {
    stage: Stage,
    waits: u32,
    awake: u64,
    asleep: u64,
    awake_wins: bool,
    term: u32,
}

/// A wait that is timed.
#[derive(Debug, Default)]
pub(crate) struct Begun(Option<u64>);

impl AdaptiveSpin {
    /// Looks for the first bytes of a message for a while, if that pays; reads them as [`stream::read_now`] does. `None`: they are
    /// still to be waited for, which is best done in the read itself.
    pub(crate) fn first(
        &self,
        fd: BorrowedHandle<'_>,
        bytes: &mut [u8],
        mut handles: Option<&mut Vec<OwnedHandle>>,
    ) -> (Begun, io::Result<Option<usize>>) {
        let mut found = Ok(None);
        // Held by another thread (also one that a fork has left behind): one that spins is enough.
        let Ok(mut experience) = self.0.try_lock() else { return (Begun(None), found) };
        let Experience { spin, contest } = &mut *experience;
        let start = contest.is_timed().then(clock::now);
        if contest.is_awake() {
            spin.until_asked(|| {
                found = stream::read_now(fd, bytes, handles.as_deref_mut());
                !matches!(found, Ok(None))
            });
        }
        (Begun(start), found)
    }

    /// The wait is over.
    pub(crate) fn ended(&self, begun: Begun) {
        if let Ok(mut experience) = self.0.try_lock() {
            experience.contest.count(begun.0.map(|start| clock::now() - start));
        }
    }
}

impl Contest {
    fn is_awake(&self) -> bool {
        self.awake_wins != (self.stage == Stage::Challenger)
    }

    fn is_timed(&self) -> bool {
        self.stage != Stage::Decided && self.waits >= SETTLING
    }

    fn count(&mut self, took: Option<u64>) {
        let took = took.unwrap_or(0).min(LONG);
        self.waits += 1;
        *(if self.is_awake() { &mut self.awake } else { &mut self.asleep }) += took;
        match self.stage {
            Stage::Incumbent if self.waits >= TRIAL => (self.stage, self.waits) = (Stage::Challenger, 0),
            Stage::Challenger => {
                // What it takes only grows.
                let has_lost = self.waits > SETTLING && self.is_worth_it() == self.awake_wins;
                if self.waits >= TRIAL || has_lost {
                    self.decide();
                }
            }
            Stage::Decided if self.waits >= self.term => {
                (self.stage, self.waits, self.awake, self.asleep) = (Stage::Incumbent, 0, 0, 0);
            }
            _ => {}
        }
    }

    /// To be awake takes processor time that others could use: it has to be worth something.
    fn is_worth_it(&self) -> bool {
        self.awake + self.awake / 8 < self.asleep
    }

    fn decide(&mut self) {
        let awake_wins = self.is_worth_it();
        self.term = if awake_wins == self.awake_wins { (2 * self.term).clamp(SHORTEST, LONGEST) } else { SHORTEST };
        (self.stage, self.waits, self.awake_wins) = (Stage::Decided, 0, awake_wins);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until a decision is made, each wait taking what is given; gives the decision.
    fn decided(contest: &mut Contest, awake: u64, asleep: u64) -> bool {
        while contest.stage == Stage::Decided {
            contest.count(None);
        }
        while contest.stage != Stage::Decided {
            let took = if contest.is_awake() { awake } else { asleep };
            let timed = contest.is_timed();
            contest.count(timed.then_some(took));
        }
        contest.is_awake()
    }

    #[test]
    fn the_faster_way_is_taken_and_longer_the_more_often_it_won() {
        let mut contest = Contest::default();
        assert!(decided(&mut contest, 5_000, 10_000));
        let first = contest.term;
        assert!(decided(&mut contest, 5_000, 10_000));
        assert!(contest.term > first);
        assert!(!decided(&mut contest, 15_000, 10_000));
        assert_eq!(contest.term, SHORTEST);
        for _ in 0..20 {
            assert!(!decided(&mut contest, 15_000, 10_000));
        }
        assert_eq!(contest.term, LONGEST);
    }

    #[test]
    fn sleep_is_taken_where_both_are_as_good_or_all_waits_are_long() {
        let mut contest = Contest::default();
        assert!(!decided(&mut contest, 10_000, 10_000));
        assert!(!decided(&mut contest, 10 * LONG, 20 * LONG));
    }

    #[test]
    fn what_is_clearly_worse_is_not_tried_for_long() {
        for (awake, asleep) in [(40_000, 5_000), (3_000, 60_000)] {
            let mut contest = Contest::default();
            let best = decided(&mut contest, awake, asleep);
            while contest.stage != Stage::Challenger {
                contest.count(contest.is_timed().then_some(awake.min(asleep)));
            }
            let mut waits = 0;
            while contest.stage == Stage::Challenger {
                contest.count(contest.is_timed().then_some(awake.max(asleep)));
                waits += 1;
            }
            assert!(waits < TRIAL / 2 && contest.is_awake() == best, "{waits}");
        }
    }
}
