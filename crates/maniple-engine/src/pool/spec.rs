//! A front's description of a job: its function, its shape, and the source of its tasks.

use super::packet::{Packer, Packet};
use super::policy::{FILL_BYTES, FILL_LOOK, FILL_TIME};
use super::scheduler::{Chunk, Terms};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

/// A function that workers know, or will know when they need it. Dropping the last clone makes them forget it.
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

/// The description of a job.
pub struct JobSpec {
    /// What its tasks call.
    pub func: Func,
    /// In which order outcomes are wanted.
    pub collect: Collect,
    /// How many items make a task.
    pub chunk: Chunk,
    /// How many items there are, if that is known.
    pub items: Option<usize>,
    /// The greatest number of items, and about how many bytes of payload, that may be under way and not consumed.
    pub window: Option<(usize, usize)>,
    /// Whether the keeper reports the job's end ([`super::Chore::Completed`]).
    pub notify: bool,
    /// Limits, retries and priority of its tasks; `None`: the defaults.
    pub terms: Option<Arc<Terms>>,
}

/// Where a job's tasks come from.
pub enum SourceKind {
    /// The tasks themselves (usually one).
    Ready(Vec<(usize, Packet)>),
    /// Called by the thread that drives the hub, or by the filler. It may take long, as an item's pickling may, but should
    /// return when it has enough ([`Filling::has_enough`]).
    Inline(Box<dyn Source>),
    /// A thread of the front, which may block, learns from [`Hub::wanted`](super::Hub::wanted) how many are wanted.
    External,
}

/// Makes a job's tasks when there is room for them.
pub trait Source: Send {
    /// Puts up to `tasks` tasks of up to `items` items each into `out`. Returns true if there are no more.
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

    /// This thread has other work, such as to pass on an exception of a signal handler: the hub returns to the front,
    /// as it does after a signal, and requests the remaining tasks later.
    pub fn interrupt(&mut self) {
        self.interrupted = true;
    }

    /// Whether there are enough tasks for now: the thread that makes tasks also receives answers, and may have to stop.
    /// Call it after each task of `items` items.
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
