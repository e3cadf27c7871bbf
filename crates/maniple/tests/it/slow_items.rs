//! Items that take long to encode, or whose encoding panics: their call alone is concerned.

use crate::support::{METHODS, eventually, kill_self, pool, watchdog};
use maniple::{CallOptions, Error, JobHandle, Pool, Result};
use maniple_sys::testing::Signal;
use serde::{Deserialize, Serialize, Serializer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn double(x: u64) -> u64 {
    2 * x
}

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn die((): ()) {
    kill_self(Signal::KILL);
}

fn ready<R: maniple::Payload>(handle: &JobHandle<R>) {
    eventually("it is done", || handle.is_finished());
}

/// A way in which a caller gets the results: it waits, and drives the pool meanwhile, or no thread waits.
type Call<A> = fn(&Pool, Vec<A>, fn(A) -> u64) -> Result<Vec<u64>>;

fn waits<A: maniple::Payload>(pool: &Pool, items: Vec<A>, function: fn(A) -> u64) -> Result<Vec<u64>> {
    pool.with(CallOptions::new().chunksize(1)).map(function, items)
}

fn looks<A: maniple::Payload>(pool: &Pool, items: Vec<A>, function: fn(A) -> u64) -> Result<Vec<u64>> {
    let handle = pool.with(CallOptions::new().chunksize(1)).map_async(function, items)?;
    ready(&handle);
    handle.get()
}

static BEGUN: AtomicBool = AtomicBool::new(false);
static OPEN: AtomicBool = AtomicBool::new(false);

/// The item 5 is encoded only after another thread says so.
#[derive(Deserialize)]
struct Gate(u64);

impl Serialize for Gate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 5 {
            BEGUN.store(true, Ordering::SeqCst);
            eventually("the other calls are done", || OPEN.load(Ordering::SeqCst));
        }
        self.0.serialize(serializer)
    }
}

#[test]
fn a_slow_item_delays_no_other_call() {
    let _dog = watchdog();
    let open = |gate: Gate| gate.0;
    for (method, call, others) in METHODS
        .into_iter()
        .flat_map(|method| [waits as Call<Gate>, looks].map(|call| (method, call)))
        .flat_map(|(method, call)| [0, 50].map(|others| (method, call, others)))
    {
        BEGUN.store(false, Ordering::SeqCst);
        OPEN.store(false, Ordering::SeqCst);
        let pool = pool(method, 2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                eventually("the item is encoded", || BEGUN.load(Ordering::SeqCst));
                assert_eq!(pool.apply(double, 21).unwrap(), 42);
                assert_eq!(pool.map(double, 0..2000).unwrap(), (0..2000).map(double).collect::<Vec<_>>());
                let limited = pool.with(CallOptions::new().task_timeout(Duration::from_millis(200)));
                assert!(matches!(limited.apply(nap, 60_000), Err(Error::TaskTimeout(_))));
                assert!(matches!(pool.apply(die, ()), Err(Error::WorkerLost(_))));
                OPEN.store(true, Ordering::SeqCst);
            });
            let items = (100..100 + others).chain([5]).map(Gate).collect();
            let results = call(&pool, items, open).unwrap();
            assert_eq!(results, (100..100 + others).chain([5]).collect::<Vec<_>>());
        });
    }
}

/// The item 5 cannot be encoded.
#[derive(Deserialize)]
struct Panics(u64);

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != 5, "an item panics");
        self.0.serialize(serializer)
    }
}

#[test]
fn a_call_for_which_no_thread_waits_may_panic_while_it_encodes() {
    let _dog = watchdog();
    let open = |item: Panics| item.0;
    let pool = Pool::new(2).unwrap();
    for _ in 0..3 {
        assert!(looks(&pool, [1, 5, 2].map(Panics).into(), open).is_err());
        assert_eq!(looks(&pool, [1, 1, 1].map(Panics).into(), open).unwrap(), [1; 3]);
        assert_eq!(pool.apply(double, 21).unwrap(), 42);
    }
}

/// Panics when it is dropped in the process that made it, if it is number 40.
#[derive(Serialize, Deserialize)]
struct Brittle {
    maker: u32,
    number: u64,
}

impl Drop for Brittle {
    fn drop(&mut self) {
        assert!(self.maker != std::process::id() || self.number != 40 || std::thread::panicking(), "on purpose");
    }
}

fn brittle(count: u64) -> impl Iterator<Item = Brittle> + Clone + Send + 'static {
    let maker = std::process::id();
    (0..count).map(move |number| Brittle { maker, number })
}

fn number(item: Brittle) -> u64 {
    item.number
}

/// The panic of an item's `Drop` reaches the caller, whichever thread drops the item, and the pool works afterwards.
#[test]
fn an_item_whose_drop_panics_is_the_callers_panic() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let calls: [(&str, &dyn Fn()); 7] = [
        ("map", &|| drop(pool.map(number, brittle(100)))),
        ("map_async", &|| drop(pool.map_async(number, brittle(100)).unwrap().get())),
        ("map_async, later", &|| {
            let job = pool.map_async(number, brittle(100)).unwrap();
            ready(&job);
            drop(job.get());
        }),
        ("try_map", &|| drop(pool.try_map(number, brittle(100)))),
        ("imap of an iterator", &|| {
            let results: Vec<u64> = pool.imap(number, brittle(100)).unwrap().map(Result::unwrap).collect();
            panic!("the iteration ends after {}", results.len());
        }),
        ("imap of a list", &|| {
            let items = brittle(100).collect::<Vec<_>>();
            let results: Vec<u64> = pool.imap(number, items).unwrap().map(Result::unwrap).collect();
            panic!("the iteration ends after {}", results.len());
        }),
        ("imap_unordered", &|| {
            let results: Vec<u64> = pool.imap_unordered(number, brittle(100)).unwrap().map(Result::unwrap).collect();
            panic!("the iteration ends after {}", results.len());
        }),
    ];
    for (name, call) in calls {
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err(name);
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"), "{name}");
        assert_eq!(pool.map(double, 0..3).unwrap(), [0, 2, 4], "{name}");
    }
}
