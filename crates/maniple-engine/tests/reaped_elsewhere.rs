//! Processes in a program that ignores SIGCHLD, whose children the kernel reaps. A test program of its own: that holds for the whole
//! process.
#![cfg(not(loom))]
#![allow(unsafe_code, clippy::unwrap_used)]

use maniple_engine::process::{Exit, Launch};
use std::time::Duration;

#[test]
fn children_that_the_kernel_reaps_are_seen_to_end() {
    // SAFETY: no handler, and no pointers.
    maniple_sys::testing::ignore(maniple_sys::testing::Signal::CHILD);
    for code in 0..100 {
        // Half of them have ended before there can be a handle on them.
        let pause = if code % 2 == 0 { "" } else { "sleep 0.01; " };
        let child = Launch::program("/bin/sh").arg("-c").arg(format!("{pause}exit {code}")).start().unwrap();
        let exit = child.wait_timeout(Duration::from_secs(30)).unwrap();
        assert!(exit == Some(Exit::Code(code)) || exit == Some(Exit::Unknown), "{exit:?}, not {code}");
        child.kill().unwrap();
    }
}
