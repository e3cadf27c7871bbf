//! Locks, semaphores, conditions and events between processes, some of which are killed.

use crate::support::{self, Elsewhere, LONG, SHORT, go_on};
use maniple_engine::sync::condition::Condition;
use maniple_engine::sync::event::Event;
use maniple_engine::sync::lock::{Lock, RLock};
use maniple_engine::sync::semaphore::Semaphore;
use maniple_engine::sync::{Outcome, Released};
use maniple_engine::wait::Until;
use std::time::Duration;

#[test]
fn a_lock_keeps_other_processes_out() {
    let (lock, counter) = (Lock::new().unwrap(), Semaphore::new(0, u32::MAX).unwrap());
    let children: Vec<_> = (0..2)
        .map(|_| {
            Elsewhere::run((&lock, &counter), |(lock, counter)| {
                for _ in 0..5000 {
                    assert_eq!(lock.acquire(Until::after(LONG), &mut go_on), Outcome::Taken);
                    // Not atomic together: another holder in between would be seen.
                    assert_eq!(counter.value() % 2, 0);
                    counter.release();
                    counter.release();
                    assert_eq!(lock.release(), Released::Done);
                }
            })
        })
        .collect();
    children.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!(counter.value(), 20_000);
}

#[test]
fn a_lock_is_taken_over_from_a_killed_holder_and_says_so() {
    let (lock, held) = (Lock::new().unwrap(), Event::new().unwrap());
    let holder = Elsewhere::run((&lock, &held), |(lock, held)| {
        lock.acquire(Until::after(LONG), &mut go_on);
        held.set();
        support::sleep_for_ever();
    });
    assert_eq!(held.wait(Until::after(LONG), &mut go_on), Outcome::Taken);
    assert_eq!(lock.acquire(Until::after(SHORT), &mut go_on), Outcome::TimedOut, "its holder lives");
    holder.kill_and_leave_unreaped();
    assert_eq!(lock.acquire(Until::after(LONG), &mut go_on), Outcome::TakenOver);
    assert_eq!(lock.times_abandoned(), 1);
    assert_eq!(lock.release(), Released::Done);
    assert_eq!(lock.acquire(Until::after(LONG), &mut go_on), Outcome::Taken);
}

#[test]
fn whoever_sleeps_already_takes_over_when_the_holder_is_killed() {
    let (lock, held, waiting) = (RLock::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let holder = Elsewhere::run((&lock, &held), |(lock, held)| {
        lock.acquire(Until::after(LONG), &mut go_on);
        lock.acquire(Until::after(LONG), &mut go_on);
        held.set();
        support::sleep_for_ever();
    });
    held.wait(Until::after(LONG), &mut go_on);
    let heirs: Vec<_> = (0..3)
        .map(|_| {
            Elsewhere::run((&lock, &waiting), |(lock, waiting)| {
                waiting.set();
                assert!(lock.acquire(Until::after(LONG), &mut go_on).is_ours());
                assert_eq!(lock.depth(), 1);
                assert_eq!(lock.release(), Released::Done);
            })
        })
        .collect();
    waiting.wait(Until::after(LONG), &mut go_on);
    holder.kill_and_leave_unreaped();
    heirs.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!(lock.lock().times_abandoned(), 1);
}

#[test]
fn attempts_that_do_not_wait_get_an_abandoned_lock_in_time() {
    let lock = Lock::new().unwrap();
    Elsewhere::run(&lock, |lock| assert!(lock.try_acquire())).ends_well();
    assert_eq!(lock.acquire(Until::Now, &mut go_on), Outcome::TimedOut, "one look is not waiting");
    let again = || {
        std::thread::sleep(Duration::from_millis(10));
        lock.acquire(Until::Now, &mut go_on)
    };
    assert!((0..3000).any(|_| again() == Outcome::TakenOver));
}

#[test]
fn a_lock_may_be_released_by_another_process_and_an_owned_one_may_not() {
    let (lock, owned) = (Lock::new().unwrap(), RLock::new().unwrap());
    assert!(lock.try_acquire() && owned.try_acquire());
    Elsewhere::run((&lock, &owned), |(lock, owned)| {
        assert_eq!(owned.depth(), 0, "another process owns nothing");
        assert_eq!(owned.release(), Released::NotOwner);
        assert_eq!(lock.release(), Released::Done);
        assert_eq!(lock.release(), Released::TooOften);
    })
    .ends_well();
    assert_eq!(owned.depth(), 1);
    assert!(lock.try_acquire());
}

#[test]
fn a_recursive_lock_belongs_to_a_thread() {
    let lock = RLock::new().unwrap();
    assert!(lock.try_acquire() && lock.try_acquire());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(!lock.try_acquire());
            assert_eq!(lock.release(), Released::NotOwner);
        });
    });
    assert_eq!(
        (lock.release(), lock.depth(), lock.release(), lock.release()),
        (Released::Done, 1, Released::Done, Released::NotOwner)
    );
}

