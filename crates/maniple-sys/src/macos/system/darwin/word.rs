//! Sleeps on a word: by `os_sync_wait_on_address` (macOS 14.4 and newer; `os/os_sync_wait_on_address.h`), or else by
//! `__ulock_wait` (10.15 and newer; not documented; bsd/sys/ulock.h, and LLVM's libc++ uses it). Both are calls of the
//! same list of sleepers in the kernel (bsd/kern/sys_ulock.c). Each is looked up when it is first needed, because a
//! program that is linked to a missing function does not start.

use crate::atfork::OnceLock;
use crate::terms::Woken;
use libc::{c_int, c_void};
use std::ffi::CStr;
use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// `OS_SYNC_WAIT_ON_ADDRESS_SHARED` and `OS_SYNC_WAKE_BY_ADDRESS_SHARED`: the word is in memory that processes share.
const SHARED: u32 = 1;
/// `OS_CLOCK_MACH_ABSOLUTE_TIME`.
const CLOCK: u32 = 32;
/// `UL_COMPARE_AND_WAIT_SHARED`.
const COMPARE_AND_WAIT_SHARED: u32 = 3;
/// `ULF_WAKE_ALL`.
const WAKE_ALL: u32 = 0x100;
/// `ULF_NO_ERRNO`: a call returns its error, negated.
const NO_ERRNO: u32 = 0x0100_0000;
/// No sleep is longer: `__ulock_wait` takes microseconds in 32 bits.
const LONGEST: Duration = Duration::from_secs(3600);

type Wait = unsafe extern "C" fn(*mut c_void, u64, usize, u32, u32, u64) -> c_int;
type Wake = unsafe extern "C" fn(*mut c_void, usize, u32) -> c_int;
type OldWait = unsafe extern "C" fn(u32, *mut c_void, u64, u32) -> c_int;
type OldWake = unsafe extern "C" fn(u32, *mut c_void, u64) -> c_int;

#[derive(Clone, Copy)]
enum Calls {
    New { wait: Wait, wake_one: Wake, wake_all: Wake },
    Old { wait: OldWait, wake: OldWake },
    None,
}

fn calls() -> Calls {
    static CALLS: OnceLock<Calls> = OnceLock::new();
    *CALLS.get_or_init(|| {
        let wait = found(c"os_sync_wait_on_address_with_timeout");
        let (one, all) = (found(c"os_sync_wake_by_address_any"), found(c"os_sync_wake_by_address_all"));
        let (old_wait, old_wake) = (found(c"__ulock_wait"), found(c"__ulock_wake"));
        // SAFETY: functions of these names have these signatures (the headers above).
        unsafe {
            if let (Some(wait), Some(one), Some(all)) = (wait, one, all) {
                Calls::New {
                    wait: std::mem::transmute::<*mut c_void, Wait>(wait),
                    wake_one: std::mem::transmute::<*mut c_void, Wake>(one),
                    wake_all: std::mem::transmute::<*mut c_void, Wake>(all),
                }
            } else if let (Some(wait), Some(wake)) = (old_wait, old_wake) {
                Calls::Old {
                    wait: std::mem::transmute::<*mut c_void, OldWait>(wait),
                    wake: std::mem::transmute::<*mut c_void, OldWake>(wake),
                }
            } else {
                Calls::None
            }
        }
    })
}

fn found(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Sleeps while `word` holds `expected`. `None`: the system has no such call.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Option<Woken> {
    let limit = timeout.unwrap_or(LONGEST).min(LONGEST);
    if limit.is_zero() {
        // Zero is an error for one of the calls, and no limit for the other.
        return Some(Woken::TimedOut);
    }
    let address = word.as_ptr().cast();
    let error = match calls() {
        Calls::New { wait, .. } => {
            let nanoseconds = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
            // SAFETY: the address is that of a word that outlives the call; the kernel only reads it.
            let slept = unsafe { wait(address, expected.into(), size_of::<u32>(), SHARED, CLOCK, nanoseconds) };
            if slept >= 0 {
                return Some(Woken::Rung);
            }
            io::Error::last_os_error().raw_os_error().unwrap_or(0)
        }
        Calls::Old { wait, .. } => {
            let microseconds = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX).max(1);
            // SAFETY: as above.
            let slept = unsafe { wait(COMPARE_AND_WAIT_SHARED | NO_ERRNO, address, expected.into(), microseconds) };
            if slept >= 0 {
                return Some(Woken::Rung);
            }
            -slept
        }
        Calls::None => return None,
    };
    Some(match error {
        // Without a limit, an end after an hour is an early return.
        libc::ETIMEDOUT if timeout.is_some_and(|timeout| timeout <= LONGEST) => Woken::TimedOut,
        libc::EINTR => Woken::Signal,
        _ => Woken::Rung,
    })
}

/// Wakes up to `count` sleepers, and returns a number that is 0 only if there were none. `None`: the system has no such
/// call.
pub fn wake(word: &AtomicU32, count: u32) -> Option<usize> {
    let address: *mut c_void = word.as_ptr().cast();
    // SAFETY: the kernel uses the address as a number.
    let one = |all: bool| unsafe {
        Some(match calls() {
            Calls::New { wake_one, wake_all, .. } => {
                (if all { wake_all } else { wake_one })(address, size_of::<u32>(), SHARED) >= 0
            }
            Calls::Old { wake, .. } => {
                let all = if all { WAKE_ALL } else { 0 };
                wake(COMPARE_AND_WAIT_SHARED | NO_ERRNO | all, address, 0) >= 0
            }
            Calls::None => return None,
        })
    };
    /// From so many on, all are woken: an additional wake is an early return.
    const MANY: u32 = 16;
    if count >= MANY {
        return Some(usize::from(one(true)?));
    }
    let mut woken = 0;
    while woken < count as usize && one(false)? {
        woken += 1;
    }
    Some(woken)
}
