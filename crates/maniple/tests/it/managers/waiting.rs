//! Waits for locks and queues of a manager: what a client that is killed held or waited for.

use super::{child, is_late, server_is_back_to, usage_of};
use crate::support::{LONG, SHORT, eventually, watchdog};
use maniple::managers::{Barrier, Condition, Event, Lock, ManagerError, Queue, Semaphore, is_caller_gone};
use maniple::{Error, Manager, Proxy};
use std::sync::Mutex;
use std::time::Duration;

#[test]
fn a_wait_keeps_only_its_caller_waiting_and_ends_in_time() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let queue = manager.queue::<u32>(2).unwrap();
    assert_eq!(queue.get_timeout(SHORT).unwrap(), None);
    std::thread::scope(|scope| {
        let getters: Vec<_> = (0..3).map(|_| scope.spawn(|| queue.get().unwrap())).collect();
        for item in 0..3 {
            queue.put(&item).unwrap();
        }
        let mut got: Vec<u32> = getters.into_iter().map(|getter| getter.join().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
        // Full: those who put wait for those who get.
        let putter = scope.spawn(|| (0..10).for_each(|item| queue.put(&item).unwrap()));
        assert_eq!((0..10).map(|_| queue.get().unwrap()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        putter.join().unwrap();
    });
    assert!(queue.try_put(&1).unwrap() && queue.try_put(&2).unwrap() && is_late(queue.put_timeout(&3, SHORT)));
    for _ in 0..15 {
        queue.task_done().unwrap();
    }
    queue.join().unwrap();
    assert!(matches!(queue.task_done(), Err(Error::Manager(ManagerError::TaskDoneTooOften))));

    let lock = manager.lock().unwrap();
    let held = lock.lock().unwrap();
    assert!(matches!(lock.lock(), Err(Error::Manager(ManagerError::WouldDeadlock))));
    assert!(matches!(lock.lock_timeout(LONG), Err(Error::Manager(ManagerError::WouldDeadlock))));
    // A try does not wait, and cannot wait for itself.
    assert!(lock.try_lock().unwrap().is_none());
    let again = manager.rlock().unwrap();
    let (_outer, inner) = (again.lock().unwrap(), again.try_lock().unwrap());
    assert!(inner.is_some());
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(is_late(lock.lock_timeout(SHORT)))).join().unwrap();
        let waiter = scope.spawn(|| lock.lock().unwrap().is_abandoned());
        std::thread::sleep(SHORT);
        held.release().unwrap();
        assert!(!waiter.join().unwrap());
    });
    let (semaphore, event) = (manager.bounded_semaphore(1).unwrap(), manager.event().unwrap());
    let permit = semaphore.acquire().unwrap();
    assert!(is_late(semaphore.acquire_timeout(SHORT)));
    assert!(matches!(semaphore.release(1), Err(Error::Manager(ManagerError::ReleasedTooOften))));
    drop(permit);
    assert_eq!(semaphore.value().unwrap(), 1);
    assert!(is_late(event.wait_timeout(SHORT)) && !event.is_set().unwrap());
    let condition = manager.condition().unwrap();
    let mut guard = condition.lock().unwrap();
    assert!(is_late(guard.wait_timeout(SHORT)));
    assert!(is_late(guard.wait_timeout_while(SHORT, || Ok(true))));
    drop(guard);
    let barrier = manager.barrier(2).unwrap();
    assert!(matches!(barrier.wait_timeout(SHORT), Err(Error::Manager(ManagerError::BrokenBarrier))));
    assert!(matches!(barrier.wait(), Err(Error::Manager(ManagerError::BrokenBarrier))));
    barrier.reset().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| barrier.wait().unwrap());
        assert_eq!(barrier.wait().unwrap().index() + other.join().unwrap().index(), 1);
    });
}

