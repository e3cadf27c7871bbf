//! Values that mean nothing are refused, and never taken for others.

use crate::support;
use maniple::{Barrier, BoundedSemaphore, CallOptions, Error, Listener, Manager, Pool, Queue};

fn double(x: u64) -> u64 {
    2 * x
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::InvalidArgument(_)))
}

#[test]
fn a_size_of_zero_is_refused_by_every_call_and_the_pool_goes_on() {
    let _alive = support::watchdog();
    let pool = Pool::new(1).unwrap();
    for options in [CallOptions::new().chunksize(0), CallOptions::new().buffersize(0)] {
        let pool = pool.with(options);
        assert!(is_refused(pool.apply(double, 1)));
        assert!(is_refused(pool.map(double, [1])));
        assert!(is_refused(pool.map_with(&1, |by, x: u64| by * x, [1])));
        assert!(is_refused(pool.starmap(u64::wrapping_add, [(1, 1)])));
        assert!(is_refused(pool.imap(double, [1])));
        assert!(is_refused(pool.imap_unordered(double, [1])));
    }
    assert_eq!(pool.map(double, [1, 2]).unwrap(), [2, 4]);
}

#[test]
fn a_refused_call_takes_nothing_from_its_input() {
    let _alive = support::watchdog();
    let pool = Pool::new(1).unwrap();
    let mut items = 0..3;
    assert!(is_refused(pool.with(CallOptions::new().chunksize(0)).map(double, &mut items)));
    assert_eq!(items, 0..3);
}

#[test]
fn builders_and_constructors_refuse_zero() {
    let _alive = support::watchdog();
    assert!(is_refused(Pool::new(0)));
    assert!(is_refused(Pool::builder().processes(1).max_tasks_per_child(0).build()));
    assert!(is_refused(Queue::<u8>::bounded(0)));
    assert!(is_refused(Barrier::new(0)));
    assert!(is_refused(BoundedSemaphore::new(0)));
    assert!(is_refused(Listener::builder().backlog(0).temporary()));
    assert!(is_refused(Manager::new().unwrap().barrier(0)));
}

#[test]
fn the_end_of_a_pool_with_options_is_not_the_end_of_the_pool() {
    let _alive = support::watchdog();
    let pool = Pool::new(1).unwrap();
    let pid = pool.pids();
    drop(pool.with(CallOptions::new().chunksize(1)));
    assert_eq!(pool.map(double, [1]).unwrap(), [2]);
    assert_eq!(pool.pids(), pid);
}
