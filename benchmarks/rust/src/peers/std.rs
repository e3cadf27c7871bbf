//! The standard library's locks between threads, for orientation: what a lock costs that need not reach another process.

use crate::case::{Measured, Peer, per_change};
use std::sync::{Barrier, Condvar, LockResult, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

pub struct Std;

fn sound<G>(locked: LockResult<G>) -> G {
    locked.unwrap_or_else(PoisonError::into_inner)
}

impl Peer for Std {
    fn lock(&self, parties: usize, repeats: usize) -> Measured {
        let (number, ready) = (Mutex::new(0u64), Barrier::new(parties));
        let change = || {
            ready.wait();
            let begun = Instant::now();
            (0..repeats).for_each(|_| *sound(number.lock()) += 1);
            begun.elapsed()
        };
        let taken = thread::scope(|scope| {
            let others: Vec<_> = (1..parties).map(|_| scope.spawn(change)).collect();
            let mine = change();
            others.into_iter().filter_map(|other| other.join().ok()).fold(mine, Ord::max)
        });
        let total = *sound(number.lock());
        per_change(taken, parties, repeats, total)
    }

    fn condition(&self, repeats: usize) -> Measured {
        let (turn, changed) = (Mutex::new(0u64), Condvar::new());
        let play = |me: u64| {
            for _ in 0..repeats {
                let mut turn = sound(changed.wait_while(sound(turn.lock()), |turn| *turn % 2 != me));
                *turn += 1;
                changed.notify_one();
            }
        };
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| play(1));
            play(0);
        });
        Ok(begun.elapsed() / repeats as u32)
    }
}
