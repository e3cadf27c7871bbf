//! Locks, semaphores, conditions, events, and what barriers and units stand on: as the loops around the words in `src/sync` use them, but without slices, so that a
//! wake-up that is lost is a deadlock, which the checker reports.

use super::model;
use loom::cell::UnsafeCell;
use loom::sync::atomic::Ordering;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use maniple_engine::sync::word::lock::Holder;
use maniple_engine::sync::word::{CallWord, CountWord, FlagWord, Given, LockWord, NewsWord, UnitWord};

/// The operating system's side: sleeps only while the low half of a word is what it was.
#[derive(Default)]
pub struct Bed {
    lock: Mutex<()>,
    call: Condvar,
}

impl Bed {
    pub fn sleep(&self, word: &loom::sync::atomic::AtomicU64, expected: u32) {
        let guard = self.lock.lock().unwrap();
        if word.load(Ordering::Relaxed) as u32 == expected {
            drop(self.call.wait(guard).unwrap());
        }
    }

    pub fn wake(&self, all: bool) {
        let _guard = self.lock.lock().unwrap();
        if all { self.call.notify_all() } else { self.call.notify_one() }
    }
}

#[derive(Default)]
pub struct Locked {
    word: LockWord,
    bed: Bed,
    guarded: UnsafeCell<u32>,
}

// The checker itself finds out whether two threads touch the cell at a time.
unsafe impl Sync for Locked {}
unsafe impl Send for Locked {}

pub fn process(pid: u32) -> Holder {
    Holder::new(pid, 7)
}

impl Locked {
    pub fn acquire(&self, me: Holder) {
        if self.word.take(me).is_ok() {
            return;
        }
        while let Err(held) = self.word.take_after_sleep(me) {
            if let Some(expected) = self.word.announce(held) {
                self.bed.sleep(self.word.raw(), expected);
            }
        }
    }

    /// One look, a sleep that ends at once (the time is up), and out.
    fn give_up(&self, me: Holder) -> bool {
        let Err(held) = self.word.take(me) else { return true };
        let _ = self.word.announce(held);
        if self.word.take_after_sleep(me).is_ok() {
            return true;
        }
        self.word.leave();
        if self.word.held().is_none() {
            self.bed.wake(false);
        }
        false
    }

    pub fn release(&self) {
        match self.word.free() {
            Given::Wake => self.bed.wake(false),
            Given::Quiet => {}
            Given::Refused => panic!("a lock that was held is not"),
        }
    }

    fn touch(&self) {
        self.guarded.with_mut(|value| unsafe { *value += 1 });
    }
}

#[test]
fn a_lock_keeps_others_out_and_wakes_whoever_sleeps() {
    model(|| {
        let lock = Arc::new(Locked::default());
        let others: Vec<_> = [2, 3]
            .map(|pid| {
                let lock = lock.clone();
                thread::spawn(move || {
                    lock.acquire(process(pid));
                    lock.touch();
                    lock.release();
                })
            })
            .into();
        lock.acquire(process(1));
        lock.touch();
        lock.release();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(lock.guarded.with(|value| unsafe { *value }), 3);
        assert!(lock.word.held().is_none());
    });
}

#[test]
fn a_waiter_that_gives_up_takes_no_wake_up_with_it() {
    model(|| {
        let lock = Arc::new(Locked::default());
        lock.acquire(process(1));
        let patient = {
            let lock = lock.clone();
            thread::spawn(move || {
                lock.acquire(process(2));
                lock.touch();
                lock.release();
            })
        };
        let hasty = {
            let lock = lock.clone();
            thread::spawn(move || {
                if lock.give_up(process(3)) {
                    lock.touch();
                    lock.release();
                }
            })
        };
        lock.touch();
        lock.release();
        patient.join().unwrap();
        hasty.join().unwrap();
    });
}

#[test]
fn of_two_waiters_one_takes_over_from_the_dead_and_the_other_from_it() {
    model(|| {
        let lock = Arc::new(Locked::default());
        lock.word.take(process(9)).unwrap();
        let heirs: Vec<_> = [1, 2]
            .map(|pid| {
                let lock = lock.clone();
                thread::spawn(move || {
                    // Each has found out that process 9 is dead, and acts on what it saw.
                    let over = lock.word.held().filter(|held| held.holder() == process(9));
                    if over.is_none_or(|held| lock.word.take_over(held, process(pid)).is_err()) {
                        lock.acquire_unless_dead(process(pid));
                    }
                    lock.touch();
                    lock.release();
                })
            })
            .into();
        heirs.into_iter().for_each(|heir| heir.join().unwrap());
        assert_eq!(lock.guarded.with(|value| unsafe { *value }), 2);
    });
}

