//! Ends a process whose maker is gone: by SIGTERM at once, so that it can clean up, and by SIGKILL after the grace
//! period.
//!
//! A lifeline (see [`crate::process::lifeline`]) hangs up when the last process that holds its other end has ended or
//! closed it. The kernel then sends this process a real-time signal that no other code uses, and the handler decides:
//!
//! 1. The pipe is open, because a process has written to it. The handler does nothing.
//! 2. The maker still runs: it has closed all its descriptors, or has replaced its program. A timer sends the signal
//!    again, after pauses from 10 ms to a second, until the maker is gone.
//! 3. The maker is gone. The handler sets a kernel timer that sends SIGKILL after the grace period, and sends SIGTERM.
//!    A process without a handler for SIGTERM ends at once; a process that ignores it, or has inherited a handler that
//!    only sets a flag, ends by the timer.
//!
//! So this needs no thread, and works while the process computes, sleeps or is stuck in foreign code. It no longer
//! works in a process that has replaced its program or closed the pipe.

use super::hung_up;
use crate::atfork;
use crate::{AsHandle, BorrowedHandle};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// The handler reads these values. `end_after` writes them before it asks for the signal.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);
static MAKER: AtomicI32 = AtomicI32::new(0);
static GRACE: AtomicI64 = AtomicI64::new(0);
/// The signal in use; 0 before the first.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The time until the next check of a maker that runs although the pipe has hung up, in milliseconds.
static PAUSE: AtomicI64 = AtomicI64::new(FIRST_PAUSE);
static ENDING: AtomicBool = AtomicBool::new(false);

const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 1000;

/// Makes the end of `maker`, which hangs up the lifeline, end this process: by SIGTERM, and by SIGKILL after `grace`.
///
/// This holds until this process closes all of its descriptors.
///
/// # Errors
/// The system lacks the signals or handles that this needs.
pub fn end_after(pipe: BorrowedHandle<'_>, maker: i32, grace: Duration) -> io::Result<()> {
    let own = super::opened_anew(pipe)?;
    let signal = install()?;
    LIFELINE.store(own.as_raw(), Relaxed);
    MAKER.store(maker, Relaxed);
    GRACE.store(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX), Relaxed);
    PAUSE.store(FIRST_PAUSE, Relaxed);
    ENDING.store(false, Relaxed);
    super::signal_when_hung_up(own.as_handle(), signal)?;
    // The pipe may have hung up before that.
    if hung_up(own.as_handle())? {
        consider();
    }
    atfork::hold_until_the_end(own)
}

/// Installs the handler on a signal that this process does not use, and returns its number.
fn install() -> io::Result<i32> {
    // Some tools use the highest signals.
    let candidates = (libc::SIGRTMIN() + 1..=libc::SIGRTMAX() - 7).rev();
    for signal in candidates {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: changes no action; the kernel fills in `before`, or fails.
        if unsafe { libc::sigaction(signal, std::ptr::null(), before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the successful call above filled it in.
        let used_by = unsafe { before.assume_init() }.sa_sigaction;
        let ours = on_signal as extern "C" fn(i32) as libc::sighandler_t;
        if used_by != libc::SIG_DFL && used_by != ours {
            continue;
        }
        // SAFETY: all zero is a valid value of this C structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: `on_signal` is async-signal-safe, as `consider` states; the other pointers are to values that outlive
        // the calls.
        unsafe {
            if libc::sigaction(signal, &raw const action, null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The thread that forked this process may have had all signals blocked.
            let mut only = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(only.as_mut_ptr());
            libc::sigaddset(only.as_mut_ptr(), signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, only.as_ptr(), null_mut());
        }
        SIGNAL.store(signal, Relaxed);
        return Ok(signal);
    }
    Err(io::Error::other("every real-time signal already has a handler"))
}

extern "C" fn on_signal(_signal: i32) {
    // The interrupted code may be about to read `errno`, so the handler restores it.
    // SAFETY: no pointers; returns the address of this thread's `errno`.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid while this thread runs, and no other thread uses it.
    let before = unsafe { *errno };
    consider();
    // SAFETY: as for the read above.
    unsafe { *errno = before };
}

/// Does the handler's work. Async-signal-safe: it makes only system calls, and takes no lock and no memory.
fn consider() {
    let mut look = libc::pollfd { fd: LIFELINE.load(Relaxed), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one structure, which outlives the call.
    let found = unsafe { libc::poll(&raw mut look, 1, 0) };
    if ENDING.load(Relaxed) || found != 1 || look.revents & libc::POLLHUP == 0 {
        return;
    }
    if runs(MAKER.load(Relaxed)) {
        let pause = PAUSE.load(Relaxed);
        PAUSE.store((pause * 2).min(LONGEST_PAUSE), Relaxed);
        if send_later(SIGNAL.load(Relaxed), pause) {
            return;
        }
    }
    ENDING.store(true, Relaxed);
    if !send_later(libc::SIGKILL, GRACE.load(Relaxed)) {
        super::die();
    }
    // SAFETY: no pointers.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

/// Returns whether a process has not ended.
pub fn runs(process: i32) -> bool {
    // SAFETY: it passes no pointers, and returns a descriptor, which is closed below.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let Ok(pidfd @ 0..) = i32::try_from(pidfd) else {
        // The process has ended, or the system has no such handles. In the second case it runs if it is still this
        // process's parent; otherwise this assumes that it runs if a process has its number.
        // SAFETY: no pointers.
        return unsafe {
            libc::getppid() == process || (*libc::__errno_location() != libc::ESRCH && libc::kill(process, 0) == 0)
        };
    };
    let mut look = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one structure, which outlives the calls; the descriptor was made above.
    unsafe {
        let ended = libc::poll(&raw mut look, 1, 0);
        libc::close(pidfd);
        ended == 0
    }
}

/// Makes the kernel send this process a signal after so many milliseconds. It uses the system calls directly, because
/// the C library's functions may allocate memory.
fn send_later(signal: i32, milliseconds: i64) -> bool {
    // SAFETY: all zero is a valid value of both C structures.
    let (mut event, mut time): (libc::sigevent, libc::itimerspec) = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    // Both are C longs, which have 32 bits on some processors.
    time.it_value.tv_sec = (milliseconds / 1000).min(i32::MAX.into()) as libc::c_long;
    time.it_value.tv_nsec = (milliseconds % 1000 * 1_000_000) as libc::c_long;
    let mut timer: i32 = 0;
    // SAFETY: the pointers are to structures that outlive the calls.
    unsafe {
        libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut timer) == 0
            && libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const time, null_mut::<libc::itimerspec>()) == 0
    }
}
