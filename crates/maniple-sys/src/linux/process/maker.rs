//! The end of a process whose maker is gone: SIGTERM at once, so that it can clean up, and SIGKILL when its time is up.
//!
//! A lifeline (see [`crate::process::lifeline`]) hangs up when the last process that holds its other end has ended or closed
//! it. The kernel then sends this process a real-time signal, which nothing else uses, and the handler decides:
//!
//! 1. The pipe is open: some process has written to it. Nothing happens.
//! 2. The maker runs all the same: it has closed all its descriptors, or has replaced its program. A timer brings the signal
//!    again, after 10 ms first and after a second at last, until the maker is gone.
//! 3. The maker is gone. A timer of the kernel's will send SIGKILL after the grace; SIGTERM is sent now. A process that has
//!    no handler for it ends there; a process that ignores it, or has inherited a handler that only sets a flag, ends by the timer.
//!
//! So neither a thread nor the attention of the process is needed: it may compute, sleep or be stuck in foreign code. A
//! process that replaces its program, or closes the pipe, is on its own from then on.

use super::hung_up;
use crate::atfork;
use crate::{AsHandle, BorrowedHandle};
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// What the handler reads. One thread writes it, before the signal can come.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);
static MAKER: AtomicI32 = AtomicI32::new(0);
static GRACE: AtomicI64 = AtomicI64::new(0);
/// The signal in use; 0 before the first.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// How long until the next look at a maker that runs though the pipe has hung up, in milliseconds.
static PAUSE: AtomicI64 = AtomicI64::new(FIRST_PAUSE);
static ENDING: AtomicBool = AtomicBool::new(false);

const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 1000;

/// Ends this process after `maker`, whose end of the lifeline hangs up then: by SIGTERM, and by SIGKILL after `grace`.
///
/// That holds until this process closes all of its descriptors.
///
/// # Errors
/// The system does not have what it takes.
pub fn end_after(pipe: BorrowedHandle<'_>, maker: i32, grace: Duration) -> io::Result<()> {
    let own = super::opened_anew(pipe)?;
    let signal = install()?;
    LIFELINE.store(own.as_raw(), Relaxed);
    MAKER.store(maker, Relaxed);
    GRACE.store(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX), Relaxed);
    PAUSE.store(FIRST_PAUSE, Relaxed);
    ENDING.store(false, Relaxed);
    super::signal_when_hung_up(own.as_handle(), signal)?;
    // It may have hung up before that.
    if hung_up(own.as_handle())? {
        consider();
    }
    atfork::hold_until_the_end(own)
}

/// Installs the handler on a signal that this process does not use, and returns its number.
fn install() -> io::Result<i32> {
    // The topmost are taken by some tools.
    let candidates = (libc::SIGRTMIN() + 1..=libc::SIGRTMAX() - 7).rev();
    for signal in candidates {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: only asks; the kernel fills in what it is given, or fails.
        if unsafe { libc::sigaction(signal, std::ptr::null(), before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: filled in by the call above.
        let used_by = unsafe { before.assume_init() }.sa_sigaction;
        let ours = on_signal as extern "C" fn(i32) as libc::sighandler_t;
        if used_by != libc::SIG_DFL && used_by != ours {
            continue;
        }
        // SAFETY: all zero is a valid value of this C structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: `on_signal` does nothing but what a handler may; the other pointers are to values that live for the calls.
        unsafe {
            if libc::sigaction(signal, &raw const action, null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The thread that forked us may have had all signals blocked.
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
    // SAFETY: `errno` of this thread, which the code that was interrupted may be about to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    consider();
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// What the handler does. Makes system calls only, and takes no lock and no memory.
fn consider() {
    let mut look = libc::pollfd { fd: LIFELINE.load(Relaxed), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which lives for the call.
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

/// Whether a process has not ended.
pub fn runs(process: i32) -> bool {
    // SAFETY: no pointers; returns a descriptor, closed below.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) };
    let Ok(pidfd @ 0..) = i32::try_from(pidfd) else {
        // The process has ended, or the system has no such handles. Then it runs if it is still this process's parent, or, as far as is
        // known, if a process has that number.
        // SAFETY: no pointers.
        return unsafe {
            libc::getppid() == process || (*libc::__errno_location() != libc::ESRCH && libc::kill(process, 0) == 0)
        };
    };
    let mut look = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which lives for the call; and a descriptor of our own.
    unsafe {
        let ended = libc::poll(&raw mut look, 1, 0);
        libc::close(pidfd);
        ended == 0
    }
}

/// Has the kernel send this process a signal after so many milliseconds. By the system calls themselves: the C library's
/// functions may take memory.
fn send_later(signal: i32, milliseconds: i64) -> bool {
    // SAFETY: all zero is a valid value of both C structures.
    let (mut event, mut time): (libc::sigevent, libc::itimerspec) = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = signal;
    time.it_value.tv_sec = milliseconds / 1000;
    time.it_value.tv_nsec = milliseconds % 1000 * 1_000_000;
    let mut timer: i32 = 0;
    // SAFETY: the pointers are to structures that live for the calls.
    unsafe {
        libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut timer) == 0
            && libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const time, null_mut::<libc::itimerspec>()) == 0
    }
}
