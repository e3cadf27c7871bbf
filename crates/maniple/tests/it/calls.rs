//! The calls of a pool, as its documentation has them.

use crate::support::{METHODS, named, pool, watchdog};
use maniple::{CallOptions, Error, Pool, StartMethod};
use std::time::Duration;

fn square(x: u64) -> u64 {
    x * x
}

fn add3(a: u8, b: u16, c: u32) -> u32 {
    u32::from(a) + u32::from(b) + c
}

#[test]
fn map_keeps_the_order_of_the_items() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let expected: Vec<u64> = (0..100_000).map(square).collect();
        assert_eq!(pool.map(square, 0..100_000).unwrap(), expected);
        assert_eq!(pool.with(CallOptions::new().chunksize(7)).map(square, 0..1000).unwrap(), expected[..1000]);
        assert_eq!(pool.with(CallOptions::new().chunksize(1)).map(square, 0..100).unwrap(), expected[..100]);
        assert_eq!(pool.map(square, []).unwrap(), Vec::<u64>::new());
    }
}

#[test]
fn the_work_is_done_in_workers() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let mut seen = pool
        .with(CallOptions::new().chunksize(1))
        .map(
            |()| {
                // All workers have begun meanwhile: under Wine a start takes half a second.
                std::thread::sleep(Duration::from_millis(if cfg!(windows) { 500 } else { 20 }));
                std::process::id()
            },
            [(); 8],
        )
        .unwrap();
    seen.sort_unstable();
    seen.dedup();
    let mut workers = pool.pids();
    workers.sort_unstable();
    assert_eq!(seen, workers);
    assert!(!seen.contains(&std::process::id()));
}

#[test]
fn items_may_be_borrowed_from_the_caller() {
    let _dog = watchdog();
    let words = ["one".to_string(), "three".to_string()];
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.map(|w: String| w.len(), words.iter().cloned()).unwrap(), [3, 5]);
}

#[test]
fn starmap_takes_tuples_apart() {
    let _dog = watchdog();
    #[allow(clippy::too_many_arguments)]
    fn eight(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> String {
        format!("{a}{b}{c}{d}{e}{f}{g}{h}")
    }
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.starmap(u64::pow, [(2, 3), (3, 2)]).unwrap(), [8, 9]);
    assert_eq!(pool.starmap(add3, [(1, 2, 3)]).unwrap(), [6]);
    assert_eq!(pool.starmap(eight, [(1, 2, 3, 4, 5, 6, 7, 8)]).unwrap(), ["12345678"]);
    let pointer: fn(u8, u16, u32) -> u32 = |a, b, c| add3(a, b, c) * 10;
    assert_eq!(pool.starmap(pointer, [(1, 2, 3)]).unwrap(), [60]);
    assert_eq!(pool.starmap_async(u64::pow, [(2, 10)]).unwrap().get().unwrap(), [1024]);
}

#[test]
fn starmap_refuses_closures_and_says_what_to_do() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let error = pool.starmap(|a: u8, b: u8| a + b, [(1, 2)]).unwrap_err();
    assert!(error.to_string().contains("pass a closure to map"), "{error}");
    let captured = 7u8;
    let error = pool.starmap(move |a: u8, b: u8| a + b + captured, [(1, 2)]).unwrap_err();
    assert!(matches!(error, Error::Call(maniple::CallError::Function(_))), "{error}");
}

#[test]
fn a_state_travels_once_for_each_worker() {
    let _dog = watchdog();
    #[derive(serde::Serialize)]
    struct Counted(Vec<u8>);
    impl<'de> serde::Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            use std::sync::atomic::{AtomicU32, Ordering};
            static DECODED: AtomicU32 = AtomicU32::new(0);
            let n = DECODED.fetch_add(1, Ordering::Relaxed) + 1;
            Vec::deserialize(d).map(|mut v: Vec<u8>| {
                v[0] = n as u8;
                Counted(v)
            })
        }
    }
    let pool = Pool::new(2).unwrap();
    let state = Counted(vec![0; 10_000]);
    let decoded =
        pool.with(CallOptions::new().chunksize(1)).map_with(&state, |state, _: u32| state.0[0], 0..100).unwrap();
    assert_eq!(decoded, [1; 100]);
    let again = pool.map_with_async(&state, |state, _: u32| state.0.len(), 0..10).unwrap();
    assert_eq!(again.get().unwrap(), [10_000; 10]);
}

#[test]
fn a_function_keeps_its_own_error_type() {
    let _dog = watchdog();
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum Odd {
        Number(i32),
    }
    fn half(x: i32) -> Result<i32, Odd> {
        if x % 2 == 0 { Ok(x / 2) } else { Err(Odd::Number(x)) }
    }
    let pool = Pool::new(1).unwrap();
    assert_eq!(pool.apply(half, 4).unwrap(), Ok(2));
    assert_eq!(pool.apply(half, 3).unwrap(), Err(Odd::Number(3)));
    assert_eq!(pool.map(half, [2, 5]).unwrap(), [Ok(1), Err(Odd::Number(5))]);
}

