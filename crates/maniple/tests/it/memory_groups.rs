//! The memory limit of workers with control groups, and where the system refuses them. Each pool is in a process of its own.

use crate::support::{Folder, METHODS, eventually, exists, part, start_hub, watchdog};
use maniple::{CallOptions, Error, Pool, StartMethod};
use maniple_sys::process::memory_group::SLACK;
use maniple_sys::testing::{self, ExitStatusExt, Signal};
use std::fs;
use std::path::{Path, PathBuf};

const LIMIT: u64 = 64_000_000;
/// The kernel's own memory for a group.
const KERNEL_S: u64 = 8_000_000;
const MODULE: &str = module_path!();

/// The folder of this process's group in version 1 of the kernel's interface.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = groups.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        names.split(',').any(|name| name == "memory").then_some(path)
    })?;
    Some(Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/')))
}

fn may_make_groups() -> bool {
    let Some(trial) = own_group().map(|own| own.join(format!("trial-{}", std::process::id()))) else { return false };
    let made = fs::create_dir(&trial).is_ok();
    let _ = fs::remove_dir(&trial);
    made
}

/// The groups that a process has made.
fn groups_of(hub: u32) -> Vec<PathBuf> {
    let entries = own_group().and_then(|own| fs::read_dir(own).ok()).into_iter().flatten().flatten();
    let of_hub = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("maniple-") && name.split('-').nth(2) == Some(&hub.to_string())
    };
    entries.map(|entry| entry.path()).filter(of_hub).collect()
}

