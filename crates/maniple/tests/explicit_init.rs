//! A program that calls `maniple::init()` itself, although the feature `auto-init` is on. No test harness: it must be the first thing in
//! `main`. Also run with `--no-default-features`, where nothing else catches a worker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maniple::Pool;
use std::io::Write;

maniple::explicit_init!();

const NAME: &str = "a_program_may_call_init_itself";

fn triple(x: u32) -> u32 {
    3 * x
}

fn main() {
    // Nothing has caught a worker before `main`, and the announcement of its handles is still there.
    let is_worker = std::env::var_os("MANIPLE_INHERITED").is_some();
    if let Some(path) = std::env::var_os("MANIPLE_TEST_MAINS") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        log.write_all(if is_worker { b"worker\n" } else { b"program\n" }).unwrap();
    }
    if !is_worker {
        let error = Pool::new(1).unwrap_err().to_string();
        assert!(error.contains("maniple::init()"), "{error}");
    }
    maniple::init();
    assert!(std::env::var_os("MANIPLE_INHERITED").is_none());

    // What test runners ask of a program without a harness.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        if !arguments.iter().any(|a| a == "--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let mains = std::env::temp_dir().join(format!("maniple-mains-{}", std::process::id()));
    // SAFETY: this program has one thread.
    unsafe { std::env::set_var("MANIPLE_TEST_MAINS", &mains) };
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(triple, 0..3).unwrap(), [0, 3, 6]);
    // The items may be done before the second worker has begun.
    let reached = (0..6000).find_map(|_| {
        let reached = std::fs::read_to_string(&mains).unwrap();
        let all = reached.lines().count() >= 2;
        std::thread::sleep(std::time::Duration::from_millis(10));
        all.then_some(reached)
    });
    drop(pool);
    std::fs::remove_file(&mains).unwrap();
    assert_eq!(reached.as_deref(), Some("worker\nworker\n"), "each worker begins in main");
    println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
