//! The identity of a holder, in words that another process can check.
//!
//! A process number alone is used again. With its *birth* it identifies one process. The birth is the number of its
//! pidfd's file, which is never used again, if the kernel has it (6.9); otherwise the time at which the process began
//! (in the kernel's ticks since boot, from `/proc/<pid>/stat`), which a process in another time namespace reads
//! differently. The lowest bit says which of the two it is.
//!
//! Numbers are valid only within one pid namespace, and times only within one time namespace. The *space* identifies
//! these namespaces.

use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

pub use crate::terms::Identity;

/// Births of the two kinds.
mod birth {
    pub fn by_file(inode: u64) -> u32 {
        (inode as u32) << 1 | 1
    }

    pub fn by_time(ticks: u64) -> u32 {
        ((ticks as u32) << 1).max(2)
    }

    pub fn is_by_file(born: u32) -> bool {
        born & 1 != 0
    }
}

/// Returns the identity of this process. It reads files, so the caller keeps the result, and calls again after a fork.
pub fn identity() -> Identity {
    let pid = super::process_id();
    // A `/proc` that belongs to another namespace shows the processes of this namespace under other numbers.
    let proc_is_ours = std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == pid.to_string().as_str());
    let named = |name: &str| std::fs::metadata(format!("/proc/self/ns/{name}")).map_or(0, |found| found.ino());
    let me = open(pid).ok();
    if let Some((me, inode)) = me.as_ref().and_then(|me| Some((me, unique_file(me.as_handle())?))) {
        let space = if proc_is_ours { named("pid") } else { namespace(me.as_handle()) };
        return Identity {
            pid,
            born: birth::by_file(inode),
            space: space << 1 & !(1 << 63) | u64::from(space != 0) << 63,
        };
    }
    let space = if proc_is_ours { named("pid") } else { 0 };
    if space == 0 {
        return Identity { pid, born: 0, space };
    }
    // Before Linux 5.6 there are no time namespaces: `named` returns 0.
    let space = space << 1 ^ named("time").rotate_left(32) | 1;
    Identity { pid, born: begun(pid).unwrap_or(0), space }
}

fn open(pid: u32) -> Result<OwnedHandle, Errno> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    rustix::process::pidfd_open(number, PidfdFlags::empty()).map(crate::own::arrived)
}

/// Returns the number of a pidfd's file, if each process has its own.
fn unique_file(pidfd: BorrowedHandle<'_>) -> Option<u64> {
    /// `PID_FS_MAGIC` of `linux/magic.h`.
    const PID_FS: u64 = 0x5049_4446;
    (rustix::fs::fstatfs(pidfd).ok()?.f_type as u64 == PID_FS).then_some(())?;
    Some(rustix::fs::fstat(pidfd).ok()?.st_ino)
}

/// Returns the number of a process's pid namespace, from the kernel (6.11 and later); 0: it does not report it.
#[allow(unsafe_code)]
fn namespace(pidfd: BorrowedHandle<'_>) -> u64 {
    /// `PIDFD_GET_PID_NAMESPACE` of `linux/pidfd.h`.
    const GET_PID_NAMESPACE: libc::c_ulong = 0xFF << 8 | 5;
    // SAFETY: the request takes no argument, and returns a new descriptor.
    let found = unsafe { libc::ioctl(pidfd.as_raw(), GET_PID_NAMESPACE as _, 0) };
    if found < 0 {
        return 0;
    }
    // SAFETY: the call above returned this descriptor, and no other code owns it.
    let found = unsafe { OwnedHandle::from_raw(found) };
    rustix::fs::fstat(&found).map_or(0, |found| found.st_ino)
}

/// Reads a process's state, and its birth by the time at which it began, from `/proc`.
fn told(pid: u32) -> std::io::Result<Option<(u8, u32)>> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    // The state follows the name, which may contain any byte; the time follows 19 fields later (it is field 22).
    let fields = || {
        let behind = stat.iter().rposition(|&byte| byte == b')')?;
        let mut fields = std::str::from_utf8(stat.get(behind + 2..)?).ok()?.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        Some((state, birth::by_time(fields.nth(18)?.parse().ok()?)))
    };
    Ok(fields())
}

fn begun(pid: u32) -> Option<u32> {
    told(pid).ok().flatten().map(|(_, born)| born)
}

/// Returns whether the process with this number and birth has certainly ended, reaped or not. Only a process whose
/// identity names the same space may call it.
pub fn is_gone(pid: u32, born_at: u32) -> bool {
    let handle = match open(pid) {
        // No process has the number, or a thread has it by now.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return true,
        // No descriptor is left: the answer is unknown now.
        Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => return false,
        // A system without pidfds, or a sandbox.
        Err(_) => return is_gone_by_name(pid, born_at),
        Ok(handle) => handle,
    };
    let mut interest = [super::ready::Interest::new(handle.as_handle())];
    if super::ready::wait(&mut interest, Some(Duration::ZERO)).is_ok_and(|ready| ready > 0) {
        return true;
    }
    let found =
        if birth::is_by_file(born_at) { unique_file(handle.as_handle()).map(birth::by_file) } else { begun(pid) };
    born_at != 0 && found.is_some_and(|found| found != born_at)
}

fn is_gone_by_name(pid: u32, born_at: u32) -> bool {
    match told(pid) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && super::process_id() != pid => {
            // False without a `/proc`.
            std::path::Path::new("/proc/self/stat").exists()
        }
        Err(_) | Ok(None) => false,
        Ok(Some((b'Z' | b'X' | b'x', _))) => true,
        Ok(Some((_, born))) => !birth::is_by_file(born_at) && born_at != 0 && born != born_at,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::process::leave;
    use crate::testing::fork;

    #[test]
    fn a_process_recognises_itself_and_is_not_gone() {
        let me = identity();
        assert_eq!(me, identity());
        assert!(me.born != 0 && me.space != 0);
        assert!(!is_gone(me.pid, me.born));
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let me = identity();
        assert!(is_gone(me.pid, me.born.wrapping_add(7)));
    }

    #[test]
    fn an_unreaped_process_is_gone() {
        match fork() {
            None => leave(0),
            Some(child) => {
                let at = begun(child.pid).unwrap_or(0);
                assert!(child.ends_within(Duration::from_secs(30)));
                assert!(is_gone(child.pid, at));
                child.wait();
                assert!(is_gone(child.pid, at));
            }
        }
    }

    #[test]
    fn processes_are_distinguished_without_handles_on_them() {
        let me = identity();
        let begun = begun(me.pid).unwrap();
        assert!(!is_gone_by_name(me.pid, begun) && !is_gone_by_name(me.pid, me.born));
        assert!(is_gone_by_name(me.pid, begun.wrapping_add(2)));
        match fork() {
            None => leave(0),
            Some(child) => {
                assert!(child.ends_within(Duration::from_secs(30)));
                assert!(is_gone_by_name(child.pid, 0));
                child.wait();
                assert!(is_gone_by_name(child.pid, 0));
            }
        }
    }

    #[test]
    fn a_thread_is_not_mistaken_for_a_process_with_its_number() {
        let thread = std::thread::spawn(|| {
            let number = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            assert!(is_gone(number, 1));
        });
        thread.join().unwrap();
    }
}
