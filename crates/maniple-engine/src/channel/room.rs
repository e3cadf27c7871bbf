//! Waiting for room in a socket, and detecting that there will be none because the other end waits in the same way.
//!
//! Two ends that both send, and receive nothing meanwhile, fill both of their buffers and then wait for each other. A
//! sender sees that its messages are not received, and that messages wait for it; but a slow receiver looks the same.
//! So a sender that waits without a limit, and knows of no other receiver at its end, *announces* that, in a place that
//! belongs to the socket and that the other end can see (`sys::standoff`). If both announce it and nothing changes,
//! neither will ever continue, and the wait ends with an error ([`Error::BothSend`]). A sender withdraws its
//! announcement when its wait finds room, and after an error when it next sends or receives, so that both ends get the error. The
//! announcement also ends with the socket.
//!
//! If an end cannot announce or see it (the other end belongs to another program, is on another machine, or the kernel
//! does not show it), the wait ends when nothing has moved for a long time in either direction although there are
//! messages.
//!
//! Only Rust's senders wait in this way: `Connection.send` of Python's standard package waits without a limit.

use crate::error::{Doing, Error, Result};
use crate::wait::Until;
use maniple_sys::BorrowedHandle;
use maniple_sys::ready::{self, Interest};
use maniple_sys::standoff::{self, Other, Said, Unread};
use std::time::{Duration, Instant};

/// How long to sleep before the next check: there may be room for another message before the system reports room, which
/// it does when three quarters are free.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);
/// How long nothing may change if both ends announce that they wait.
const STANDOFF: Duration = Duration::from_secs(2);
/// How long nothing may change if it is unknown whether both ends wait.
const DOUBTFUL: Duration = Duration::from_secs(60);

/// What a sender knows of the receivers at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// There are no receivers except the sender.
    Myself,
    /// There may be receivers in another process.
    Unknown,
    /// There are other receivers in this process.
    Others,
}

/// A sender's wait for room.
#[derive(Debug)]
pub struct Waiting<'a> {
    socket: BorrowedHandle<'a>,
    until: Until,
    receivers: Receivers,
    slice: Duration,
    // Since when it is so.
    standoff: Option<(Instant, Unread)>,
    said: Option<Said<'a>>,
}

impl<'a> Waiting<'a> {
    /// A wait until then.
    pub fn new(socket: BorrowedHandle<'a>, until: Until, receivers: Receivers) -> Waiting<'a> {
        Waiting { socket, until, receivers, slice: SHORTEST, standoff: None, said: None }
    }

    /// Makes the wait continue without a limit: a message has begun.
    pub fn commit(&mut self) {
        self.until = Until::Ever;
    }

    /// Waits until there may be room. Returns false if the time limit expired.
    ///
    /// # Errors
    /// [`Error::BothSend`], after some seconds of that.
    pub fn wait(&mut self) -> Result<bool> {
        let left = self.until.left();
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let slice = left.map_or(self.slice, |left| left.min(self.slice));
        if ready::wait(&mut [Interest::room(self.socket)], Some(slice)).doing("wait for a pipe's room")? > 0 {
            self.slice = SHORTEST;
            self.moved();
            return Ok(true);
        }
        self.slice = (2 * self.slice).min(LONGEST);
        self.look()?;
        Ok(true)
    }

    fn moved(&mut self) {
        (self.standoff, self.said) = (None, None);
    }

    /// For callers that wait in another way and have found no room: they call it from time to time.
    ///
    /// # Errors
    /// As [`Waiting::wait`].
    pub fn look(&mut self) -> Result<()> {
        if self.receivers == Receivers::Others || !matches!(self.until, Until::Ever) {
            return Ok(());
        }
        // If that cannot be determined, the sender waits as usual.
        let Some(unread) = standoff::unread(self.socket).ok().flatten() else {
            self.moved();
            return Ok(());
        };
        if self.said.is_none() && self.receivers == Receivers::Myself {
            self.said = Said::new(self.socket).ok();
        }
        let most = match unread.other {
            Other::Waits if self.said.is_some() => STANDOFF,
            Other::HasRoom => Duration::MAX,
            Other::Ours if self.said.is_some() => Duration::MAX,
            _ => DOUBTFUL,
        };
        match &self.standoff {
            Some((since, before)) if *before == unread => {
                if since.elapsed() >= most {
                    // The announcement stays, or the other end would keep waiting for this one. `Attendance::resume` withdraws it.
                    if let Some(said) = self.said.take() {
                        said.leave();
                    }
                    return Err(Error::BothSend);
                }
            }
            _ => self.standoff = Some((Instant::now(), unread)),
        }
        Ok(())
    }
}
