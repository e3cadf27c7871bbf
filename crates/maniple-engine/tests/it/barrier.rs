//! Barriers and units between processes, some of which are killed; and values beside their locks.

use crate::support::{self, Elsewhere, LONG, SHORT, go_on};
use maniple_engine::sync::Released;
use maniple_engine::sync::barrier::{Barrier, Cause, MOST, Met};
use maniple_engine::sync::guarded_region::{Access, GuardedRegion};
use maniple_engine::sync::owned_semaphore::{Granted, OwnedSemaphore};
use maniple_engine::sync::semaphore::Semaphore;
use maniple_engine::wait::Until;
use std::time::Duration;

/// How often a test begins anew, with new processes.
const ROUNDS: u32 = if cfg!(windows) { 6 } else { 40 };

fn meet(barrier: &Barrier) -> Met {
    barrier.wait(Until::after(LONG), &mut go_on)
}

/// The same barrier; if `dead_count` is 1, parties that died while they waited have come for this process.
fn counting(barrier: &Barrier, dead_count: u32) -> Barrier {
    let same = Barrier::open(barrier.place().send()).unwrap();
    if dead_count == 1 { same.count_dead() } else { same }
}

#[test]
fn nobody_goes_on_before_all_have_come_round_after_round() {
    for parties in [1, 2, 3, 9] {
        let (barrier, came) = (Barrier::new(parties).unwrap(), Semaphore::new(0, u32::MAX).unwrap());
        let children: Vec<_> = (0..parties)
            .map(|_| {
                Elsewhere::run((&barrier, &came, parties), |(barrier, came, parties)| {
                    for round in 1..=40 {
                        came.release();
                        let Met::All(index) = meet(barrier) else { panic!("not all") };
                        assert!(index < parties);
                        let came = came.value();
                        assert!(came >= round * parties && came <= (round + 1) * parties, "{came} in {round}");
                    }
                })
            })
            .collect();
        children.into_iter().for_each(Elsewhere::ends_well);
        assert_eq!((barrier.waiting(), barrier.broken(), came.value()), (0, None, 40 * parties));
    }
}

#[test]
fn each_of_a_round_has_another_number_and_threads_are_parties_too() {
    let barrier = Barrier::new(7).unwrap();
    for _ in 0..20 {
        let mut numbers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..7).map(|_| scope.spawn(|| meet(&barrier))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_by_key(|met| if let Met::All(index) = met { *index } else { 99 });
        assert_eq!(numbers, (0..7).map(Met::All).collect::<Vec<_>>());
    }
}

#[test]
fn more_processes_than_parties_take_turns() {
    let (barrier, passed) = (Barrier::new(2).unwrap(), Semaphore::new(0, u32::MAX).unwrap());
    let children: Vec<_> = (0..4)
        .map(|_| {
            Elsewhere::run((&barrier, &passed), |(barrier, passed)| {
                while let Met::All(_) = meet(barrier) {
                    passed.release();
                }
            })
        })
        .collect();
    support::until(|| passed.value() > 300);
    barrier.abort();
    children.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!((barrier.waiting(), passed.value() % 2), (0, 0));
}

#[test]
fn a_waiter_that_gives_up_breaks_it_until_it_is_reset() {
    let barrier = Barrier::new(3).unwrap();
    let other = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::Broken(Cause::GivenUp)));
    support::until(|| barrier.waiting() == 1);
    assert_eq!(barrier.wait(Until::after(SHORT), &mut go_on), Met::TimedOut);
    other.ends_well();
    assert_eq!((barrier.broken(), barrier.waiting()), (Some(Cause::GivenUp), 0));
    assert_eq!(meet(&barrier), Met::Broken(Cause::GivenUp));
    barrier.reset();
    assert_eq!(barrier.broken(), None);
    assert_eq!(barrier.wait(Until::Ever, &mut || false), Met::Interrupted);
    barrier.reset();
    let others: Vec<_> =
        (0..2).map(|_| Elsewhere::run(&barrier, |barrier| assert!(matches!(meet(barrier), Met::All(0 | 1))))).collect();
    support::until(|| barrier.waiting() == 2);
    assert_eq!(barrier.wait(Until::Now, &mut go_on), Met::All(2), "the last one need not wait");
    others.into_iter().for_each(Elsewhere::ends_well);
}

#[test]
fn abort_and_reset_send_the_waiting_away() {
    let barrier = Barrier::new(2).unwrap();
    for stop in [Barrier::abort, Barrier::reset] {
        let waiter = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::Broken(Cause::GivenUp)));
        support::until(|| barrier.waiting() == 1);
        stop(&barrier);
        waiter.ends_well();
        barrier.reset();
    }
    assert_eq!(barrier.broken(), None);
}

