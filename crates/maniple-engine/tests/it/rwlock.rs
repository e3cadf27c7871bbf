//! Readers and writers between processes, some of which are killed.

use crate::support::{self, Elsewhere, LONG, SHORT, go_on, watchdog};
use maniple_engine::sync::lock::Poison;
use maniple_engine::sync::rwlock::{Admitted, MOST_READERS, RwLock};
use maniple_engine::sync::semaphore::Semaphore;
use maniple_engine::sync::{Outcome, Released};
use maniple_engine::wait::Until;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn read(lock: &RwLock, limit: Until) -> Option<u32> {
    match lock.read(limit, &mut go_on) {
        Admitted::Share(share) => Some(share),
        Admitted::TimedOut => None,
        Admitted::Interrupted => panic!("the hook of this test never interrupts"),
    }
}

/// The value, as two numbers that a writer changes one after the other.
fn pair(lock: &RwLock) -> [&AtomicU64; 2] {
    // SAFETY: there are 16 bytes, at a multiple of 64, of which any are two numbers.
    [0, 1].map(|at| unsafe { AtomicU64::from_ptr(lock.start().as_ptr().cast::<u64>().add(at)) })
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    let shares = [read(&lock, Until::after(LONG)), read(&lock, Until::Now), read(&lock, Until::after(SHORT))]
        .map(Option::unwrap);
    assert_eq!(lock.readers(), 3);
    assert_eq!(lock.write(Until::Now, &mut go_on), Outcome::TimedOut);
    assert_eq!(lock.write(Until::after(SHORT), &mut go_on), Outcome::TimedOut);
    Elsewhere::run((&lock, shares[0]), |(lock, share)| {
        assert_eq!(lock.give_back(share), Released::NotOwner, "another process reads nothing");
        let own = read(lock, Until::after(LONG)).unwrap();
        assert_eq!(lock.give_back(own), Released::Done);
    })
    .ends_well();
    for share in shares {
        assert_eq!(lock.give_back(share), Released::Done);
        assert_eq!(lock.give_back(share), Released::NotOwner);
    }
    assert_eq!(lock.write(Until::Now, &mut go_on), Outcome::Taken);
    assert!(lock.is_written() && lock.is_written_here());
    Elsewhere::run(&lock, |lock| {
        assert!(!lock.is_written_here());
        assert_eq!(lock.release(), Released::NotOwner);
        assert_eq!((read(lock, Until::Now), read(lock, Until::after(SHORT))), (None, None));
        assert_eq!(lock.write(Until::after(SHORT), &mut go_on), Outcome::TimedOut);
    })
    .ends_well();
    assert_eq!((lock.release(), lock.release()), (Released::Done, Released::NotOwner));
    let share = read(&lock, Until::Now).unwrap();
    assert_eq!((lock.give_back(share), lock.poison()), (Released::Done, None));
}

#[test]
fn a_writer_that_waits_keeps_new_readers_out_and_gives_up_without_a_trace() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    let share = read(&lock, Until::after(LONG)).unwrap();
    let writer = Elsewhere::run(&lock, |lock| {
        assert_eq!(lock.write(Until::after(LONG), &mut go_on), Outcome::Taken);
        assert_eq!(lock.release(), Released::Done);
    });
    writer.until_asleep();
    assert_eq!((read(&lock, Until::Now), read(&lock, Until::after(SHORT))), (None, None));
    lock.give_back(share);
    writer.ends_well();
    let share = read(&lock, Until::after(LONG)).unwrap();
    let hasty =
        Elsewhere::run(&lock, |lock| assert_eq!(lock.write(Until::after(SHORT), &mut go_on), Outcome::TimedOut));
    let interrupted =
        Elsewhere::run(&lock, |lock| assert_eq!(lock.write(Until::after(LONG), &mut || false), Outcome::Interrupted));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            Elsewhere::run(&lock, |lock| {
                let share = read(lock, Until::after(LONG)).unwrap();
                lock.give_back(share);
            })
        })
        .collect();
    readers.into_iter().chain([hasty, interrupted]).for_each(Elsewhere::ends_well);
    assert_eq!((lock.readers(), lock.give_back(share)), (1, Released::Done));
    assert_eq!(lock.write(Until::Now, &mut go_on), Outcome::Taken);
}

