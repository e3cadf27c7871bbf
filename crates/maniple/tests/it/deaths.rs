//! Workers that die, in every way and however they were started: only what they were running is lost.

use crate::support::{self, METHODS, eventually, exists, kill_self, pool, watchdog};
use maniple::{CallOptions, Cause, Error, Exit, Pool, StartMethod};
use maniple_sys::testing::{self, Signal};
use std::time::Duration;

fn expect_lost<T: std::fmt::Debug>(result: maniple::Result<T>, exit: Exit) -> Box<maniple::WorkerLost> {
    match result {
        Err(Error::WorkerLost(lost)) => {
            // Wine ends a thread whose stack has overflowed alone; the process ends after it, with the thread's code.
            let with_thread = cfg!(windows) && exit == STACK_OVERFLOW && lost.exit == Exit::Code(0);
            assert!(lost.exit == exit || with_thread, "{lost}");
            lost
        }
        other => panic!("{other:?} instead of a lost worker"),
    }
}

/// Kills its worker in the way of the number.
fn die(how: u32) -> u32 {
    match how {
        0 => kill_self(Signal::KILL),
        1 => kill_self(Signal::SEGV),
        2 => std::process::abort(),
        3 => std::process::exit(3),
        4 => std::process::exit(0),
        5 => kill_self(Signal::TERM),
        6 => drop(overflow(0)),
        _ => {}
    }
    how
}

const STACK_OVERFLOW: Exit =
    if cfg!(windows) { Exit::Killed(Cause::from_number(0x3FFF_FF03)) } else { Exit::Killed(Cause::BAD_ACCESS) };

#[allow(unconditional_recursion)]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + page[depth as usize % 512]
}

#[test]
fn every_kind_of_death_is_told_and_costs_only_its_own_task() {
    let _dog = watchdog();
    let exits = [
        Exit::Killed(Cause::KILL),
        Exit::Killed(Cause::BAD_ACCESS),
        Exit::Killed(Cause::ABORT),
        Exit::Code(3),
        Exit::Code(0),
        Exit::Killed(Cause::TERMINATE),
        STACK_OVERFLOW,
    ];
    for method in METHODS {
        let pool = pool(method, 2);
        for (how, exit) in (0..).zip(exits) {
            let lost = expect_lost(pool.apply(die, how), exit);
            assert!(!exists(lost.pid));
            assert_eq!(pool.apply(die, 100).unwrap(), 100);
        }
        let all: Vec<_> = pool.with(CallOptions::new().chunksize(1)).imap(die, 0..50).unwrap().collect();
        for (i, result) in (0u32..).zip(all) {
            match exits.get(i as usize) {
                Some(&exit) => drop(expect_lost(result, exit)),
                None => assert_eq!(result.unwrap(), i),
            }
        }
    }
}

#[test]
fn the_error_names_process_signal_task_and_last_words() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 1);
        let pid = pool.apply(|()| std::process::id(), ()).unwrap();
        let lost = pool.with(CallOptions::new().chunksize(1)).map(
            |x: u32| {
                if x == 5 {
                    eprint!("about to die\nof number {x}");
                    kill_self(Signal::KILL);
                }
            },
            0..9,
        );
        let lost = expect_lost(lost, Exit::Killed(Cause::KILL));
        assert_eq!(lost.pid, pid);
        assert_eq!(lost.stderr_tail, "about to die\nof number 5");
        let text = lost.to_string();
        for part in [&*format!("worker {pid}"), support::KILLED, "item 5 of map", "of number 5"] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
}

#[test]
fn a_map_runs_all_other_items() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let folder = std::env::temp_dir().join(format!("maniple-deaths-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let touch = |folder: &std::path::PathBuf, x: u32| {
        if x == 7 {
            kill_self(Signal::KILL);
        }
        std::fs::write(folder.join(x.to_string()), "").unwrap();
    };
    expect_lost(pool.with(CallOptions::new().chunksize(1)).map_with(&folder, touch, 0..40), Exit::Killed(Cause::KILL));
    let count = std::fs::read_dir(&folder).unwrap().count();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(count, 39);
}

#[test]
fn nothing_runs_twice() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let file = std::env::temp_dir().join(format!("maniple-once-{}", std::process::id()));
    let log = |file: &std::path::PathBuf, x: u32| {
        use std::io::Write;
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
        log.write_all(format!("{x}\n").as_bytes()).unwrap();
        if x.is_multiple_of(10) {
            kill_self(Signal::KILL);
        }
    };
    let _ = pool.with(CallOptions::new().chunksize(1)).map_with(&file, log, 0..50);
    let mut ran: Vec<u32> = std::fs::read_to_string(&file).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    std::fs::remove_file(&file).unwrap();
    ran.sort_unstable();
    assert!(ran.into_iter().eq(0..50));
}