#[test]
fn a_party_killed_while_it_waits_breaks_it_for_those_who_wait_for_ever() {
    let barrier = Barrier::new(3).unwrap();
    let killed = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::TimedOut));
    support::until(|| barrier.waiting() == 1);
    let other =
        Elsewhere::run(&barrier, |barrier| assert_eq!(barrier.wait(Until::Ever, &mut go_on), Met::Broken(Cause::Died)));
    support::until(|| barrier.waiting() == 2);
    killed.kill_and_leave_unreaped();
    other.ends_well();
    assert_eq!((barrier.broken(), barrier.waiting()), (Some(Cause::Died), 0));
    assert_eq!(meet(&barrier), Met::Broken(Cause::Died));
}

#[test]
fn a_round_is_not_completed_with_a_dead_party() {
    let barrier = Barrier::new(2).unwrap();
    let killed = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::TimedOut));
    support::until(|| barrier.waiting() == 1);
    killed.kill_and_leave_unreaped();
    assert_eq!(meet(&barrier), Met::Broken(Cause::Died));
    barrier.reset();
    let other = Elsewhere::run(&barrier, |barrier| assert!(matches!(meet(barrier), Met::All(_))));
    assert!(matches!(meet(&barrier), Met::All(_)));
    other.ends_well();
}

#[test]
fn parties_killed_at_any_moment_leave_a_barrier_that_works() {
    let barrier = Barrier::new(3).unwrap();
    for round in 0..ROUNDS {
        let parties: Vec<_> = (0..3)
            .map(|_| {
                Elsewhere::run(
                    &barrier,
                    |barrier| while let Met::All(_) = barrier.wait(Until::after(LONG), &mut go_on) {},
                )
            })
            .collect();
        parties.iter().for_each(Elsewhere::until_begun);
        std::thread::sleep(Duration::from_micros(400) * (round % 9));
        let mut parties = parties.into_iter();
        parties.next().unwrap().kill_and_leave_unreaped();
        // It may have died between two visits, which this process cannot detect.
        std::thread::sleep(Duration::from_millis(5));
        barrier.abort();
        parties.for_each(Elsewhere::ends_well);
        barrier.reset();
        assert_eq!((barrier.waiting(), barrier.broken()), (0, None), "round {round}");
        let other = Elsewhere::run(&barrier, |barrier| assert!(matches!(meet(barrier), Met::All(_))));
        let third = Elsewhere::run(&barrier, |barrier| assert!(matches!(meet(barrier), Met::All(_))));
        assert!(matches!(meet(&barrier), Met::All(_)), "round {round}");
        other.ends_well();
        third.ends_well();
    }
}

#[test]
fn the_last_party_acts_before_the_others_go_on() {
    let (barrier, acted) = (Barrier::new(3).unwrap(), Semaphore::new(0, u32::MAX).unwrap());
    for round in 1..=(ROUNDS / 2) {
        let pass = |(barrier, acted, round): (&Barrier, &Semaphore, u32)| {
            let mut act = || {
                assert_eq!(barrier.waiting(), 3);
                std::thread::sleep(Duration::from_millis(2));
                acted.release() == Released::Done
            };
            assert!(matches!(barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut act)), Met::All(_)));
            assert_eq!(acted.value(), round);
        };
        let others: Vec<_> = (0..2).map(|_| Elsewhere::run((&barrier, &acted, round), pass)).collect();
        pass((&barrier, &acted, round));
        others.into_iter().for_each(Elsewhere::ends_well);
    }
    assert_eq!((barrier.waiting(), barrier.broken()), (0, None));
}

#[test]
fn an_action_that_fails_breaks_the_barrier() {
    let barrier = Barrier::new(2).unwrap();
    let other = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::Broken(Cause::GivenUp)));
    support::until(|| barrier.waiting() == 1);
    let met = barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut || false));
    assert_eq!(met, Met::Broken(Cause::GivenUp));
    other.ends_well();
    assert_eq!((barrier.broken(), barrier.waiting()), (Some(Cause::GivenUp), 0));
}

#[test]
fn an_action_may_abort_or_reset_its_barrier_and_the_next_round_works() {
    let barrier = Barrier::new(2).unwrap();
    for stop in [Barrier::abort, Barrier::reset] {
        let other = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::Broken(Cause::GivenUp)));
        support::until(|| barrier.waiting() == 1);
        let mut act = || {
            stop(&barrier);
            true
        };
        assert_eq!(barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut act)), Met::Broken(Cause::GivenUp));
        other.ends_well();
        barrier.reset();
        let other = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(barrier), Met::All(0)));
        support::until(|| barrier.waiting() == 1);
        assert_eq!(barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut || true)), Met::All(1));
        other.ends_well();
    }
}