#[test]
fn a_killed_readers_share_is_given_back_and_poisons_nothing() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    for limit in [Until::after(LONG), Until::Now] {
        let reader = Elsewhere::run(&lock, |lock| {
            read(lock, Until::after(LONG)).unwrap();
            support::sleep_for_ever();
        });
        support::until(|| lock.readers() == 1);
        assert_eq!(lock.write(Until::after(SHORT), &mut go_on), Outcome::TimedOut, "the reader lives");
        reader.kill_and_leave_unreaped();
        support::until(|| lock.write(limit, &mut go_on) == Outcome::Taken);
        assert_eq!((lock.poison(), lock.readers()), (None, 0));
        lock.release();
    }
}

#[test]
fn readers_find_a_share_when_all_who_had_one_are_dead() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    let crowd = Elsewhere::run(&lock, |lock| {
        assert!((0..MOST_READERS).all(|_| read(lock, Until::after(LONG)).is_some()));
        assert_eq!((read(lock, Until::Now), read(lock, Until::after(SHORT))), (None, None), "there are no more shares");
        support::sleep_for_ever();
    });
    support::until(|| lock.readers() == MOST_READERS);
    let waits = Elsewhere::run(&lock, |lock| {
        let share = read(lock, Until::after(LONG)).unwrap();
        lock.give_back(share);
    });
    waits.until_asleep();
    crowd.kill_and_leave_unreaped();
    waits.ends_well();
    assert!(read(&lock, Until::after(LONG)).is_some());
}

#[test]
fn a_killed_writer_poisons_the_lock_until_that_is_cleared() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    let writer = Elsewhere::run(&lock, |lock| {
        assert_eq!(lock.write(Until::after(LONG), &mut go_on), Outcome::Taken);
        support::sleep_for_ever();
    });
    support::until(|| lock.is_written());
    let waits = Elsewhere::run(&lock, |lock| {
        let share = read(lock, Until::after(LONG)).unwrap();
        assert!(lock.poison().is_some_and(|poison| poison.died));
        lock.give_back(share);
    });
    waits.until_asleep();
    writer.kill_and_leave_unreaped();
    waits.ends_well();
    assert_eq!(lock.write(Until::after(LONG), &mut go_on), Outcome::Taken);
    assert!(lock.poison().is_some_and(|poison| poison.died && poison.pid != std::process::id()));
    lock.clear_poison();
    assert_eq!((lock.release(), lock.poison()), (Released::Done, None));
    assert_eq!(lock.write(Until::after(LONG), &mut go_on), Outcome::Taken);
    lock.set_poison();
    lock.release();
    assert!(read(&lock, Until::after(LONG)).is_some());
    assert_eq!(lock.poison(), Some(Poison { pid: std::process::id(), died: false }));
}

#[test]
fn a_death_at_the_gate_or_while_waiting_for_readers_poisons_nothing() {
    let _alive = watchdog();
    let lock = RwLock::create(8).unwrap();
    // A reader or a writer, dead between its first two steps.
    Elsewhere::run(&lock, |lock| assert!(lock.region().lock().try_acquire())).ends_well();
    let share = read(&lock, Until::after(LONG)).unwrap();
    assert_eq!(lock.poison(), None);
    let waits = Elsewhere::run(&lock, |lock| assert!(lock.write(Until::Ever, &mut go_on).is_ours()));
    waits.until_asleep();
    waits.kill_and_leave_unreaped();
    let another = read(&lock, Until::after(LONG)).unwrap();
    lock.give_back(share);
    lock.give_back(another);
    // A reader dead at the gate keeps those out for a moment that do not wait, and no longer.
    Elsewhere::run(&lock, |lock| assert!(lock.region().lock().try_acquire())).ends_well();
    support::until(|| read(&lock, Until::Now).is_some());
    assert_eq!((lock.readers(), lock.poison()), (1, None));
}

