//! The free numbers of descriptors.
#![allow(unsafe_code)]

use crate::OwnedHandle;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A descriptor that is closed for a moment when a message needs one, so that a program without a free descriptor can
/// still receive.
static SPARE: Mutex<Option<OwnedHandle>> = Mutex::new(None);

/// The result of the last check of the numbers, and its time (ns).
static ROOMY: AtomicBool = AtomicBool::new(false);
static SEEN: AtomicU64 = AtomicU64::new(0);

/// How long a check of the numbers is valid, in nanoseconds. No process opens [`ROOM`] files in that time.
const VALID: u64 = 50_000;

/// With so many numbers left, any message finds numbers for its handles.
const ROOM: u64 = 256;

/// Records that there was no number for a handle.
pub(crate) fn have_become_scarce() {
    ROOMY.store(false, Ordering::Relaxed);
}

/// Returns whether there may be no numbers for the next handles, which the system would then drop.
pub(crate) fn are_scarce() -> bool {
    let now = crate::clock::now();
    if now.saturating_sub(SEEN.load(Ordering::Relaxed)) > VALID {
        ROOMY.store(is_top_free(), Ordering::Relaxed);
        SEEN.store(now, Ordering::Relaxed);
    }
    !ROOMY.load(Ordering::Relaxed)
}

/// Returns whether some of the highest numbers are free. The system assigns the lowest free number first, so holes
/// among the low numbers do not matter.
fn is_top_free() -> bool {
    let limit = crate::most_handles().min(i32::MAX as usize) as u64;
    // SAFETY: reads the flags of a number; changes nothing.
    let is_free = |number: u64| unsafe { libc::fcntl(number as i32, libc::F_GETFD) } < 0;
    limit > ROOM && [1, ROOM / 4, ROOM / 2, ROOM].iter().all(|below| is_free(limit - below))
}

/// Runs `with` with one more spare descriptor, usually, if descriptors are scarce. `fresh` opens a descriptor.
pub(crate) fn with_spare<R>(fresh: impl FnOnce() -> Option<OwnedHandle>, with: impl FnOnce() -> R) -> R {
    // It does not wait for the lock: another thread holds it now, or held it when this process was forked.
    let Ok(mut spare) = SPARE.try_lock() else { return with() };
    drop(spare.take());
    let outcome = with();
    *spare = fresh();
    outcome
}
