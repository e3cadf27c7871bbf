//! Shared memory under a name, for processes that share only that name: POSIX's `shm_open`.
//!
//! The engine's own memory has no name. This module is for programs that ask for a name, and that remove it.

use crate::own::{File, above_stdio};
use crate::{AsHandle, OwnedHandle};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::shm::OFlags;
use std::io;

/// Opens the memory called `name` with `open(2)`'s flags. If the flags create it, `mode` sets which users may open it
/// later.
///
/// Programs that this process starts do not inherit the descriptor.
pub fn open(name: &str, flags: i32, mode: u32) -> io::Result<OwnedHandle> {
    // A link under the name could lead to any file: the C library refuses links, too.
    let flags = OFlags::from_bits_retain((flags | libc::O_NOFOLLOW) as _);
    above_stdio(rustix::shm::open(name, flags, Mode::from_raw_mode(mode as _))?)
}

/// Not supported: [`open`] has flags for both.
pub fn section(_name: &str, _len: Option<usize>) -> io::Result<(OwnedHandle, usize)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Creates `len` bytes under a name that is not in use; only this user may open them.
pub fn create(name: &str, len: usize) -> io::Result<OwnedHandle> {
    let handle = open(name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)?;
    rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&handle, len as u64)).inspect_err(|_| {
        let _ = unlink(name);
    })?;
    Ok(handle)
}

/// Reserves room for `len` bytes, so that no write to them fails. A system that cannot reserve room does nothing.
pub fn reserve(handle: impl AsHandle, len: usize) -> io::Result<()> {
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::io::retry_on_intr(|| rustix::fs::fallocate(handle.as_handle(), flags, 0, len as u64)) {
        Err(error @ (Errno::NOSPC | Errno::NOMEM | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Opens the memory with this name for reads and writes.
pub fn find(name: &str) -> io::Result<OwnedHandle> {
    open(name, libc::O_RDWR, 0)
}

/// Returns whether the name still leads to the memory behind `handle`.
pub fn leads_to(name: &str, handle: impl AsHandle) -> bool {
    open(name, libc::O_RDONLY, 0).is_ok_and(|found| File::of(found.as_handle()) == File::of(handle.as_handle()))
}

/// Removes the name; the system frees the memory with its last user.
pub fn unlink(name: &str) -> io::Result<()> {
    match rustix::shm::unlink(name) {
        // The C library returns only `EACCES` for memory of another user, as POSIX has it.
        Err(Errno::PERM) => Err(Errno::ACCESS.into()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    fn own_name(what: &str) -> String {
        format!("/maniple-test-{what}-{}", std::process::id())
    }

    #[test]
    fn a_name_leads_every_opener_to_the_same_memory() {
        let name = own_name("same");
        let made = open(&name, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600).unwrap();
        memory::write_at(made.as_handle(), b"word", 0).unwrap();
        let found = open(&name, libc::O_RDWR, 0).unwrap();
        assert_eq!(memory::len(&found).unwrap(), 4);
        unlink(&name).unwrap();
    }

    #[test]
    fn a_name_is_made_once_and_removed_once() {
        let name = own_name("once");
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
        let made = open(&name, flags, 0o600).unwrap();
        assert_eq!(open(&name, flags, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        unlink(&name).unwrap();
        assert_eq!(unlink(&name).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(open(&name, libc::O_RDWR, 0).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(made);
    }

    #[test]
    fn a_reused_name_leads_to_other_memory() {
        let name = own_name("again");
        let first = create(&name, 10).unwrap();
        assert_eq!(memory::len(&first).unwrap(), 10);
        assert!(leads_to(&name, &first) && leads_to(&name, find(&name).unwrap()));
        assert_eq!(create(&name, 10).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        unlink(&name).unwrap();
        assert!(!leads_to(&name, &first));
        let second = create(&name, 20).unwrap();
        assert!(leads_to(&name, &second) && !leads_to(&name, &first));
        unlink(&name).unwrap();
    }

    #[test]
    fn a_descriptor_ends_with_an_exec() {
        let name = own_name("exec");
        let made = open(&name, libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
        unlink(&name).unwrap();
        assert!(rustix::io::fcntl_getfd(&made).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
