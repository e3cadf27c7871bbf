//! What a pool's workers have of their own: variables, a directory, processors, a number, and a function at their end.

use crate::support::{
    Folder, METHODS, apart, begin_and_wait, eventually, exists, kill_self, let_go, wait_for_begin, watchdog,
};
use maniple::{Affinity, Error, Handle, Pool, PoolBuilder, StartMethod, SystemError};
use maniple_sys::testing::Signal;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn builder(method: StartMethod) -> PoolBuilder {
    Pool::builder().processes(1).start_method(method)
}

fn variable(name: String) -> Option<String> {
    std::env::var(name).ok()
}

fn directory(_: u8) -> PathBuf {
    std::env::current_dir().unwrap()
}

/// The workers' number and process.
fn place((folder, number): (PathBuf, u32)) -> (usize, u32) {
    begin_and_wait((folder, number));
    (maniple::worker_id().unwrap(), std::process::id())
}

/// What each of so many workers returns for `f`, all at once.
fn of_each<R: maniple::Payload>(pool: &Pool, count: u32, f: fn((PathBuf, u32)) -> R) -> Vec<R> {
    let folder = Folder::new();
    let calls: Vec<_> = (0..count).map(|n| pool.apply_async(f, (folder.to_path_buf(), n)).unwrap()).collect();
    (0..count).for_each(|number| wait_for_begin(&folder, number));
    let_go(&folder);
    calls.into_iter().map(|call| call.get().unwrap()).collect()
}

fn refused<T: std::fmt::Debug>(result: maniple::Result<T>, why: &str) {
    assert!(matches!(&result, Err(Error::InvalidArgument(text)) if text.contains(why)), "{result:?} without {why}");
}

fn system_error<T: std::fmt::Debug>(result: maniple::Result<T>) -> SystemError {
    match result {
        Err(Error::System(error)) => error,
        other => panic!("{other:?} instead of an error of the system"),
    }
}

#[test]
fn workers_have_variables_of_their_own() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = builder(method)
            .env("MANIPLE_ONE", "1")
            .envs([("MANIPLE_TWO", "2"), ("MANIPLE_THREE", "")])
            .env("MANIPLE_ONE", "one")
            .env_remove("MANIPLE_TWO")
            .env_remove("PATH")
            .build()
            .unwrap();
        let names = ["MANIPLE_ONE", "MANIPLE_TWO", "MANIPLE_THREE", "PATH"].map(str::to_owned);
        let values = [Some("one".to_owned()), None, Some(String::new()), None];
        assert_eq!(pool.map(variable, names.clone()).unwrap(), values);
        // So does a worker that replaces another.
        let lost = pool.apply(|()| kill_self(Signal::KILL), ());
        assert!(matches!(lost, Err(Error::WorkerLost(_))));
        assert_eq!(pool.map(variable, names).unwrap(), values);
        assert!(variable("PATH".into()).is_some() && variable("MANIPLE_ONE".into()).is_none());
    }
}

#[test]
fn the_initializer_has_the_surroundings() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let pool = builder(method)
            .env("MANIPLE_NAME", "written")
            .current_dir(&*folder)
            .initializer(
                |text: String| std::fs::write(variable("MANIPLE_NAME".into()).unwrap(), text).unwrap(),
                "x".into(),
            )
            .build()
            .unwrap();
        let there = pool.apply(directory, 0).unwrap().canonicalize().unwrap();
        assert_eq!(there, folder.canonicalize().unwrap());
        assert_eq!(std::fs::read_to_string(folder.join("written")).unwrap(), "x");
    }
}

#[test]
fn a_relative_directory_and_program_start_where_the_pool_was_built() {
    let _dog = watchdog();
    // The process changes its own directory.
    apart(|()| {
        for method in METHODS {
            let folder = Folder::new();
            std::fs::create_dir(folder.join("inner")).unwrap();
            let program = Path::new("program").with_extension(std::env::consts::EXE_EXTENSION);
            let this = std::env::current_exe().unwrap();
            if std::fs::hard_link(&this, folder.join(&program)).is_err() {
                std::fs::copy(this, folder.join(program)).unwrap();
            }
            std::env::set_current_dir(&*folder).unwrap();
            let here = std::env::current_dir().unwrap();
            let pool = builder(method).current_dir("inner").build().unwrap();
            #[cfg(feature = "macros")]
            let other = builder(method)
                .program(Path::new("./program").with_extension(std::env::consts::EXE_EXTENSION))
                .current_dir("inner")
                .build()
                .unwrap();
            std::env::set_current_dir(folder.ancestors().last().unwrap()).unwrap();
            assert_eq!(pool.apply(directory, 0).unwrap(), here.join("inner"));
            assert!(matches!(pool.apply(|()| kill_self(Signal::KILL), ()), Err(Error::WorkerLost(_))));
            assert_eq!(pool.apply(directory, 0).unwrap(), here.join("inner"));
            #[cfg(feature = "macros")]
            {
                assert_eq!(other.apply(named_directory, 0).unwrap(), here.join("inner"));
                assert!(matches!(other.apply(named_end, 0), Err(Error::WorkerLost(_))));
                assert_eq!(other.apply(named_directory, 0).unwrap(), here.join("inner"));
            }
        }
    });
}

