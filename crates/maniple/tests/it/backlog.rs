//! The backlog: calls of one item that wait for a worker, with a limit.

use crate::support::{Folder, METHODS, SHORT, begin_and_wait, block_on, eventually, let_go, wait_for_begin, watchdog};
use maniple::{BacklogFull, CallError, CallOptions, Error, JobHandle, Pool, PoolBuilder, StartMethod};
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Wake};

fn limited(method: StartMethod, most: usize) -> PoolBuilder {
    Pool::builder().processes(1).start_method(method).max_backlog(most)
}

fn is_full<T>(result: &maniple::Result<T>, most: usize) -> bool {
    matches!(result, Err(Error::Call(CallError::BacklogFull { max_backlog })) if *max_backlog == most)
}

fn is_closed<T>(result: &maniple::Result<T>) -> bool {
    matches!(result, Err(Error::Call(CallError::NotRunning)))
}

/// Keeps the only worker busy, and fills the backlog.
fn fill(pool: &Pool, folder: &Folder, most: usize) -> Vec<JobHandle<u32>> {
    let item = |number| (folder.to_path_buf(), number);
    let mut calls = vec![pool.apply_async(begin_and_wait, item(0)).unwrap()];
    wait_for_begin(folder, 0);
    for number in 1.. {
        match pool.try_apply_async(begin_and_wait, item(number)) {
            Ok(call) => calls.push(call),
            error => {
                assert!(is_full(&error, most), "{error:?}");
                break;
            }
        }
    }
    assert!(calls.len() > most);
    calls
}

fn values(calls: Vec<JobHandle<u32>>) -> Vec<u32> {
    calls.into_iter().map(|call| call.get().unwrap()).collect()
}

#[test]
fn a_call_fails_when_the_backlog_is_full() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (limited(method, 2).build().unwrap(), Folder::new());
        let calls = fill(&pool, &folder, 2);
        let with = |most, full| pool.with(CallOptions::new().max_backlog(most).backlog_full(full));
        let failing = with(2, BacklogFull::Fail);
        assert!(is_full(&failing.apply(u32::count_ones, 7), 2));
        assert!(is_full(&failing.apply_async(u32::count_ones, 7), 2));
        #[cfg(feature = "macros")]
        assert!(is_full(&failing.apply_named::<u32, u32>("crate::any", 7), 2));
        assert!(is_full(&block_on(failing.submit_async(u32::count_ones, 7)), 2));
        assert!(is_full(&pool.try_apply_async(u32::count_ones, 7), 2));
        let error = pool.try_apply_async(u32::count_ones, 7).unwrap_err();
        assert_eq!(error.to_string(), "2 calls of the pool wait for a worker already (max_backlog)");
        // A call has a limit of its own, and calls of several items have none.
        let more = with(usize::MAX, BacklogFull::Fail).apply_async(u32::count_ones, 7).unwrap();
        let many = failing.map_async(u32::count_ones, 0..10).unwrap();
        let_go(&folder);
        assert_eq!((more.get().unwrap(), many.get().unwrap().len()), (3, 10));
        let count = calls.len() as u32;
        assert_eq!(values(calls), Vec::from_iter(0..count));
        // There is room again.
        assert_eq!(failing.apply(u32::count_ones, 7).unwrap(), 3);
    }
}

#[test]
fn a_call_blocks_until_there_is_room() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (limited(method, 1).build().unwrap(), Folder::new());
        let calls = fill(&pool, &folder, 1);
        std::thread::scope(|scope| {
            let (told, submitted) = channel();
            for _ in 0..3 {
                let (pool, told) = (&pool, told.clone());
                scope.spawn(move || {
                    let call = pool.apply_async(u32::count_ones, 7).unwrap();
                    told.send(()).unwrap();
                    assert_eq!(call.get().unwrap(), 3);
                });
            }
            assert_eq!(submitted.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
            let_go(&folder);
            for _ in 0..3 {
                submitted.recv().unwrap();
            }
        });
        values(calls);
    }
}

