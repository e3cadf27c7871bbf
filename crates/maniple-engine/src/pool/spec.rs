//! What a front says of a job: its function, its shape, and where its tasks come from.

use super::packet::{Packer, Packet};
use super::policy::{FILL_BYTES, FILL_LOOK, FILL_TIME};
use super::scheduler::Chunk;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// A function that workers know, or will when they need it. The last clone that goes makes them forget it.
#[derive(Clone, Debug)]
pub struct Func(Arc<Known>);

#[derive(Debug)]
struct Known {
    number: u32,
    unused: Weak<Unused>,
}

/// The numbers of a hub's functions that are no longer referred to.
pub(super) type Unused = Mutex<Vec<u32>>;

impl Func {
    pub(super) fn new(number: u32, unused: &Arc<Unused>) -> Func {
        Func(Arc::new(Known { number, unused: Arc::downgrade(unused) }))
    }

    pub(super) fn number(&self) -> u32 {
        self.0.number
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if let Some(unused) = self.unused.upgrade() {
            unused.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

/// In which order, and how early, outcomes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collect {
    /// All at once, in order.
    All,
    /// One after the other, in order.
    Ordered,
    /// As they come.
    Unordered,
}

/// A task and its number of items; or why it cannot be sent.
pub(super) type NewTask = (usize, Result<Packet, Box<dyn Any + Send>>);

/// A job to be.
pub struct JobSpec {
    /// What its tasks call.
    pub func: Func,
    /// In which order outcomes are wanted.
    pub collect: Collect,
    /// How many items make a task.
    pub chunk: Chunk,
    /// How many items there are, if that is known.
    pub items: Option<usize>,
    /// How many items, and about how many bytes of payload, may be under way and not consumed.
    pub window: Option<(usize, usize)>,
    /// Whether the keeper reports the job's end ([`super::Chore::Completed`]).
    pub notify: bool,
}

/// Where a job's tasks come from.
pub enum SourceKind {
    /// Here they are (as a rule, one).
    Ready(Vec<(usize, Packet)>),
    /// Asked by whoever drives the hub. It must not block.
    Inline(Box<dyn Source>),
    /// Asked for through [`Hub::wanted`](super::Hub::wanted) by a thread of the front's, which may block.
    External,
}

/// Makes a job's tasks when there is room for them.
pub trait Source: Send {
    /// Puts up to `tasks` tasks of up to `items` items each into `out`. True: there are no more.
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool;
}

/// Where a source puts tasks.
pub struct Filling<'a> {
    /// Makes packets.
    pub packer: &'a Packer,
    pub(super) tasks: Vec<NewTask>,
    pub(super) interrupted: bool,
    bytes: usize,
    began: Instant,
}

impl<'a> Filling<'a> {
    /// An empty one.
    pub fn new(packer: &'a Packer) -> Self {
        Filling { packer, tasks: Vec::new(), interrupted: false, bytes: 0, began: Instant::now() }
    }

    /// A task of so many items.
    pub fn task(&mut self, items: usize, packet: Packet) {
        self.bytes += packet.size();
        self.tasks.push((items, Ok(packet)));
    }

    /// A task that cannot be sent; `why` arrives as its [`Outcome::Unsent`](super::Outcome::Unsent).
    pub fn unsent(&mut self, items: usize, why: Box<dyn Any + Send>) {
        self.tasks.push((items, Err(why)));
    }

    /// This thread has something else to do, such as to pass on what a signal's handler raised: the hub comes back to the front, as it
    /// does after a signal, and asks for the rest of the tasks later.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Whether there are enough for now: whoever makes tasks has answers to take in, and may have to stop. To be asked after each task of
    /// `items` items.
    pub fn has_enough(&self, items: usize) -> bool {
        let looks = items > FILL_LOOK || self.tasks.len().is_multiple_of(FILL_LOOK);
        self.bytes > FILL_BYTES || looks && !self.tasks.is_empty() && self.began.elapsed() > FILL_TIME
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}
