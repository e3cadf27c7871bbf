//! A link: the private way between the hub and one worker.
//!
//! The hub knows a link by the trait [`Link`] alone. [`ShmLink`](shm::ShmLink) is the one that pools use: frames through rings in shared
//! memory. Another transport, such as a socket to another machine, is another implementation, and changes neither the scheduler nor
//! the hub. What it has to bring along:
//!
//! * a *claim* for each frame: the worker claims a task before it acts on it, and the hub takes it back before that or not at all. In
//!   shared memory the claim is a word of the frame ([`claim`](crate::shm::claim)); elsewhere the far end has to answer;
//! * news that ring the hub's bell ([`HubPage::ring`](hub_page::HubPage::ring)). A transport without shared memory has something in the hub's process that
//!   receives, and rings it from there.
//!
//! `memory` is a link without shared memory, on which the tests run the hub.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `segment` | the layout in shared memory |
//! | `sender`, `reader` | the two halves of either end |
//! | `hub_page` | the hub's bell, which all links of a pool share |
//! | `shm` | the hub's end |

pub(crate) mod hub_page;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod reader;
pub(crate) mod segment;
pub(crate) mod sender;
pub(crate) mod shm;

use self::reader::Said;
pub use self::shm::worker_handles;
use super::packet::Packet;
use crate::error::Result;
use crate::shm::blocks::Arena;
use crate::shm::ring::{Full, Head};
use maniple_sys::AsHandle;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Kinds of frames. Hub to worker below 16, worker to hub from there on.
pub(crate) mod kind {
    /// A function: `aux` is its number.
    pub const DEFINE: u16 = 1;
    /// The function `aux` is not needed any more.
    pub const FORGET: u16 = 2;
    /// A task of function `aux`; `number` is its number on the link.
    pub const TASK: u16 = 3;
    /// Nothing more will come.
    pub const STOP: u16 = 4;
    /// The worker is ready.
    pub const HELLO: u16 = 16;
    /// Task `number` gave a result; `aux` is how long it took, in nanoseconds.
    pub const DONE: u16 = 17;
    /// Task `number` failed; the body says how.
    pub const FAILED: u16 = 18;
    /// The worker could not get ready; the body says why.
    pub const UNFIT: u16 = 19;
    /// The handles of task `number` have arrived: the hub need not keep its own open.
    pub const TAKEN: u16 = 20;
    /// The function `aux` did not arrive, for lack of memory or descriptors: the next task that needs it sends it again.
    pub const MISSED: u16 = 21;
    /// Flag: the first blob is the body.
    pub const BODY_IN_BLOB: u16 = 0x100;
}

/// The hub's end of the way to one worker.
pub(crate) trait Link: Send {
    /// Sends a frame. Returns its position, or [`Full`] where there is no room now and nothing was sent.
    ///
    /// # Errors
    /// A block is needed, and there is no memory or descriptor for it; or the worker has damaged the link.
    fn send(&mut self, head: Head, packet: &Packet, arena: &Arena) -> Result<Result<u64, Full>>;

    /// The next thing that the worker has said.
    ///
    /// # Errors
    /// The worker has damaged the link.
    fn recv(&mut self) -> Result<Option<Said>>;

    /// Whether the worker has said something that was not received yet.
    fn has_news(&mut self) -> bool;

    /// After something was sent: wakes the worker if it sleeps. `halfway`: the number of the task after which the worker is half through
    /// what it has; 0 if that is of no interest.
    fn ring(&mut self, halfway: u64);

    /// Whether the worker sleeps, and so will not ring the hub's bell for what it has said.
    fn is_asleep(&self) -> bool;

    /// Takes the frame at `position` back, with what belongs to it. False: the worker has claimed it.
    fn revoke(&mut self, position: u64) -> bool;

    /// Whether the worker has claimed the frame at `position`; also after the worker's death.
    fn claimed(&self, position: u64) -> bool;

    /// Whether the worker is past all that was sent.
    fn has_been_read(&self) -> bool;

    /// Whether the worker has damaged the link.
    fn is_damaged(&self) -> bool;

    /// Lets the worker see that the pool was terminated where it cannot receive frames, as in a signal's handler.
    fn note_termination(&self);

    /// What the keeper watches: it is readable when [`Link::drain`] has something to do.
    fn watched(&self) -> Option<Arc<dyn AsHandle + Send + Sync>>;

    /// Does what is due when the watched handle is readable. False: the worker's end is gone.
    ///
    /// # Errors
    /// Something is short here, or the worker has damaged the link.
    fn drain(&mut self) -> Result<bool>;

    /// Whether memory is kept for what is sent next.
    fn keeps_memory(&self) -> bool;

    /// Returns memory that is not in use to the system.
    fn trim(&mut self);
}

/// The links that there are. Where there is one, as in all that is released, calls through the trait cost nothing.
#[cfg_attr(test, allow(clippy::large_enum_variant))]
pub(crate) enum HubLink {
    Shm(shm::ShmLink),
    #[cfg(test)]
    Memory(memory::MemoryLink),
}

impl Deref for HubLink {
    type Target = dyn Link;

    #[inline(always)]
    fn deref(&self) -> &(dyn Link + 'static) {
        match self {
            HubLink::Shm(link) => link,
            #[cfg(test)]
            HubLink::Memory(link) => link,
        }
    }
}

impl DerefMut for HubLink {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut (dyn Link + 'static) {
        match self {
            HubLink::Shm(link) => link,
            #[cfg(test)]
            HubLink::Memory(link) => link,
        }
    }
}

#[cfg(test)]
mod hostile;
