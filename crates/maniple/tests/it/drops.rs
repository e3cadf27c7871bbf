//! No drop waits without end, also if the other process does not respond, and nothing is left when that process ends.

use crate::support::{LONG, eventually, exists, is_listed, watchdog};
use maniple::{Manager, Process, pipe};
use maniple_sys::testing::{self, Signal};
use std::time::Duration;

#[test]
fn a_busy_process_goes_on_when_its_last_handle_is_dropped_and_is_no_zombie_at_its_end() {
    let _alive = watchdog();
    let (ours, theirs) = pipe::<u8>().unwrap();
    let process = Process::new(|line: maniple::Connection<u8>| line.recv().map(i32::from), theirs).unwrap();
    process.start().unwrap();
    let pid = process.pid().unwrap();
    drop(process);
    assert!(exists(pid));
    ours.send(&0).unwrap();
    eventually("the process is reaped", || !is_listed(pid));
}

#[test]
fn a_guard_and_a_manager_are_dropped_while_the_server_is_stopped() {
    let _alive = watchdog();
    let manager = Manager::new().unwrap();
    let lock = manager.lock().unwrap();
    let guard = lock.lock().unwrap();
    let pid = manager.pid().unwrap();
    testing::kill(pid, Signal::STOP).unwrap();
    drop(guard);
    drop(lock);
    drop(manager);
    assert!(!is_listed(pid));
}

#[test]
fn a_lock_whose_guard_was_dropped_while_the_server_was_stopped_is_free() {
    let _alive = watchdog();
    let manager = Manager::new().unwrap();
    let (lock, semaphore) = (manager.lock().unwrap(), manager.semaphore(1).unwrap());
    let (guard, permit) = (lock.lock().unwrap(), semaphore.acquire().unwrap());
    let pid = manager.pid().unwrap();
    testing::kill(pid, Signal::STOP).unwrap();
    drop(guard);
    drop(permit);
    testing::kill(pid, Signal::CONT).unwrap();
    assert!(lock.lock_timeout(LONG).is_ok());
    assert!(semaphore.acquire_timeout(LONG).is_ok());
}

#[test]
fn proxies_are_dropped_while_another_thread_waits_for_a_stopped_server_and_are_told_of_later() {
    let _alive = watchdog();
    let manager = Manager::new().unwrap();
    let kept = manager.list::<u8>().unwrap();
    let lists: Vec<_> = (0..2000).map(|_| manager.list::<u8>().unwrap()).collect();
    let pid = manager.pid().unwrap();
    testing::kill(pid, Signal::STOP).unwrap();
    std::thread::scope(|scope| {
        // Makes another object, and waits for the answer.
        let waits = scope.spawn(|| manager.list::<u8>().map(drop));
        std::thread::sleep(Duration::from_millis(50));
        drop(lists);
        testing::kill(pid, Signal::CONT).unwrap();
        waits.join().unwrap().unwrap();
    });
    kept.push(&1).unwrap();
    assert_eq!(kept.to_vec().unwrap(), [1]);
}
