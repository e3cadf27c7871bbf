//! Which process holds something, in words that another process can check.
//!
//! A process number alone is used again. With the time at which its process began (in the kernel's ticks since boot, as
//! `/proc/<pid>/stat` tells) it means one process, for as long as those ticks take to go round in 32 bits (497 days at 100 Hz). Numbers
//! mean something only within one pid namespace, so that is named, too.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// A process, to be recognised by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number; below 2³⁰ (the kernel's own limit is 2²²).
    pub pid: u32,
    /// When it began, modulo 2³²; 0 where that cannot be found out.
    pub born: u32,
    /// Where its number is valid; 0 where that cannot be found out, and then nobody's death can be told from here.
    pub space: u64,
}

/// This process's. Reads files: to be kept by the caller, and asked for again after a fork.
pub fn identity() -> Identity {
    let pid = super::process_id();
    // A `/proc` that belongs to another namespace shows our numbers' owners under other numbers.
    let proc_is_ours = std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == pid.to_string().as_str());
    let space = if proc_is_ours { std::fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino()) } else { 0 };
    Identity { pid, born: if space == 0 { 0 } else { born(pid).unwrap_or(0) }, space }
}

/// When process `pid` began: field 22 of its `stat`, counted from behind the name, which may contain anything.
fn born(pid: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(stat.get(behind + 2..)?).ok()?;
    let ticks: u64 = text.split(' ').nth(19)?.parse().ok()?;
    Some((ticks as u32).max(1))
}

/// Whether the process of this number and birth has certainly ended, reaped or not. To be asked only by a process whose
/// identity names the same space.
pub fn is_gone(pid: u32, born_at: u32) -> bool {
    use rustix::io::Errno;
    let Some(number) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return false };
    match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        // Nobody has the number, or it is by now the number of a thread.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => true,
        // A system without pidfds, a sandbox, no descriptor left: nothing can be said.
        Err(_) => false,
        Ok(handle) => {
            let mut interest = [super::ready::Interest::new(handle.as_fd())];
            let ended = super::ready::wait(&mut interest, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0);
            ended || (born_at != 0 && born(pid).is_some_and(|found| found != born_at))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sys::process::Forked;
    use crate::sys::process::tests::{fork, leave};

    #[test]
    fn a_process_recognises_itself_and_is_not_gone() {
        let me = identity();
        assert_eq!(me, identity());
        assert!(me.born != 0 && me.space != 0);
        assert!(!is_gone(me.pid, me.born));
    }

    #[test]
    fn a_number_that_was_used_again_means_another_process() {
        let me = identity();
        assert!(is_gone(me.pid, me.born.wrapping_add(7)));
    }

    #[test]
    fn a_process_that_nobody_has_reaped_yet_is_gone() {
        match fork() {
            Forked::Child => leave(0),
            Forked::Parent(child) => {
                let at = born(child.pid()).unwrap_or(0);
                assert!(child.watch().wait(Some(Duration::from_secs(30))).unwrap());
                assert!(is_gone(child.pid(), at));
                child.wait().unwrap();
                assert!(is_gone(child.pid(), at));
            }
        }
    }

    #[test]
    fn a_thread_is_not_taken_for_the_process_that_had_its_number() {
        let thread = std::thread::spawn(|| {
            let number = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            assert!(is_gone(number, 1));
        });
        thread.join().unwrap();
    }
}
