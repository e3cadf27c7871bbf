//! Waiting for room in a socket, and noticing that it will never come because the other end waits in the same way.
//!
//! Two ends that both send, and receive nothing meanwhile, fill both of their buffers and then wait for each other. A sender sees that its
//! messages are not received, and that messages wait for itself; but a receiver that is slow looks the same from there. So a sender that
//! waits without a limit, and knows of no other receiver at its end, *says* so, in a place that belongs to the socket and
//! that the other end can see (`sys::standoff`). If both say it and nothing changes, neither will ever continue, and an error takes the
//! place of the wait ([`Error::BothSend`]). What a sender says is taken back when its wait ends, and with its socket.
//!
//! Where an end cannot say or see it (the other one is of another program, on another machine, or the kernel does not tell), the wait ends
//! when for a long time nothing has moved in either direction although messages are there.
//!
//! Rust's senders alone wait so: `Connection.send` of Python's standard package waits without a limit.

use crate::error::{Doing, Error, Result};
use crate::wait::Until;
use maniple_sys::BorrowedHandle;
use maniple_sys::ready::{self, Interest};
use maniple_sys::standoff::{self, Other, Said, Unread};
use std::time::{Duration, Instant};

/// How long to sleep before looking again: there may be room for one message more before the system says so, which it does when
/// three quarters are free.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(500);
/// How long nothing may change where both ends say that they wait.
const STANDOFF: Duration = Duration::from_secs(2);
/// And where it is not known whether they do.
const DOUBTFUL: Duration = Duration::from_secs(60);

/// What a sender knows of those who receive from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// There are none but itself.
    Myself,
    /// There may be some in another process.
    Unknown,
    /// There are others in this process.
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

    /// Waits until there may be room. False: the time is up.
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

    /// For those who wait otherwise, and have found no room now: to be called from time to time.
    ///
    /// # Errors
    /// As [`Waiting::wait`].
    pub fn look(&mut self) -> Result<()> {
        if self.receivers == Receivers::Others || !matches!(self.until, Until::Ever) {
            return Ok(());
        }
        // Where it cannot be learnt, one waits as ever.
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
                    return Err(Error::BothSend);
                }
            }
            _ => self.standoff = Some((Instant::now(), unread)),
        }
        Ok(())
    }
}
