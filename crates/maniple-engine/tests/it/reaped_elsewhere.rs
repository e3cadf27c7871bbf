//! Processes in a program that ignores SIGCHLD, whose children the kernel reaps. Alone in a process, for the whole of
//! which that holds.

use crate::support::{self, alone};
use maniple_engine::process::{Exit, Launch};

#[test]
fn children_that_the_kernel_reaps_are_seen_to_end() {
    alone(|| {
        // SAFETY: no handler, and no pointers.
        maniple_sys::testing::ignore(maniple_sys::testing::Signal::CHILD);
        for code in 0..100 {
            // Half of them have ended before there can be a handle on them.
            let pause = if code % 2 == 0 { "" } else { "sleep 0.01; " };
            let child = Launch::program("/bin/sh").arg("-c").arg(format!("{pause}exit {code}")).start().unwrap();
            let exit = child.wait_timeout(support::LIMIT).unwrap();
            assert!(exit == Some(Exit::Code(code)) || exit == Some(Exit::Unknown), "{exit:?}, not {code}");
            child.kill().unwrap();
        }
    });
}
