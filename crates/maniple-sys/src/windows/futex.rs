//! Sleeps on a word.
//!
//! `WaitOnAddress` wakes only threads of the same process. A word in shared memory is therefore waited for by a
//! semaphore whose name says which memory the word is in, and where: `docs/design/windows.md` has the protocol.
#![allow(unsafe_code)]

use super::interrupt::Interrupt;
use super::{memory, nt};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use windows_sys::Win32::System::Threading::{
    CreateSemaphoreW, OpenSemaphoreW, ReleaseSemaphore, SEMAPHORE_MODIFY_STATE, WaitOnAddress, WakeByAddressAll,
    WakeByAddressSingle,
};

pub use crate::terms::Woken;

/// The most sleepers that one call wakes. The others wake at the end of their own time, or by the next call.
const MOST_WOKEN: u32 = 64;

/// The longest sleep in one call: the caller looks at the word again, and at interrupts.
const SLICE: Duration = Duration::from_millis(500);

fn name_of(word: &AtomicU32) -> Option<Vec<u16>> {
    let (memory, offset) = memory::place_of(std::ptr::from_ref(word) as usize)?;
    Some(nt::wide(format!("Local\\maniple-w-{memory}-{offset:x}")))
}

/// Sleeps while `word` holds `expected`, until another thread or process calls [`wake`]. May return early.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    if word.load(Ordering::SeqCst) != expected {
        return Woken::Rung;
    }
    let slice = timeout.map_or(SLICE, |timeout| timeout.min(SLICE));
    let ends_early = timeout != Some(slice);
    let timed_out = |woken: bool| if woken || ends_early { Woken::Rung } else { Woken::TimedOut };
    let Some(name) = name_of(word) else {
        let time = nt::milliseconds(Some(slice));
        // SAFETY: the system reads the word, which outlives the call, and the expected value.
        let woken =
            unsafe { WaitOnAddress(std::ptr::from_ref(word).cast(), std::ptr::from_ref(&expected).cast(), 4, time) };
        return timed_out(woken != 0);
    };
    // SAFETY: the name ends with NUL, and the attributes are the system's defaults.
    let semaphore = nt::opened(unsafe { CreateSemaphoreW(std::ptr::null(), 0, i32::MAX, name.as_ptr()) });
    let Ok(semaphore) = semaphore else {
        // Without a handle, the word is read again after a moment.
        std::thread::sleep(slice.min(Duration::from_millis(1)));
        return if timeout.is_some_and(|timeout| timeout <= Duration::from_millis(1)) {
            Woken::TimedOut
        } else {
            Woken::Rung
        };
    };
    // A waker changes the word first and looks for the semaphore then: it finds the semaphore, or its change is seen here.
    if word.load(Ordering::SeqCst) != expected {
        return Woken::Rung;
    }
    let interrupt = Interrupt::new();
    let numbers: Vec<isize> = [semaphore.as_raw()].into_iter().chain(interrupt.event()).collect();
    let woken = nt::wait_few(&numbers, Some(slice)).unwrap_or(true);
    if interrupt.has_come() { Woken::Signal } else { timed_out(woken) }
}

/// Wakes up to `count` sleepers. Returns how many there were, as far as that is known.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    std::sync::atomic::fence(Ordering::SeqCst);
    let Some(name) = name_of(word) else {
        let address = std::ptr::from_ref(word).cast();
        // SAFETY: the system uses the address as a number.
        unsafe { if count == 1 { WakeByAddressSingle(address) } else { WakeByAddressAll(address) } };
        return 0;
    };
    // SAFETY: the name ends with NUL.
    let Ok(semaphore) = nt::opened(unsafe { OpenSemaphoreW(SEMAPHORE_MODIFY_STATE, 0, name.as_ptr()) }) else {
        return 0;
    };
    let count = count.min(MOST_WOKEN);
    // SAFETY: the last argument may be null. The call fails only beyond 2³¹ wakes, of which no thread has taken one.
    unsafe { ReleaseSemaphore(nt::raw(semaphore.as_raw()), count as i32, std::ptr::null_mut()) };
    count as usize
}
