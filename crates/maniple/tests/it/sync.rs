//! Locks, semaphores, conditions, events and barriers between processes, with holders and waiters killed, and that nothing of them is left.

use crate::support::{LONG, METHODS, SHORT, descriptors, eventually, kill_self, watchdog};
use maniple::{
    Barrier, BoundedSemaphore, BrokenBarrier, Cause, Condition, Connection, Error, Event, Exit, Lock, Mutex, Payload,
    Poison, PoisonError, Process, Queue, RLock, RwLock, Semaphore, TryLockError, Value, pipe,
};
use maniple_sys::testing::Signal;

fn started<A: Payload>(f: fn(A), argument: A) -> Process {
    let process = Process::new(f, argument).unwrap();
    process.start().unwrap();
    process
}

fn ends_well(process: &Process) {
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

fn die() {
    kill_self(Signal::KILL);
}

fn dead(process: &Process) -> Poison {
    assert_eq!(process.join().unwrap(), Exit::Killed(Cause::KILL));
    Poison::Died(process.pid().unwrap())
}

fn poison<G>(error: TryLockError<G>) -> PoisonError<G> {
    match error {
        TryLockError::Poisoned(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn all_of_them_travel_within_one_value_and_are_the_same_there() {
    let _dog = watchdog();
    type All = (Vec<Lock>, (RLock, Semaphore, BoundedSemaphore), (Condition, Event, Barrier, Mutex<i32>));
    let locks: Vec<Lock> = (0..200).map(|_| Lock::new().unwrap()).collect();
    let others = (RLock::new().unwrap(), Semaphore::new(1).unwrap(), BoundedSemaphore::new(1).unwrap());
    let more = (Condition::new().unwrap(), Event::new().unwrap(), Barrier::new(2).unwrap(), Mutex::new(7).unwrap());
    let guards: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
    // Before the process is there, which looks whether they are held.
    let _held = others.0.lock().unwrap();
    let _permit = others.2.acquire().unwrap();
    others.1.acquire();
    let process = started(
        |(locks, (rlock, semaphore, bounded), (condition, event, barrier, mutex)): All| {
            assert!(locks.iter().all(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock))));
            assert!(matches!(rlock.lock_timeout(SHORT), Err(TryLockError::Timeout(_))));
            assert!(semaphore.acquire_timeout(SHORT).is_err() && semaphore.release().is_ok());
            assert!(matches!(bounded.try_acquire(), Err(TryLockError::WouldBlock)));
            assert!(matches!(bounded.release(), Err(Error::Sync(maniple::SyncError::NotHeld))));
            event.wait();
            *mutex.lock().unwrap() += 1;
            condition.notify_all();
            barrier.wait().unwrap();
        },
        (locks.clone(), others.clone(), more.clone()),
    );
    let (condition, event, barrier, mutex) = more;
    others.1.acquire();
    event.set();
    let guard = condition.wait_while(mutex.lock().unwrap(), |value| **value == 7).unwrap();
    assert_eq!(*guard, 8);
    drop(guard);
    barrier.wait().unwrap();
    ends_well(&process);
    drop(guards);
}

#[test]
fn they_are_handles_for_all_threads() {
    fn is<T: Clone + Send + Sync + Payload + std::fmt::Debug>() {}
    is::<(Lock, RLock, Semaphore, BoundedSemaphore)>();
    is::<(Condition, Event, Barrier, Mutex<u8>)>();
    fn goes<T: Send + Sync>() {}
    goes::<maniple::MutexGuard<'_, [u8]>>();
    goes::<maniple::LockGuard<'_>>();
}

#[test]
fn outside_of_maniples_own_ways_they_refuse() {
    let error = postcard::to_stdvec(&Lock::new().unwrap()).unwrap_err();
    assert!(matches!(error, postcard::Error::SerdeSerCustom));
}

#[test]
fn a_dead_holders_lock_goes_to_the_next_who_is_told_until_it_is_cleared() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    let holder = |lock: Lock| {
        std::mem::forget(lock.lock());
        die();
    };
    let died = dead(&started(holder, lock.clone()));
    assert!(lock.is_locked());
    for _ in 0..2 {
        let error = lock.lock().unwrap_err();
        assert_eq!(error.poison(), died);
        assert!(error.to_string().contains("died while it held this lock"), "{error}");
    }
    assert!(matches!(lock.try_lock(), Err(TryLockError::Poisoned(_))));
    assert!(
        matches!(lock.lock().map_err(Error::from), Err(Error::Sync(maniple::SyncError::Poisoned(poison))) if poison == died)
    );
    let guard = poison(lock.lock_timeout(LONG).unwrap_err()).into_inner();
    lock.clear_poison();
    drop(guard);
    assert!(lock.lock().is_ok() && !lock.is_poisoned() && !lock.is_locked());
}

#[test]
fn those_who_wait_when_the_holder_dies_all_get_their_turn() {
    let _dog = watchdog();
    let (value, held) = (Value::new(0u32).unwrap(), Event::new().unwrap());
    let holder = started(
        |(value, held): (Value<u32>, Event)| {
            let mut guard = value.lock().unwrap();
            *guard = 100;
            held.set();
            std::thread::sleep(LONG);
        },
        (value.clone(), held.clone()),
    );
    held.wait();
    assert!(matches!(value.lock_timeout(SHORT), Err(TryLockError::Timeout(_))));
    let heir = |value: Value<u32>| {
        let mut guard = value.lock().unwrap_err().into_inner();
        *guard += 1;
    };
    let heirs = [started(heir, value.clone()), started(heir, value.clone())];
    holder.kill().unwrap();
    let died = dead(&holder);
    heirs.iter().for_each(ends_well);
    let error = value.lock().unwrap_err();
    assert_eq!((error.poison(), **error.get_ref()), (died, 102));
    drop(error);
    assert!(
        matches!(value.get(), Err(Error::Sync(maniple::SyncError::Poisoned(_))))
            && matches!(value.set(1), Err(Error::Sync(maniple::SyncError::Poisoned(_))))
    );
    value.clear_poison();
    assert_eq!(value.get().unwrap(), 102);
}

#[test]
fn a_recursive_lock_is_its_threads_and_survives_it() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    {
        let _outer = lock.lock().unwrap();
        let _inner = lock.lock().unwrap();
        assert_eq!(lock.depth(), 2);
        let other = lock.clone();
        let elsewhere = std::thread::spawn(move || other.try_lock().is_err());
        assert!(elsewhere.join().unwrap());
    }
    assert!(!lock.is_locked());
    let holder = |lock: RLock| {
        std::mem::forget((lock.lock(), lock.lock()));
        die();
    };
    let died = dead(&started(holder, lock.clone()));
    let error = lock.lock().unwrap_err();
    assert_eq!((error.poison(), lock.depth()), (died, 1));
    lock.clear_poison();
    drop(error);
    assert!(lock.lock().is_ok());
}

