//! Limits of tasks and workers: what exceeds a limit ends alone, and the pool continues.

use crate::support::{self, Folder, METHODS, begin_and_wait, eventually, exists, let_go, pool};
use crate::support::{wait_for_begin, watchdog};
use maniple::{CallError, CallOptions, Error, Pool, PoolBuilder, ProcessError, Retries, StartMethod, TaskTimeout};
use maniple_sys::testing;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Longer than a short task takes.
const LIMIT: Duration = Duration::from_millis(300);

fn limited(limit: Duration) -> CallOptions {
    CallOptions::new().task_timeout(limit)
}

fn expect_late<T: std::fmt::Debug>(result: maniple::Result<T>) -> Box<TaskTimeout> {
    match result {
        Err(Error::TaskTimeout(late)) => late,
        other => panic!("{other:?} instead of an exceeded time limit"),
    }
}

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

const FOREVER: u64 = 1_000_000;

fn pid(_: u8) -> u32 {
    std::process::id()
}

/// A function that does not return.
type Endless = fn(());

fn busy_loop(_: ()) {
    let mut count = 0u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}

fn blocking_call(_: ()) {
    let (mut reader, _writer) = std::io::pipe().unwrap();
    let _ = reader.read(&mut [0]);
}

fn stops_itself(_: ()) {
    testing::stop_self();
}

fn ignores_signals(_: ()) {
    // Windows has none.
    #[cfg(not(windows))]
    {
        use testing::Signal;
        [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1].into_iter().for_each(testing::ignore);
    }
    nap(FOREVER);
}

/// Blocks in a destructor during a panic.
fn hangs_in_a_panic(_: ()) {
    struct Hangs;
    impl Drop for Hangs {
        fn drop(&mut self) {
            nap(FOREVER);
        }
    }
    let _hangs = Hangs;
    panic!("on the way");
}

#[test]
fn a_task_beyond_its_limit_ends_with_its_worker() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let endless: [(Endless, &str); 5] = [
            (busy_loop, "busy_loop"),
            (blocking_call, "blocking_call"),
            (stops_itself, "stops_itself"),
            (ignores_signals, "ignores_signals"),
            (hangs_in_a_panic, "hangs_in_a_panic"),
        ];
        for (function, name) in endless {
            let late = expect_late(pool.with(limited(LIMIT)).apply(function, ()));
            assert!(
                late.task.starts_with("apply of ") && late.task.ends_with(&support::named(name, "fn(())")),
                "{}",
                late.task
            );
            assert_eq!((late.limit, late.earlier.len()), (LIMIT, 0));
            assert!(late.elapsed >= LIMIT);
            assert!(late.to_string().contains("exceeded its task_timeout of 300ms"), "{late}");
            eventually("the worker has ended", || !exists(late.pid));
            assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
        }
    }
}

#[cfg(windows)]
const FAMILY: &str = "MANIPLE_TEST_FAMILY";

/// Starts this program as a member of the family, which writes its number into a file of its name.
#[cfg(windows)]
fn relative(name: &str, folder: &std::path::Path) -> std::process::Child {
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "limits::member_of_a_family", "--nocapture"]).env(FAMILY, name).current_dir(folder);
    program.spawn().unwrap()
}

/// Not a test of its own: what [`relative`] starts.
#[cfg(windows)]
#[test]
fn member_of_a_family() {
    let Ok(name) = std::env::var(FAMILY) else { return };
    std::fs::write(&name, std::process::id().to_string()).unwrap();
    if name == "child" {
        let mut grandchild = relative("grandchild", std::path::Path::new("."));
        eventually("the grandchild runs", || std::fs::read("grandchild").is_ok_and(|pid| !pid.is_empty()));
        std::fs::write("both", "").unwrap();
        grandchild.wait().unwrap();
    }
    std::thread::sleep(Duration::from_secs(1000));
}

#[test]
fn the_processes_of_a_task_end_with_it() {
    let _dog = watchdog();
    #[cfg(not(windows))]
    fn start_a_family(folder: PathBuf) {
        let script = "echo $$ > child; sleep 1000 & echo $! > grandchild; touch both; wait";
        std::process::Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap();
    }
    // Without a shell: this program, twice.
    #[cfg(windows)]
    fn start_a_family(folder: PathBuf) {
        relative("child", &folder).wait().unwrap();
    }
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        // The limit counts the start of a shell, too; and under Wine, that of two programs.
        let limit = Duration::from_secs(if cfg!(windows) { 20 } else { 4 });
        let job = pool.with(limited(limit)).apply_async(start_a_family, folder.to_path_buf()).unwrap();
        eventually("the family exists", || folder.join("both").exists());
        expect_late(job.get());
        for name in ["child", "grandchild"] {
            let pid = std::fs::read_to_string(folder.join(name)).unwrap().trim().parse().unwrap();
            eventually("a process of the task has ended", || !exists(pid));
        }
    }
}

