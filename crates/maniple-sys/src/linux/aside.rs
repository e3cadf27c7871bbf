//! What needs a descriptor for a moment, in a process that has as many as it may.
#![allow(unsafe_code)]

use super::quiet;
use crate::BorrowedHandle;
use std::cell::Cell;
use std::io;

thread_local! {
    static ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is within [`aside`].
pub(super) fn is_aside() -> bool {
    ASIDE.get()
}

/// Runs `work` in a thread that shares this process's memory and has descriptors of its own: at first standard streams and `keep`, under the
/// numbers that they have. What it opens counts against the limit by itself, and is closed when `work` is done. So memory from another
/// process can be mapped, and memory be made and sent, where this process has no number left.
///
/// It takes some ten microseconds.
///
/// # Errors
/// No thread can be started, or the system (a sandbox) refuses to give a thread descriptors of its own. `work` has not been called then.
pub fn aside<R: Send>(keep: &[BorrowedHandle<'_>], work: impl FnOnce() -> R + Send) -> io::Result<R> {
    std::thread::scope(|scope| {
        let run = || {
            have_own(keep)?;
            ASIDE.set(true);
            Ok(work())
        };
        let thread = quiet::spawn_scoped(scope, "maniple-aside", run)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the engine has panicked")))
    })
}

/// Separates this thread's descriptors from the process's, and keeps the standard streams and `keep`.
fn have_own(keep: &[BorrowedHandle<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep.iter().map(|fd| fd.as_raw() as u32).collect();
    kept.sort_unstable();
    let behind = kept.last().map_or(3, |last| (last + 1).max(3));
    // SAFETY: both concern the calling thread alone, which has opened nothing yet. Containers usually refuse `unshare`,
    // but not the other, which systems before 5.9 do not have.
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
    // SAFETY: this thread's copies, which nothing else uses: those that they are copies of stay open.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        // Systems before 5.9.
        let limit = super::most_handles().min(1 << 16) as u32;
        (first..=last.min(limit)).for_each(|number| {
            libc::close(number as i32);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;
    use crate::memory::{self, Mapping, Share};

    #[test]
    fn memory_that_was_made_aside_is_there_and_its_descriptor_is_not() {
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
        // SAFETY: the mapping is as long, and no thread writes to it.
        assert_eq!(unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), 4) }, b"here");
        let there = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
        assert!(!there.to_string_lossy().contains("memfd:aside"), "{there:?}");
    }

    #[test]
    fn what_panics_aside_is_an_error() {
        assert!(aside(&[], || panic!("aside")).is_err());
    }
}