fn number(group: &Path, file: &str) -> u64 {
    fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn is_held(_: u8) -> bool {
    own_group().is_some_and(|own| own.file_name().is_some_and(|name| name.to_string_lossy().starts_with("maniple-")))
}

/// Uses far more than the limit while the pool's process is stopped.
fn eat_at_once(hub: u32) -> usize {
    testing::kill(hub, Signal::STOP).unwrap();
    let held = std::hint::black_box(vec![1u8; 1_500_000_000]);
    std::thread::sleep(std::time::Duration::from_secs(1000));
    held.len()
}

/// As `eat_at_once`, but the kernel ends the worker at its limit.
fn be_killed(hub: u32) -> usize {
    if is_held(0) {
        let _ = fs::write(own_group().unwrap().join("memory.oom_control"), "0");
    }
    eat_at_once(hub)
}

fn end_the_pool(hub: u32) -> usize {
    testing::kill(hub, Signal::KILL).unwrap();
    0
}

/// The pool's process.
fn play(part: &str) {
    let words: Vec<&str> = part.split(' ').collect();
    let method = *METHODS.iter().find(|method| format!("{method:?}") == words[0]).unwrap();
    if words[2] == "refused" {
        testing::refuse_control_groups();
    }
    run(method, words[1], words[2] == "allowed" && may_make_groups());
}

fn run(method: StartMethod, scenario: &str, groups: bool) {
    let pool = Pool::builder().processes(1).start_method(method).memory_limit(LIMIT).build().unwrap();
    assert_eq!(pool.apply(is_held, 0).unwrap(), groups);
    let function = match scenario {
        "eat_at_once" => eat_at_once,
        "be_killed" => be_killed,
        _ => end_the_pool,
    };
    let Err(Error::MemoryLimit(error)) = pool.apply(function, std::process::id()) else { panic!("it has a value") };
    assert!(error.limit == LIMIT && error.peak > LIMIT, "{error:?}");
    eventually("the worker has ended", || !exists(error.pid));
    assert_eq!(pool.apply(is_held, 0).unwrap(), groups);
    pool.terminate();
    pool.join();
    drop(pool);
    eventually("the groups are gone", || groups_of(std::process::id()).is_empty());
}

/// Starts the pool's process, lets it continue when its worker has reached its limit, and returns the most memory that the worker has had.
fn peak_of(test: &str, part: &str) -> Option<u64> {
    let mut hub = start_hub(MODULE, test, part);
    let pid = hub.id();
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    eventually("the pool's process is stopped, or has failed", || is_stopped() || !exists(pid));
    let group = groups_of(pid).pop();
    if let Some(group) = &group {
        // A worker that the kernel ends stays as a zombie.
        let reached = || number(group, "memory.failcnt") > 0;
        eventually("the worker is at its limit", || reached() || !exists(pid));
    }
    let peak = group.map(|group| number(&group, "memory.max_usage_in_bytes"));
    let _ = testing::kill(pid, Signal::CONT);
    let done = hub.wait().unwrap();
    assert!(done.success(), "{part}: {done}");
    peak
}

#[test]
fn a_worker_stays_within_its_limit_and_the_slack_while_nothing_watches() {
    const TEST: &str = "a_worker_stays_within_its_limit_and_the_slack_while_nothing_watches";
    let _dog = watchdog();
    if let Some(part) = part() {
        return play(&part);
    }
    for method in METHODS {
        for scenario in ["eat_at_once", "be_killed"] {
            let peak = peak_of(TEST, &format!("{method:?} {scenario} allowed"));
            assert_eq!(peak.is_some(), may_make_groups());
            assert!(peak.is_none_or(|peak| peak > LIMIT && peak <= LIMIT + SLACK + KERNEL_S), "{peak:?}");
        }
    }
}

#[test]
fn without_groups_the_watch_ends_a_worker() {
    const TEST: &str = "without_groups_the_watch_ends_a_worker";
    let _dog = watchdog();
    if let Some(part) = part() {
        return play(&part);
    }
    for method in METHODS {
        assert_eq!(peak_of(TEST, &format!("{method:?} eat_at_once refused")), None);
    }
}

#[test]
fn groups_of_a_killed_program_are_removed_by_the_next() {
    const TEST: &str = "groups_of_a_killed_program_are_removed_by_the_next";
    let _dog = watchdog();
    if let Some(part) = part() {
        return play(&part);
    }
    for method in METHODS {
        let mut hub = start_hub(MODULE, TEST, &format!("{method:?} end allowed"));
        let pid = hub.id();
        assert_eq!(hub.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        // The process has seen its worker in a group (`is_held`). A pool of another test may have removed the group since then.
        // The kernel refuses to remove a group while its last process is ending, which `cgroup.procs` does not list any more.
        eventually("a pool that starts has removed the groups", || {
            let _pool = Pool::builder().processes(1).start_method(method).memory_limit(LIMIT).build().unwrap();
            groups_of(pid).is_empty()
        });
    }
}

/// Waits for the file `go`, and then uses far more than the limit.
fn eat_when_told(folder: PathBuf) -> usize {
    while !folder.join("go").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let held = std::hint::black_box(vec![1u8; 1_500_000_000]);
    std::thread::sleep(std::time::Duration::from_secs(1000));
    held.len()
}

#[test]
fn a_memory_limit_holds_while_an_iterator_is_slow() {
    let _dog = watchdog();
    for (method, is_lazy) in METHODS.into_iter().flat_map(|method| [(method, true), (method, false)]) {
        let folder = Folder::new();
        let pool = Pool::builder().processes(2).start_method(method).memory_limit(LIMIT).build().unwrap();
        let large = pool.apply_async(eat_when_told, folder.to_path_buf()).unwrap();
        eventually("the task runs", || large.is_running());
        let workers: Vec<u32> = pool.pids();
        let go = folder.join("go");
        // So many that `imap` reads the iterator while its caller waits for results. `map` reads all of it before.
        let items = (0..3000u32).chain(std::iter::from_fn(move || {
            fs::write(&go, "").unwrap();
            eventually("the worker has ended", || workers.iter().any(|&pid| !exists(pid)));
            None
        }));
        let number = if is_lazy {
            pool.imap(u32::count_ones, items).unwrap().count()
        } else {
            let call = pool.with(CallOptions::new().chunksize(1));
            call.map(u32::count_ones, items).unwrap().len()
        };
        assert_eq!(number, 3000);
        assert!(matches!(large.get(), Err(Error::MemoryLimit(_))));
    }
}