#[test]
fn killed_waiters_hold_nobody_up() {
    let (lock, semaphore) = (Lock::new().unwrap(), Semaphore::new(0, 9).unwrap());
    lock.try_acquire();
    for _ in 0..4 {
        let waiters = [
            Elsewhere::run(&lock, |lock| assert!(lock.acquire(Until::Ever, &mut go_on).is_ours())),
            Elsewhere::run(&semaphore, |semaphore| assert!(semaphore.acquire(Until::Ever, &mut go_on).is_ours())),
        ];
        waiters.iter().for_each(Elsewhere::until_asleep);
        waiters.into_iter().for_each(Elsewhere::kill_and_leave_unreaped);
    }
    let living = [
        Elsewhere::run(&lock, |lock| assert_eq!(lock.acquire(Until::after(LONG), &mut go_on), Outcome::Taken)),
        Elsewhere::run(&semaphore, |semaphore| {
            assert_eq!(semaphore.acquire(Until::after(LONG), &mut go_on), Outcome::Taken)
        }),
    ];
    living.iter().for_each(Elsewhere::until_asleep);
    assert_eq!((lock.release(), semaphore.release()), (Released::Done, Released::Done));
    living.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn processes_killed_at_any_moment_leave_a_lock_that_works() {
    let (lock, pause) = (Lock::new().unwrap(), Duration::from_micros(300));
    for round in 0..(if cfg!(windows) { 10 } else { 60 }) {
        let contenders: Vec<_> = (0..2)
            .map(|_| {
                Elsewhere::run(&lock, |lock| {
                    loop {
                        lock.acquire(Until::Ever, &mut go_on);
                        lock.release();
                    }
                })
            })
            .collect();
        contenders.iter().for_each(Elsewhere::until_begun);
        std::thread::sleep(pause * (round % 7));
        contenders.into_iter().for_each(Elsewhere::kill_and_leave_unreaped);
        assert!(lock.acquire(Until::after(LONG), &mut go_on).is_ours(), "round {round}");
        assert_eq!(lock.release(), Released::Done);
    }
}

#[test]
fn processes_killed_at_any_moment_leave_a_semaphore_that_works() {
    for round in 0..(if cfg!(windows) { 10 } else { 40 }) {
        let semaphore = Semaphore::new(1, 1).unwrap();
        let contenders: Vec<_> = (0..2)
            .map(|_| {
                Elsewhere::run(&semaphore, |semaphore| {
                    loop {
                        semaphore.acquire(Until::Ever, &mut go_on);
                        semaphore.release();
                    }
                })
            })
            .collect();
        contenders.iter().for_each(Elsewhere::until_begun);
        std::thread::sleep(Duration::from_micros(300) * (round % 7));
        contenders.into_iter().for_each(Elsewhere::kill_and_leave_unreaped);
        // The unit may have died with its taker: then a new one serves those who sleep.
        semaphore.release();
        assert_eq!(semaphore.acquire(Until::after(LONG), &mut go_on), Outcome::Taken, "round {round}");
    }
}

#[test]
fn a_semaphore_counts_to_its_limit() {
    let semaphore = Semaphore::new(1, 2).unwrap();
    assert_eq!((semaphore.release(), semaphore.release()), (Released::Done, Released::TooOften));
    assert!(semaphore.try_acquire() && semaphore.try_acquire() && !semaphore.try_acquire());
    assert_eq!(semaphore.acquire(Until::after(SHORT), &mut go_on), Outcome::TimedOut);
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn an_interrupted_wait_ends_and_changes_nothing() {
    let (lock, semaphore, event) = (Lock::new().unwrap(), Semaphore::new(0, 1).unwrap(), Event::new().unwrap());
    lock.try_acquire();
    let stop = &mut || false;
    assert_eq!(lock.acquire(Until::Ever, stop), Outcome::Interrupted);
    assert_eq!(semaphore.acquire(Until::Ever, stop), Outcome::Interrupted);
    assert_eq!(event.wait(Until::Ever, stop), Outcome::Interrupted);
    assert_eq!((lock.release(), semaphore.release()), (Released::Done, Released::Done));
    assert!(semaphore.try_acquire());
}

#[test]
fn a_condition_calls_as_many_as_it_is_told() {
    let (lock, condition, back) = (RLock::new().unwrap(), Condition::new().unwrap(), Semaphore::new(0, 99).unwrap());
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            Elsewhere::run((&lock, &condition, &back), |(lock, condition, back)| {
                lock.acquire(Until::after(LONG), &mut go_on);
                lock.acquire(Until::after(LONG), &mut go_on);
                let waited = condition.wait(lock, Until::after(LONG), &mut go_on).unwrap();
                assert_eq!((waited.outcome, waited.lock, lock.depth()), (Outcome::Taken, Outcome::Taken, 2));
                back.release();
                lock.release();
                lock.release();
            })
        })
        .collect();
    support::until(|| condition.counts().0 == 3);
    lock.acquire(Until::after(LONG), &mut go_on);
    assert_eq!(condition.notify(1), 1);
    lock.release();
    assert_eq!(back.acquire(Until::after(LONG), &mut go_on), Outcome::Taken);
    assert_eq!(back.acquire(Until::after(SHORT), &mut go_on), Outcome::TimedOut, "one was called");
    assert_eq!(condition.counts(), (2, 0));
    assert_eq!(condition.notify(u32::MAX), 2);
    waiters.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!((condition.notify(1), condition.counts()), (0, (0, 0)));
}

