//! Operations that need a descriptor for a moment, in a process that has reached its limit of descriptors.
#![allow(unsafe_code)]

use crate::BorrowedHandle;
use crate::unix::threads;
use std::cell::Cell;
use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

thread_local! {
    static ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread runs inside [`aside`].
pub(super) fn is_aside() -> bool {
    ASIDE.get()
}

/// Runs `work` in a thread that shares this process's memory and has a separate descriptor table: at first the standard
/// streams and `keep`, under their own numbers. Descriptors that it opens count against the limit separately, and are
/// closed when `work` is done. So a process without a free number can map memory from another process, and make and
/// send memory.
///
/// It takes some ten microseconds.
///
/// # Errors
/// No thread can be started, or the system (a sandbox) refuses a separate descriptor table for a thread. `work` has not
/// been called then.
pub fn aside<R: Send>(keep: &[BorrowedHandle<'_>], work: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let run = || {
            have_own(keep)?;
            ASIDE.set(true);
            Ok(work())
        };
        let thread = spawn_scoped(scope, "maniple-aside", run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the engine has panicked")))
    })
}

/// Moves this thread to a separate descriptor table with the standard streams and `keep`.
fn have_own(keep: &[BorrowedHandle<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw() as u32).collect();
    kept.sort_unstable();
    let behind = kept.last().map_or(3, |last| (last + 1).max(3));
    // SAFETY: both calls affect only the calling thread, which owns no descriptor yet. Containers usually refuse
    // `unshare`, but not `close_range`, which Linux has since 5.9.
    unsafe {
        if libc::syscall(libc::SYS_close_range, behind, u32::MAX, libc::CLOSE_RANGE_UNSHARE) != 0 {
            if libc::unshare(libc::CLONE_FILES) != 0 {
                return Err(io::Error::last_os_error());
            }
            close_all(behind, u32::MAX);
        }
    }
    let mut from = 3;
    for number in kept {
        if number > from {
            close_all(from, number - 1);
        }
        from = from.max(number + 1);
    }
    Ok(())
}

fn close_all(first: u32, last: u32) {
    // SAFETY: `have_own` has separated this thread's table, so these are copies that no other code uses; the process's
    // descriptors stay open.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        // Linux before 5.9.
        let limit = super::most_handles().min(1 << 16) as u32;
        (first..=last.min(limit)).for_each(|number| {
            libc::close(number as i32);
        });
    }
}

/// Starts a thread within a scope that receives no signals.
fn spawn_scoped<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> R + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, R>> {
    threads::without_signals(|| Builder::new().name(name.into()).stack_size(256 * 1024).spawn_scoped(scope, run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;
    use crate::memory::{self, Mapping, Share};

    #[test]
    fn aside_returns_memory_and_closes_its_descriptor() {
        let (kept, other) = rustix::pipe::pipe().unwrap();
        let (number, mapping) = aside(&[kept.as_handle()], || {
            assert!(is_aside());
            assert!(rustix::fs::fstat(&kept).is_ok() && rustix::fs::fstat(&other).is_err());
            let memory = memory::create("aside", memory::PAGES).unwrap();
            memory::write_at(memory.as_handle(), b"here", 0).unwrap();
            (memory.as_raw(), Mapping::new(&memory, memory::PAGES, Share::All).unwrap())
        })
        .unwrap();
        assert!(!is_aside() && rustix::fs::fstat(&other).is_ok());
        // SAFETY: the mapping has more than 4 bytes, and no thread writes to it any more.
        assert_eq!(unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), 4) }, b"here");
        let there = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        assert!(!there.to_string_lossy().contains("memfd:aside"), "{there:?}");
    }

    #[test]
    fn aside_returns_an_error_if_the_function_panics() {
        assert!(aside(&[], || panic!("aside")).is_err());
    }
}