#[test]
fn a_worker_that_is_killed_while_idle_costs_nothing() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        for _ in 0..5 {
            let before = pool.pids();
            assert_eq!(pool.map(u64::count_ones, 0..10).unwrap().len(), 10);
            for pid in &before {
                let _ = testing::kill(*pid, Signal::KILL);
            }
            eventually("new workers", || pool.pids().iter().all(|p| !before.contains(p)) && pool.pids().len() == 2);
        }
    }
}

#[test]
fn what_was_waiting_for_a_killed_worker_goes_to_another() {
    let _dog = watchdog();
    let pool = Pool::new(1).unwrap();
    let nap = |ms| std::thread::sleep(Duration::from_millis(ms));
    let first = pool.apply_async(|()| kill_self(Signal::KILL), ()).unwrap();
    let rest: Vec<_> = (0..20).map(|_| pool.apply_async(nap, 1).unwrap()).collect();
    expect_lost(first.get(), Exit::Killed(Cause::KILL));
    rest.into_iter().for_each(|t| t.get().unwrap());
}

#[test]
fn an_initializer_that_fails_fails_the_calls_with_its_words() {
    let _dog = watchdog();
    for method in METHODS {
        let build = || Pool::builder().processes(2).start_method(method);
        let pool = build().initializer(|x: u32| panic!("not with {x}"), 7).build().unwrap();
        let error = pool.map(u64::count_ones, 0..10).unwrap_err();
        assert!(matches!(&error, Error::Call(maniple::CallError::Initializer(_))), "{error:?}");
        assert!(error.to_string().contains("not with 7"), "{error}");
        assert!(pool.apply(u64::count_ones, 1).is_err());
        drop(pool);

        let pool = build()
            .initializer(
                |()| {
                    eprintln!("bye");
                    std::process::exit(4)
                },
                (),
            )
            .build()
            .unwrap();
        let error = pool.apply(u64::count_ones, 1).unwrap_err().to_string();
        assert!(error.contains("exited with code 4") && error.contains("bye"), "{error}");
    }
}

// Windows has no fork server.
#[cfg(not(windows))]
#[test]
fn a_fork_server_that_is_killed_is_replaced() {
    let _dog = watchdog();
    let pool = pool(StartMethod::ForkServer, 2);
    let server = pool.apply(|()| support::parent(), ()).unwrap();
    testing::kill(server, Signal::KILL).unwrap();
    for how in [0, 3] {
        let lost = pool.apply(die, how);
        assert!(matches!(lost, Err(Error::WorkerLost(_))), "{lost:?}");
        assert_eq!(pool.map(die, 100..110).unwrap().len(), 10);
    }
}

#[test]
fn a_crash_while_others_work_does_not_disturb_them() {
    let _dog = watchdog();
    let pool = Pool::new(2).unwrap();
    let mut lost = 0;
    for result in pool.imap_unordered(|x: u32| if x % 500 == 250 { std::process::abort() } else { x }, 0..3000).unwrap()
    {
        match result {
            Ok(_) => {}
            Err(Error::WorkerLost(_)) => lost += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(lost >= 6, "{lost}");
}

#[test]
fn the_error_names_the_function() {
    let _dog = watchdog();
    let pool = pool(StartMethod::Spawn, 1);
    let lost = expect_lost(pool.apply(die, 0), Exit::Killed(Cause::KILL));
    let of_die = format!("apply of {}", support::named("it::deaths::die", "fn(u32) -> u32"));
    assert_eq!(lost.task, of_die);
    let text = Error::WorkerLost(lost).to_string();
    assert!(text.contains(&format!(" was killed by {} while it ran {of_die}", support::KILLED)), "{text}");
    let lost = expect_lost(pool.apply(die, 3), Exit::Code(3)).task;
    assert_eq!(lost, of_die);
    // A closure has no name; its type identifies it.
    let lost = expect_lost(pool.apply(|how: u32| die(how) + 1, 0), Exit::Killed(Cause::KILL)).task;
    assert!(lost.starts_with("apply of ") && lost.contains("fn(u32) -> u32"), "{lost}");
}

#[cfg(not(windows))]
fn server_of((number, _): (u64, Vec<u8>)) -> (u64, u32) {
    (number, support::parent())
}

// Windows has no fork server.
#[cfg(not(windows))]
/// A server may die between the fork of a worker and its report. The worker must not run beside the one that is forked in
/// its place, over the same link.
#[test]
fn a_fork_server_that_dies_in_the_middle_of_a_start_disturbs_no_task() {
    let _dog = watchdog();
    let pool =
        Pool::builder().processes(2).start_method(StartMethod::ForkServer).max_tasks_per_child(1).build().unwrap();
    let mut delay = Duration::ZERO;
    for number in 0..300 {
        let calls = (0..4).map(|_| pool.apply_async(server_of, (number, vec![1; 30_000])).unwrap());
        for call in calls.collect::<Vec<_>>() {
            let (same, server) = call.get().unwrap();
            assert_eq!(same, number);
            std::thread::sleep(delay);
            delay = if delay > Duration::from_millis(1) { Duration::ZERO } else { delay + Duration::from_micros(37) };
            // It may have been killed already.
            let _ = testing::kill(server, Signal::KILL);
        }
    }
}
