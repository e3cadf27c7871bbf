//! A lock in shared memory that survives its holders: if a holder dies, the kernel passes the lock to the next.
#![allow(unsafe_code)]

use crate::atfork;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

pub use crate::terms::Found;

/// The lock. It lies in shared memory; any process that maps it can acquire it.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: `init` makes a process-shared mutex, which many threads of many processes may use at once.
unsafe impl Sync for Mutex {}
// SAFETY: as above.
unsafe impl Send for Mutex {}

impl Mutex {
    /// Creates a lock in fresh memory.
    ///
    /// # Safety
    /// `at` is aligned, valid for writes, and not in use yet.
    pub unsafe fn init(at: *mut Mutex) -> io::Result<()> {
        let check = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) };
        let mut attr = MaybeUninit::uninit();
        // SAFETY: the first call initialises `attr` for the others; the caller ensures that `at` is valid.
        unsafe {
            check(libc::pthread_mutexattr_init(attr.as_mut_ptr()))?;
            let made = check(libc::pthread_mutexattr_setpshared(attr.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED))
                .and_then(|()| check(libc::pthread_mutexattr_setrobust(attr.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST)))
                .and_then(|()| check(libc::pthread_mutex_init(at.cast(), attr.as_ptr())));
            libc::pthread_mutexattr_destroy(attr.as_mut_ptr());
            made
        }
    }

    /// Acquires the lock if it is free.
    pub fn try_lock(&self) -> io::Result<Found> {
        // SAFETY: the code that makes a reference to a lock in shared memory ensures that `init` has run on it.
        self.found(unsafe { libc::pthread_mutex_trylock(self.0.get()) })
    }

    /// Acquires the lock, and waits for it at most so long.
    pub fn lock_within(&self, limit: Duration) -> io::Result<Found> {
        let Some(lock) = clock_lock() else { return self.try_until(limit) };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanos = now.tv_nsec as u64 + u64::from(limit.subsec_nanos());
        // SAFETY: all zeros is a valid `timespec`.
        let mut until: libc::timespec = unsafe { std::mem::zeroed() };
        until.tv_sec = (now.tv_sec as u64 + limit.as_secs() + nanos / 1_000_000_000) as _;
        until.tv_nsec = (nanos % 1_000_000_000) as _;
        // SAFETY: as in `try_lock`; `until` outlives the call.
        self.found(unsafe { lock(self.0.get(), libc::CLOCK_MONOTONIC, &raw const until) })
    }

    /// Acquires the lock by repeated attempts, for a C library that waits only by the wall clock, which may change
    /// meanwhile.
    fn try_until(&self, limit: Duration) -> io::Result<Found> {
        let until = std::time::Instant::now() + limit;
        loop {
            let found = self.try_lock()?;
            if found != Found::Taken || std::time::Instant::now() >= until {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn found(&self, code: i32) -> io::Result<Found> {
        match code {
            0 => Ok(Found::Ours),
            libc::EBUSY | libc::ETIMEDOUT => Ok(Found::Taken),
            libc::EOWNERDEAD => {
                // SAFETY: `EOWNERDEAD` means that this thread now holds the lock.
                unsafe { libc::pthread_mutex_consistent(self.0.get()) };
                Ok(Found::Orphaned)
            }
            other => Err(io::Error::from_raw_os_error(other)),
        }
    }

    /// Releases the lock.
    ///
    /// # Safety
    /// This thread holds it.
    pub unsafe fn unlock(&self) {
        // SAFETY: the caller ensures that this thread holds the lock.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }
}

type ClockLock = unsafe extern "C" fn(*mut libc::pthread_mutex_t, libc::clockid_t, *const libc::timespec) -> i32;

/// Returns `pthread_mutex_clocklock`, which glibc has since 2.30 and musl does not have.
fn clock_lock() -> Option<ClockLock> {
    static FOUND: atfork::OnceLock<Option<ClockLock>> = atfork::OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pthread_mutex_clocklock".as_ptr()) };
        // SAFETY: a function of this name has this signature (POSIX 2024).
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut libc::c_void, ClockLock>(found) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Mapping, Share, create};

    #[test]
    fn a_dead_holder_passes_the_lock_on() {
        let memory = create("test", 4096).unwrap();
        let mapping = Mapping::new(&memory, 4096, Share::All).unwrap();
        let lock = mapping.start().cast::<Mutex>().as_ptr();
        // SAFETY: fresh, aligned memory that no other code has a pointer to.
        let lock = unsafe {
            Mutex::init(lock).unwrap();
            &*lock
        };
        for _ in 0..3 {
            // SAFETY: the child only acquires the lock and exits.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let found = lock.try_lock();
                // SAFETY: ends the child without the destructors of the test harness.
                unsafe { libc::_exit(if matches!(found, Ok(Found::Ours | Found::Orphaned)) { 0 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: `child` is a child of this process, and `status` outlives the call.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(status, 0);
        }
        assert_eq!(lock.lock_within(Duration::from_secs(5)).unwrap(), Found::Orphaned);
        std::thread::scope(|s| {
            s.spawn(|| {
                assert_eq!(lock.try_lock().unwrap(), Found::Taken);
                assert_eq!(lock.lock_within(Duration::from_millis(1)).unwrap(), Found::Taken);
            });
        });
        // SAFETY: this thread acquired it above.
        unsafe { lock.unlock() };
        assert_eq!(lock.try_lock().unwrap(), Found::Ours);
        // SAFETY: as above.
        unsafe { lock.unlock() };
    }
}
