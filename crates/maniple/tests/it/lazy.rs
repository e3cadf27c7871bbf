//! `imap` and `imap_unordered`: lazy, bounded, each result by itself.

use crate::support::{METHODS, eventually, pool, watchdog};
use maniple::{CallOptions, Error, Pool};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn double(x: u64) -> u64 {
    2 * x
}

/// Counts how many items are taken from it.
fn counted(items: impl Iterator<Item = u64> + Send) -> (Arc<AtomicUsize>, impl Iterator<Item = u64> + Send) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    (
        taken,
        items.inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        }),
    )
}

#[test]
fn results_come_in_the_order_of_the_items() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let all: Vec<u64> = pool.imap(double, 0..20_000).unwrap().map(Result::unwrap).collect();
        assert!(all.iter().copied().eq((0..20_000).map(double)));
        let few: Vec<u64> = pool
            .with(CallOptions::new().chunksize(3).buffersize(5))
            .imap(double, 0..100)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(few.iter().copied().eq((0..100).map(double)));
        assert_eq!(pool.imap(double, []).unwrap().count(), 0);
    }
}

#[test]
fn unordered_results_come_as_they_are_ready() {
    let _dog = watchdog();
    fn nap(ms: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(ms));
        ms
    }
    let pool = Pool::new(2).unwrap();
    let all: Vec<u64> = pool
        .with(CallOptions::new().chunksize(1))
        .imap_unordered(nap, [600, 1, 2, 3])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(all[3], 600);
    let mut many: Vec<u64> = pool.imap_unordered(double, 0..20_000).unwrap().map(Result::unwrap).collect();
    many.sort_unstable();
    assert!(many.into_iter().eq((0..20_000).map(double)));
}

#[test]
fn an_endless_input_is_read_only_as_far_as_the_buffer_goes() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let (taken, items) = counted(0..);
    let mut results = pool.with(CallOptions::new().buffersize(20)).imap(double, items).unwrap();
    for i in 0..3 {
        assert_eq!(results.next().unwrap().unwrap(), 2 * i);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(taken.load(Ordering::SeqCst) <= 23, "{taken:?}");

    let (taken, items) = counted(0..);
    let mut results = pool.imap_unordered(double, items).unwrap();
    results.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(taken.load(Ordering::SeqCst) <= 1100, "{taken:?}");
}

#[test]
fn dropping_the_results_stops_the_call() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let (_, items) = counted(0..);
    let mut results = pool.imap(double, items).unwrap();
    results.next().unwrap().unwrap();
    drop(results);
    assert_eq!(pool.apply(double, 4).unwrap(), 8);
    pool.join();
}

#[test]
fn an_item_that_fails_leaves_the_others_alone() {
    let _dog = watchdog();
    fn odd_panics(x: u64) -> u64 {
        assert!(x.is_multiple_of(2), "{x} is odd");
        x
    }
    let pool = Pool::new(2).unwrap();
    for (x, result) in (0..100).zip(pool.with(CallOptions::new().chunksize(10)).imap(odd_panics, 0..100).unwrap()) {
        match result {
            Ok(value) => assert_eq!(value, x),
            Err(Error::Panicked(panicked)) => assert_eq!(panicked.message, format!("{x} is odd")),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn an_input_that_waits_for_results_gets_them() {
    let _dog = watchdog();
    let (send, receive) = std::sync::mpsc::channel();
    let pool = Pool::new(2).unwrap();
    send.send(1).unwrap();
    let mut results = pool.imap(double, receive).unwrap();
    for _ in 0..10 {
        let last = results.next().unwrap().unwrap();
        send.send(last).unwrap();
    }
    drop(send);
    assert_eq!(results.next().unwrap().unwrap(), 2048);
    assert!(results.next().is_none());
    assert!(results.next().is_none());
}

#[test]
fn a_panic_of_the_input_reaches_the_caller() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let input = (0..).inspect(|&x| assert!(x < 5, "no more than five"));
    let results = pool.with(CallOptions::new().chunksize(1)).imap(double, input).unwrap();
    let taken = AtomicUsize::new(0);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        results.for_each(|r| {
            r.unwrap();
            taken.fetch_add(1, Ordering::SeqCst);
        });
    }))
    .unwrap_err();
    assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "no more than five");
    assert_eq!(taken.load(Ordering::SeqCst), 5);
    assert_eq!(pool.apply(double, 1).unwrap(), 2);
}

#[test]
fn results_are_there_before_the_input_ends() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let mut results = pool.imap_unordered(double, receive).unwrap();
    send.send(3).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 6);
    drop(send);
    eventually("the end", || results.next().is_none());
}
