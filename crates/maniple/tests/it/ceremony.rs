//! Processes start without preparation in programs of every kind: here, test runners. Doc-tests do so throughout the
//! documentation, a program without a harness in `no_harness.rs`, examples in `examples.rs`.

use crate::support::{LONG, METHODS, pool, watchdog};
use maniple::{Exit, Pool, Process};
use maniple_sys::testing;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_test_starts_a_pool() {
    let _dog = watchdog();
    for method in METHODS {
        assert_eq!(pool(method, 2).map(|x: u32| x * x, 0..4).unwrap(), [0, 1, 4, 9]);
    }
}

#[test]
fn a_test_starts_a_process() {
    let _dog = watchdog();
    let process = Process::new(|code: i32| code, 5).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(5));
}

#[test]
fn a_thread_of_a_test_starts_a_pool() {
    let _dog = watchdog();
    let thread = std::thread::spawn(|| Pool::new(1).unwrap().apply(str_len, "four".to_string()).unwrap());
    assert_eq!(thread.join().unwrap(), 4);
}

fn str_len(text: String) -> usize {
    text.len()
}

/// Runs a program as a test runner does: no input, a process group of its own, both outputs in pipes. Returns what it printed.
fn run(program: &Path, arguments: &[&str]) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
    testing::in_own_group(&mut command);
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let printed = std::thread::spawn(move || {
        let mut printed = String::new();
        reader.read_to_string(&mut printed).map(|_| printed)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > LONG {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // A runner reads to the end: a process that was left behind would delay it.
    let printed = printed.join().unwrap().unwrap();
    assert!(status.success(), "{} {arguments:?}: {status}\n{printed}", program.display());
    printed
}

/// cargo-nextest asks the program for a list, and starts it once more for each test.
#[test]
fn a_runner_that_gives_each_test_a_process_of_its_own_finds_nothing_unusual() {
    let _dog = watchdog();
    let this = std::env::current_exe().unwrap();
    let list = run(&this, &["--list", "--format", "terse"]);
    let mut tests: Vec<&str> = list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    assert_eq!(tests.len(), list.lines().count(), "something else is in the list:\n{list}");
    assert!(run(&this, &["--list", "--format", "terse", "--ignored"]).is_empty());
    tests.retain(|name| name.starts_with("ceremony::a_test_") || name.starts_with("ceremony::a_thread_"));
    assert_eq!(tests.len(), 3);
    for test in tests {
        let printed = run(&this, &["--exact", test, "--nocapture"]);
        assert!(printed.contains("1 passed"), "{printed}");
    }
}
