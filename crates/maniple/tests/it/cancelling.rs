//! Calls that are cancelled, before, during and after they run.

use crate::support::{self, Folder, METHODS, begin_and_wait, block_on, eventually, exists, let_go, pool};
use crate::support::{wait_for_begin, watchdog};
use maniple::{CallError, CallOptions, Error};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

fn is_cancelled<T>(result: &maniple::Result<T>) -> bool {
    matches!(result, Err(Error::Call(CallError::Cancelled)))
}

fn is_terminated<T>(result: &maniple::Result<T>) -> bool {
    matches!(result, Err(Error::Call(CallError::Terminated)))
}

/// Returns if the folder exists, and waits otherwise.
fn begin_in_or_wait((folder, number): (PathBuf, u32)) -> u32 {
    if !folder.exists() {
        std::fs::write(folder.parent().unwrap().join("waits"), "").unwrap();
        park(());
    }
    number
}

fn park(_: ()) -> u32 {
    loop {
        std::thread::park();
    }
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

#[test]
fn a_call_is_cancelled_before_it_runs_and_neither_during_nor_after() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let running = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 1)).unwrap();
        wait_for_begin(&folder, 1);
        let waiting = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 2)).unwrap();
        assert!(running.is_running() && !waiting.is_running() && !waiting.is_finished());
        assert!(waiting.cancel() && !running.cancel());
        assert!(waiting.is_cancelled() && waiting.is_finished() && !running.is_cancelled());
        assert!(waiting.cancel(), "it was cancelled before");
        assert!(is_cancelled(&waiting.get()));
        let_go(&folder);
        running.wait();
        assert!(running.is_finished() && !running.is_running());
        assert!(!running.abort() && !running.is_cancelled());
        assert_eq!(running.get().unwrap(), 1);
        assert!(!folder.join("begun 2").exists());
    }
}

#[test]
fn an_abort_ends_a_running_task_alone() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 2), Folder::new());
        let job = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 1)).unwrap();
        let others: Vec<_> = (0..50).map(|number| pool.apply_async(u32::count_ones, number).unwrap()).collect();
        wait_for_begin(&folder, 1);
        assert!(job.abort());
        job.wait();
        assert!(job.is_cancelled());
        assert!(is_cancelled(&job.get()));
        assert!(others.into_iter().map(|other| other.get().unwrap()).eq((0..50).map(u32::count_ones)));
    }
}

fn spin(micros: u64) -> u64 {
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    micros
}

/// The task may end between the decision to end its worker and the worker's end.
#[test]
fn an_abort_that_returns_true_has_cancelled_the_call() {
    let _dog = watchdog();
    let pool = pool(METHODS[0], 1);
    let mut aborted = 0;
    for round in 0..600_u64 {
        let job = pool.apply_async(spin, 300).unwrap();
        spin(100 + round % 300);
        let said = job.abort();
        let outcome = job.get();
        assert_eq!(is_cancelled(&outcome), said, "round {round}: {outcome:?}");
        aborted += u64::from(said);
    }
    assert!(aborted > 0);
}

#[test]
fn a_cancelled_map_runs_what_has_begun() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 2), Folder::new());
        let single = pool.with(CallOptions::new().chunksize(1));
        let items = (0..20).map(|number| (folder.to_path_buf(), number));
        let job = single.try_map_async(begin_and_wait, items).unwrap();
        wait_for_begin(&folder, 0);
        wait_for_begin(&folder, 1);
        assert!(job.cancel());
        let_go(&folder);
        job.wait();
        assert!(job.is_cancelled());
        let outcomes = job.get().unwrap();
        assert_eq!(outcomes.iter().filter(|outcome| is_cancelled(outcome)).count(), 18);
        assert!(matches!(outcomes[..2], [Ok(0), Ok(1)]), "{outcomes:?}");
        assert_eq!(pool.map(u32::count_ones, 0..4).unwrap(), [0, 1, 1, 2]);
        assert_eq!(std::fs::read_dir(&*folder).unwrap().count(), 3, "two calls, and the signal to go");
    }
}

#[test]
fn a_terminated_map_keeps_the_results_that_it_has() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        // The second call finds no folder.
        let items = [(folder.to_path_buf(), 0), (folder.join("no"), 1)].into_iter().cycle().take(5000);
        let single = pool.with(CallOptions::new().chunksize(1));
        let job = single.try_map_async(begin_in_or_wait, items).unwrap();
        eventually("the second call runs", || folder.join("waits").exists());
        pool.terminate();
        let outcomes = job.get().unwrap();
        assert!(matches!(outcomes[0], Ok(0)) && outcomes.len() == 5000);
        assert!(outcomes[1..].iter().all(is_terminated));
    }
}

#[test]
fn the_error_says_whether_the_call_was_cancelled_or_the_pool_terminated() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 1);
        let single = pool.with(CallOptions::new().chunksize(1));
        for is_map in [false, true] {
            let (one, many) = (pool.apply_async(park, ()).unwrap(), single.map_async(park, [(); 5000]).unwrap());
            assert!(one.abort() && many.abort());
            let error = if is_map { many.get().unwrap_err() } else { one.get().unwrap_err() };
            assert_eq!(error.to_string(), "the call was cancelled before it had ended");
        }
        let cancelled = single.map_async(park, [(); 5000]).unwrap();
        assert!(cancelled.abort());
        let calls = (pool.apply_async(park, ()).unwrap(), single.map_async(park, [(); 5000]).unwrap());
        pool.terminate();
        for error in [calls.0.get().unwrap_err(), calls.1.get().unwrap_err()] {
            assert_eq!(error.to_string(), "the pool was terminated before the call had ended");
        }
        // It was cancelled before.
        assert!(is_cancelled(&cancelled.get()));
    }
}