#[test]
fn a_party_killed_in_its_action_breaks_the_barrier() {
    for dead_count in [false, true] {
        let barrier = Barrier::new(2).unwrap();
        let barrier = if dead_count { barrier.count_dead() } else { barrier };
        let waiter = Elsewhere::run((&barrier, u32::from(dead_count)), |(barrier, dead_count)| {
            let barrier = counting(barrier, dead_count);
            assert_eq!(barrier.wait(Until::Ever, &mut go_on), Met::Broken(Cause::Died));
        });
        support::until(|| barrier.waiting() == 1);
        let actor = Elsewhere::run((&barrier, u32::from(dead_count)), |(barrier, dead_count)| {
            let barrier = counting(barrier, dead_count);
            let mut act = || {
                support::sleep_for_ever();
                true
            };
            barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut act));
        });
        support::until(|| barrier.waiting() == 2);
        // The round is not theirs, and they are not told that it is.
        let early = Elsewhere::run((&barrier, u32::from(dead_count)), |(barrier, dead_count)| {
            assert!(matches!(meet(&counting(barrier, dead_count)), Met::Broken(Cause::Died)));
        });
        early.until_asleep();
        actor.kill_and_leave_unreaped();
        waiter.ends_well();
        early.ends_well();
        barrier.reset();
        let other = Elsewhere::run((&barrier, u32::from(dead_count)), |(barrier, dead_count)| {
            assert_eq!(meet(&counting(barrier, dead_count)), Met::All(0));
        });
        support::until(|| barrier.waiting() == 1);
        assert_eq!(barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut || true)), Met::All(1));
        other.ends_well();
    }
}

#[test]
fn a_waiter_whose_time_is_up_waits_for_an_action_that_runs() {
    let barrier = Barrier::new(2).unwrap();
    let waiter = Elsewhere::run(&barrier, |barrier| {
        let brief = Until::after(Duration::from_millis(60));
        assert_eq!(barrier.wait(brief, &mut go_on), Met::All(0));
    });
    support::until(|| barrier.waiting() == 1);
    let mut act = || {
        std::thread::sleep(Duration::from_millis(1500));
        true
    };
    assert_eq!(barrier.wait_and_act(Until::after(LONG), &mut go_on, Some(&mut act)), Met::All(1));
    waiter.ends_well();
}

#[test]
fn where_the_dead_count_a_party_killed_while_it_waited_has_come() {
    let barrier = Barrier::new(3).unwrap().count_dead();
    let killed = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(&counting(barrier, 1)), Met::TimedOut));
    support::until(|| barrier.waiting() == 1);
    killed.kill_and_leave_unreaped();
    let other = Elsewhere::run(&barrier, |barrier| assert_eq!(meet(&counting(barrier, 1)), Met::All(1)));
    support::until(|| barrier.waiting() == 2);
    assert_eq!(meet(&barrier), Met::All(2));
    other.ends_well();
    // The next round takes three that live, and finds the dead one's place free.
    let come = |barrier: &Barrier| assert!(matches!(meet(&counting(barrier, 1)), Met::All(0 | 1)));
    let others: Vec<_> = (0..2).map(|_| Elsewhere::run(&barrier, come)).collect();
    support::until(|| barrier.waiting() == 2);
    assert_eq!(meet(&barrier), Met::All(2));
    others.into_iter().for_each(Elsewhere::ends_well);
}

#[test]
fn a_barrier_travels_and_has_a_sensible_size() {
    assert!(Barrier::new(0).is_err() && Barrier::new(MOST + 1).is_err());
    let barrier = Barrier::new(MOST).unwrap();
    let same = Barrier::open(barrier.place().send()).unwrap();
    assert_eq!(same.parties(), MOST);
    same.abort();
    assert_eq!(barrier.broken(), Some(Cause::GivenUp));
    assert!(Semaphore::open(barrier.place().send()).is_err());
}

