//! The counters of a pool: accounts, workers, and the table.

use crate::support::{Folder, METHODS, begin_and_wait, eventually, kill_self, let_go, pool, wait_for_begin, watchdog};
use maniple::{CallOptions, Error, Pool, PoolStats, Retries, WorkerState};
use maniple_sys::testing::Signal;
use std::time::Duration;

/// Checks that each received task counts once, and returns the numbers of ended tasks.
fn ends(stats: &PoolStats) -> [u64; 5] {
    let ends =
        [stats.tasks_completed, stats.tasks_failed, stats.tasks_lost, stats.tasks_timed_out, stats.tasks_cancelled];
    assert_eq!(stats.tasks_received, ends.iter().sum::<u64>() + stats.tasks_waiting + stats.tasks_running, "{stats}");
    ends
}

fn ends_of(pool: &Pool) -> [u64; 5] {
    ends(&pool.stats().unwrap())
}

fn square(x: u64) -> u64 {
    x * x
}

fn odd_panics(x: u64) -> u64 {
    assert!(x.is_multiple_of(2), "odd");
    x
}

fn die(_: u8) -> u8 {
    kill_self(Signal::KILL);
    0
}

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn single() -> CallOptions {
    CallOptions::new().chunksize(1)
}

/// The end of a function's name in texts: on Windows it is the type.
fn end_of_name(name: &'static str, type_name: &'static str) -> &'static str {
    if cfg!(windows) { type_name } else { name }
}

#[test]
fn tasks_count_by_their_ends() {
    let _watchdog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        assert_eq!(pool.stats().unwrap().tasks_received, 0);
        pool.with(single()).map(square, 0..100).unwrap();
        pool.map(square, 0..1000).unwrap();
        let stats = pool.stats().unwrap();
        assert_eq!((stats.items_done, stats.items_pending, stats.tasks_failed), (1100, 0, 0));
        assert_eq!(stats.running.count, stats.tasks_completed);
        assert!(stats.running.p50 <= stats.running.p99 && stats.running.p99 <= stats.running.max, "{stats}");
        let before = stats.tasks_completed;
        assert!(pool.with(single()).try_map(odd_panics, 0..10).is_ok());
        assert!(matches!(pool.apply(die, 1), Err(Error::WorkerLost(_))));
        let limited = CallOptions::new().task_timeout(Duration::from_millis(100));
        assert!(matches!(pool.with(limited).apply(nap, 60_000), Err(Error::TaskTimeout(_))));
        assert_eq!(ends_of(&pool), [before + 5, 5, 1, 1, 0]);
        let stats = pool.stats().unwrap();
        assert_eq!(stats.workers.iter().map(|w| (w.tasks_lost, w.tasks_timed_out)).fold((0, 0), add), (1, 1));
        assert!(stats.slowest[0].duration >= Duration::from_millis(100), "{stats}");
        assert!(
            stats.slowest.iter().any(|slow| slow.function.ends_with(end_of_name("nap", "fn(u64) -> u64"))),
            "{stats}"
        );
        let text = stats.to_string();
        assert!(text.contains("1 lost, 1 timed out") && text.contains("worker"), "{text}");
        eventually("new workers", || pool.stats().unwrap().workers_idle == 2);
        assert_eq!(pool.stats().unwrap().workers_created, 4);
    }
}

fn add(one: (u64, u64), two: (u64, u64)) -> (u64, u64) {
    (one.0 + two.0, one.1 + two.1)
}

#[test]
fn statistics_show_what_workers_do() {
    let _watchdog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 2), Folder::new());
        let calls: Vec<_> =
            (0..5).map(|number| pool.apply_async(begin_and_wait, (folder.to_path_buf(), number)).unwrap()).collect();
        (0..2).for_each(|number| wait_for_begin(&folder, number));
        std::thread::sleep(Duration::from_millis(30));
        let stats = pool.stats().unwrap();
        assert_eq!((stats.tasks_running, stats.tasks_waiting, stats.workers_busy), (2, 3, 2), "{stats}");
        for worker in &stats.workers {
            assert_eq!(worker.state, WorkerState::Busy);
            let name = end_of_name("begin_and_wait", "fn((std::path::PathBuf, u32)) -> u32");
            assert!(worker.task.ends_with(name), "{stats}");
            assert!(worker.task_time >= Duration::from_millis(30) && worker.memory > 100_000, "{stats}");
        }
        let_go(&folder);
        assert!(calls.into_iter().map(|call| call.get().unwrap()).eq(0..5));
        assert_eq!(ends_of(&pool), [5, 0, 0, 0, 0]);
        pool.join();
        let stats = pool.stats().unwrap();
        assert_eq!((ends(&stats), stats.workers_alive), ([5, 0, 0, 0, 0], 0));
        assert!(stats.workers.iter().all(|worker| worker.state == WorkerState::Ended));
        assert_eq!(stats.workers.iter().map(|worker| worker.tasks_completed).sum::<u64>(), 5);
    }
}

#[test]
fn a_task_that_is_tried_again_counts_once() {
    let _watchdog = watchdog();
    let pool = pool(METHODS[0], 1);
    let options = CallOptions::new().retries(Retries::new(2));
    assert!(pool.with(options).apply(die, 1).is_err());
    let stats = pool.stats().unwrap();
    assert_eq!((ends(&stats), stats.tasks_retried, stats.tasks_launched), ([0, 0, 1, 0, 0], 2, 3));
    assert_eq!(stats.workers[0].tasks_lost, 3);
}

#[test]
fn the_accounts_balance_while_tasks_run_and_after_the_end() {
    let _watchdog = watchdog();
    let pool = pool(METHODS[0], 2);
    let job = pool.with(single()).map_async(square, 0..50_000).unwrap();
    let mut before = 0;
    while !job.is_finished() {
        let stats = pool.stats().unwrap();
        let ended = ends(&stats).iter().sum();
        assert!(ended >= before && stats.tasks_running <= 2, "{stats}");
        assert_eq!(ended + stats.tasks_waiting + stats.tasks_running + stats.items_pending, 50_000, "{stats}");
        before = ended;
    }
    assert_eq!(job.get().unwrap().len(), 50_000);
    let endless = pool.apply_async(nap, 60_000).unwrap();
    let waits = pool.apply_async(nap, 60_000).unwrap();
    let never = pool.apply_async(nap, 60_000).unwrap();
    never.cancel();
    eventually("both run", || pool.stats().unwrap().tasks_running == 2);
    pool.terminate();
    assert_eq!(ends_of(&pool), [50_000, 0, 0, 0, 3]);
    assert!(endless.get().is_err() && waits.get().is_err() && never.get().is_err());
}
