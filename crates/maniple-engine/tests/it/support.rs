//! What the tests share: the time limit, processes of their own, work in other processes.

#[cfg_attr(not(windows), allow(dead_code))]
mod elsewhere;

pub use elsewhere::Elsewhere;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long a test may take, and anything that it waits for.
pub const LIMIT: Duration = Duration::from_secs(60);
/// For a wait that has an end.
pub const LONG: Duration = LIMIT;
/// For a wait that has none.
pub const SHORT: Duration = Duration::from_millis(30);

/// What is asked of a wait's interrupt hook: it is not interrupted.
pub fn go_on() -> bool {
    true
}

/// Ends the test program if the returned value still lives when the time is over.
#[must_use]
pub fn watchdog() -> Sender<()> {
    let (alive, watch) = channel::<()>();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if watch.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            // Not by `eprintln!`, which the harness keeps until the test's end.
            let _ = writeln!(std::io::stderr(), "{test} hangs");
            std::process::abort();
        }
    });
    alive
}

/// In the environment of a program that [`alone`] starts.
const ALONE: &str = "MANIPLE_TEST_ALONE";

/// Runs `body`, which is the whole of a test, in a process of its own: the test program, started for this test only. There are no
/// other tests' threads, children and descriptors, and no other test has to bear with what it does to its process.
pub fn alone<F: FnOnce()>(body: F) {
    let _alive = watchdog();
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    // "it::module::test::{{closure}}"
    let name = std::any::type_name::<F>();
    let test = name.trim_start_matches("it::").trim_end_matches("::{{closure}}");
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ALONE, "1").stdin(Stdio::null());
    let done = program.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{}\n{said}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    // A name that is not a test's would be ignored.
    assert!(said.contains("1 passed"), "{test} was not run: {said}");
}

/// Waits until `true_now`, with a limit that no sound run comes near.
pub fn until(true_now: impl Fn() -> bool) {
    let begun = Instant::now();
    while !true_now() {
        assert!(begun.elapsed() < LIMIT, "in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits to be killed.
pub fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
