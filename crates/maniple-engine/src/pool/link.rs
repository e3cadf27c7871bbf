//! A link: the private connection between the hub and one worker.
//!
//! The hub uses a link only through the trait [`Link`]. Pools use [`ShmLink`](shm::ShmLink): frames through rings in
//! shared memory. Another transport, such as a socket to another machine, is another implementation, and changes
//! neither the scheduler nor the hub. It has to supply:
//!
//! * a *claim* for each frame: the worker claims a task before it acts on it, and the hub takes it back before that or not at all. In
//!   shared memory the claim is a word of the frame ([`claim`](crate::shm::claim)); elsewhere the far end has to answer;
//! * news that ring the hub's bell ([`HubPage::ring`](hub_page::HubPage::ring)). A transport without shared memory has
//!   a part in the hub's process that receives, and rings it from there.
//!
//! `memory` is a link without shared memory, on which the tests run the hub.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `segment` | the layout in shared memory |
//! | `counters` | what a worker counts there |
//! | `sender`, `reader` | the two halves of either end |
//! | `hub_page` | the hub's bell, which all links of a pool share |
//! | `shm` | the hub's end |

pub(crate) mod counters;
pub(crate) mod hub_page;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod reader;
pub(crate) mod segment;
pub(crate) mod sender;
pub(crate) mod shm;

use self::counters::Counted;
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
    /// The function `aux` is no longer needed.
    pub const FORGET: u16 = 2;
    /// A task of function `aux`; `number` is its number on the link.
    pub const TASK: u16 = 3;
    /// Nothing more will come.
    pub const STOP: u16 = 4;
    /// The worker is ready.
    pub const HELLO: u16 = 16;
    /// Task `number` returned a result; `aux` is its duration ([`pack`](super::counters::pack)).
    pub const DONE: u16 = 17;
    /// Task `number` failed; the body has the error.
    pub const FAILED: u16 = 18;
    /// The worker could not get ready; the body has the reason.
    pub const UNFIT: u16 = 19;
    /// The handles of task `number` have arrived: the hub need not keep its own open.
    pub const TAKEN: u16 = 20;
    /// As `FAILED`, with an error after which the task is to be tried again.
    pub const FAILED_AGAIN: u16 = 22;
    /// As `DONE`, with results some of which are failures. The body has the form of `DONE`.
    pub const DONE_IN_PART: u16 = 23;
    /// The function `aux` did not arrive, for lack of memory or descriptors: the next task that needs it sends it again.
    pub const MISSED: u16 = 21;
    /// Flag: the first blob is the body.
    pub const BODY_IN_BLOB: u16 = 0x100;
}

/// The hub's end of the connection to one worker.
pub(crate) trait Link: Send {
    /// Sends a frame. Returns its position, or [`Full`] if there is no room now and nothing was sent.
    ///
    /// # Errors
    /// A block is needed, and there is no memory or descriptor for it; or the worker has damaged the link.
    fn send(&mut self, head: Head, packet: &Packet, arena: &Arena) -> Result<Result<u64, Full>>;

    /// Returns the worker's next message.
    ///
    /// # Errors
    /// The worker has damaged the link.
    fn recv(&mut self) -> Result<Option<Said>>;

    /// Whether there is a message of the worker that was not received yet.
    fn has_news(&mut self) -> bool;

    /// Wakes the worker if it sleeps, after a frame was sent. `halfway` is the number of the task after which the
    /// worker is half through its tasks; 0 if that is not needed.
    fn ring(&mut self, halfway: u64);

    /// Whether the worker sleeps, and so will not ring the hub's bell for the messages that it has sent.
    fn is_asleep(&self) -> bool;

    /// Revokes the frame at `position`, with its buffers and handles. Returns false if the worker has claimed it.
    fn revoke(&mut self, position: u64) -> bool;

    /// Whether the worker has claimed the frame at `position`; also after the worker's death.
    fn claimed(&self, position: u64) -> bool;

    /// The number of the task that the worker last began, and when, by the system's monotonic clock in nanoseconds.
    fn running(&self) -> (u64, u64);

    /// What the worker has counted so far. For display only: a faulty worker writes anything there.
    fn counted(&self, now: u64) -> Counted;

    /// When the worker began the task with this number; 0 if that is not known. For display only.
    fn begin_of(&self, number: u64) -> u64;

    /// Whether the worker's end of the link is closed, so that it cannot receive large buffers or handles any more.
    fn is_cut_off(&self) -> bool;

    /// Whether the worker handles the signal of [`ExitWatch::interrupt`](crate::process::ExitWatch::interrupt).
    fn is_interruptible(&self) -> bool;

    /// Whether the worker is past all sent frames.
    fn has_been_read(&self) -> bool;

    /// Whether the worker has damaged the link.
    fn is_damaged(&self) -> bool;

    /// Lets the worker read that the pool was terminated, also where it cannot receive frames, as in a signal handler.
    fn note_termination(&self);

    /// The handle that the keeper watches: it is readable when [`Link::drain`] has work.
    fn watched(&self) -> Option<Arc<dyn AsHandle + Send + Sync>>;

    /// Does the work for a readable watched handle. Returns false if the worker's end is closed.
    ///
    /// # Errors
    /// This process lacks a resource, or the worker has damaged the link.
    fn drain(&mut self) -> Result<bool>;

    /// Whether memory is kept for later frames.
    fn keeps_memory(&self) -> bool;

    /// Returns unused memory to the system.
    fn trim(&mut self);
}

/// The existing links. A release build has only one kind, so calls through the trait cost nothing.
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
