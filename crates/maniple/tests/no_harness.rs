//! A test program without a harness, whose `main` knows nothing of workers: they never get there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "auto-init")]
fn main() {
    const NAME: &str = "a_program_without_a_harness_starts_processes_with_no_ceremony";
    // What test runners ask of a program without a harness.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    println!("running 1 test");
    let pool = maniple::Pool::new(2).unwrap();
    assert_eq!(pool.map(|x: u32| x + 1, 0..3).unwrap(), [1, 2, 3]);
    drop(pool);
    let process = maniple::Process::new(|code: i32| code, 3).unwrap();
    process.start().unwrap();
    assert_eq!(process.join().unwrap(), maniple::Exit::Code(3));
    println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

#[cfg(not(feature = "auto-init"))]
fn main() {}
