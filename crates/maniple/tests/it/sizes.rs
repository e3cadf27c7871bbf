//! The number of a pool's workers: changed, following the work, with spare workers.

use crate::support::{Folder, METHODS, begin_and_wait, eventually, exists, let_go, pool, wait_for_begin, watchdog};
use maniple::{CallError, CallOptions, Error, JobHandle, Pool, PoolBuilder, ProcessError, StartMethod};
use maniple_sys::testing::{self, Signal};
use std::collections::HashSet;
use std::time::Duration;

const SHORT_IDLE: Duration = Duration::from_millis(50);

fn elastic(method: StartMethod, least: usize, most: usize) -> PoolBuilder {
    Pool::builder().processes(most).start_method(method).min_processes(least).idle_timeout(SHORT_IDLE)
}

/// Calls that occupy so many workers, and have begun.
fn occupy(pool: &Pool, folder: &Folder, count: u32) -> Vec<JobHandle<u32>> {
    let call = |number| pool.apply_async(begin_and_wait, (folder.to_path_buf(), number)).unwrap();
    let calls = (0..count).map(call).collect();
    (0..count).for_each(|number| wait_for_begin(folder, number));
    calls
}

fn finish(calls: Vec<JobHandle<u32>>, folder: &Folder) {
    let_go(folder);
    let count = calls.len() as u32;
    assert!(calls.into_iter().map(|call| call.get().unwrap()).eq(0..count));
    std::fs::remove_file(folder.join("go")).unwrap();
    (0..count).for_each(|number| std::fs::remove_file(folder.join(format!("begun {number}"))).unwrap());
}

fn refused<T: std::fmt::Debug>(result: maniple::Result<T>, why: &str) {
    assert!(matches!(&result, Err(Error::InvalidArgument(text)) if text.contains(why)), "{result:?} without {why}");
}

fn nap(n: u32) -> u32 {
    std::thread::sleep(Duration::from_millis(2));
    n
}

#[test]
fn a_pool_grows_and_shrinks() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        for size in [4, 2, 3, 1] {
            pool.resize(size).unwrap();
            eventually("the pool has the size", || pool.pids().len() == size);
            let calls = occupy(&pool, &folder, size as u32);
            finish(calls, &folder);
        }
    }
}

#[test]
fn a_resize_while_busy_loses_nothing() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 4), Folder::new());
        let many = pool.with(CallOptions::new().chunksize(1)).map_async(nap, 0..300).unwrap();
        for size in [1, 5, 2, 4, 3] {
            pool.resize(size).unwrap();
        }
        assert!(many.get().unwrap().into_iter().eq(0..300));
        eventually("the pool has the size", || pool.pids().len() == 3);
        // Busy workers end after their tasks.
        let calls = occupy(&pool, &folder, 3);
        pool.resize(1).unwrap();
        finish(calls, &folder);
        eventually("the pool has the size", || pool.pids().len() == 1);
        assert_eq!(pool.apply(nap, 7).unwrap(), 7);
    }
}

#[test]
fn a_resize_while_workers_die_reaches_the_size() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 3);
        for size in [5, 2, 4] {
            let dying = pool.try_map_async(nap, 0..100).unwrap();
            pool.resize(size).unwrap();
            for pid in pool.pids() {
                // A surplus worker may have ended.
                let _ = testing::kill(pid, Signal::KILL);
            }
            assert_eq!(dying.get().unwrap().len(), 100);
            eventually("the pool has the size", || {
                let pids = pool.pids();
                pids.len() == size && pids.into_iter().all(exists)
            });
            assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
        }
    }
}

