//! The turns of the threads of one process that use the same thing, such as a direction of a connection.
//!
//! It differs from a mutex of the standard library in four ways. A wait for the turn has a deadline and a hook for
//! interrupts. A thread that has the turn already gets it again, because a signal handler of the program may run while its
//! thread waits for a message. A forked child does not inherit the turn of a thread that it does not have. And no thread
//! that panics or is interrupted leaves the turn taken.

use super::Until;
use super::word::{Interrupt, Nap, WordWait, wake_low};
use maniple_sys::epoch::Epoch;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

// Of the low half of the word: threads may sleep on it.
const AWAITED: u64 = 1 << 31;

/// The thread that has the turn: 0 for no thread; otherwise the thread's number, and the generation of its process in the high half.
#[derive(Debug, Default)]
pub struct Turn(AtomicU64);

/// The turn of this thread. It ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Held<'a> {
    // None: an outer call of this thread has the turn.
    turn: Option<&'a Turn>,
}

/// The result of a wait for the turn.
#[derive(Debug)]
pub enum Taken<'a> {
    /// It is this thread's turn.
    Ours(Held<'a>),
    /// The time limit has passed.
    TimedOut,
    /// The hook ended the wait.
    Interrupted,
}

/// Returns the word of this thread.
fn mine() -> u64 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local! {
        static NUMBER: Cell<u32> = const { Cell::new(0) };
    }
    let number = NUMBER.with(|number| {
        if number.get() == 0 {
            // 0 means no thread. Two threads get the same number only if 2^31 threads were started between them.
            number.set((NEXT.fetch_add(1, Ordering::Relaxed) & !(AWAITED as u32)).max(1));
        }
        number.get()
    });
    u64::from(Epoch::now().generation()) << 32 | u64::from(number)
}

fn generation(word: u64) -> u64 {
    word >> 32
}

impl Turn {
    /// Waits for the turn, until the limit.
    #[inline]
    pub fn take(&self, until: Until, interrupt: Interrupt<'_>) -> Taken<'_> {
        let mine = mine();
        match self.0.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Taken::Ours(self.held()),
            Err(word) if word & !AWAITED == mine => Taken::Ours(Held { turn: None }),
            Err(_) => self.wait(mine, until, interrupt),
        }
    }

    /// Takes the turn if no thread has it.
    pub fn take_now(&self) -> Option<Held<'_>> {
        match self.take(Until::Now, &mut || true) {
            Taken::Ours(held) => Some(held),
            Taken::TimedOut | Taken::Interrupted => None,
        }
    }

    fn held(&self) -> Held<'_> {
        Held { turn: Some(self) }
    }

    #[cold]
    fn wait(&self, mut mine: u64, until: Until, interrupt: Interrupt<'_>) -> Taken<'_> {
        let mut wait = WordWait::new(until, interrupt);
        loop {
            let word = self.0.load(Ordering::Relaxed);
            if word == 0 || generation(word) != generation(mine) {
                if self.0.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return Taken::Ours(self.held());
                }
                continue;
            }
            if until == Until::Now {
                return Taken::TimedOut;
            }
            let awaited = word | AWAITED;
            if word != awaited && self.0.compare_exchange(word, awaited, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                continue;
            }
            // Other threads may sleep as well, and this thread does not know.
            mine |= AWAITED;
            let ended = match wait.nap(&self.0, awaited as u32) {
                Nap::Look | Nap::Slice => continue,
                Nap::TimedOut => Taken::TimedOut,
                Nap::Interrupted => Taken::Interrupted,
            };
            if self.0.load(Ordering::Relaxed) == 0 {
                // The wake-up for the end of a turn may have been this thread's.
                wake_low(&self.0, 1);
            }
            return ended;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn
            && turn.0.swap(0, Ordering::Release) & AWAITED != 0
        {
            wake_low(&turn.0, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    fn ours(taken: Taken<'_>) -> Held<'_> {
        match taken {
            Taken::Ours(held) => held,
            other => panic!("not this thread's turn: {other:?}"),
        }
    }

    #[test]
    fn one_thread_at_a_time_has_the_turn() {
        let (turn, inside, most) = (Turn::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for step in 0..5000 {
                        let _held = ours(turn.take(Until::Ever, &mut || true));
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        if step % 64 == 0 {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
        assert_eq!(turn.0.into_inner(), 0);
    }

    #[test]
    fn a_thread_gets_its_turn_again_and_the_outer_call_ends_it() {
        let turn = Turn::default();
        let outer = ours(turn.take(Until::Ever, &mut || true));
        drop(turn.take_now().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(turn.take_now().is_none()));
        });
        drop(outer);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(turn.take_now().unwrap()));
        });
    }

    #[test]
    fn a_wait_ends_by_its_limit_or_its_hook() {
        let turn = Turn::default();
        let _held = turn.take_now().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let limit = Until::after(Duration::from_millis(30));
                assert!(matches!(turn.take(limit, &mut || true), Taken::TimedOut));
                assert!(matches!(turn.take(Until::Ever, &mut || false), Taken::Interrupted));
            });
        });
    }

    #[test]
    fn a_waiting_thread_gets_the_turn_when_it_ends() {
        let turn = Turn::default();
        let held = turn.take_now().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(ours(turn.take(Until::Ever, &mut || true))));
            while turn.0.load(Ordering::Relaxed) & AWAITED == 0 {
                std::thread::yield_now();
            }
            drop(held);
            waits.join().unwrap();
        });
        assert_eq!(turn.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_turn_of_another_generation_has_ended() {
        let turn = Turn::default();
        // As in a child that was forked while a thread of its parent had the turn.
        turn.0.store((u64::from(Epoch::now().generation()) + 1) << 32 | 77, Ordering::Relaxed);
        assert!(turn.take_now().is_some());
    }
}