#[cfg(feature = "macros")]
#[maniple::task]
fn named_directory(_: u8) -> PathBuf {
    std::env::current_dir().unwrap()
}

#[cfg(feature = "macros")]
#[maniple::task]
fn named_end(_: u8) {
    std::process::exit(3)
}

#[test]
fn threads_of_libraries_are_limited() {
    let _dog = watchdog();
    let names = ["OMP_NUM_THREADS", "RAYON_NUM_THREADS", "MKL_NUM_THREADS"].map(str::to_owned);
    for method in METHODS {
        let pool = builder(method).env("MKL_NUM_THREADS", "3").threads_per_worker(2).build().unwrap();
        assert_eq!(pool.map(variable, names.clone()).unwrap(), ["2", "2", "3"].map(|n| Some(n.to_owned())));
    }
}

#[test]
fn surroundings_that_cannot_be_are_refused() {
    let _dog = watchdog();
    for name in ["", "a=b"] {
        refused(Pool::builder().env(name, "x").build(), "without a name");
        refused(Pool::builder().env_remove(name).build(), "without a name");
    }
    for (name, value) in [("a\0b", "x"), ("a", "x\0")] {
        refused(Pool::builder().env(name, value).build(), "NUL");
    }
    refused(Pool::builder().threads_per_worker(0).build(), "threads_per_worker of 0");
    let none = system_error(Pool::builder().current_dir("/no/such/directory").build());
    assert_eq!(none.kind(), std::io::ErrorKind::NotFound);
    assert!(none.to_string().contains("/no/such/directory does not exist"), "{none}");
    let file = system_error(Pool::builder().current_dir(std::env::current_exe().unwrap()).build());
    assert_eq!(file.kind(), std::io::ErrorKind::NotADirectory);
}

fn processors(item: (PathBuf, u32)) -> (usize, Vec<usize>) {
    let (number, _) = place(item);
    (number, maniple_sys::allowed_cores().unwrap())
}

#[test]
fn processors_are_shared_out() {
    let _dog = watchdog();
    let all = maniple_sys::allowed_cores().unwrap();
    for method in METHODS {
        let count = all.len().min(4);
        let pool = builder(method).processes(count).affinity(Affinity::Spread).build().unwrap();
        let mut shares: Vec<usize> = Vec::new();
        for (_, mut share) in of_each(&pool, count as u32, processors) {
            shares.append(&mut share);
        }
        shares.sort_unstable();
        assert_eq!(shares, all);
        // More workers than processors: each has one.
        let pool = builder(method).processes(all.len() + 1).affinity(Affinity::Spread).build().unwrap();
        assert!(of_each(&pool, 2, processors).iter().all(|(_, share)| share.len() == 1));
    }
    assert_eq!(maniple_sys::allowed_cores().unwrap(), all);
}

#[test]
fn sets_of_processors_go_to_the_workers_in_turn() {
    let _dog = watchdog();
    let all = maniple_sys::allowed_cores().unwrap();
    let sets = [all.clone(), vec![all[0]], vec![*all.last().unwrap()]];
    for method in METHODS {
        let pool = builder(method).processes(4).affinity(sets.clone()).build().unwrap();
        for _ in 0..2 {
            for (number, has) in of_each(&pool, 4, processors) {
                assert_eq!(has, sets[number % 3], "worker {number}");
            }
            let lost = pool.apply(|()| kill_self(Signal::KILL), ());
            assert!(matches!(lost, Err(Error::WorkerLost(_))));
        }
    }
}

#[test]
fn an_affinity_that_cannot_be_is_refused() {
    let _dog = watchdog();
    let none: [Vec<usize>; 0] = [];
    refused(Pool::builder().affinity(none).build(), "without a set");
    refused(Pool::builder().affinity([vec![], vec![0]]).build(), "an empty set");
    for processor in [1 << 20, usize::MAX] {
        refused(Pool::builder().affinity(vec![[processor]]).build(), "may not run");
    }
}

#[test]
fn each_worker_has_a_number() {
    let _dog = watchdog();
    assert_eq!((maniple::worker_id(), maniple::worker_count()), (None, None));
    for method in METHODS {
        let pool = builder(method).processes(3).build().unwrap();
        let numbers = |count| -> BTreeSet<usize> { of_each(&pool, count, place).into_iter().map(|(n, _)| n).collect() };
        assert_eq!(numbers(3), BTreeSet::from([0, 1, 2]));
        assert_eq!(pool.apply(|()| maniple::worker_count(), ()).unwrap(), Some(3));
        // The worker that replaces another takes over its number.
        for _ in 0..3 {
            let Err(Error::WorkerLost(_)) = pool.apply(|()| kill_self(Signal::KILL), ()) else { panic!("it lives") };
            assert_eq!(numbers(3), BTreeSet::from([0, 1, 2]));
        }
        pool.resize(4).unwrap();
        assert_eq!(numbers(4), BTreeSet::from([0, 1, 2, 3]));
    }
}

