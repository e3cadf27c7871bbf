//! Processes where the kernel, or a sandbox, refuses handles on processes and what goes by them. Alone in a process, for the whole
//! of which the refusal holds.

use crate::support::{LIMIT, alone};
use maniple_engine::process::{Cause, Exit, ExitWatch, Launch};
use std::time::Duration;

fn shell(text: &str) -> Launch {
    Launch::program("/bin/sh").arg("-c").arg(text)
}

#[test]
fn processes_are_started_watched_and_ended_without_handles_on_them() {
    alone(|| {
        // The order: the filter holds for this thread and those that it starts.
        if !maniple_sys::testing::refuse_process_handles() {
            return;
        }
        let child = shell("exit 3").start().unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Code(3));
        assert_eq!(child.try_wait().unwrap(), Some(Exit::Code(3)));

        let child = shell("exec sleep 60").start().unwrap();
        assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
        assert!(!child.watch().ended().unwrap());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Killed(Cause::KILL));
        // It has ended: its number may be another's.
        child.terminate().unwrap();

        for code in 0..50 {
            let child = shell(&format!("exit {code}")).start().unwrap();
            assert_eq!(child.wait_timeout(LIMIT).unwrap(), Some(Exit::Code(code)));
        }
        assert!(!ExitWatch::of(std::process::id()).unwrap().ended().unwrap());
        assert!(ExitWatch::of(1).unwrap_err().to_string().contains("pidfd_open"));
    });
}
