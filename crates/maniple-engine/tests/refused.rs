//! Processes where the kernel, or a sandbox, refuses handles on processes and what goes by them. A test program of its own: the refusal
//! holds for the whole process.
#![cfg(not(loom))]
#![allow(unsafe_code, clippy::unwrap_used)]

use maniple_engine::process::{Exit, ExitWatch, Launch};
use std::time::Duration;

/// From here on the kernel answers these calls with ENOSYS, in this process and its children. False: it takes no such orders.
fn refuse(calls: &[libc::c_long]) -> bool {
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Load the call's number; for each, skip the answer where it is another; allow what is left.
    let mut rows = vec![row(0x20, 0, 0, 0)];
    for &call in calls {
        rows.extend([row(0x15, 0, 1, call as u32), row(0x06, 0, 0, 0x0005_0000 | libc::ENOSYS as u32)]);
    }
    rows.push(row(0x06, 0, 0, 0x7FFF_0000));
    let program = libc::sock_fprog { len: rows.len() as u16, filter: rows.as_mut_ptr() };
    // SAFETY: the program and its rows live for the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

fn shell(text: &str) -> Launch {
    Launch::program("/bin/sh").arg("-c").arg(text)
}

#[test]
fn processes_are_started_watched_and_ended_without_handles_on_them() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        eprintln!("the test hangs");
        std::process::abort();
    });
    // The order: the filter holds for this thread and those that it starts.
    if !refuse(&[libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal, libc::SYS_waitid]) {
        return;
    }
    let child = shell("exit 3").start().unwrap();
    assert_eq!(child.wait().unwrap(), Exit::Code(3));
    assert_eq!(child.try_wait().unwrap(), Some(Exit::Code(3)));

    let child = shell("exec sleep 60").start().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
    assert!(!child.watch().ended().unwrap());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap(), Exit::Signal(9));
    // It has ended: its number may be another's.
    child.terminate().unwrap();

    for code in 0..50 {
        let child = shell(&format!("exit {code}")).start().unwrap();
        assert_eq!(child.wait_timeout(Duration::from_secs(20)).unwrap(), Some(Exit::Code(code)));
    }
    assert!(!ExitWatch::of(std::process::id()).unwrap().ended().unwrap());
    assert!(ExitWatch::of(1).unwrap_err().to_string().contains("pidfd_open"));
}
