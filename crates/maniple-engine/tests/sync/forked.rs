//! Forked children that run a piece of a test.

use maniple_engine::process::{self, Child, Exit, Forked as Side};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

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
        let exit = self.0.wait_timeout(Duration::from_secs(60)).unwrap();
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
        assert!(self.0.watch().wait(Some(Duration::from_secs(30))).unwrap());
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
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits to be killed.
pub fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
