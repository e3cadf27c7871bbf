//! How pools end: closed, terminated, dropped, killed. Nothing is left behind.

use crate::support::{
    self, METHODS, eventually, exists, is_listed, part, pool, print_pids, read_pids, start_hub, watchdog,
};
use maniple::{CallOptions, Error, Pool};
use maniple_sys::testing::{self, Signal};
use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

fn spin_for_ever(_: u32) {
    loop {
        std::hint::black_box(0);
    }
}

fn sleep_long(_: u32) {
    std::thread::sleep(Duration::from_secs(600));
}

fn leave(code: i32) {
    std::process::exit(code)
}

#[test]
fn a_closed_pool_finishes_what_it_has_and_takes_no_more() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let pids = pool.pids();
        let job = pool.map_async(u64::count_ones, 0..10_000).unwrap();
        pool.close();
        assert!(matches!(pool.apply(u64::count_ones, 1), Err(Error::Call(maniple::CallError::NotRunning))));
        pool.join();
        assert!(pids.iter().all(|&p| !is_listed(p)));
        assert_eq!(job.get().unwrap().len(), 10_000);
    }
}

#[test]
fn a_terminated_pool_ends_busy_workers_and_waiting_calls() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let pids = pool.pids();
        let busy = pool.with(CallOptions::new().chunksize(1)).map_async(spin_for_ever, 0..10).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        pool.terminate();
        pool.join();
        assert!(matches!(busy.get(), Err(Error::Call(maniple::CallError::Terminated))));
        assert!(matches!(pool.apply(u64::count_ones, 1), Err(Error::Call(maniple::CallError::NotRunning))));
        assert!(pids.iter().all(|&p| !is_listed(p)));
    }
}

#[test]
fn a_dropped_pool_leaves_no_process() {
    let _dog = watchdog();
    for method in METHODS {
        for work in [spin_for_ever, sleep_long] {
            let pool = pool(method, 2);
            let busy = pool.with(CallOptions::new().chunksize(1)).map_async(work, 0..10).unwrap();
            let pids = pool.pids();
            std::thread::sleep(Duration::from_millis(20));
            drop(pool);
            assert!(pids.iter().all(|&p| !is_listed(p)), "{method:?}");
            assert!(busy.get().is_err());
        }
        let at_once = pool(method, 2);
        let pids = at_once.pids();
        drop(at_once);
        assert!(pids.iter().all(|&p| !is_listed(p)), "{method:?}");
    }
}

#[test]
fn a_caller_that_waits_while_another_thread_terminates_gets_an_answer() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    std::thread::scope(|s| {
        let waiting = s.spawn(|| pool.apply(sleep_long, 0));
        let lazy = s.spawn(|| pool.imap(sleep_long, 0..3).unwrap().map(|r| r.is_err()).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(100));
        pool.terminate();
        assert!(waiting.join().unwrap().is_err());
        assert!(lazy.join().unwrap().iter().all(|&failed| failed));
    });
}

/// Runs alone in a separate process, so that no other code opens or closes descriptors meanwhile.
#[test]
fn a_pool_leaves_no_descriptor_and_no_thread() {
    let _dog = watchdog();
    if part().is_none() {
        let hub =
            start_hub(module_path!(), "a_pool_leaves_no_descriptor_and_no_thread", "alone").wait_with_output().unwrap();
        assert!(hub.status.success(), "{}", String::from_utf8_lossy(&hub.stdout));
        return;
    }
    let me = std::process::id();
    let threads = || testing::threads_of(me);
    // What the process makes once and keeps is made by the first pool.
    #[cfg(windows)]
    drop(pool(METHODS[0], 2).apply(leave, 1));
    let (handles_before, threads_before) = (testing::handle_names(), threads());
    for method in METHODS {
        for round in 0..6 {
            let pool = pool(method, 2);
            assert_eq!(pool.map(u64::count_ones, 0..1000).unwrap().len(), 1000);
            assert!(pool.apply(leave, 1).is_err());
            let results = pool.imap(|b: maniple::Bytes| b, [maniple::Bytes::from(vec![1; 100_000])]).unwrap();
            match round % 3 {
                0 => drop(results),
                1 => assert_eq!(results.count(), 1),
                _ => {
                    drop(pool);
                    assert!(results.last().is_none_or(|r| r.is_err() || r.is_ok()));
                }
            }
        }
    }
    eventually("no thread is left", || threads() == threads_before);
    assert_eq!(testing::handle_names(), handles_before);
    assert_eq!(testing::children(), [0_u32; 0]);
}

