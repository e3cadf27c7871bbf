//! Waiting for each other.

use super::shm_serde::{ShmSerde, shm_serde};
use crate::error::{BrokenBarrier, Error, Result, SyncError, TimeoutError};
use maniple_engine::sync::arena::{CellRef, Place};
use maniple_engine::sync::barrier::{Barrier as Inner, Cause, Met};
use maniple_engine::wait::Until;
use maniple_sys::OwnedHandle;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A barrier for a fixed number of processes or threads. Each waits until all have arrived; then they continue, and the
/// next round begins.
///
/// It *breaks* when a waiting party dies (noticed within half a second, and in any case before the round is completed),
/// when the time limit of a party expires, or when [`abort`](Barrier::abort) is called. All waiting calls then return
/// [`SyncError::BrokenBarrier`], and so do later calls, until [`reset`](Barrier::reset). The barrier cannot detect a
/// party that dies before it has arrived: if that may happen, use [`wait_timeout`](Barrier::wait_timeout).
///
/// ```
/// use maniple::{Barrier, Exit, Process};
///
/// # fn main() -> maniple::Result<()> {
/// let barrier = Barrier::new(2)?;
/// let process = Process::new(
///     |barrier: Barrier| {
///         // load what is needed, then
///         barrier.wait().map(drop)
///     },
///     barrier.clone(),
/// )?;
/// process.start()?;
/// if barrier.wait()?.is_leader() {
///     println!("the last one to come");
/// }
/// assert_eq!(process.join()?, Exit::Code(0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Barrier(Arc<Inner>);

/// The result of a wait after all parties have arrived.
///
/// ```
/// let barrier = maniple::Barrier::new(1)?;
/// let result = barrier.wait()?;
/// assert!(result.is_leader() && result.index() == 0);
/// # Ok::<(), maniple::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    pub(crate) index: usize,
    pub(crate) leader: bool,
}

impl BarrierWaitResult {
    /// Returns the number of parties of the round that had arrived before this party.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait());
    /// let (ours, others) = (barrier.wait()?.index(), thread.join().unwrap()?.index());
    /// assert_eq!(ours + others, 1);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns true for one party of the round, the last to arrive.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(1)?;
    /// assert!(barrier.wait()?.is_leader());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader
    }
}

fn why(cause: Cause) -> BrokenBarrier {
    match cause {
        Cause::Died => BrokenBarrier::Died,
        Cause::GivenUp => BrokenBarrier::GivenUp,
    }
}

impl Barrier {
    /// Creates a barrier for `parties` parties.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(3)?;
    /// assert_eq!((barrier.parties(), barrier.waiting()), (3, 0));
    /// assert!(maniple::Barrier::new(0).is_err());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 parties, [`Error::System`] for more than 5113, or if there is no memory or descriptor left.
    pub fn new(parties: usize) -> Result<Barrier> {
        if parties == 0 {
            return Err(Error::InvalidArgument("a barrier for 0 parties; use 1 or more"));
        }
        Ok(Barrier(Arc::new(Inner::new(u32::try_from(parties).unwrap_or(u32::MAX))?)))
    }

    /// Waits until all parties have arrived.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait());
    /// assert_ne!(barrier.wait()?.is_leader(), thread.join().unwrap()?.is_leader());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`SyncError::BrokenBarrier`].
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.meet(Until::Ever, Duration::MAX)
    }

    /// As [`wait`](Self::wait), for at most `timeout`. If the time limit expires, the barrier is broken.
    ///
    /// ```
    /// use maniple::{Barrier, BrokenBarrier, Error};
    ///
    /// let barrier = Barrier::new(2)?;
    /// assert!(matches!(barrier.wait_timeout(std::time::Duration::from_millis(1)), Err(Error::Timeout(_))));
    /// assert!(matches!(barrier.wait(), Err(Error::Sync(maniple::SyncError::BrokenBarrier(BrokenBarrier::GivenUp)))));
    /// barrier.reset();
    /// assert_eq!(barrier.broken(), None);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`], [`SyncError::BrokenBarrier`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.meet(Until::after(timeout), timeout)
    }

    fn meet(&self, limit: Until, timeout: Duration) -> Result<BarrierWaitResult> {
        match self.0.wait(limit, &mut || true) {
            Met::All(index) => {
                Ok(BarrierWaitResult { index: index as usize, leader: index as usize + 1 == self.parties() })
            }
            Met::Broken(cause) => Err(Error::Sync(SyncError::BrokenBarrier(why(cause)))),
            Met::TimedOut | Met::Interrupted => {
                Err(TimeoutError::new("the other parties of the barrier", timeout).into())
            }
        }
    }

    /// Breaks the barrier: all waiting and later calls return an error until it is reset.
    ///
    /// ```
    /// use maniple::{Barrier, Error};
    ///
    /// let barrier = Barrier::new(2)?;
    /// barrier.abort();
    /// assert!(matches!(barrier.wait(), Err(Error::Sync(maniple::SyncError::BrokenBarrier(_)))));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Resets the barrier to its initial state. Waiting parties get an error.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(1)?;
    /// barrier.abort();
    /// assert!(barrier.wait().is_err());
    /// barrier.reset();
    /// assert!(barrier.wait().is_ok());
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn reset(&self) {
        self.0.reset();
    }

    /// Returns why the barrier is broken, if it is.
    ///
    /// ```
    /// use maniple::{Barrier, BrokenBarrier};
    ///
    /// let barrier = Barrier::new(2)?;
    /// assert_eq!(barrier.broken(), None);
    /// barrier.abort();
    /// assert_eq!(barrier.broken(), Some(BrokenBarrier::GivenUp));
    /// # Ok::<(), maniple::Error>(())
    /// ```
    pub fn broken(&self) -> Option<BrokenBarrier> {
        self.0.broken().map(why)
    }

    /// Returns the number of parties of a round.
    ///
    /// ```
    /// assert_eq!(maniple::Barrier::new(3)?.parties(), 3);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn parties(&self) -> usize {
        self.0.parties() as usize
    }

    /// Returns the number of parties that wait now.
    ///
    /// ```
    /// let barrier = maniple::Barrier::new(1)?;
    /// barrier.wait()?;
    /// assert_eq!(barrier.waiting(), 0);
    /// # Ok::<(), maniple::Error>(())
    /// ```
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting() as usize
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut it = f.debug_struct("Barrier");
        it.field("parties", &self.parties()).field("waiting", &self.waiting()).field("broken", &self.broken()).finish()
    }
}

impl ShmSerde for Barrier {
    const WHAT: &'static str = "a Barrier";

    fn place(&self) -> &Place {
        self.0.place()
    }

    fn open(ticket: CellRef, _apart: Option<OwnedHandle>) -> maniple_engine::Result<Barrier> {
        Ok(Barrier(Arc::new(Inner::open(ticket)?)))
    }
}

shm_serde!(Barrier);
