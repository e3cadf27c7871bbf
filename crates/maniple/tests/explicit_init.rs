//! A program that calls `maniple::init()` itself. No test harness: it must be the first thing in `main`. Also run with
//! `--no-default-features`, where nothing else catches a worker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maniple::Pool;

const NAME: &str = "a_program_may_call_init_itself";

fn triple(x: u32) -> u32 {
    3 * x
}

fn main() {
    if cfg!(not(feature = "auto-init")) && std::env::var_os("MANIPLE_INHERITED").is_none() {
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
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(triple, 0..3).unwrap(), [0, 3, 6]);
    drop(pool);
    println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}