/// What the hub of the next tests does: workers of its own, and one of theirs that has a pool too.
fn be_hub(part: &str) {
    let method = if part.ends_with("forkserver") { METHODS[METHODS.len() - 1] } else { METHODS[0] };
    let pool = pool(method, 3);
    let inner = pool.apply_async(
        |()| {
            let pool = Pool::new(2).unwrap();
            let pids = pool.pids();
            std::fs::write(inner_file(support::parent_hub()), format!("{pids:?}")).unwrap();
            let _ = pool.map(sleep_long, 0..2);
        },
        (),
    );
    let file = inner_file(std::process::id());
    eventually("the inner pool", || std::fs::read_to_string(&file).is_ok_and(|t| t.ends_with(']')));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let inner_pids = text.trim_matches(['[', ']']).split(", ").map(|p| p.parse().unwrap());
    let _busy = pool.apply_async(spin_for_ever, 0).unwrap();
    let _sleeping = if part.starts_with("full") { pool.apply_async(sleep_long, 0).ok() } else { None };
    std::thread::sleep(Duration::from_millis(50));
    let pids: Vec<u32> = pool.pids().into_iter().chain(inner_pids).collect();
    print_pids(&pids);
    let _ = inner.unwrap().get();
}

fn inner_file(hub: u32) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("maniple-inner-{hub}"))
}

fn end_of_hub(test: &str, how: &str, end: impl Fn(u32)) {
    if let Some(part) = part() {
        be_hub(&part);
        return;
    }
    let parts = ["full-spawn", "idle-spawn", "full-forkserver", "idle-forkserver"];
    for part in &parts[..2 * METHODS.len()] {
        let mut hub = start_hub(module_path!(), test, part);
        let pids = read_pids(&mut hub);
        assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 5, "{pids:?}");
        assert!(pids.iter().all(|&p| exists(p)));
        end(hub.id());
        let status = hub.wait().unwrap();
        assert!(!status.success());
        eventually(how, || pids.iter().all(|&p| !exists(p)));
        let mut stderr = String::new();
        hub.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(stderr, "", "{part}");
        // On Windows the exit code says so.
        #[cfg(not(windows))]
        assert!(testing::ExitStatusExt::signal(&status).is_some(), "{status}");
    }
}

fn signal(pid: u32, signal: Signal) {
    testing::kill(pid, signal).unwrap();
}

#[test]
fn workers_die_with_a_killed_hub() {
    let _dog = watchdog();
    end_of_hub("workers_die_with_a_killed_hub", "the workers of a killed hub end", |hub| signal(hub, Signal::KILL));
}

// No process of Windows can make another abort.
#[cfg(not(windows))]
#[test]
fn workers_die_with_a_hub_that_aborts() {
    let _dog = watchdog();
    end_of_hub("workers_die_with_a_hub_that_aborts", "the workers of an aborted hub end", |hub| {
        signal(hub, Signal::ABORT)
    });
}

// Wine sends no Ctrl-C without a console.
#[cfg(not(windows))]
#[test]
fn ctrl_c_ends_hub_and_workers_without_a_word() {
    let _dog = watchdog();
    end_of_hub("ctrl_c_ends_hub_and_workers_without_a_word", "everyone ends at Ctrl-C", |hub| {
        testing::kill_group(hub, Signal::INT).unwrap();
    });
}