#[test]
fn a_panic_comes_back_with_message_place_and_stack() {
    let _dog = watchdog();
    #[inline(never)]
    fn deep(x: u32) -> u32 {
        if x == 3 { panic!("no {x}s here") } else { x }
    }
    let pool = Pool::new(1).unwrap();
    let Error::Panicked(panicked) = pool.map(deep, 0..6).unwrap_err() else { panic!("another error") };
    assert_eq!(panicked.message, "no 3s here");
    assert!(panicked.location.as_ref().unwrap().contains("calls.rs:"), "{panicked:?}");
    let wanted = std::env::var_os("RUST_BACKTRACE").is_none_or(|v| v != "0");
    assert_eq!(panicked.backtrace.contains("deep"), wanted, "{}", panicked.backtrace);
    assert!(!panicked.backtrace.contains("rust_begin_unwind"), "{}", panicked.backtrace);
    assert_eq!(pool.pids(), [panicked.pid]);
    let text = Error::Panicked(panicked).to_string();
    assert!(text.contains("no 3s here") && text.contains("calls.rs:"), "{text}");
}

#[test]
fn the_error_of_an_item_names_the_item_and_the_function() {
    let _dog = watchdog();
    fn odd(x: u32) -> u32 {
        assert!(x % 2 == 1, "{x} is even");
        x
    }
    fn place<T: std::fmt::Debug>(result: maniple::Result<T>) -> String {
        let error = result.unwrap_err();
        let Error::Panicked(panicked) = &error else { panic!("another error: {error}") };
        assert!(error.to_string().contains(&format!(" while it ran {}: ", panicked.task)), "{error}");
        panicked.task.replace("it::calls::the_error_of_an_item_names_the_item_and_the_function::", "")
    }
    let pool = Pool::new(2).unwrap();
    let name = named("odd", "fn(u32) -> u32");
    assert_eq!(place(pool.apply(odd, 2)), format!("apply of {name}"));
    assert_eq!(place(pool.map(odd, [1, 3, 5, 6, 7])), format!("item 3 of map of {name}"));
    let whole = pool.with(CallOptions::new().chunksize(5));
    assert_eq!(place(whole.map(odd, [1, 3, 5, 6, 7])), format!("item 3 of map of {name}"));
    let failed: Vec<String> = whole.try_map(odd, 0..5).unwrap().into_iter().filter(Result::is_err).map(place).collect();
    assert_eq!(failed, [0, 2, 4].map(|item| format!("item {item} of try_map of {name}")));
    let last = pool.imap(odd, [1, 3, 4]).unwrap().last().unwrap();
    assert_eq!(place(last), format!("item 2 of imap of {name}"));
    for (index, result) in pool.imap_unordered(odd, 0..40).unwrap().indexed().filter(|(_, result)| result.is_err()) {
        assert_eq!(place(result), format!("item {index} of imap_unordered of {name}"));
    }
}

#[test]
fn an_argument_or_a_result_that_cannot_travel_names_its_item() {
    let _dog = watchdog();
    /// Cannot be encoded, or cannot be decoded.
    #[derive(Debug, PartialEq)]
    enum Odd {
        Sound,
        Unwritten,
        Unread,
    }
    impl serde::Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Odd::Unwritten => Err(serde::ser::Error::custom("it is not written")),
                other => to.serialize_bool(*other == Odd::Sound),
            }
        }
    }
    impl<'de> serde::Deserialize<'de> for Odd {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let sound = bool::deserialize(from)?;
            if sound { Ok(Odd::Sound) } else { Err(serde::de::Error::custom("it is not read")) }
        }
    }
    fn made(kind: u8) -> Odd {
        [Odd::Sound, Odd::Unwritten, Odd::Unread].into_iter().nth(kind.into()).unwrap()
    }
    fn taken(_: Odd) {}
    let pool = Pool::new(2).unwrap();
    for (kind, why) in [(1, "it is not written"), (2, "it is not read")] {
        for error in [pool.map(made, [0, 0, kind]).unwrap_err(), pool.map(taken, [0, 0, kind].map(made)).unwrap_err()] {
            let text = error.to_string();
            let place = format!("(item 2 of map of {}", named("it::calls::an_argument_", "fn("));
            assert!(text.contains(why) && text.contains(&place), "{text}");
        }
    }
}

#[test]
fn a_job_can_be_asked_waited_for_and_awaited() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let mut nap = pool
        .apply_async(
            |ms| {
                std::thread::sleep(Duration::from_millis(ms));
                ms
            },
            200,
        )
        .unwrap();
    assert!(!nap.is_finished());
    assert!(matches!(nap.wait_timeout(Duration::from_millis(1)), Err(Error::Timeout(_))));
    assert!(matches!(nap.get_timeout(Duration::from_millis(1)), Err(Error::Timeout(_))));
    nap.wait();
    assert!(nap.is_finished());
    assert_eq!(nap.get_timeout(Duration::ZERO).unwrap(), 200);
    assert!(matches!(nap.get_timeout(Duration::ZERO), Err(Error::Call(maniple::CallError::Taken))));
}