#[test]
fn units_of_dead_holders_are_taken_over_one_by_one() {
    let permits = OwnedSemaphore::new(7).unwrap();
    fn take(permits: &OwnedSemaphore) -> Granted {
        permits.acquire(Until::after(LONG), &mut go_on)
    }
    let holder = Elsewhere::run(&permits, |permits| {
        (0..5).for_each(|_| assert!(matches!(take(permits), Granted::Unit(_))));
        support::sleep_for_ever();
    });
    support::until(|| permits.free() == 2);
    assert!(matches!((take(&permits), take(&permits)), (Granted::Unit(_), Granted::Unit(_))));
    assert_eq!(permits.acquire(Until::after(SHORT), &mut go_on), Granted::TimedOut);
    let sleeper = Elsewhere::run(&permits, |permits| assert!(matches!(take(permits), Granted::TakenOver { .. })));
    sleeper.until_asleep();
    holder.kill_and_leave_unreaped();
    sleeper.ends_well();
    (0..5).for_each(|_| assert!(matches!(take(&permits), Granted::TakenOver { .. })));
    assert_eq!(permits.free(), 0);
    (0..7).for_each(|_| assert_eq!(permits.give_back_any(), Released::Done));
    assert_eq!((permits.give_back_any(), permits.free()), (Released::NotOwner, 7));
}

#[test]
fn units_keep_their_number_and_wake_who_waits() {
    let permits = OwnedSemaphore::new(2).unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            Elsewhere::run(&permits, |permits| {
                for _ in 0..2000 {
                    let Granted::Unit(unit) = permits.acquire(Until::after(LONG), &mut go_on) else { panic!("none") };
                    assert_eq!(permits.give_back(unit), Released::Done);
                    assert_eq!(permits.give_back(unit), Released::NotOwner);
                }
            })
        })
        .collect();
    children.into_iter().for_each(Elsewhere::ends_well);
    assert_eq!(permits.free(), 2);
}

#[test]
fn holders_killed_at_any_moment_leave_all_units() {
    let permits = OwnedSemaphore::new(2).unwrap();
    for round in 0..ROUNDS {
        let contend = |permits: &OwnedSemaphore| {
            while let Granted::Unit(unit) | Granted::TakenOver { unit, .. } =
                permits.acquire(Until::after(LONG), &mut go_on)
            {
                permits.give_back(unit);
            }
        };
        let contenders: Vec<_> = (0..3).map(|_| Elsewhere::run(&permits, contend)).collect();
        contenders.iter().for_each(Elsewhere::until_begun);
        std::thread::sleep(Duration::from_micros(300) * (round % 7));
        contenders.into_iter().for_each(Elsewhere::kill_and_leave_unreaped);
        for _ in 0..2 {
            let granted = permits.acquire(Until::after(LONG), &mut go_on);
            assert!(matches!(granted, Granted::Unit(_) | Granted::TakenOver { .. }), "round {round}: {granted:?}");
        }
        assert_eq!((permits.give_back_any(), permits.give_back_any()), (Released::Done, Released::Done));
        assert_eq!(permits.free(), 2);
    }
}

#[test]
fn rooms_are_zeroed_aligned_and_apart() {
    for len in [0, 1, 63, 64, 65, 1024, 1025, 100_000] {
        let rooms: Vec<_> = (0..3).map(|_| GuardedRegion::create(len, Access::Guarded).unwrap()).collect();
        for (number, room) in (1..).zip(&rooms) {
            assert_eq!((room.len(), room.start().as_ptr() as usize % 64), (len, 0));
            // SAFETY: no other code touches it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(room.start().as_ptr(), len) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(number);
        }
        for (number, room) in (1u8..).zip(&rooms) {
            let apart = room.apart().map(|fd| fd.try_clone_to_owned().unwrap());
            assert_eq!(apart.is_some(), len > 1024);
            let same = GuardedRegion::open(room.place().send(), apart, Access::Guarded).unwrap();
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(same.start().as_ptr(), same.len()) };
            assert!(bytes.len() == len && bytes.iter().all(|&byte| byte == number));
            assert!(same.lock().try_acquire() && !room.lock().try_acquire());
        }
        assert!(GuardedRegion::open(rooms[0].place().send(), None, Access::Raw(8)).is_err());
        assert!(len <= 1024 || GuardedRegion::open(rooms[0].place().send(), None, Access::Guarded).is_err());
    }
}

#[test]
fn rooms_that_were_given_back_are_used_again() {
    Elsewhere::run(0, |_| {
        let _kept = GuardedRegion::create(8, Access::Raw(8)).unwrap();
        for _ in 0..5000 {
            let (one, two) = (GuardedRegion::create(100, Access::Guarded).unwrap(), Barrier::new(20).unwrap());
            // In the first of the cells, over and over.
            assert!(one.place().number().max(two.place().number()) < 50);
            drop((one, two));
        }
    })
    .ends_well();
}
