//! What the tests share: the time limit, processes of their own, forked children.

use maniple_engine::process::{self, Child, Exit, Forked as Side};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// Killed and reaped when dropped.
pub struct Forked(Child);

impl Forked {
    /// Runs `work` in a forked child.
    pub fn run(work: impl FnOnce()) -> Forked {
        // SAFETY: the children of these tests use memory that the allocator has ready after a fork, and locks of the engine.
        match unsafe { process::fork() }.unwrap() {
            Side::Parent(child) => Forked(child),
            Side::Child => {
                let fine = catch_unwind(AssertUnwindSafe(work)).is_ok();
                maniple_sys::process::leave(i32::from(!fine))
            }
        }
    }

    /// Waits for the end of its work, which must have gone well.
    pub fn ends_well(self) {
        let exit = self.0.wait_timeout(LIMIT).unwrap();
        assert_eq!(exit, Some(Exit::Code(0)), "the child's work");
    }

    /// Waits until it sleeps.
    pub fn until_asleep(&self) {
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", self.0.pid())).unwrap();
        until(|| stat().rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")));
    }

    /// Kills it; its parent does not reap it.
    pub fn kill_and_leave_unreaped(self) {
        self.0.kill().unwrap();
        assert!(self.0.watch().wait(Some(LIMIT)).unwrap());
        std::mem::forget(self);
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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