#[test]
fn tickets_are_futures() {
    let _dog = watchdog();
    use std::future::IntoFuture;
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<F: IntoFuture>(future: F) -> F::Output {
        let mut future = std::pin::pin!(future.into_future());
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::park(),
            }
        }
    }
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        assert_eq!(block_on(pool.apply_async(square, 7).unwrap()).unwrap(), 49);
    }
    let both = async {
        let slow = pool.apply_async(|()| std::thread::sleep(Duration::from_millis(100)), ()).unwrap();
        let all = pool.map_async(square, 0..1000).unwrap();
        slow.await.unwrap();
        all.await
    };
    assert_eq!(block_on(both).unwrap().len(), 1000);
    let mut lost = pool.apply_async(|()| std::process::abort(), ()).map(|t: maniple::JobHandle<()>| t).unwrap();
    assert!(matches!(block_on(&mut lost), Err(Error::WorkerLost(_))));
}

#[test]
fn many_threads_share_a_pool() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    std::thread::scope(|s| {
        for t in 0..4u64 {
            let pool = &pool;
            s.spawn(move || {
                for i in 0..200 {
                    assert_eq!(pool.apply(square, t * 1000 + i).unwrap(), (t * 1000 + i).pow(2));
                }
                assert_eq!(pool.map(square, 0..5000).unwrap().len(), 5000);
            });
        }
    });
}

#[test]
fn a_worker_may_have_a_pool_of_its_own() {
    let _dog = watchdog();
    fn nested(x: u64) -> u64 {
        Pool::new(2).unwrap().map(square, 0..x).unwrap().iter().sum()
    }
    for method in METHODS {
        assert_eq!(pool(method, 2).map(nested, [3, 4]).unwrap(), [5, 14]);
    }
}

#[test]
fn an_initializer_runs_once_in_each_worker() {
    let _dog = watchdog();
    use std::sync::Mutex;
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    for method in METHODS {
        let pool = Pool::builder()
            .processes(2)
            .start_method(method)
            .initializer(|(a, b): (String, u8)| SEEN.lock().unwrap().push(format!("{a}{b}")), ("x".into(), 7))
            .build()
            .unwrap();
        let seen = pool.with(CallOptions::new().chunksize(1)).map(|_: u8| SEEN.lock().unwrap().clone(), 0..20).unwrap();
        assert_eq!(seen, vec![["x7"]; 20]);
    }
}

#[test]
fn workers_are_replaced_after_so_many_tasks() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = Pool::builder().processes(2).max_tasks_per_child(3).start_method(method).build().unwrap();
        let mut pids = pool.with(CallOptions::new().chunksize(1)).map(|_: u32| std::process::id(), 0..30).unwrap();
        pids.sort_unstable();
        assert!(pids.chunk_by(|a, b| a == b).all(|same| same.len() <= 3), "{pids:?}");
        pids.dedup();
        assert!(pids.len() >= 10, "{pids:?}");
    }
}

#[test]
fn a_pool_of_no_workers_is_refused() {
    assert!(matches!(Pool::new(0), Err(Error::InvalidArgument(_))));
    assert_eq!(StartMethod::default(), StartMethod::Spawn);
}

#[test]
#[allow(clippy::needless_borrows_for_generic_args, reason = "references are what is tested")]
fn options_are_given_by_value_or_by_reference() {
    let _dog = watchdog();
    let pool = pool(StartMethod::default(), 1);
    let options = CallOptions::new().chunksize(3);
    let shared = std::sync::Arc::new(options);
    for results in [
        pool.with(&options).map(square, 0..5),
        pool.with(options).map(square, 0..5),
        pool.with(shared).map(square, 0..5),
        pool.with(&options).with(&CallOptions::new().priority(1)).map(square, 0..5),
    ] {
        assert_eq!(results.unwrap(), [0, 1, 4, 9, 16]);
    }
}

// Windows has no fork server.
#[cfg(not(windows))]
#[test]
fn a_fork_server_forks_all_workers_from_one_process() {
    let _dog = watchdog();
    let pool = pool(StartMethod::ForkServer, 2);
    let parents = pool.with(CallOptions::new().chunksize(1)).map(|()| crate::support::parent(), [(); 10]).unwrap();
    assert!(parents.iter().all(|&p| p == parents[0] && p != std::process::id()), "{parents:?}");
}

#[test]
fn many_calls_of_several_tasks_are_worked_off() {
    let _dog = watchdog();
    let expected: Vec<u64> = (0..10).map(square).collect();
    for method in METHODS {
        let pool = pool(method, 2);
        for calls in [300, 3000] {
            let call = pool.with(CallOptions::new().chunksize(3));
            let handles: Vec<_> = (0..calls).map(|_| call.map_async(square, 0..10).unwrap()).collect();
            // The last one first: no thread drives for the others.
            for handle in handles.into_iter().rev() {
                assert_eq!(handle.get().unwrap(), expected);
            }
        }
    }
}