#[test]
fn many_calls_pass_through_a_small_backlog() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = Pool::builder().processes(2).start_method(method).max_backlog(3).build().unwrap();
        std::thread::scope(|scope| {
            let submit = || {
                let calls: Vec<_> = (0..500u32).map(|n| pool.apply_async(u32::count_ones, n).unwrap()).collect();
                assert!(values(calls).into_iter().eq((0..500).map(u32::count_ones)));
            };
            (0..4).for_each(|_| drop(scope.spawn(submit)));
            block_on(async {
                for n in 0..500 {
                    let call = pool.submit_async(u32::count_ones, n).await.unwrap();
                    assert_eq!(call.await.unwrap(), n.count_ones());
                }
            });
        });
    }
}

#[test]
fn a_backlog_empties_while_workers_die() {
    let _dog = watchdog();
    fn die_or_count(n: u32) -> u32 {
        if n.is_multiple_of(10) {
            std::process::exit(3);
        }
        n.count_ones()
    }
    for method in METHODS {
        let pool = Pool::builder().processes(2).start_method(method).max_backlog(2).build().unwrap();
        let check = |n: u32, result: maniple::Result<u32>| match result {
            Ok(ones) => assert_eq!(ones, n.count_ones()),
            Err(Error::WorkerLost(_)) => assert_eq!(n % 10, 0),
            Err(error) => panic!("{error:?}"),
        };
        let calls: Vec<_> = (1..60).map(|n| (n, pool.apply_async(die_or_count, n).unwrap())).collect();
        calls.into_iter().for_each(|(n, call)| check(n, call.get()));
        for n in 1..30 {
            check(n, block_on(async { pool.submit_async(die_or_count, n).await.unwrap().await }));
        }
    }
}

#[test]
fn the_end_of_the_pool_ends_the_wait_for_room() {
    let _dog = watchdog();
    let ends: [fn(&Pool); 2] = [Pool::terminate, Pool::close];
    for method in METHODS {
        for end in ends {
            let (pool, folder) = (limited(method, 1).build().unwrap(), Folder::new());
            let calls = fill(&pool, &folder, 1);
            std::thread::scope(|scope| {
                let (told, ended) = channel();
                for number in 0..3 {
                    let (pool, told) = (&pool, told.clone());
                    scope.spawn(move || {
                        let call = match number {
                            0 => block_on(pool.submit_async(u32::count_ones, 7)),
                            _ => pool.apply_async(u32::count_ones, 7),
                        };
                        told.send(is_closed(&call)).unwrap();
                    });
                }
                assert_eq!(ended.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
                end(&pool);
                for _ in 0..3 {
                    assert!(ended.recv().unwrap());
                }
            });
            assert!(is_closed(&pool.try_apply_async(u32::count_ones, 7)));
            let_go(&folder);
            drop(calls);
        }
    }
}

#[test]
fn a_pool_without_workers_ends_the_wait_for_room() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        // Until the file exists, the initializer waits; then it fails in every worker.
        let pool = limited(method, 1)
            .initializer(
                |folder| {
                    begin_and_wait((folder, 0));
                    panic!("no worker gets ready")
                },
                folder.to_path_buf(),
            )
            .build()
            .unwrap();
        wait_for_begin(&folder, 0);
        let first = pool.apply_async(u32::count_ones, 7).unwrap();
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| pool.apply(u32::count_ones, 7));
            let_go(&folder);
            for result in [first.get(), blocked.join().unwrap()] {
                assert!(matches!(result, Err(Error::Call(CallError::Initializer(_)))), "{result:?}");
            }
        });
    }
}

