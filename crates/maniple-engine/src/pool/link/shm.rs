//! The hub's end of a link through shared memory: a segment, a wire and, if requested, a tap on the worker's standard
//! error.
//!
//! A worker costs the hub two descriptors, and its watch a third. A faulty worker can damage its own link, which ends
//! with it, and ring the hub's bell too often.

use super::Link;
use super::counters::Counted;
use super::hub_page::HubPage;
use super::reader::{Reader, Said};
use super::segment::LinkSegment;
use super::sender::Sender;
use crate::error::{Doing, Error, Result};
use crate::pool::packet::Packet;
use crate::process::lifeline::Lifelines;
use crate::shm::bell::AWAKE;
use crate::shm::blocks::Arena;
use crate::shm::ring::{Full, Head};
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::epoch::count_forks;
use maniple_sys::wire::Wire;
use maniple_sys::{AsHandle, OwnedHandle, tap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The handles that a worker needs, in this order; see [`worker_handles`].
pub(crate) struct Handles {
    pub link: OwnedHandle,
    pub page: OwnedHandle,
    pub wire: OwnedHandle,
    pub lifeline: OwnedHandle,
    pub stderr: Option<OwnedHandle>,
}

/// The number of handles for a worker: with a tap on its standard error, and without.
pub fn worker_handles(tapped: bool) -> usize {
    4 + usize::from(tapped)
}

impl Handles {
    pub fn into_vec(self) -> Vec<OwnedHandle> {
        [self.link, self.page, self.wire, self.lifeline].into_iter().chain(self.stderr).collect()
    }

    pub fn from_vec(handles: Vec<OwnedHandle>) -> Result<Handles> {
        let count = handles.len();
        let mut all = handles.into_iter();
        match (all.next(), all.next(), all.next(), all.next(), all.next(), all.next()) {
            (Some(link), Some(page), Some(wire), Some(lifeline), stderr, None) => {
                Ok(Handles { link, page, wire, lifeline, stderr })
            }
            _ if count == 0 => Err(Error::BadHandles("there are none")),
            _ => Err(Error::BadHandles("their number is wrong")),
        }
    }
}

/// Makes a link. Returns the hub's end, the handles for the worker, and the hub's end of the worker's standard error.
pub(crate) struct Made {
    pub link: ShmLink,
    pub handles: Handles,
    pub stderr: Option<Arc<HubOnly>>,
}

/// The hub's end of a link through shared memory.
#[derive(Debug)]
pub(crate) struct ShmLink {
    segment: LinkSegment,
    sender: Sender,
    reader: Reader,
    wire: Arc<Wire>,
}

impl ShmLink {
    pub fn create(page: &HubPage, lifelines: &Lifelines, tapped: bool) -> Result<Made> {
        count_forks().doing("count forks")?;
        // First: if the program has closed the pool's descriptors, this error says so.
        let lifeline = lifelines.share()?;
        let (segment, link) = LinkSegment::create()?;
        let (reader, sender) = segment.hub_side();
        let (wire, far) = atfork::making(Wire::for_worker).doing("make a socket pair")?;
        let tap = || {
            let (hub, worker) = tap::pair()?;
            Ok::<_, std::io::Error>((HubOnly::new(hub)?, worker))
        };
        let tap = tapped.then(|| atfork::making(tap).doing("make a pipe for a worker's standard error")).transpose()?;
        let (stderr, worker_stderr) = tap.unzip();
        let handles = Handles { link, page: page.share()?, wire: far, lifeline, stderr: worker_stderr };
        let link = ShmLink { segment, sender, reader, wire: Arc::new(wire) };
        Ok(Made { link, handles, stderr: stderr.map(Arc::new) })
    }
}

impl Link for ShmLink {
    fn send(&mut self, head: Head, packet: &Packet, arena: &Arena) -> Result<Result<u64, Full>> {
        self.sender.send(head, packet, &self.wire, arena)
    }

    fn recv(&mut self) -> Result<Option<Said>> {
        let said = self.reader.take(None, &self.wire)?;
        if said.is_some() {
            // Usually the worker no longer uses the task's buffers: the next task can use their blocks.
            self.sender.sweep();
        }
        Ok(said)
    }

    fn has_news(&mut self) -> bool {
        self.reader.has_news()
    }

    fn is_asleep(&self) -> bool {
        self.segment.bell().level() != AWAKE
    }

    fn ring(&mut self, halfway: u64) {
        // A hint: the worker may see it late.
        self.segment.halfway().store(halfway, Ordering::Relaxed);
        if self.segment.bell().ring(|_| true).is_some() {
            self.segment.bell().wake();
        }
    }

    fn revoke(&mut self, position: u64) -> bool {
        self.sender.revoke(position)
    }

    fn claimed(&self, position: u64) -> bool {
        self.sender.claimed(position)
    }

    fn running(&self) -> (u64, u64) {
        self.segment.counters().running()
    }

    fn counted(&self, now: u64) -> Counted {
        self.segment.counters().read(now)
    }

    fn begin_of(&self, number: u64) -> u64 {
        self.segment.begin_of(number).load(Ordering::Relaxed)
    }

    fn is_cut_off(&self) -> bool {
        self.sender.is_cut_off() || self.wire.is_hung_up()
    }

    fn is_interruptible(&self) -> bool {
        self.segment.counters().interruptible.load(Ordering::Acquire) != 0
    }

    fn has_been_read(&self) -> bool {
        self.sender.has_been_read()
    }

    fn is_damaged(&self) -> bool {
        self.sender.is_damaged()
    }

    fn note_termination(&self) {
        // Partner: `PoolEnd::is_terminated`; the signal that follows orders the two.
        self.segment.terminated().store(1, Ordering::Release);
    }

    fn watched(&self) -> Option<Arc<dyn AsHandle + Send + Sync>> {
        Some(self.wire.clone())
    }

    fn drain(&mut self) -> Result<bool> {
        self.reader.inbox.drain(&self.wire)
    }

    fn keeps_memory(&self) -> bool {
        self.sender.keeps_memory()
    }

    fn trim(&mut self) {
        self.sender.trim();
    }
}
