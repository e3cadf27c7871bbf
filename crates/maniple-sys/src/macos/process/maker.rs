//! Ends a process whose maker is gone: by SIGTERM at once, so that it can clean up, and by SIGKILL after the grace
//! period.
//!
//! A thread waits at the lifeline (see [`crate::process::lifeline`]). It runs no code of the program and needs no lock
//! of an interpreter, so it does its work while the process computes or is stuck in foreign code. (Linux has a signal
//! for this; this system sends none when a pipe hangs up.) It no longer works in a process that has replaced its
//! program or closed the pipe, or in a forked child.

use super::super::quiet;
use crate::atfork;
use crate::own::{File, Lent};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Makes the end of `maker`, which hangs up the lifeline, end this process: by SIGTERM, and by SIGKILL after `grace`.
///
/// This holds until this process closes all of its descriptors.
///
/// # Errors
/// No thread can be started, or there is no descriptor left.
pub fn end_after(pipe: BorrowedHandle<'_>, maker: i32, grace: Duration) -> io::Result<()> {
    let own = super::super::memory::duplicate(pipe)?;
    when_hung_up(&own, move || {
        let mut pause = FIRST_PAUSE;
        while runs(maker) {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        super::terminate_itself();
        std::thread::sleep(grace);
        super::die();
    })?;
    atfork::hold_until_the_end(own)
}

/// Returns whether a process has not ended.
pub fn runs(process: i32) -> bool {
    u32::try_from(process).is_ok_and(super::is_running)
}

/// Calls `act` in a thread when the other end of the pipe is closed, if `pipe` is open then.
#[allow(unsafe_code)]
pub(super) fn when_hung_up(pipe: &OwnedHandle, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (number, file) = (pipe.as_raw(), File::of(pipe.as_handle()));
    if file.is_none() {
        return Err(crate::own::not_there());
    }
    // SAFETY: another file of its number is only waited for, and `is_there` finds out.
    let lent = unsafe { Lent::new(pipe.as_handle()) };
    let is_there = move || File::at(number) == file;
    quiet::spawn("maniple-lifeline", move || {
        while is_there() && !is_hung_up_within_a_second(lent.as_handle()) {}
        if is_there() {
            act();
        }
    })?;
    Ok(())
}

/// Waits for the other end to close. (Every second the caller checks whether the pipe is open here.)
fn is_hung_up_within_a_second(pipe: BorrowedHandle<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    /// If a process has written to the pipe, the system reports that again and again.
    const PAUSE: Duration = Duration::from_millis(50);
    // XNU looks at nothing if no event is asked for (bsd/kern/sys_generic.c: `poll_nocancel`).
    let mut look = [PollFd::from_borrowed_fd(pipe.into(), PollFlags::HUP)];
    match poll(&mut look, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })) {
        Ok(1..) if look[0].revents().contains(PollFlags::HUP) => return true,
        Ok(0) if look[0].revents().is_empty() => {}
        _ => std::thread::sleep(PAUSE),
    }
    false
}