#[test]
fn the_initializer_knows_the_number_and_a_child_has_none() {
    let _dog = watchdog();
    static KEPT: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    fn of_child(_: u8) -> bool {
        let child = maniple::Process::new(|_: u8| i32::from(maniple::worker_id().is_some()), 0).unwrap();
        child.start().unwrap();
        child.join().unwrap() == maniple::Exit::Code(0)
    }
    for method in METHODS {
        let pool = builder(method).initializer(|_: u8| KEPT.set(maniple::worker_id()).unwrap(), 0).build().unwrap();
        assert_eq!(pool.apply(|_: u8| *KEPT.get().unwrap(), 0).unwrap(), Some(0));
        assert!(pool.apply(of_child, 0).unwrap());
    }
}

/// Notes the end of a worker.
fn note(folder: PathBuf) {
    std::fs::write(folder.join(format!("ended {}", std::process::id())), maniple::worker_id().unwrap().to_string())
        .unwrap();
}

fn noted(folder: &Path) -> BTreeSet<u32> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix("ended ").map(|pid| pid.parse().unwrap())).collect()
}

fn pids(pool: &Pool) -> BTreeSet<u32> {
    pool.pids().into_iter().collect()
}

fn finalized(method: StartMethod, folder: &Folder) -> PoolBuilder {
    builder(method).finalizer(note, folder.to_path_buf())
}

#[test]
fn the_finalizer_runs_at_the_end_of_each_worker() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let pool = finalized(method, &folder).processes(3).build().unwrap();
        let workers = pids(&pool);
        let call = pool.map_async(u32::count_ones, 0..100).unwrap();
        pool.join();
        assert_eq!((noted(&folder), call.get().unwrap().len()), (workers, 100));
    }
}

#[test]
fn the_finalizer_runs_in_workers_that_are_replaced_or_surplus() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let pool = finalized(method, &folder).max_tasks_per_child(1).build().unwrap();
        let replaced: BTreeSet<u32> = (0..3).map(|_| pool.apply(|_: u8| std::process::id(), 0).unwrap()).collect();
        eventually("the replaced workers are noted", || noted(&folder).is_superset(&replaced));
        drop(pool);

        let folder = Folder::new();
        let pool = finalized(method, &folder).processes(3).build().unwrap();
        of_each(&pool, 3, place);
        let all = pids(&pool);
        pool.resize(1).unwrap();
        eventually("two have ended", || pool.pids().len() == 1);
        assert_eq!(noted(&folder), &all - &pids(&pool));
        drop(pool);

        let folder = Folder::new();
        let pool = finalized(method, &folder).min_processes(0).idle_timeout(Duration::from_millis(20)).build().unwrap();
        let pid = pool.apply(|_: u8| std::process::id(), 0).unwrap();
        eventually("the idle worker has ended", || noted(&folder) == BTreeSet::from([pid]));
    }
}

#[test]
fn the_finalizer_does_not_run_in_workers_that_die_or_are_ended() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let pool = finalized(method, &folder).build().unwrap();
        let first = pool.apply(|_: u8| std::process::id(), 0).unwrap();
        assert!(matches!(pool.apply(|()| kill_self(Signal::KILL), ()), Err(Error::WorkerLost(_))));
        eventually("the worker has ended", || !exists(first));
        let call = pool.apply_async(begin_and_wait, (folder.to_path_buf(), 0)).unwrap();
        wait_for_begin(&folder, 0);
        pool.terminate();
        pool.join();
        drop(call);
        assert!(noted(&folder).is_empty());
    }
}

#[test]
fn a_finalizer_that_fails_harms_nothing() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = builder(method).max_tasks_per_child(1).finalizer(|()| panic!("at the end"), ()).build().unwrap();
        for _ in 0..3 {
            assert_eq!(pool.apply(u32::count_ones, 7).unwrap(), 3);
        }
        pool.join();
        let pool = builder(method).finalizer(|code| std::process::exit(code), 3).build().unwrap();
        assert_eq!(pool.apply(u32::count_ones, 7).unwrap(), 3);
        pool.join();
    }
}

#[test]
fn both_own_calls_may_have_descriptors() {
    let _dog = watchdog();
    fn greet((text, mut pipe): (String, Handle<std::io::PipeWriter>)) {
        writeln!(pipe, "{text}").unwrap();
    }
    for method in METHODS {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let handle = || Handle::new(writer.try_clone().unwrap());
        let pool = builder(method)
            .initializer(greet, ("begin".to_owned(), handle()))
            .finalizer(greet, ("end".to_owned(), handle()))
            .build()
            .unwrap();
        assert_eq!(pool.apply(u32::count_ones, 7).unwrap(), 3);
        pool.join();
        drop((pool, writer));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "begin\nend\n");
    }
}
