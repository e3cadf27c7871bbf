//! What a pool does while this process lacks descriptors: it goes on with what it has, and is whole again afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use maniple::{Error, Pool};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::time::Duration;
use support::{METHODS, apart, eventually, pool, watchdog};

/// The processes of a pool of two.
fn workers(pool: &Pool) -> Vec<u32> {
    let pid = |()| {
        std::thread::sleep(Duration::from_millis(20));
        std::process::id()
    };
    let mut pids = pool.chunksize(1).map(pid, [(); 8]).unwrap();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Takes all descriptors that there are.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn few_files() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(96), maximum: Some(96) }).unwrap();
}

#[test]
fn the_other_workers_go_on_and_the_lost_one_is_replaced_later() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            let pool = pool(method, 2);
            let before = workers(&pool);
            few_files();
            let files = take_all();
            let busy = pool
                .apply_async(
                    |()| {
                        std::thread::sleep(Duration::from_millis(1200));
                        5u8
                    },
                    (),
                )
                .unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            // Much longer than any number of starts in vain takes.
            std::thread::sleep(Duration::from_millis(700));
            assert_eq!(busy.get().unwrap(), 5);
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
            drop(files);
            eventually("there are two workers again", || workers(&pool).len() == 2);
            assert!(before.iter().any(|pid| workers(&pool).contains(pid)), "the healthy one was ended");
        }
    });
}

#[test]
fn a_pool_without_any_worker_waits_for_descriptors() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            let pool = pool(method, 1);
            assert_eq!(pool.apply(u64::count_ones, 7).unwrap(), 3);
            few_files();
            let files = take_all();
            let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
            assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
            let waits = pool.apply_async(u64::count_ones, 15).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            assert!(!waits.ready());
            drop(files);
            assert_eq!(waits.get().unwrap(), 4);
            assert_eq!(pool.map(u64::count_ones, 0..5).unwrap(), [0, 1, 1, 2, 1]);
        }
    });
}

#[test]
fn a_pool_that_nobody_wants_any_more_ends_without_descriptors() {
    let _dog = watchdog();
    apart(|()| {
        for method in METHODS {
            for terminated in [false, true] {
                few_files();
                let pool = pool(method, 2);
                let _files = take_all();
                let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
                assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
                if terminated {
                    pool.terminate();
                }
                pool.join();
            }
        }
    });
}

#[test]
fn what_never_comes_back_is_an_error_in_the_end() {
    let _dog = watchdog();
    apart(|()| {
        let pool = Pool::new(1).unwrap();
        few_files();
        let _files = take_all();
        let lost = pool.apply(|()| std::process::abort(), ()).map(|()| "never");
        assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
        let error = pool.apply(u64::count_ones, 7).unwrap_err();
        assert!(matches!(&error, Error::Start(why) if why.contains("Too many open files")), "{error}");
    });
}
