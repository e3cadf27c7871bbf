//! A barrier in a manager's server, at which a fixed number of threads wait for each other.
//!
//! They pass in rounds. A round is broken when a waiting party gives up or dies, and by `abort` and `reset`. It is then
//! broken for all waiting and later parties, until a `reset` begins a new round.

use super::containers::typed_proxy;
use super::registry::Content;
use super::rpc::Answer;
use super::wait_queue::{Inside, WaitQueue, until};
use super::{Manager, ManagerError};
use crate::error::{Error, Result};
use crate::sync::BarrierWaitResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const WAITING: u8 = 0;
const PASSED: u8 = 1;
const BROKEN: u8 = 2;

pub(super) struct State {
    parties: usize,
    arrived: usize,
    /// The state of the present round; changed and read under the queue's lock.
    round: Arc<AtomicU8>,
}

type Shared = WaitQueue<State>;

impl State {
    fn outcome(&self) -> u8 {
        self.round.load(Ordering::Relaxed)
    }
}

/// Ends the round with this outcome.
fn finish(inside: &mut Inside<'_, State, 1>, how: u8) {
    inside.round.store(how, Ordering::Relaxed);
    inside.arrived = 0;
    inside.wake(0, usize::MAX);
}

typed_proxy!(
    /// A barrier in a [`Manager`]'s server, for threads of any processes on any machines. A party that gives up, or is
    /// killed while it waits, breaks the barrier: the others get [`ManagerError::BrokenBarrier`].
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait());
    /// assert_ne!(barrier.wait()?.is_leader(), thread.join().unwrap()?.is_leader());
    /// # Ok(())
    /// # }
    /// ```
    Barrier(Shared)
);

impl Barrier {
    fn wait_within(&self, limit: Option<Duration>) -> Result<BarrierWaitResult> {
        let door = |barrier: &Shared, limit: Option<Duration>, answer: &mut Answer| {
            let until = until(limit);
            let mut inside = barrier.enter();
            if inside.outcome() == BROKEN {
                return Err(ManagerError::BrokenBarrier.into());
            }
            let round = inside.round.clone();
            let place = inside.arrived;
            inside.arrived += 1;
            if inside.arrived == inside.parties {
                finish(&mut inside, PASSED);
                inside.round = Arc::default();
            }
            while round.load(Ordering::Relaxed) == WAITING {
                let slept = inside.sleep(0, until);
                if !matches!(slept, Ok(true)) && round.load(Ordering::Relaxed) == WAITING {
                    finish(&mut inside, BROKEN);
                }
                slept?;
            }
            if round.load(Ordering::Relaxed) == BROKEN {
                return Err(ManagerError::BrokenBarrier.into());
            }
            answer.give(&(place, place + 1 == inside.parties))
        };
        let (index, leader) = self.0.reference().ask(door, &limit)?;
        Ok(BarrierWaitResult { index, leader })
    }

    /// Waits until all parties wait. Returns the index of this party.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait());
    /// let (ours, others) = (barrier.wait()?.index(), thread.join().unwrap()?.index());
    /// assert_eq!(ours + others, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::BrokenBarrier`], [`Error::ManagerLost`].
    pub fn wait(&self) -> Result<BarrierWaitResult> {
        self.wait_within(None)
    }

    /// As [`wait`](Self::wait), for at most `timeout`. If the time limit expires, the barrier is broken for all
    /// parties.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(2)?;
    /// assert!(barrier.wait_timeout(Duration::from_millis(1)).is_err());
    /// assert!(barrier.is_broken()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Barrier::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<BarrierWaitResult> {
        self.wait_within(Some(timeout))
    }

    fn end_round(&self, renew: bool) -> Result<()> {
        let door = |barrier: &Shared, renew: bool, answer: &mut Answer| {
            let mut inside = barrier.enter();
            finish(&mut inside, BROKEN);
            if renew {
                inside.round = Arc::default();
            }
            answer.give(&())
        };
        self.0.reference().ask(door, &renew)
    }

    /// Breaks the barrier.
    ///
    /// ```
    /// use maniple::managers::ManagerError;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(2)?;
    /// barrier.abort()?;
    /// let error = barrier.wait().unwrap_err();
    /// assert!(matches!(error, maniple::Error::Manager(ManagerError::BrokenBarrier)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`].
    pub fn abort(&self) -> Result<()> {
        self.end_round(false)
    }

    /// Resets the barrier to its initial state. Waiting parties get an error.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(1)?;
    /// barrier.abort()?;
    /// barrier.reset()?;
    /// assert!(barrier.wait()?.is_leader());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`].
    pub fn reset(&self) -> Result<()> {
        self.end_round(true)
    }

    /// Returns the number of waiting parties.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert_eq!(manager.barrier(2)?.waiting()?, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`].
    pub fn waiting(&self) -> Result<usize> {
        let door = |barrier: &Shared, (): (), answer: &mut Answer| answer.give(&barrier.enter().arrived);
        self.0.reference().ask(door, &())
    }

    /// Returns whether the barrier is broken.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// let barrier = manager.barrier(2)?;
    /// assert!(!barrier.is_broken()?);
    /// barrier.abort()?;
    /// assert!(barrier.is_broken()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::ManagerLost`].
    pub fn is_broken(&self) -> Result<bool> {
        let door = |barrier: &Shared, (): (), answer: &mut Answer| answer.give(&(barrier.enter().outcome() == BROKEN));
        self.0.reference().ask(door, &())
    }
}

impl Manager {
    /// Creates a barrier for `parties` parties.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let manager = maniple::Manager::new()?;
    /// assert!(manager.barrier(1)?.wait()?.is_leader());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 parties, [`Error::ManagerLost`].
    pub fn barrier(&self, parties: usize) -> Result<Barrier> {
        if parties == 0 {
            return Err(Error::InvalidArgument("a barrier for 0 parties; use 1 or more"));
        }
        let maker = |parties: usize| {
            Content::new(WaitQueue::<State>::new(State { parties, arrived: 0, round: Arc::default() }))
        };
        self.make(maker, &parties).map(Barrier)
    }
}