#[test]
fn an_aborted_imap_returns_what_was_ready_and_ends() {
    let _dog = watchdog();
    fn nap(ms: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(ms));
        ms
    }
    for method in METHODS {
        let pool = pool(method, 1);
        let mut results = pool.with(CallOptions::new().chunksize(1)).imap(nap, [0, 1_000_000, 0, 0]).unwrap();
        assert!(matches!(results.next(), Some(Ok(0))));
        assert!(results.abort());
        let ends: Vec<_> = results.collect();
        assert!((1..=3).contains(&ends.len()) && ends.iter().all(is_cancelled), "{ends:?}");
        // The input of this call does not end.
        let endless = pool.imap(nap, std::iter::repeat(1_000_000)).unwrap();
        assert!(endless.abort() || !exists(0));
        assert!(endless.count() <= 1001);
        assert_eq!(pool.apply(nap, 1).unwrap(), 1);
    }
}

#[test]
fn all_calls_are_cancelled_at_once() {
    let _dog = watchdog();
    for method in METHODS {
        for ends_running in [false, true] {
            let (pool, folder) = (pool(method, 1), Folder::new());
            let start = |number| pool.apply_async(begin_and_wait, (folder.to_path_buf(), number)).unwrap();
            let mut jobs: Vec<_> = (0..5).map(start).collect();
            wait_for_begin(&folder, 0);
            if ends_running {
                pool.abort_all();
            } else {
                pool.cancel_all();
                let_go(&folder);
                assert_eq!(jobs.remove(0).get().unwrap(), 0);
            }
            assert!(jobs.into_iter().all(|job| is_cancelled(&job.get())));
            assert_eq!(pool.apply(u32::count_ones, 7).unwrap(), 3);
        }
    }
}

#[test]
fn a_dropped_handle_aborts_its_call_only_if_it_says_so() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let worker = pool.apply(pid, ()).unwrap();
        drop(pool.apply_async(begin_and_wait, (folder.to_path_buf(), 0)).unwrap());
        wait_for_begin(&folder, 0);
        let_go(&folder);
        assert_eq!(pool.apply(pid, ()).unwrap(), worker);
        // A future that is dropped while it waits.
        let mut endless = pool.apply_async(park, ()).unwrap().abort_on_drop();
        eventually("it runs", || endless.is_running());
        assert!(Pin::new(&mut endless).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(endless);
        assert_ne!(pool.apply(pid, ()).unwrap(), worker);
        // Its value is not affected.
        assert_eq!(block_on(pool.apply_async(u32::count_ones, 7).unwrap().abort_on_drop()).unwrap(), 3);
        assert_eq!(pool.apply_async(u32::count_ones, 7).unwrap().abort_on_drop().get().unwrap(), 3);
    }
}

#[test]
fn a_pool_is_joined_again_after_the_time_was_over() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let job = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 0)).unwrap();
        let late = pool.join_timeout(Duration::from_millis(20)).unwrap_err();
        assert!(late.to_string().contains("waited for the workers of the pool to end"), "{late}");
        assert!(matches!(pool.apply(pid, ()), Err(Error::Call(CallError::NotRunning))));
        // Another thread may wait without a limit meanwhile.
        std::thread::scope(|scope| {
            let joined = scope.spawn(|| pool.join());
            assert!(matches!(pool.join_timeout(Duration::from_millis(20)), Err(Error::Timeout(_))));
            let_go(&folder);
            joined.join().unwrap();
        });
        pool.join_timeout(support::LONG).unwrap();
        pool.join();
        assert_eq!(job.get().unwrap(), 0);
        assert!(pool.pids().is_empty());
    }
}

// Windows has no forks.
#[cfg(not(windows))]
#[test]
fn a_forked_child_cancels_nothing_of_its_parents_and_does_not_wait() {
    use crate::support::{part, start_hub};
    use maniple::{Exit, Pool, Process};

    let _dog = watchdog();
    // In a process with no other threads but the harness's own, which wait.
    if part().is_none() {
        let mut hub =
            start_hub(module_path!(), "a_forked_child_cancels_nothing_of_its_parents_and_does_not_wait", "hub");
        assert!(hub.wait().unwrap().success());
        return;
    }
    let (pool, folder) = (Pool::new(1).unwrap(), Folder::new());
    let job = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 0)).unwrap().abort_on_drop();
    wait_for_begin(&folder, 0);
    // SAFETY: the threads of the harness and the watchdog hold nothing that is used in the child. The child drops its
    // copy of the handle once.
    let child = unsafe {
        Process::builder().daemon(true).fork(|| {
            pool.cancel_all();
            pool.abort_all();
            let cancelled = job.cancel() || job.abort() || job.is_cancelled() || job.is_running();
            pool.join();
            assert!(!cancelled && pool.join_timeout(support::LONG).is_ok());
            drop(std::ptr::read(&raw const job));
        })
    }
    .unwrap();
    assert_eq!(child.join_timeout(support::LONG).unwrap(), Some(Exit::Code(0)));
    let_go(&folder);
    assert_eq!(job.get().unwrap(), 0);
}