impl Locked {
    /// As `acquire`; what a dead process 9 holds is taken over, as the end of a slice would have it.
    fn acquire_unless_dead(&self, me: Holder) {
        while let Err(held) = self.word.take_after_sleep(me) {
            if held.holder() == process(9) {
                if self.word.take_over(held, me).is_ok() {
                    return;
                }
            } else if let Some(expected) = self.word.announce(held) {
                self.bed.sleep(self.word.raw(), expected);
            }
        }
    }
}

#[test]
fn a_lock_released_for_a_dead_holder_is_not_taken_over_as_well() {
    model(|| {
        let lock = Arc::new(Locked::default());
        lock.word.take(process(9)).unwrap();
        let heir = {
            let lock = lock.clone();
            thread::spawn(move || {
                let dead = lock.word.held().filter(|held| held.holder() == process(9));
                dead.is_some_and(|held| lock.word.take_over(held, process(1)).is_ok())
            })
        };
        // Another process releases what process 9 held, as it may with a plain lock, and takes it itself.
        lock.release();
        let taken = lock.word.take(process(2)).is_ok();
        let taken_over = heir.join().unwrap();
        let held = lock.word.held().map(|held| held.holder());
        match (taken, taken_over) {
            (true, true) => assert_eq!(held, Some(process(2)), "taken over, released, taken"),
            (true, false) => assert_eq!(held, Some(process(2))),
            (false, true) => assert_eq!(held, Some(process(1))),
            (false, false) => panic!("nobody has it"),
        }
    });
}

#[test]
fn every_unit_given_reaches_a_taker() {
    model(|| {
        let shared = Arc::new((CountWord::default(), Bed::default()));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (word, bed) = &*shared;
                    if word.take() {
                        return;
                    }
                    while !word.enter() {
                        if word.take() {
                            return;
                        }
                    }
                    while !word.take_and_leave() {
                        bed.sleep(word.raw(), 0);
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            if shared.0.give(2) == Given::Wake {
                shared.1.wake(false);
            }
        }
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(shared.0.raw().load(Ordering::Relaxed), 0, "a unit or a sleeper is left");
    });
}

/// Waits for a call, entered already. The lock that waiters and notifiers hold in life is left out: without it there are more orders.
fn await_call(word: &CallWord, bed: &Bed, entered_at: u32) {
    while let Err(number) = word.answer(entered_at) {
        bed.sleep(word.raw(), number);
    }
}

#[test]
fn all_who_entered_before_they_were_called_return() {
    model(|| {
        let shared = Arc::new((CallWord::default(), Bed::default()));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let entered_at = shared.0.enter().unwrap();
                let shared = shared.clone();
                thread::spawn(move || await_call(&shared.0, &shared.1, entered_at))
            })
            .collect();
        // One, and then all that are left.
        for most in [1, 9] {
            if shared.0.notify(most) > 0 {
                shared.1.wake(most > 1);
            }
        }
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_eq!(shared.0.counts(), (0, 0));
    });
}

#[test]
fn a_waiter_that_leaves_is_either_called_or_not_counted() {
    model(|| {
        let shared = Arc::new((CallWord::default(), Bed::default()));
        let (first, second) = (shared.0.enter().unwrap(), shared.0.enter().unwrap());
        let hasty = {
            let shared = shared.clone();
            thread::spawn(move || shared.0.leave(first))
        };
        let patient = {
            let shared = shared.clone();
            thread::spawn(move || await_call(&shared.0, &shared.1, second))
        };
        if shared.0.notify(1) > 0 {
            shared.1.wake(false);
        }
        if hasty.join().unwrap() {
            // The call went to the one that left, so the other needs one of its own.
            assert_eq!(shared.0.notify(1), 1);
            shared.1.wake(false);
        }
        patient.join().unwrap();
        assert_eq!(shared.0.counts(), (0, 0));
    });
}

#[test]
fn a_flag_that_is_set_and_cleared_at_once_wakes_whoever_waited() {
    model(|| {
        let shared = Arc::new((FlagWord::default(), Bed::default()));
        let seen = shared.0.look().unwrap();
        let waiter = {
            let shared = shared.clone();
            thread::spawn(move || {
                while shared.0.enter(seen) {
                    shared.1.sleep(shared.0.raw(), seen);
                }
            })
        };
        if shared.0.set() == Given::Wake {
            shared.1.wake(true);
        }
        shared.0.clear();
        waiter.join().unwrap();
    });
}

