//! A caller's code that runs in the middle of the pool's own work: what it does with the pool, and its panics, harm no other call.

use crate::support::{eventually, watchdog};
use maniple::{CallOptions, Pool};
use serde::{Deserialize, Serialize, Serializer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

fn double(x: u64) -> u64 {
    2 * x
}

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

/// A waker, as of an executor that runs its tasks at once, that calls the pool.
struct Calls {
    pool: Arc<Pool>,
    results: Mutex<Vec<u64>>,
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        let result = self.pool.apply(double, 21).unwrap();
        self.results.lock().unwrap().push(result);
    }
}

#[test]
fn a_waker_may_call_the_pool() {
    let _dog = watchdog();
    let pool = Arc::new(Pool::new(2).unwrap());
    let calls = Arc::new(Calls { pool: pool.clone(), results: Mutex::default() });
    let waker = Waker::from(calls.clone());
    let mut jobs: Vec<_> = (0..4).map(|_| pool.apply_async(nap, 100).unwrap()).collect();
    for job in &mut jobs {
        assert!(Pin::new(job).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    // Some are woken by this thread, which drives meanwhile, the others by the keeper.
    assert_eq!(pool.apply(nap, 50).unwrap(), 50);
    eventually("each future is woken", || calls.results.lock().unwrap().len() == 4);
    assert_eq!(*calls.results.lock().unwrap(), [42; 4]);
}

/// A waker whose end is that of a future which holds a job.
struct Holds(#[expect(dead_code, reason = "held")] Mutex<Option<maniple::JobHandle<u64>>>);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_that_is_replaced_may_hold_a_job() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let mut job = pool.apply_async(nap, 200).unwrap();
    let holds = Waker::from(Arc::new(Holds(Mutex::new(Some(pool.apply_async(nap, 1).unwrap())))));
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(&holds)).is_pending());
    drop(holds);
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(job.get().unwrap(), 200);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

struct Blocks;

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        std::thread::sleep(Duration::from_secs(20));
    }
}

/// A task with a time limit, beside a future with this waker, whose task ends before the limit.
fn limited_beside(waker: &Waker) -> (Duration, Result<u64, maniple::Error>) {
    let pool = Pool::new(2).unwrap();
    pool.map(nap, [1, 1, 1, 1]).unwrap();
    let mut job = pool.apply_async(nap, 100).unwrap();
    assert!(Pin::new(&mut job).poll(&mut Context::from_waker(waker)).is_pending());
    let begun = Instant::now();
    let limited = CallOptions::new().task_timeout(Duration::from_millis(500));
    let other = pool.with(limited).apply_async(nap, 60_000).unwrap();
    // No thread drives meanwhile except those of the pool.
    std::thread::sleep(Duration::from_millis(1500));
    let outcome = other.get();
    std::mem::forget(pool);
    (begun.elapsed(), outcome)
}

#[test]
fn a_waker_that_panics_leaves_the_limits_of_others() {
    let _dog = watchdog();
    let (_, outcome) = limited_beside(&Waker::from(Arc::new(Panics)));
    assert!(matches!(outcome, Err(maniple::Error::TaskTimeout(_))), "{outcome:?}");
}

#[test]
fn a_waker_that_blocks_leaves_the_limits_of_others() {
    let _dog = watchdog();
    let (time, outcome) = limited_beside(&Waker::from(Arc::new(Blocks)));
    let Err(maniple::Error::TaskTimeout(overdue)) = outcome else { panic!("{outcome:?}") };
    assert!(overdue.elapsed < Duration::from_secs(15), "{overdue:?} after {time:?}");
}

static BEFORE_PANIC: AtomicUsize = AtomicUsize::new(40);

/// Cannot be written more than some times.
#[derive(Deserialize)]
struct Touchy(u64);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(BEFORE_PANIC.fetch_sub(1, Ordering::SeqCst) > 0, "an item panics");
        self.0.serialize(serializer)
    }
}

fn open(item: Touchy) -> u64 {
    item.0
}

#[test]
fn a_panic_while_an_item_is_written_is_that_of_its_call_alone() {
    let _dog = watchdog();
    let pool = Arc::new(Pool::new(2).unwrap());
    let other = {
        let pool = pool.clone();
        std::thread::spawn(move || (0..30).map(|_| pool.apply(nap, 5).unwrap()).sum::<u64>())
    };
    let panicked =
        catch_unwind(AssertUnwindSafe(|| pool.with(CallOptions::new().chunksize(1)).map(open, (0..5000).map(Touchy))));
    assert!(!matches!(panicked, Ok(Ok(_))));
    assert_eq!(other.join().unwrap(), 150);
    assert_eq!(pool.map(double, 0..100u64).unwrap(), (0..100).map(double).collect::<Vec<_>>());
    pool.apply_async(nap, 1).unwrap().get().unwrap();
}
