//! Tasks that are tried again after a lost worker, a time limit or a memory limit.

use crate::support::{Folder, METHODS, kill_self, pool, watchdog};
use maniple::{CallOptions, Error, Handle, Pool, Retries};
use maniple_sys::testing::Signal;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Counts this call, also if its process ends, and returns the number of calls.
fn count(folder: &Path) -> usize {
    let path = folder.join("tries");
    std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap().write_all(b"x").unwrap();
    tries(folder)
}

fn tries(folder: &Path) -> usize {
    std::fs::read(folder.join("tries")).unwrap().len()
}

/// A folder to count in, and how many tries fail.
type Job = (PathBuf, usize);

type Failing = fn(Job) -> usize;

fn die_at_first((folder, times): Job) -> usize {
    let count = count(&folder);
    if count <= times {
        kill_self(Signal::KILL);
    }
    count
}

fn hang_at_first((folder, times): Job) -> usize {
    let count = count(&folder);
    if count <= times {
        std::thread::sleep(Duration::MAX);
    }
    count
}

fn eat_at_first((folder, times): Job) -> usize {
    let count = count(&folder);
    if count <= times {
        let mut held = Vec::new();
        loop {
            held.push(vec![1u8; 1 << 20]);
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    count
}

/// The name of the error, and the texts of the earlier ones.
fn failure<T: std::fmt::Debug>(result: maniple::Result<T>) -> (&'static str, Vec<String>) {
    let error = result.unwrap_err();
    let text = error.to_string();
    let (name, earlier) = match error {
        Error::WorkerLost(error) => ("died", error.earlier),
        Error::TaskTimeout(error) => ("late", error.earlier),
        Error::MemoryLimit(error) => ("large", error.earlier),
        other => panic!("{other:?}"),
    };
    for (number, before) in (1..).zip(&earlier) {
        assert!(text.contains(&format!("\ntry {number} failed: {before}")), "{text}");
    }
    (name, earlier)
}

#[test]
fn a_task_is_tried_again_after_each_kind_of_loss() {
    let _dog = watchdog();
    let failing: [(Failing, &str, &str); 3] = [
        (die_at_first, "died", "was killed by signal 9"),
        (hang_at_first, "late", "exceeded its task_timeout"),
        (eat_at_first, "large", "exceeded the memory_limit"),
    ];
    for method in METHODS {
        let pool = Pool::builder().processes(1).start_method(method).memory_limit(150_000_000).build().unwrap();
        for (function, name, text) in failing {
            let folder = Folder::new();
            let mut options = CallOptions::new().retries(2);
            if name == "late" {
                options = options.task_timeout(Duration::from_secs(1));
            }
            let job = |times| (folder.to_path_buf(), times);
            assert_eq!(pool.with(options).apply(function, job(2)).unwrap(), 3);
            let (last, earlier) = failure(pool.with(options.retries(1)).apply(function, job(100)));
            assert_eq!((last, earlier.len(), tries(&folder)), (name, 1, 5));
            assert!(earlier[0].contains(text), "{}", earlier[0]);
        }
    }
}

#[test]
fn no_task_is_tried_again_by_default() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let plain = pool(method, 1);
        assert_eq!(failure(plain.apply(die_at_first, (folder.to_path_buf(), 1))), ("died", vec![]));
        assert_eq!(tries(&folder), 1);
        // Nor if the call says so, against the pool's default.
        let pool = Pool::builder().processes(1).start_method(method).retries(5).build().unwrap();
        let none = pool.with(CallOptions::new().retries(0));
        assert_eq!(failure(none.apply(die_at_first, (folder.to_path_buf(), 9))), ("died", vec![]));
        assert_eq!(tries(&folder), 2);
        assert_eq!(pool.apply(die_at_first, (folder.to_path_buf(), 5)).unwrap(), 6);
    }
}

#[test]
fn panics_and_errors_of_the_function_are_results() {
    let _dog = watchdog();
    for method in METHODS {
        let folder = Folder::new();
        let pool = Pool::builder().processes(1).start_method(method).retries(Retries::new(5)).build().unwrap();
        let panics = |folder: PathBuf| -> usize { panic!("try {}", count(&folder)) };
        let Err(Error::Panicked(panicked)) = pool.apply(panics, folder.to_path_buf()) else { panic!("it has a value") };
        assert_eq!(panicked.message, "try 1");
        let fails = |folder: PathBuf| Err::<(), usize>(count(&folder));
        assert_eq!(pool.apply(fails, folder.to_path_buf()).unwrap(), Err(2));
        assert_eq!(tries(&folder), 2);
    }
}

#[test]
fn a_map_tries_only_what_failed_again() {
    let _dog = watchdog();
    for method in METHODS {
        let pool = pool(method, 2);
        let folders: Vec<Folder> = (0..6).map(|_| Folder::new()).collect();
        let jobs = || folders.iter().enumerate().map(|(i, folder)| (folder.to_path_buf(), usize::from(i == 3)));
        let options = CallOptions::new().retries(3).chunksize(6);
        assert_eq!(pool.with(options).map(die_at_first, jobs()).unwrap(), [1, 1, 1, 2, 1, 1]);
        let counts: Vec<usize> = folders.iter().map(|folder| tries(folder)).collect();
        assert_eq!(counts, [1, 1, 1, 2, 1, 1]);
        let jobs = jobs().collect::<Vec<_>>();
        let results: maniple::Result<Vec<usize>> = pool.with(options).imap(die_at_first, jobs).unwrap().collect();
        assert_eq!(results.unwrap(), [2, 2, 2, 3, 2, 2]);
    }
}

#[test]
fn pauses_between_tries_do_not_keep_a_pool_from_closing() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let retries = Retries::new(2).initial_delay(Duration::from_millis(100)).backoff_coefficient(1.5);
        let options = CallOptions::new().retries(retries.max_delay(Duration::from_secs(1)));
        let job = pool.with(options).apply_async(die_at_first, (folder.to_path_buf(), 2)).unwrap();
        pool.join();
        assert_eq!(job.get().unwrap(), 3);
    }
}

#[test]
fn a_call_that_pauses_between_tries_is_cancelled() {
    let _dog = watchdog();
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let retries = Retries::new(2).initial_delay(Duration::from_secs(1000)).max_delay(Duration::MAX);
        let options = CallOptions::new().retries(retries);
        let job = pool.with(options).apply_async(die_at_first, (folder.to_path_buf(), 2)).unwrap();
        let before = pool.pids();
        crate::support::eventually("the first try has failed", || {
            folder.join("tries").exists() && !pool.pids().is_empty() && pool.pids() != before
        });
        assert!(job.cancel());
        assert!(matches!(job.get(), Err(Error::Call(maniple::CallError::Cancelled))));
        assert_eq!(tries(&folder), 1);
    }
}

/// The lost worker had the only copy.
#[test]
fn a_task_whose_arguments_hold_descriptors_is_not_tried_again() {
    let _dog = watchdog();
    fn die_with((folder, _file): (PathBuf, Handle<File>)) {
        die_at_first((folder, 9));
    }
    for method in METHODS {
        let (pool, folder) = (pool(method, 1), Folder::new());
        let file = File::create(folder.join("file")).unwrap();
        let result = pool.with(CallOptions::new().retries(3)).apply(die_with, (folder.to_path_buf(), file.into()));
        assert_eq!(failure(result), ("died", vec![]));
        assert_eq!(tries(&folder), 1);
    }
}