#[test]
fn a_condition_whose_waiters_were_killed_still_calls_the_living() {
    let (lock, condition) = (Lock::new().unwrap(), Condition::new().unwrap());
    let wait = |(lock, condition): (&Lock, &Condition)| {
        lock.acquire(Until::after(LONG), &mut go_on);
        let waited = condition.wait(lock, Until::after(LONG), &mut go_on).unwrap();
        assert_eq!(waited.outcome, Outcome::Taken);
        lock.release();
    };
    for most in [1, u32::MAX] {
        let dead: Vec<_> = (0..3).map(|_| Elsewhere::run((&lock, &condition), wait)).collect();
        support::until(|| condition.counts().0 >= 3);
        dead.iter().for_each(Elsewhere::until_asleep);
        dead.into_iter().for_each(Elsewhere::kill_and_leave_unreaped);
        let before = condition.counts().0;
        let living = Elsewhere::run((&lock, &condition), wait);
        support::until(|| condition.counts().0 > before);
        living.until_asleep();
        assert!(lock.acquire(Until::after(LONG), &mut go_on).is_ours());
        assert!(condition.notify(most) >= 1);
        lock.release();
        living.ends_well();
    }
}

#[test]
fn a_condition_wants_its_lock_held() {
    let (lock, condition) = (RLock::new().unwrap(), Condition::new().unwrap());
    assert!(condition.wait(&lock, Until::after(SHORT), &mut go_on).is_err());
    assert_eq!(condition.counts(), (0, 0));
    lock.try_acquire();
    let waited = condition.wait(&lock, Until::after(SHORT), &mut go_on).unwrap();
    assert_eq!((waited.outcome, waited.lock, lock.depth()), (Outcome::TimedOut, Outcome::Taken, 1));
    assert_eq!(condition.counts(), (0, 0));
}

#[test]
fn an_event_wakes_all_even_if_it_is_cleared_at_once() {
    let event = Event::new().unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| Elsewhere::run(&event, |event| assert_eq!(event.wait(Until::after(LONG), &mut go_on), Outcome::Taken)))
        .collect();
    waiters.iter().for_each(Elsewhere::until_asleep);
    event.set();
    event.clear();
    waiters.into_iter().for_each(Elsewhere::ends_well);
    assert!(!event.is_set());
    assert_eq!(event.wait(Until::after(SHORT), &mut go_on), Outcome::TimedOut);
}