#[test]
fn a_recursive_lock_that_arrives_twice_is_one() {
    let _dog = watchdog();
    let lock = RLock::new().unwrap();
    let process = started(
        |(one, two): (RLock, RLock)| {
            let _guard = one.lock().unwrap();
            assert_eq!(two.lock_timeout(SHORT).map(|_| two.depth()).unwrap(), 2);
        },
        (lock.clone(), lock.clone()),
    );
    ends_well(&process);
}

#[test]
fn a_lock_that_comes_back_by_a_pipe_is_the_one_that_went() {
    let _dog = watchdog();
    let (here, there) = pipe::<(RLock, Value<u32>)>().unwrap();
    let process = started(
        |there: Connection<(RLock, Value<u32>)>| {
            let (lock, value) = there.recv().unwrap();
            value.set(2).unwrap();
            there.send(&(lock, value)).unwrap();
        },
        there,
    );
    let (lock, value) = (RLock::new().unwrap(), Value::new(1).unwrap());
    let _guard = lock.lock().unwrap();
    here.send(&(lock.clone(), value.clone())).unwrap();
    let (same_lock, same_value) = here.recv().unwrap();
    assert_eq!((same_lock.depth(), value.get().unwrap()), (1, 2));
    *same_value.lock().unwrap() += 1;
    assert_eq!(value.get().unwrap(), 3);
    ends_well(&process);
}