#[test]
fn cancelled_calls_do_not_count() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (limited(method, 2).build().unwrap(), Folder::new());
        let mut calls = fill(&pool, &folder, 2);
        // Neither the first nor the last of those that wait leaves the middle of the queue behind.
        let last = calls.pop().unwrap();
        assert!(last.cancel());
        let next = pool.try_apply_async(u32::count_ones, 7).unwrap();
        assert!(is_full(&pool.try_apply_async(u32::count_ones, 7), 2));
        pool.cancel_all();
        let others: Vec<_> = (0..2).map(|_| pool.try_apply_async(u32::count_ones, 7).unwrap()).collect();
        assert!(is_full(&pool.try_apply_async(u32::count_ones, 7), 2));
        let_go(&folder);
        assert!(matches!(next.get(), Err(Error::Call(CallError::Cancelled))));
        assert_eq!(values(others), [3, 3]);
        assert_eq!(calls.remove(0).get().unwrap(), 0);
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_future_that_is_dropped_gives_its_room_to_the_next() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (limited(method, 1).build().unwrap(), Folder::new());
        let calls = fill(&pool, &folder, 1);
        let woken = Arc::new(Count::default());
        let waker = woken.clone().into();
        let mut context = Context::from_waker(&waker);
        let mut first = Box::pin(pool.submit_async(u32::count_ones, 7));
        let mut second = pin!(pool.submit_async(u32::count_ones, 7));
        assert!(first.as_mut().poll(&mut context).is_pending() && second.as_mut().poll(&mut context).is_pending());
        let_go(&folder);
        eventually("the first is woken", || woken.0.load(Ordering::Relaxed) > 0);
        // It has its room, and does not use it.
        drop(first);
        let call = loop {
            if let Poll::Ready(call) = second.as_mut().poll(&mut context) {
                break call.unwrap();
            }
            std::thread::yield_now();
        };
        assert_eq!((call.get().unwrap(), pool.try_apply_async(u32::count_ones, 3).unwrap().get().unwrap()), (3, 2));
        values(calls);
    }
}

#[test]
fn a_future_that_waits_for_room_may_be_dropped() {
    let _dog = watchdog();
    let (pool, folder) = (limited(StartMethod::Spawn, 1).build().unwrap(), Folder::new());
    let calls = fill(&pool, &folder, 1);
    let waker = Arc::new(Count::default()).into();
    for _ in 0..3 {
        let mut waits = Box::pin(pool.submit_async(u32::count_ones, 7));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let_go(&folder);
    values(calls);
    assert_eq!(pool.try_apply_async(u32::count_ones, 7).unwrap().get().unwrap(), 3);
}

#[test]
fn a_blocked_call_continues_when_a_worker_is_added() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (limited(method, 1).build().unwrap(), Folder::new());
        let calls = fill(&pool, &folder, 1);
        std::thread::scope(|scope| {
            let item: (PathBuf, u32) = (folder.to_path_buf(), 99);
            let blocked = scope.spawn(|| pool.apply_async(begin_and_wait, item).unwrap());
            pool.resize(3).unwrap();
            let call = blocked.join().unwrap();
            let_go(&folder);
            assert_eq!(call.get().unwrap(), 99);
        });
        values(calls);
    }
}

#[test]
fn a_backlog_of_nothing_is_refused() {
    let _dog = watchdog();
    let refused = |error: Error| error.to_string().contains("max_backlog of 0 calls");
    assert!(refused(Pool::builder().max_backlog(0).build().unwrap_err()));
    let pool = Pool::new(1).unwrap();
    let none = pool.with(CallOptions::new().max_backlog(0));
    assert!(refused(none.apply(u32::count_ones, 7).unwrap_err()));
    assert!(refused(none.try_apply_async(u32::count_ones, 7).unwrap_err()));
    assert!(refused(block_on(none.submit_async(u32::count_ones, 7)).unwrap_err()));
    assert!(refused(none.map(u32::count_ones, [7]).unwrap_err()));
    // Without a limit there is always room.
    let failing = pool.with(CallOptions::new().backlog_full(BacklogFull::Fail));
    assert_eq!(failing.apply(u32::count_ones, 7).unwrap(), 3);
}