#[test]
fn a_resize_of_an_ended_pool_is_an_error() {
    let _dog = watchdog();
    let ends: [fn(&Pool); 2] = [Pool::close, Pool::terminate];
    for end in ends {
        let pool = Pool::new(1).unwrap();
        end(&pool);
        let error = pool.resize(2).unwrap_err();
        assert!(matches!(error, Error::Call(CallError::NotRunning)), "{error:?}");
        pool.join();
        assert!(pool.pids().is_empty());
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let _dog = watchdog();
    let builder = Pool::builder;
    refused(builder().processes(0).build(), "a pool of 0 workers");
    refused(builder().processes(2).min_processes(3).build(), "more min_processes than processes");
    refused(builder().min_processes(0).idle_timeout(Duration::ZERO).build(), "idle_timeout of 0");
    refused(builder().idle_timeout(SHORT_IDLE).build(), "without min_processes");
    let impossible = |result: maniple::Result<()>| {
        let too_many = matches!(&result, Err(Error::Process(ProcessError::Start(why))) if why.contains("workers"));
        assert!(too_many, "{result:?}");
    };
    for most in [10_000_000, usize::MAX] {
        impossible(builder().processes(most).build().map(drop));
        impossible(builder().processes(1).spare_workers(most).build().map(drop));
        impossible(builder().processes(most).min_processes(0).build().map(drop));
    }
    let pool = builder().processes(3).min_processes(2).build().unwrap();
    refused(pool.resize(0), "a pool of 0 workers");
    refused(pool.resize(1), "more min_processes than processes");
    impossible(pool.resize(10_000_000));
    impossible(pool.resize(usize::MAX));
    assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
    // The pool has kept its size.
    let folder = Folder::new();
    finish(occupy(&pool, &folder, 3), &folder);
}

#[test]
fn the_size_follows_the_work() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (elastic(method, 1, 3).build().unwrap(), Folder::new());
        assert_eq!(pool.pids().len(), 1);
        for _ in 0..2 {
            let calls = occupy(&pool, &folder, 3);
            eventually("three workers are known", || pool.pids().len() == 3);
            finish(calls, &folder);
            eventually("idle workers end", || pool.pids().len() == 1);
        }
    }
}

#[test]
fn a_pool_may_begin_without_workers() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = elastic(method, 0, 2).build().unwrap();
        for _ in 0..2 {
            eventually("no worker is left", || pool.pids().is_empty());
            assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
        }
        pool.join();
    }
}

#[test]
fn a_resized_pool_still_follows_the_work() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (elastic(method, 2, 4).build().unwrap(), Folder::new());
        // As many as `min_processes`, and more again.
        pool.resize(2).unwrap();
        finish(occupy(&pool, &folder, 2), &folder);
        pool.resize(3).unwrap();
        let calls = occupy(&pool, &folder, 3);
        finish(calls, &folder);
        eventually("the idle worker ends", || pool.pids().len() == 2);
        finish(occupy(&pool, &folder, 3), &folder);
    }
}

#[test]
fn a_spare_worker_takes_the_place_of_one_that_ends() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = Pool::builder().processes(1).start_method(method).spare_workers(1).build().unwrap();
        let pids: HashSet<u32> = pool.pids().into_iter().collect();
        assert_eq!(pids.len(), 2);
        let pid = |_: u8| std::process::id();
        // Only the one works.
        let first = pool.apply(pid, 0).unwrap();
        assert_eq!(pool.map(pid, [0; 20]).unwrap(), [first; 20]);
        eventually("the spare worker is ready", || pool.pids().len() == 2);
        testing::kill(first, Signal::KILL).unwrap();
        eventually("the worker has ended", || !exists(first));
        eventually("another spare worker is started", || pool.pids().len() == 2 && !pool.pids().contains(&first));
        assert!(pool.apply(pid, 0).unwrap() != first);
    }
}

#[test]
fn a_pool_with_a_time_limit_has_a_spare_worker() {
    let _dog = watchdog();
    let limit = Duration::from_secs(100);
    let size = |builder: PoolBuilder| builder.processes(1).build().unwrap().pids().len();
    assert_eq!(size(Pool::builder()), 1);
    assert_eq!(size(Pool::builder().task_timeout(limit)), 2);
    assert_eq!(size(Pool::builder().task_timeout(limit).spare_workers(0)), 1);
    assert_eq!(size(Pool::builder().task_timeout(Duration::MAX)), 1);
    assert_eq!(size(Pool::builder().task_timeout(limit).spare_workers(2).min_processes(1)), 1);
}
