//! The page that all links of a pool share: the hub's bell, and what its level means.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::shm::bell::Bell;
use crate::shm::segment::Segment;
use crate::wait::word::Woken;
use maniple_sys::OwnedHandle;
use std::sync::Arc;
use std::time::Duration;

/// Levels of the hub's bell: the events that wake its sleeper, and where it sleeps.
pub(crate) mod level {
    /// A caller sleeps on the bell itself, and all messages wake it.
    pub const CALLER: u32 = 1;
    /// The same, but only where a worker is half through what it has.
    pub const CALLER_HALF: u32 = 2;
    /// No caller waits; all messages wake the keeper, over the wire.
    pub const KEEPER: u32 = 3;
    /// The same, but only where a worker is half through what it has.
    pub const KEEPER_HALF: u32 = 4;
    /// No caller waits and there is nothing to distribute: the keeper is woken only if answers fill a worker's ring.
    pub const KEEPER_FULL: u32 = 5;
}

/// What a worker knows of its work when it rings.
pub(crate) trait Says {
    /// It is half through its tasks.
    fn is_half_through(&self) -> bool;
    /// Half of the room for its messages is taken.
    fn is_half_full(&self) -> bool;
}

/// The page that all links of a pool share: the hub's bell.
#[derive(Debug, Clone)]
pub(crate) struct HubPage(Arc<Segment>);

impl HubPage {
    pub fn create() -> Result<HubPage> {
        Ok(HubPage(Arc::new(Segment::create("maniple-hub-page", 4096)?)))
    }

    pub fn open(handle: OwnedHandle) -> Result<HubPage> {
        let segment = Segment::open(handle)?;
        if segment.len() < size_of::<Bell>() {
            return Err(Error::BadHandles("the hub's page is too small"));
        }
        Ok(HubPage(Arc::new(segment)))
    }

    fn bell(&self) -> &Bell {
        // SAFETY: the segment is page-aligned, larger than a bell, and zeroed memory is a valid one.
        unsafe { self.0.start().cast().as_ref() }
    }

    /// Announces when the hub's sleeper has to be woken, by `level`. The sleeper checks for messages once more before
    /// it sleeps.
    pub fn arm(&self, level: u32) {
        self.bell().arm(level);
    }

    /// Announces that a thread checks for messages by itself.
    pub fn disarm(&self) {
        self.bell().disarm();
    }

    /// The level of the hub's sleeper.
    pub fn level(&self) -> u32 {
        self.bell().level()
    }

    /// Sleeps while the level is `level`, which is a caller's level.
    pub fn sleep(&self, level: u32, limit: Duration) -> Woken {
        self.bell().sleep(level, Some(limit))
    }

    /// Wakes a caller that sleeps.
    pub fn wake(&self) {
        self.bell().wake();
    }

    /// Wakes the hub's sleeper, at any level. Returns true if it is the keeper, which the caller has to wake.
    #[must_use]
    pub fn stir(&self) -> bool {
        self.rouse(|_| true)
    }

    /// After a worker has sent a message: wakes the hub's sleeper if its level requests that. Returns true if it is the
    /// keeper, which the caller has to wake. `urgent`: the worker has no more tasks. `stuck`: it has no room for more
    /// messages.
    #[must_use]
    pub fn ring(&self, urgent: bool, stuck: bool, says: &impl Says) -> bool {
        self.rouse(|wanted| match wanted {
            level::CALLER | level::KEEPER => true,
            level::CALLER_HALF | level::KEEPER_HALF => urgent || says.is_half_through() || says.is_half_full(),
            level::KEEPER_FULL => stuck || says.is_half_full(),
            _ => false,
        })
    }

    fn rouse(&self, wanted: impl FnOnce(u32) -> bool) -> bool {
        match self.bell().ring(wanted) {
            Some(level::CALLER | level::CALLER_HALF) => self.bell().wake(),
            Some(_) => return true,
            None => {}
        }
        false
    }

    pub fn share(&self) -> Result<OwnedHandle> {
        self.0.share()
    }
}