#[test]
fn a_lock_of_another_kind_or_size_is_refused() {
    let lock = RwLock::create(8).unwrap();
    let plain = maniple_engine::sync::lock::Lock::new().unwrap();
    assert!(RwLock::open(plain.place().send(), None).is_err());
    let value = maniple_engine::sync::guarded_region::GuardedRegion::create(
        1000,
        maniple_engine::sync::guarded_region::Access::Guarded,
    )
    .unwrap();
    assert!(RwLock::open(value.place().send(), None).is_err());
    assert!(RwLock::create(usize::MAX).is_err());
    let same = RwLock::open(lock.region().place().send(), None).unwrap();
    assert_eq!((same.len(), lock.write(Until::after(LONG), &mut go_on)), (8, Outcome::Taken));
    assert_eq!(read(&same, Until::Now), None);
}

/// The lock, how often a value was read half written, and how often one was written.
type Shared<'a> = (&'a RwLock, &'a Semaphore, &'a Semaphore);

/// Whether the value was written as a whole, or the lock says that it may not be.
fn whole(lock: &RwLock) -> bool {
    let [one, two] = pair(lock).map(|number| number.load(Ordering::Relaxed));
    one == two || lock.poison().is_some()
}

fn write((lock, torn, done): Shared<'_>) {
    if lock.write(Until::after(LONG), &mut go_on).is_ours() {
        if !whole(lock) {
            torn.release();
        }
        let [one, two] = pair(lock);
        let next = one.load(Ordering::Relaxed).max(two.load(Ordering::Relaxed)) + 1;
        one.store(next, Ordering::Relaxed);
        std::hint::spin_loop();
        two.store(next, Ordering::Relaxed);
        lock.clear_poison();
        lock.release();
        done.release();
    }
}

fn look((lock, torn, _): Shared<'_>) {
    if let Some(share) = read(lock, Until::after(LONG)) {
        if !whole(lock) {
            torn.release();
        }
        lock.give_back(share);
    }
}

/// Readers and writers at work, killed at moments that a seed decides: what is read was written as a whole, or the lock is poisoned.
#[test]
fn processes_killed_at_any_moment_leave_a_lock_that_works() {
    let _alive = watchdog();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = std::env::var("MANIPLE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
    println!("replay with MANIPLE_SEED={seed}");
    let mut state = seed | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (lock, torn, done) =
        (RwLock::create(16).unwrap(), Semaphore::new(0, u32::MAX).unwrap(), Semaphore::new(0, u32::MAX).unwrap());
    let all = (&lock, &torn, &done);
    let begin = |writes: bool| {
        let begun = if writes {
            Elsewhere::run(all, |all| {
                loop {
                    write(all)
                }
            })
        } else {
            Elsewhere::run(all, |all| {
                loop {
                    look(all)
                }
            })
        };
        begun.until_begun();
        begun
    };
    let mut crew: Vec<Elsewhere> = (0..4).map(|number| begin(number < 2)).collect();
    for _ in 0..(if cfg!(windows) { 20 } else { 60 }) {
        std::thread::sleep(Duration::from_micros(random(4000)));
        let gone = random(4) as usize;
        // Dropped: killed and reaped.
        drop(crew.remove(gone));
        crew.insert(gone, begin(random(2) == 0));
    }
    drop(crew);
    assert_eq!(torn.value(), 0, "a value was read half written; replay with MANIPLE_SEED={seed}");
    let before = done.value();
    write(all);
    look(all);
    assert_eq!(done.value(), before + 1, "replay with MANIPLE_SEED={seed}");
    assert_eq!((lock.readers(), lock.is_written(), torn.value()), (0, false, 0));
}