/// Units of which any will do.
struct Units<const N: usize> {
    news: NewsWord,
    slots: [UnitWord; N],
    bed: Bed,
    guarded: [UnsafeCell<u32>; N],
}

// As of `Locked`.
unsafe impl<const N: usize> Sync for Units<N> {}
unsafe impl<const N: usize> Send for Units<N> {}

impl<const N: usize> Units<N> {
    fn new() -> Arc<Units<N>> {
        let guarded = std::array::from_fn(|_| UnsafeCell::new(0));
        let slots = std::array::from_fn(|_| UnitWord::default());
        Arc::new(Units { news: NewsWord::default(), slots, bed: Bed::default(), guarded })
    }

    fn take(&self, me: Holder) -> Option<usize> {
        (0..N).find(|&unit| self.slots[unit].take(me))
    }

    fn acquire(&self, me: Holder) -> usize {
        loop {
            if let Some(unit) = self.take(me) {
                return unit;
            }
            let seen = self.news.ask();
            if let Some(unit) = self.take(me) {
                return unit;
            }
            self.bed.sleep(self.news.raw(), seen);
        }
    }

    fn release(&self, unit: usize, me: Holder) {
        assert!(self.slots[unit].give(me) && !self.slots[unit].give(me));
        if self.news.tell() {
            self.bed.wake(true);
        }
    }

    fn once(&self, me: Holder) {
        let unit = self.acquire(me);
        self.guarded[unit].with_mut(|value| unsafe { *value += 1 });
        self.release(unit, me);
    }
}

#[test]
fn a_unit_has_one_holder_and_whoever_waits_for_it_is_told() {
    model(|| {
        let units = Units::<1>::new();
        let others: Vec<_> = [2, 3]
            .map(|pid| {
                let units = units.clone();
                thread::spawn(move || units.once(process(pid)))
            })
            .into();
        units.once(process(1));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(units.guarded[0].with(|value| unsafe { *value }), 3);
        assert!(units.slots[0].holder().is_none());
    });
}

#[test]
fn whoever_waits_for_any_unit_gets_the_first_that_is_free() {
    model(|| {
        let units = Units::<2>::new();
        let held = [units.acquire(process(1)), units.acquire(process(1))];
        let waiter = {
            let units = units.clone();
            thread::spawn(move || units.once(process(2)))
        };
        units.release(held[1], process(1));
        waiter.join().unwrap();
        units.release(held[0], process(1));
    });
}

#[test]
fn of_two_who_find_a_units_holder_dead_one_gets_it() {
    model(|| {
        let units = Units::<1>::new();
        assert!(units.slots[0].take(process(9)));
        let heirs: Vec<_> = [1, 2]
            .map(|pid| {
                let units = units.clone();
                thread::spawn(move || {
                    let over = units.slots[0].holder() == Some(process(9));
                    let taken = over && units.slots[0].take_over(process(9), process(pid));
                    if taken {
                        units.release(0, process(pid))
                    } else {
                        units.once(process(pid))
                    }
                    taken
                })
            })
            .into();
        let taken = heirs.into_iter().map(|heir| heir.join().unwrap()).filter(|&taken| taken).count();
        assert_eq!(taken, 1);
    });
}

#[test]
fn waiters_of_a_round_see_its_end_and_all_that_came_before() {
    model(|| {
        let units = Units::<1>::new();
        // The slot of a party that waits at a barrier.
        let slot = Arc::new(loom::sync::atomic::AtomicU64::new(1));
        let waiter = {
            let (units, slot) = (units.clone(), slot.clone());
            thread::spawn(move || {
                loop {
                    let seen = units.news.look();
                    if slot.load(Ordering::Acquire) == 2 {
                        break;
                    }
                    units.bed.sleep(units.news.raw(), seen);
                }
                assert_eq!(units.guarded[0].with(|value| unsafe { *value }), 5);
                slot.store(0, Ordering::Relaxed);
                if units.news.tell() {
                    units.bed.wake(true);
                }
            })
        };
        units.guarded[0].with_mut(|value| unsafe { *value = 5 });
        slot.store(2, Ordering::Release);
        units.news.renew(|upper| upper);
        units.bed.wake(true);
        // The next round's first party, which finds the slot taken by a slow leaver.
        while slot.load(Ordering::Relaxed) != 0 {
            let seen = units.news.ask();
            if slot.load(Ordering::Relaxed) != 0 {
                units.bed.sleep(units.news.raw(), seen);
            }
        }
        waiter.join().unwrap();
    });
}
