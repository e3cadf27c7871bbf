//! Waits for any of several handles, by `poll`.

use super::again::{is_passing, is_refused, pauses};
use crate::BorrowedHandle;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A handle to wait for, and the result of the last wait.
#[derive(Debug)]
pub struct Interest<'a>(PollFd<'a>);

impl<'a> Interest<'a> {
    /// Creates an interest that is ready when `handle` is readable, at its end, or closed at its other end.
    pub fn new(handle: BorrowedHandle<'a>) -> Self {
        Interest(PollFd::from_borrowed_fd(handle.into(), PollFlags::IN))
    }

    /// Creates an interest that is ready when `handle` has room for a write, or is closed at its other end.
    pub fn room(handle: BorrowedHandle<'a>) -> Self {
        Interest(PollFd::from_borrowed_fd(handle.into(), PollFlags::OUT))
    }

    /// Returns whether the last wait found it ready.
    pub fn ready(&self) -> bool {
        !self.0.revents().is_empty()
    }
}

/// Waits until at least one handle is ready. Returns the number of ready handles; 0 after the timeout or a signal
/// handler, or after a second in which the kernel had no memory for the wait. (Without memory, a call with a zero
/// timeout returns the error, because its caller may not call again.)
pub fn wait(handles: &mut [Interest<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let limit = timeout.map(timespec);
    let mut fds: Vec<PollFd<'_>> = handles.iter().map(|i| i.0.clone()).collect();
    let n = match poll(&mut fds, limit.as_ref()) {
        Ok(n) => n,
        Err(rustix::io::Errno::INTR) => 0,
        Err(rustix::io::Errno::INVAL) if !fds.is_empty() => in_parts(&mut fds, timeout)?,
        Err(e) if is_passing(e) => once_there_is_memory(timeout, |left| poll(&mut fds, left))?,
        Err(e) => return Err(e.into()),
    };
    for (interest, fd) in handles.iter_mut().zip(fds) {
        if n == 0 {
            interest.0.clear_revents();
        } else {
            interest.0 = fd;
        }
    }
    Ok(n)
}

/// `ppoll`, or `poll` in a sandbox that refuses it.
fn poll(fds: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> rustix::io::Result<usize> {
    static IS_REFUSED: AtomicBool = AtomicBool::new(false);
    if !IS_REFUSED.load(Relaxed) {
        match rustix::event::poll(fds, timeout) {
            Err(error) if is_refused(error) => IS_REFUSED.store(true, Relaxed),
            // XNU's error for a lack of memory (bsd/kern/sys_generic.c: `poll_nocancel`).
            Err(rustix::io::Errno::AGAIN) => return Err(rustix::io::Errno::NOMEM),
            found => return found,
        }
    }
    let milliseconds = timeout.map_or(-1, |time| {
        let whole = time.tv_sec.saturating_mul(1000).saturating_add((time.tv_nsec + 999_999) / 1_000_000);
        i32::try_from(whole).unwrap_or(i32::MAX)
    });
    // SAFETY: `PollFd` has the layout of `pollfd`. The call writes within the slice.
    #[allow(unsafe_code)]
    let found = unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, milliseconds) };
    usize::try_from(found)
        .map_err(|_| rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO))
}

/// Repeats a wait for which the kernel had no memory. A signal handler that runs meanwhile is reported within a second.
fn once_there_is_memory(
    timeout: Option<Duration>,
    mut look: impl FnMut(Option<&Timespec>) -> rustix::io::Result<usize>,
) -> io::Result<usize> {
    let waits = timeout.is_none_or(|t| !t.is_zero());
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    let left = || deadline.map(|d| d.saturating_duration_since(Instant::now()));
    for pause in pauses() {
        // A call with a zero timeout sleeps too: its caller needs the answer.
        std::thread::sleep(if waits { left().map_or(pause, |left| left.min(pause)) } else { pause });
        match look(left().map(timespec).as_ref()) {
            Ok(n) => return Ok(n),
            Err(rustix::io::Errno::INTR) => return Ok(0),
            Err(e) if !is_passing(e) => return Err(e.into()),
            Err(_) if waits && left() == Some(Duration::ZERO) => return Ok(0),
            Err(_) => {}
        }
    }
    if waits { Ok(0) } else { Err(rustix::io::Errno::NOMEM.into()) }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

/// Waits for more handles than the limit of descriptors, which is also the kernel's limit for one call: the limit was
/// lowered meanwhile.
fn in_parts(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    /// The time between two polls.
    const PAUSE: Duration = Duration::from_millis(5);
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        let most = crate::most_handles().clamp(1, fds.len());
        let mut n = 0;
        for part in fds.chunks_mut(most) {
            match poll(part, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
                Ok(more) => n += more,
                Err(rustix::io::Errno::INTR) => {}
                // The limit is zero: the kernel polls nothing until it is raised.
                Err(rustix::io::Errno::INVAL) => part.iter_mut().for_each(PollFd::clear_revents),
                Err(e) => return Err(e.into()),
            }
        }
        let left = deadline.map_or(PAUSE, |d| d.saturating_duration_since(Instant::now()));
        if n > 0 || left.is_zero() {
            return Ok(n);
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

/// Waits until the handle is ready. False: a signal handler may have run. (A handler that runs just before the wait
/// begins does not end it, so it ends every second by itself.)
pub fn wait_for(interest: Interest<'_>) -> io::Result<bool> {
    const LOOK_UP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
    match poll(&mut [interest.0.clone()], Some(&LOOK_UP)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) if is_passing(e) => {
            let look = |_: Option<&Timespec>| poll(&mut [interest.0.clone()], Some(&LOOK_UP));
            Ok(once_there_is_memory(None, look)? > 0)
        }
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_without_memory_continues_when_there_is_memory() {
        use rustix::io::Errno;
        for timeout in [Some(Duration::ZERO), Some(Duration::from_secs(60)), None] {
            let mut answers = [Err(Errno::NOMEM), Err(Errno::NOMEM), Ok(2)].into_iter();
            assert_eq!(once_there_is_memory(timeout, |_| answers.next().unwrap()).unwrap(), 2);
            let mut answers = [Err(Errno::NOMEM), Err(Errno::BADF)].into_iter();
            assert!(once_there_is_memory(timeout, |_| answers.next().unwrap()).is_err());
        }
        // A caller that waits gets no event and retries; a caller that does not wait gets the error.
        for timeout in [Some(Duration::from_millis(5)), None] {
            assert_eq!(once_there_is_memory(timeout, |_| Err(Errno::NOMEM)).unwrap(), 0);
        }
        let error = once_there_is_memory(Some(Duration::ZERO), |_| Err(Errno::NOMEM)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOMEM.raw_os_error()));
    }
}