#[test]
fn a_lock_goes_through_a_queue_and_outlives_its_sender() {
    let _dog = watchdog();
    let queue = Queue::<Mutex<[u64; 500]>>::new().unwrap();
    let sender = |queue: Queue<Mutex<[u64; 500]>>| {
        let mutex = Mutex::new([7; 500]).unwrap();
        std::mem::forget(mutex.lock());
        queue.put(&mutex).unwrap();
        die();
    };
    let sender = started(sender, queue.clone());
    let mutex = queue.get().unwrap();
    let died = dead(&sender);
    let error = mutex.lock().unwrap_err();
    assert_eq!((error.poison(), error.get_ref()[499]), (died, 7));
}

#[test]
fn a_panic_poisons_as_it_does_in_the_standard_library() {
    let (mutex, rlock) = (Mutex::new(1).unwrap(), RLock::new().unwrap());
    let (ours, theirs) = ((mutex.clone(), rlock.clone()), std::process::id());
    let panicked = std::thread::spawn(move || {
        let _guards = (ours.0.lock().unwrap(), ours.1.lock().unwrap());
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!(mutex.lock().unwrap_err().poison(), Poison::Panicked(theirs));
    assert_eq!(rlock.lock().unwrap_err().poison(), Poison::Panicked(theirs));
    mutex.clear_poison();
    assert_eq!(*mutex.lock().unwrap(), 1);
}

#[test]
fn a_lock_may_be_given_back_elsewhere() {
    let _dog = watchdog();
    let lock = Lock::new().unwrap();
    std::mem::forget(lock.lock());
    ends_well(&started(|lock: Lock| lock.release().unwrap(), lock.clone()));
    assert!(lock.try_lock().is_ok());
}

#[test]
fn units_of_a_dead_holder_come_back_one_by_one_with_a_word() {
    let _dog = watchdog();
    let bounded = BoundedSemaphore::new(3).unwrap();
    let holder = |bounded: BoundedSemaphore| {
        std::mem::forget((bounded.acquire(), bounded.acquire(), bounded.acquire()));
        die();
    };
    let died = dead(&started(holder, bounded.clone()));
    assert_eq!(bounded.value(), 0);
    let heir = |bounded: BoundedSemaphore| assert!(bounded.acquire().is_err());
    ends_well(&started(heir, bounded.clone()));
    // A lock that the successor released is as any other.
    let one = bounded.acquire().unwrap();
    let others = [bounded.acquire().unwrap_err(), poison(bounded.acquire_timeout(LONG).unwrap_err())];
    assert!(others.iter().all(|error| error.poison() == died));
    assert!(matches!(bounded.acquire_timeout(SHORT), Err(TryLockError::Timeout(_))));
    drop((one, others));
    assert_eq!((bounded.value(), bounded.bound()), (3, 3));
    std::mem::forget(bounded.acquire());
    assert!(bounded.release().is_ok() && bounded.release().is_err());
}

#[test]
fn a_plain_semaphore_only_counts() {
    let _dog = watchdog();
    let semaphore = Semaphore::new(1).unwrap();
    let taker = |semaphore: Semaphore| {
        semaphore.acquire();
        die();
    };
    dead(&started(taker, semaphore.clone()));
    assert!(!semaphore.try_acquire() && semaphore.acquire_timeout(SHORT).is_err());
    semaphore.release().unwrap();
    assert_eq!(semaphore.value(), 1);
}

#[test]
fn a_waiter_gets_its_lock_from_a_notifier_that_died() {
    let _dog = watchdog();
    let (mutex, condition) = (Mutex::new(0).unwrap(), Condition::new().unwrap());
    let guard = mutex.lock().unwrap();
    let notifier = started(
        |(mutex, condition): (Mutex<i32>, Condition)| {
            let mut guard = mutex.lock().unwrap();
            *guard = 1;
            condition.notify_one();
            die();
        },
        (mutex.clone(), condition.clone()),
    );
    let error = condition.wait_while(guard, |value| **value == 0).unwrap_err();
    assert_eq!(error.poison(), dead(&notifier));
    assert_eq!(*error.into_inner(), 1);
}

#[test]
fn killed_waiters_of_a_condition_and_an_event_hold_nobody_up() {
    let _dog = watchdog();
    let (lock, condition, event) = (RLock::new().unwrap(), Condition::new().unwrap(), Event::new().unwrap());
    type All = (RLock, Condition, Event);
    let wait = |(lock, condition, event): All| {
        let waiting = std::thread::spawn({
            let event = event.clone();
            move || event.wait()
        });
        drop(condition.wait(lock.lock().unwrap()).unwrap());
        waiting.join().unwrap();
    };
    let all = || (lock.clone(), condition.clone(), event.clone());
    let killed = started(wait, all());
    eventually("it waits", || format!("{condition:?}").contains("waiting: 1"));
    let living = started(wait, all());
    eventually("both wait", || format!("{condition:?}").contains("waiting: 2"));
    killed.kill().unwrap();
    dead(&killed);
    event.set();
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    condition.notify_all();
    drop(guard);
    ends_well(&living);
}

#[test]
fn a_condition_gives_back_every_depth_and_keeps_time() {
    let (lock, condition) = (RLock::new().unwrap(), Condition::new().unwrap());
    let _outer = lock.lock().unwrap();
    let guard = lock.lock().unwrap();
    let (guard, result) = condition.wait_timeout(guard, SHORT).unwrap();
    assert!(result.timed_out() && lock.depth() == 2);
    drop(guard);
    let plain = Lock::new().unwrap();
    let (_guard, result) = condition.wait_timeout_while(plain.lock().unwrap(), SHORT, |_| true).unwrap();
    assert!(result.timed_out() && plain.is_locked());
    assert_eq!(condition.notify(5), 0);
}

#[test]
fn a_barrier_breaks_when_one_who_waits_is_killed() {
    let _dog = watchdog();
    let barrier = Barrier::new(3).unwrap();
    let wait = |barrier: Barrier| drop(barrier.wait());
    let killed = started(wait, barrier.clone());
    eventually("it waits", || barrier.waiting() == 1);
    let survivor = |barrier: Barrier| {
        let error = barrier.wait().unwrap_err();
        assert!(matches!(error, Error::Sync(maniple::SyncError::BrokenBarrier(BrokenBarrier::Died))), "{error}");
        assert!(error.to_string().contains("a process died"), "{error}");
    };
    let survivor = started(survivor, barrier.clone());
    eventually("both wait", || barrier.waiting() == 2);
    killed.kill().unwrap();
    dead(&killed);
    ends_well(&survivor);
    assert!(matches!(barrier.wait(), Err(Error::Sync(maniple::SyncError::BrokenBarrier(BrokenBarrier::Died)))));
    barrier.reset();
    let others = [started(wait, barrier.clone()), started(wait, barrier.clone())];
    let met = barrier.wait().unwrap();
    assert_eq!(met.index() == 2, met.is_leader());
    others.iter().for_each(ends_well);
}

#[test]
fn a_barriers_time_is_up_for_all() {
    let _dog = watchdog();
    let barrier = Barrier::new(2).unwrap();
    assert!(matches!(barrier.wait_timeout(SHORT), Err(Error::Timeout(_))));
    assert_eq!(barrier.broken(), Some(BrokenBarrier::GivenUp));
    barrier.reset();
    let other = std::thread::spawn({
        let barrier = barrier.clone();
        move || barrier.wait()
    });
    eventually("it waits", || barrier.waiting() == 1);
    barrier.abort();
    assert!(matches!(
        other.join().unwrap(),
        Err(Error::Sync(maniple::SyncError::BrokenBarrier(BrokenBarrier::GivenUp)))
    ));
    assert!(Barrier::new(0).is_err());
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_childs_copy_of_a_guard_is_none() {
    let _dog = watchdog();
    let process = started(
        |()| {
            let (mutex, rlock) = (Mutex::new(0).unwrap(), RLock::new().unwrap());
            let bounded = BoundedSemaphore::new(1).unwrap();
            let (read, written) = (RwLock::new(1).unwrap(), RwLock::new(1).unwrap());
            let guards = (mutex.lock().unwrap(), rlock.lock().unwrap(), bounded.acquire().unwrap());
            let more = (read.read().unwrap(), written.write().unwrap());
            // SAFETY: this process has no other thread. The child has the guards as it would have a variable that goes
            // out of its scope.
            let fork =
                unsafe { Process::builder().fork(|| drop((std::ptr::read(&guards), std::ptr::read(&more)))) }.unwrap();
            assert_eq!(fork.join().unwrap(), Exit::Code(0));
            assert!(mutex.try_lock().is_err() && bounded.value() == 0 && rlock.depth() == 1);
            assert!(read.try_write().is_err() && written.try_read().is_err());
            drop((guards, more));
            assert!(read.try_write().is_ok() && written.try_read().is_ok() && !written.is_poisoned());
        },
        (),
    );
    ends_well(&process);
}

fn mappings() -> usize {
    maniple_sys::testing::shared_memory("maniple-").0
}

#[test]
fn readers_and_a_writer_in_processes_started_in_any_way_take_turns_and_are_told_of_a_death() {
    let _dog = watchdog();
    for method in METHODS {
        let lock = RwLock::new([0u64; 2]).unwrap();
        let run = |f: fn(RwLock<[u64; 2]>)| {
            let process = Process::builder().start_method(method).build(f, lock.clone()).unwrap();
            process.start().unwrap();
            process
        };
        let writers = [(); 2].map(|()| {
            run(|lock| {
                for _ in 0..300 {
                    let mut pair = lock.write().unwrap();
                    pair[0] += 1;
                    pair[1] += 1;
                }
            })
        });
        let readers = [(); 2].map(|()| {
            run(|lock| {
                while lock.read().unwrap()[0] < 600 {
                    let pair = lock.read().unwrap();
                    assert_eq!(pair[0], pair[1]);
                }
            })
        });
        writers.iter().chain(&readers).for_each(ends_well);
        let dies = run(|lock| {
            let _guard = lock.write();
            die();
        });
        let death = dead(&dies);
        let poisoned = lock.read().unwrap_err();
        assert_eq!(poisoned.poison(), death);
        assert_eq!(**poisoned.get_ref(), [600, 600]);
        drop(poisoned);
        lock.clear_poison();
        assert_eq!(*lock.write().unwrap(), [600, 600]);
    }
}

#[test]
fn nothing_is_left_of_them() {
    let _dog = watchdog();
    // In a process of its own: the others have locks as well.
    let process = started(
        |()| {
            let use_them = || {
                let (mutex, big) = (Mutex::new(0u64).unwrap(), Mutex::new([0u8; 100_000]).unwrap());
                let (bounded, barrier) = (BoundedSemaphore::new(9).unwrap(), Barrier::new(20).unwrap());
                let all = (mutex.clone(), big.clone(), bounded.clone(), barrier.clone());
                let killed = started(
                    |(mutex, big, bounded, barrier): (Mutex<u64>, Mutex<[u8; 100_000]>, BoundedSemaphore, Barrier)| {
                        std::mem::forget((mutex.lock(), big.lock(), bounded.acquire()));
                        std::thread::spawn(move || barrier.wait());
                        die();
                    },
                    all,
                );
                eventually("it holds them", || bounded.value() == 8);
                killed.kill().unwrap();
                dead(&killed);
                assert!(mutex.lock().is_err() && big.lock().is_err());
            };
            use_them();
            let before = (descriptors(), mappings());
            (0..3).for_each(|_| use_them());
            assert_eq!((descriptors(), mappings()), before);
            assert_eq!(mappings(), 0);
        },
        (),
    );
    ends_well(&process);
}
