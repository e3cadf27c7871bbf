//! Waits for any of several ends, queues and processes.

use crate::error::{InTime, Result};
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::readiness;
use maniple_sys::AsHandle;
use maniple_sys::ready::Interest;
use std::time::Duration;

/// Waits until at least one of the ends has something to receive, or until a process whose
/// [`sentinel`](crate::Process::sentinel) was passed has ended. Returns the indices of those that are ready.
///
/// It accepts everything that has a descriptor: connections, receivers, queues, sentinels, sockets.
///
/// ```
/// use maniple::{Process, channel, wait};
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = channel::<u8>()?;
/// let process = Process::new(|()| (), ())?;
/// process.start()?;
/// assert_eq!(wait(&[&receiver, &process.sentinel()?])?, [1]);
/// sender.send(&1)?;
/// assert_eq!(wait(&[&receiver, &process.sentinel()?])?, [0, 1]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The operating system's error.
pub fn wait(what: &[&dyn AsHandle]) -> Result<Vec<usize>> {
    wait_until(what, Until::Ever)
}

/// As [`wait()`], for at most `timeout`.
///
/// ```
/// use maniple::{Error, channel, wait_timeout};
/// use std::time::Duration;
///
/// # fn main() -> maniple::Result<()> {
/// let (sender, receiver) = channel::<u8>()?;
/// assert!(matches!(wait_timeout(&[&receiver], Duration::from_millis(1)), Err(Error::Timeout(_))));
/// sender.send(&1)?;
/// assert_eq!(wait_timeout(&[&receiver], Duration::from_secs(1))?, [0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Timeout`](crate::Error::Timeout), or the operating system's error.
pub fn wait_timeout(what: &[&dyn AsHandle], timeout: Duration) -> Result<Vec<usize>> {
    let ready = wait_until(what, Until::after(timeout))?;
    (!ready.is_empty()).in_time("something to become ready", timeout)?;
    Ok(ready)
}

/// As [`wait()`], as a future. Dropping it leaves nothing behind; any executor works.
///
/// ```
/// use maniple::{channel, wait_async};
///
#[doc = include_str!("../block_on.txt")]
/// # fn main() -> maniple::Result<()> {
/// let (first, second) = (channel::<u8>()?, channel::<u8>()?);
/// second.0.send(&1)?;
/// assert_eq!(block_on(wait_async(&[&first.1, &second.1]))?, [1]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The operating system's error.
#[cfg(feature = "async")]
pub async fn wait_async(what: &[&(dyn AsHandle + Sync)]) -> Result<Vec<usize>> {
    let handles: Vec<_> = what.iter().map(|it| it.as_handle()).collect();
    let ready = || {
        let mut interests: Vec<Interest<'_>> = handles.iter().map(|&it| Interest::new(it)).collect();
        readiness::any(&mut interests, Until::Now, "wait for several things", &mut || false)?;
        let ready: Vec<usize> = (0..interests.len()).filter(|&index| interests[index].ready()).collect();
        Ok((!ready.is_empty()).then_some(ready))
    };
    super::reactor::until_any(&handles, ready).await
}

/// Returns no index if the time limit has passed.
fn wait_until(what: &[&dyn AsHandle], until: Until) -> Result<Vec<usize>> {
    let mut interests: Vec<Interest<'_>> = what.iter().map(|it| Interest::new(it.as_handle())).collect();
    readiness::any(&mut interests, until, "wait for several things", &mut || false)?;
    Ok((0..interests.len()).filter(|&index| interests[index].ready()).collect())
}
