//! Many workers, and that nothing of a program is left when it is killed.

use crate::support::{Folder, eventually, exists, let_go, part, print_pids, read_pids, start_hub, wait_for_begin};
use maniple::{CallOptions, Manager, Pool, Process};
use maniple_sys::testing::{Signal, kill};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// More than the standard package can wait for on Windows, which is 61.
const MANY: u32 = 200;

/// How long these tests may take: under Wine a start takes half a second.
const PATIENCE: Duration = Duration::from_secs(if cfg!(windows) { 1200 } else { 120 });

fn patient_watchdog(test: &'static str) -> std::sync::mpsc::Sender<()> {
    let (alive, watch) = channel::<()>();
    std::thread::spawn(move || {
        if watch.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    alive
}

/// As `begin_and_wait`, but so many processes look seldom.
fn begin_and_wait_calmly((folder, number): (PathBuf, u32)) -> u32 {
    std::fs::write(folder.join(format!("begun {number}")), "").unwrap();
    while !folder.join("go").exists() {
        std::thread::sleep(Duration::from_millis(500));
    }
    number
}

fn pid(item: u32) -> (u32, u32) {
    std::thread::sleep(Duration::from_millis(2));
    (item, std::process::id())
}

#[test]
fn a_pool_of_200_workers_answers_and_ends() {
    let _dog = patient_watchdog("a_pool_of_200_workers_answers_and_ends");
    let pool = Pool::new(MANY as usize).unwrap();
    // All of them work at once: each holds a call until all have begun.
    let folder = Folder::new();
    let calls: Vec<_> = (0..MANY)
        .map(|number| pool.apply_async(begin_and_wait_calmly, (folder.to_path_buf(), number)).unwrap())
        .collect();
    let begun = Instant::now();
    while std::fs::read_dir(&*folder).unwrap().count() < MANY as usize {
        assert!(begun.elapsed() < PATIENCE, "not all workers work");
        std::thread::sleep(Duration::from_millis(50));
    }
    (0..MANY).for_each(|number| wait_for_begin(&folder, number));
    let workers: BTreeSet<u32> = pool.pids().into_iter().collect();
    assert_eq!(workers.len(), MANY as usize);
    let_go(&folder);
    assert!(calls.into_iter().map(|call| call.get().unwrap()).eq(0..MANY));

    // And they share a map.
    let answers = pool.with(CallOptions::new().chunksize(1)).map(pid, 0..20 * MANY).unwrap();
    assert!(answers.iter().map(|(item, _)| *item).eq(0..20 * MANY));
    let answered: BTreeSet<u32> = answers.into_iter().map(|(_, pid)| pid).collect();
    assert!(answered.len() > 64 && answered.is_subset(&workers), "{}", answered.len());
    pool.close();
    pool.join();
    assert!(workers.iter().all(|&pid| !exists(pid)));
}

/// Workers, daemons and servers end with the program that started them.
#[test]
fn a_killed_program_leaves_no_process_but_those_that_are_no_daemons() {
    let _dog = patient_watchdog("a_killed_program_leaves_no_process_but_those_that_are_no_daemons");
    if part().is_some() {
        let sleep = |()| std::thread::sleep(PATIENCE);
        let pool = Pool::new(4).unwrap();
        let _busy: Vec<_> = (0..2).map(|_| pool.apply_async(|()| std::thread::sleep(PATIENCE), ()).unwrap()).collect();
        let processes = [true, false].map(|is_daemon| {
            let process = Process::builder().daemon(is_daemon).build(sleep, ()).unwrap();
            process.start().unwrap();
            process
        });
        let manager = Manager::new().unwrap();
        let mut pids = pool.pids();
        pids.extend(manager.pid());
        // The last of all is no daemon.
        pids.extend(processes.iter().filter_map(Process::pid));
        print_pids(&pids);
        std::thread::sleep(PATIENCE);
        return;
    }
    let mut hub = start_hub(module_path!(), "a_killed_program_leaves_no_process_but_those_that_are_no_daemons", "hub");
    let pids = read_pids(&mut hub);
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 7, "{pids:?}");
    assert!(pids.iter().all(|&pid| exists(pid)));
    hub.kill().unwrap();
    hub.wait().unwrap();
    let (free, tied) = pids.split_last().unwrap();
    eventually("all end", || tied.iter().all(|&pid| !exists(pid)));
    // A process that is no daemon continues, as on every system.
    assert!(exists(*free));
    kill(*free, Signal::KILL).unwrap();
    eventually("it ends", || !exists(*free));
}
