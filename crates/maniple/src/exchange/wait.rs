//! Waiting for any of several things.

use crate::error::Result;
use maniple_engine::channel::frame::Until;
use maniple_sys::AsHandle;
use maniple_sys::ready::{self, Interest};
use std::time::Duration;

/// Waits until something can be received from at least one of the ends, or until a process has ended, whose
/// [`sentinel`](crate::Process::sentinel) was given. Gives the places in the list of those that are ready, none if the time is up before.
/// Without a `timeout` it waits as long as it takes.
///
/// It takes all that has a descriptor: connections, receivers, queues, sentinels, sockets.
///
/// ```
/// use maniple::{Process, channel, wait};
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = channel::<u8>()?;
/// let process = Process::new(|()| (), ())?;
/// process.start()?;
/// assert_eq!(wait(&[&receiver, &process.sentinel()?], None)?, [1]);
/// sender.send(&1)?;
/// assert_eq!(wait(&[&receiver, &process.sentinel()?], None)?, [0, 1]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The system's.
pub fn wait(what: &[&dyn AsHandle], timeout: Option<Duration>) -> Result<Vec<usize>> {
    let until = timeout.map_or(Until::Ever, Until::after);
    let mut interests: Vec<Interest<'_>> = what.iter().map(|it| Interest::new(it.as_handle())).collect();
    loop {
        let left = until.left();
        let doing = |source| maniple_engine::Error::Os { doing: "wait for several things", source };
        if ready::wait(&mut interests, left).map_err(doing)? > 0 {
            return Ok((0..interests.len()).filter(|&place| interests[place].ready()).collect());
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(Vec::new());
        }
    }
}