#[test]
fn a_limit_counts_for_each_item() {
    let _dog = watchdog();
    fn endless_at_3(x: u32) -> u32 {
        if x == 3 {
            nap(FOREVER);
        }
        x
    }
    fn check(results: Vec<maniple::Result<u32>>, ordered: bool) {
        let (good, bad): (Vec<_>, Vec<_>) = results.into_iter().enumerate().partition(|(_, result)| result.is_ok());
        let mut values: Vec<u32> = good.into_iter().map(|(_, value)| value.unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, [0, 1, 2, 4, 5, 6, 7]);
        for (place, error) in bad {
            let late = expect_late(error);
            assert!(late.task.starts_with("item 3 of "), "{}", late.task);
            assert!(place == 3 || !ordered);
        }
    }
    for method in METHODS {
        let pool = pool(method, 2);
        // Each item is a task of its own, although the chunks would hold four.
        // The limit leaves the short ones time on a busy machine.
        let pool = pool.with(limited(Duration::from_secs(1)).chunksize(4));
        check(pool.try_map(endless_at_3, 0..8).unwrap(), true);
        check(pool.imap(endless_at_3, 0..8).unwrap().collect(), true);
        check(pool.imap_unordered(endless_at_3, (0..8).filter(|_| true)).unwrap().collect(), false);
        assert!(expect_late(pool.map(endless_at_3, 0..8)).task.starts_with("item 3 of map of "));
    }
}

#[test]
fn a_limit_begins_with_the_task() {
    let _dog = watchdog();
    for method in METHODS {
        // All but the first two wait for longer than the limit.
        let limit = Duration::from_secs(3);
        assert_eq!(pool(method, 2).with(limited(limit)).map(nap, [500; 16]).unwrap(), [500; 16]);
    }
}

#[test]
fn the_pools_limit_is_the_default() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = Pool::builder().processes(1).start_method(method).task_timeout(LIMIT).build().unwrap();
        expect_late(pool.apply(nap, FOREVER));
        expect_late(pool.with(CallOptions::new().chunksize(2)).map(nap, [FOREVER]));
        for longer in [Duration::MAX, support::LONG] {
            assert_eq!(pool.with(limited(longer)).apply(nap, 600).unwrap(), 600);
        }
    }
}

#[test]
fn the_time_that_the_caller_waits_is_another_limit() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 1);
        let mut job = pool.with(limited(support::LONG)).apply_async(nap, 300).unwrap();
        assert!(matches!(job.get_timeout(Duration::from_millis(1)), Err(Error::Timeout(_))));
        assert_eq!(job.get().unwrap(), 300);
    }
}

#[test]
fn a_limit_holds_while_no_caller_waits() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 1);
        let before = pool.apply(pid, 0).unwrap();
        let _job = pool.with(limited(LIMIT)).apply_async(nap, FOREVER).unwrap();
        eventually("the worker has ended", || !exists(before));
        assert_ne!(pool.apply(pid, 0).unwrap(), before);
    }
}

#[test]
fn workers_that_do_not_become_ready_in_time_fail_the_calls() {
    let _dog = watchdog();
    let build = |method, ms, limit| {
        let builder = Pool::builder().processes(1).start_method(method);
        builder.initializer(|ms| assert_eq!(nap(ms), ms), ms).worker_init_timeout(limit).build().unwrap()
    };
    for method in METHODS {
        let pool = build(method, FOREVER, LIMIT);
        let error = pool.apply(pid, 0).unwrap_err();
        assert!(matches!(error, Error::Process(ProcessError::Start(_))), "{error:?}");
        assert!(error.to_string().contains("worker_init_timeout of 300ms"), "{error}");
        drop(pool);
        assert_eq!(build(method, 300, support::LONG).apply(u32::count_ones, 7).unwrap(), 3);
    }
}

/// A function that uses so many bytes.
type Eat = fn(usize) -> usize;

fn eat_in_steps(total: usize) -> usize {
    let mut held = Vec::new();
    while held.len() < total >> 20 {
        held.push(vec![1u8; 1 << 20]);
        std::thread::sleep(Duration::from_micros(200));
    }
    held.len()
}

fn eat_at_once(total: usize) -> usize {
    let held = vec![1u8; total];
    nap(FOREVER);
    held.len()
}

#[test]
fn a_worker_beyond_the_memory_limit_ends_with_its_task() {
    let _dog = watchdog();
    const LIMIT: u64 = 200_000_000;
    for method in METHODS {
        let pool = Pool::builder().processes(2).start_method(method).memory_limit(LIMIT).build().unwrap();
        let eating: [(Eat, usize, &str); 2] =
            [(eat_in_steps, usize::MAX, "eat_in_steps"), (eat_at_once, 500_000_000, "eat_at_once")];
        for (eat, total, name) in eating {
            let Err(Error::MemoryLimit(error)) = pool.apply(eat, total) else { panic!("{name} has a value") };
            assert_eq!(error.limit, LIMIT);
            assert!(
                error.peak > LIMIT && error.task.ends_with(&support::named(name, "fn(usize) -> usize")),
                "{error:?}"
            );
            assert!(error.to_string().contains("exceeded the memory_limit of 200 MB"), "{error}");
            eventually("the worker has ended", || !exists(error.pid));
            assert_eq!(std::io::Error::from(Error::MemoryLimit(error)).kind(), std::io::ErrorKind::OutOfMemory);
            assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
        }
    }
}