#[test]
fn what_a_killed_process_held_is_given_back_and_the_next_is_told() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let (lock, condition) = (manager.lock().unwrap(), manager.condition().unwrap());
    let (semaphore, ready) = (manager.semaphore(3).unwrap(), manager.event().unwrap());
    let process = child(
        |(lock, condition, semaphore, ready): (Lock, Condition, Semaphore, Event)| {
            let _held = (lock.lock().unwrap(), condition.lock().unwrap(), condition.lock().unwrap());
            let _permits = (semaphore.acquire().unwrap(), semaphore.acquire().unwrap());
            semaphore.acquire().unwrap().forget().unwrap();
            ready.set().unwrap();
            std::thread::sleep(LONG);
        },
        (lock.clone(), condition.clone(), semaphore.clone(), ready.clone()),
    );
    ready.wait().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    assert_eq!(semaphore.value().unwrap(), 0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| lock.lock().unwrap().is_abandoned());
        let permit = scope.spawn(|| drop(semaphore.acquire().unwrap()));
        let other = scope.spawn(|| condition.lock().unwrap().is_abandoned());
        std::thread::sleep(SHORT);
        process.kill().unwrap();
        assert!(waiter.join().unwrap() && other.join().unwrap());
        permit.join().unwrap();
    });
    assert!(!lock.lock().unwrap().is_abandoned());
    eventually("the permits are back but the one that was forgotten", || semaphore.value().unwrap() == 2);
}

#[test]
fn a_thread_that_ends_with_a_lock_gives_it_back() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let lock = manager.lock().unwrap();
    let forgetful = lock.clone();
    std::thread::spawn(move || std::mem::forget(forgetful.lock().unwrap())).join().unwrap();
    assert!(lock.lock().unwrap().is_abandoned());
    assert!(!lock.lock().unwrap().is_abandoned());
}

#[test]
fn whoever_is_killed_while_it_waits_takes_nothing_along() {
    let _dog = watchdog();
    let manager = Manager::new().unwrap();
    let server = manager.pid().unwrap();
    let (queue, lock) = (manager.queue::<u32>(0).unwrap(), manager.lock().unwrap());
    let (condition, barrier) = (manager.condition().unwrap(), manager.barrier(2).unwrap());
    let (event, waiting) = (manager.event().unwrap(), manager.semaphore(0).unwrap());
    lock.try_lock().unwrap();
    let before = usage_of(server);
    let held = lock.lock().unwrap();
    type All = (Queue<u32>, Lock, Condition, Barrier, Event, Semaphore);
    let process = child(
        |(queue, lock, condition, barrier, event, waiting): All| {
            let begin = || waiting.release(1).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| (begin(), queue.get().unwrap()));
                scope.spawn(|| (begin(), drop(lock.lock().unwrap())));
                scope.spawn(|| (begin(), barrier.wait().unwrap()));
                scope.spawn(|| (begin(), event.wait().unwrap()));
                scope.spawn(|| {
                    let mut guard = condition.lock().unwrap();
                    begin();
                    guard.wait().unwrap();
                });
            });
        },
        (queue.clone(), lock.clone(), condition.clone(), barrier.clone(), event.clone(), waiting.clone()),
    );
    for _ in 0..5 {
        waiting.acquire().unwrap().forget().unwrap();
    }
    eventually("it waits at the barrier", || barrier.waiting().unwrap() == 1);
    // The condition's lock is free: its owner waits for a call.
    drop(condition.lock().unwrap());
    std::thread::sleep(SHORT);
    process.kill().unwrap();
    process.join().unwrap();
    eventually("the barrier is broken", || barrier.is_broken().unwrap());
    server_is_back_to(server, before);
    queue.put(&5).unwrap();
    assert_eq!(queue.try_get().unwrap(), Some(5));
    drop(held);
    assert!(!lock.lock().unwrap().is_abandoned());
    let guard = condition.lock().unwrap();
    guard.notify_all().unwrap();
}

#[test]
fn a_function_of_ones_own_can_see_that_its_caller_is_gone() {
    let _dog = watchdog();
    fn wait(state: &Mutex<bool>, (): ()) {
        *state.lock().unwrap() = true;
        while !is_caller_gone() {
            std::thread::sleep(Duration::from_millis(1));
        }
        *state.lock().unwrap() = false;
    }
    let manager = Manager::new().unwrap();
    let waits = manager.serve(|()| Mutex::new(false), ()).unwrap();
    let process = child(|waits: Proxy<Mutex<bool>>| waits.call(wait, ()), waits.clone());
    let is_waiting = || waits.call(|state, ()| *state.lock().unwrap(), ()).unwrap();
    eventually("it waits", is_waiting);
    process.kill().unwrap();
    eventually("it sees", || !is_waiting());
}