#[test]
fn a_worker_that_has_grown_is_replaced_after_its_task() {
    let _dog = watchdog();
    /// Holds memory until the pool has seen it.
    fn grow(total: usize) -> u32 {
        let held = vec![1u8; total];
        nap(1000);
        drop(held);
        std::process::id()
    }
    for method in METHODS {
        let pool = Pool::builder().processes(1).start_method(method).max_rss_per_worker(100_000_000).build().unwrap();
        let first = pool.apply(pid, 0).unwrap();
        assert_eq!(pool.apply(grow, 200_000_000).unwrap(), first);
        assert_ne!(pool.apply(pid, 0).unwrap(), first);
    }
}

fn log((folder, number): (PathBuf, i32)) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    file.write_all(format!("{number}\n").as_bytes()).unwrap();
}

fn logged(folder: &Folder) -> Vec<i32> {
    let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn tasks_with_a_lower_priority_number_go_first() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let first = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 0)).unwrap();
        wait_for_begin(&folder, 0);
        let item = |priority| (folder.to_path_buf(), priority);
        let with = |priority| pool.with(CallOptions::new().priority(priority));
        let jobs = [3, 1, 2, -1].map(|priority| with(priority).apply_async(log, item(priority)).unwrap());
        let last = pool.apply_async(log, item(0)).unwrap();
        let_go(&folder);
        jobs.into_iter().chain([last]).for_each(|job| job.get().unwrap());
        assert_eq!((first.get().unwrap(), logged(&folder)), (0, vec![-1, 0, 1, 2, 3]));
    }
}

#[test]
fn calls_of_the_same_priority_share_the_workers() {
    let _dog = watchdog();
    fn log_slowly(item: (PathBuf, i32)) {
        nap(5);
        log(item);
    }
    let (pool, folder) = (Pool::new(1).unwrap(), Folder::new());
    pool.apply(nap, 5).unwrap();
    let single = pool.with(CallOptions::new().chunksize(1));
    let long = single.map_async(log_slowly, (0..1000).map(|_| (folder.to_path_buf(), 0))).unwrap();
    single.map(nap, [5; 4]).unwrap();
    pool.apply(nap, 5).unwrap();
    assert!(logged(&folder).len() < 1000 && !long.is_finished());
    assert!(long.cancel());
    assert!(matches!(long.get(), Err(Error::Call(CallError::Cancelled))));
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let zero = Duration::ZERO;
    let calls = [
        (limited(zero), "task_timeout of 0"),
        (CallOptions::new().retries(1 << 16), "more than 65,535 retries"),
        (CallOptions::new().retries(Retries::new(1).backoff_coefficient(0.9)), "backoff_coefficient"),
        (CallOptions::new().retries(Retries::new(1).backoff_coefficient(f64::NAN)), "backoff_coefficient"),
    ];
    for (options, why) in calls {
        let with = pool.with(options);
        let errors = [
            with.apply(pid, 0).map(drop),
            with.map(pid, [0]).map(drop),
            with.imap(pid, [0]).map(drop),
            with.try_map_async(pid, [0]).map(drop),
        ];
        for error in errors {
            assert!(matches!(&error, Err(Error::InvalidArgument(text)) if text.contains(why)), "{error:?}");
        }
    }
    let pools: [(PoolBuilder, &str); 5] = [
        (Pool::builder().task_timeout(zero), "task_timeout of 0"),
        (Pool::builder().retries(1 << 16), "more than 65,535 retries"),
        (Pool::builder().worker_init_timeout(zero), "worker_init_timeout of 0"),
        (Pool::builder().memory_limit(999_999), "memory_limit below 1 MB"),
        (Pool::builder().max_rss_per_worker(0), "max_rss_per_worker of 0 bytes"),
    ];
    for (builder, why) in pools {
        let error = builder.build();
        assert!(matches!(&error, Err(Error::InvalidArgument(text)) if text.contains(why)), "{error:?}");
    }
    assert_eq!(pool.apply(u32::count_ones, 7).unwrap(), 3);
}

#[test]
fn limits_hold_under_other_load() {
    let _dog = watchdog();
    let pool = pool(StartMethod::Spawn, 4);
    let spinning = pool.with(limited(Duration::from_secs(1))).try_map_async(busy_loop, [(); 2]).unwrap();
    let blocked = pool.with(limited(LIMIT)).try_map_async(blocking_call, [(); 8]).unwrap();
    let others = pool.with(CallOptions::new().chunksize(1)).map_async(u32::count_ones, 0..1000).unwrap();
    for outcome in blocked.get().unwrap().into_iter().chain(spinning.get().unwrap()) {
        expect_late(outcome);
    }
    assert!(others.get().unwrap().into_iter().eq((0..1000).map(u32::count_ones)));
}
