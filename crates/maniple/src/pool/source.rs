//! Where a call's tasks come from: its items, encoded chunk by chunk when there is room for more.

use super::results::CallersPanic;
use crate::chunk::Output;
use crate::error::Error;
use maniple_engine::pool::policy::CHUNK;
use maniple_engine::pool::{Filling, Hub, JobId, Packer, Packet, Source};
use serde::Serialize;
use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A chunk that is being filled.
struct Chunk(Output);

/// What happened to an item.
enum Added {
    /// There is room for more.
    Open,
    /// The chunk is full.
    Full,
    /// It cannot be encoded. It is not in the chunk, which ends before it.
    Refused(Error),
}

/// A task, or why there is none: so many items, and their packet.
type Cut = (usize, Result<Packet, Box<dyn Any + Send>>);

impl Chunk {
    fn new(packer: &Packer) -> Chunk {
        let mut output = Output::new(packer);
        output.begin_chunk();
        Chunk(output)
    }

    fn add<A: Serialize + 'static>(&mut self, item: &A, most: usize) -> Added {
        match self.0.part(item) {
            Err(error) => Added::Refused(error),
            Ok(()) => self.room(most),
        }
    }

    /// Adds the first of these items, as many as there is room for, if they are numbers. Returns how many it has added.
    fn add_numbers<A: Serialize + 'static>(&mut self, items: &[A], most: usize) -> usize {
        let room = CHUNK.0.saturating_sub(self.0.volume()).div_ceil(size_of::<A>().max(1));
        let count = items.len().min(most.saturating_sub(self.0.count())).min(room);
        if self.0.numbers(&items[..count]) { count } else { 0 }
    }

    fn room(&self, most: usize) -> Added {
        if self.0.count() >= most || self.0.volume() >= CHUNK.0 || self.0.descriptors() >= CHUNK.1 {
            Added::Full
        } else {
            Added::Open
        }
    }

    fn is_empty(&self) -> bool {
        self.0.count() == 0
    }

    /// Ends the chunk, if anything is in it, and begins the next.
    fn cut(&mut self) -> Option<Cut> {
        let count = self.0.count();
        let packet = (count > 0).then(|| self.0.pack());
        if packet.is_some() {
            self.0.begin_chunk();
        }
        packet.map(|p| (count, p.map_err(|error| Box::new(error) as Box<dyn Any + Send>)))
    }
}

fn put(cut: Cut, out: &mut Filling<'_>) {
    match cut {
        (items, Ok(packet)) => out.task(items, packet),
        // Each item has an outcome of its own.
        (items, Err(why)) => out.unsent(items, why),
    }
}

/// Items that are all there: the thread that drives the hub encodes them.
pub(super) struct Items<A> {
    items: std::vec::IntoIter<A>,
    chunk: Chunk,
}

impl<A> Items<A> {
    pub(super) fn new(items: Vec<A>, packer: &Packer) -> Items<A> {
        Items { items: items.into_iter(), chunk: Chunk::new(packer) }
    }
}

impl<A: Serialize + Send + 'static> Source for Items<A> {
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        while out.len() < tasks {
            let numbers = self.chunk.add_numbers(self.items.as_slice(), items);
            let added = if numbers > 0 {
                self.items.nth(numbers - 1);
                self.chunk.room(items)
            } else if let Some(item) = self.items.next() {
                self.chunk.add(&item, items)
            } else {
                self.chunk.cut().into_iter().for_each(|c| put(c, out));
                return true;
            };
            if !matches!(added, Added::Open) {
                self.chunk.cut().into_iter().for_each(|c| put(c, out));
            }
            if let Added::Refused(error) = added {
                out.unsent(1, Box::new(error));
            } else if self.chunk.is_empty() && out.has_enough(items) {
                break;
            }
        }
        // Determined now and not at the next call, so that no call waits needlessly for the last task.
        self.items.as_slice().is_empty()
    }
}

/// A slow input, which a separate thread reads, so that it delays neither results nor other calls.
///
/// The thread collects items into chunks. A chunk must not wait for an item that will come late, or never before its own
/// results do. So the thread hands a chunk over early when an item took long to come; and the thread that waits for results
/// takes what has been collected, with [`Feeder::flush`]. Chunks of a size that the caller gave are kept as they are.
pub(super) struct Feeder {
    hub: Hub,
    job: JobId,
    adaptive: bool,
    // Items of a chunk at most.
    most: usize,
    // Held while handing over, which takes the hub's lock inside: tasks must arrive in the order of their items.
    collected: Mutex<Collected>,
}

struct Collected {
    chunk: Chunk,
    cuts: Vec<Cut>,
    over: bool,
    // Something was handed over that the reading thread does not know of: what it was asked for is out of date.
    flushed: bool,
    // The waiting thread cannot call again: the next items are handed over as they come.
    hurried: bool,
    // Of a call whose results come in any order.
    places: Option<Places>,
}

/// Which item is the first of each task.
#[derive(Default)]
struct Places {
    /// By the task's number, until its outcome comes.
    first: HashMap<u64, usize>,
    tasks: u64,
    items: usize,
}

impl Places {
    fn add(&mut self, items: usize) {
        self.first.insert(self.tasks, self.items);
        self.tasks += 1;
        self.items += items;
    }

    /// Items that were never handed over get an outcome one by one where their number is known and the call ends early.
    fn take(&mut self, task: u64) -> usize {
        self.first.remove(&task).unwrap_or_else(|| self.items + task.saturating_sub(self.tasks) as usize)
    }
}

/// An item that took so long is not kept waiting for the next.
const SLOW: Duration = Duration::from_micros(50);

impl Feeder {
    /// Begins to read `items`. With a `share`, chunks may be shorter than asked for, and hold no more items than that. `unordered`: it
    /// notes which items are in each task.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start<I>(
        hub: &Hub,
        job: JobId,
        share: Option<usize>,
        unordered: bool,
        items: I,
    ) -> std::io::Result<Arc<Feeder>>
    where
        I: Iterator + Send + 'static,
        I::Item: Serialize + 'static,
    {
        let collected = Collected {
            chunk: Chunk::new(hub.packer()),
            cuts: Vec::new(),
            over: false,
            flushed: false,
            hurried: false,
            places: unordered.then(Places::default),
        };
        let (adaptive, most) = (share.is_some(), share.unwrap_or(usize::MAX));
        let feeder = Arc::new(Feeder { hub: hub.clone(), job, adaptive, most, collected: Mutex::new(collected) });
        let mine = feeder.clone();
        std::thread::Builder::new().name("maniple-feeder".into()).spawn(move || mine.run(items))?;
        Ok(feeder)
    }

    fn run<I>(&self, mut items: I)
    where
        I: Iterator,
        I::Item: Serialize + 'static,
    {
        while let Some((tasks, each)) = self.hub.wanted(self.job, Duration::from_secs(60)) {
            let mut open = tasks > 0;
            while open {
                let asked = Instant::now();
                // A panic of the input's belongs to the caller, and ends the input.
                let item = catch_unwind(AssertUnwindSafe(|| items.next()));
                let mut collected = self.lock();
                let collected = &mut *collected;
                match item {
                    Ok(Some(item)) => {
                        let added = collected.chunk.add(&item, each.min(self.most));
                        if !matches!(added, Added::Open) {
                            collected.cuts.extend(collected.chunk.cut());
                        }
                        if let Added::Refused(error) = added {
                            collected.cuts.push((1, Err(Box::new(error))));
                        }
                        if collected.cuts.len() >= tasks
                            || asked.elapsed() > SLOW
                            || collected.hurried && self.has_some(collected)
                        {
                            self.hand_over(collected);
                            open = false;
                        }
                        open &= !std::mem::take(&mut collected.flushed);
                    }
                    end => {
                        collected.cuts.extend(collected.chunk.cut());
                        if let Err(panic) = end {
                            collected.cuts.push((1, Err(Box::new(CallersPanic(panic)))));
                        }
                        collected.over = true;
                        self.hand_over(collected);
                        return;
                    }
                }
            }
        }
    }

    /// Hands over what has been collected. True: there will be no more.
    pub(super) fn flush(&self) -> bool {
        let mut collected = self.lock();
        if !collected.over && self.has_some(&collected) {
            self.hand_over(&mut collected);
            collected.flushed = true;
        }
        collected.over
    }

    /// As [`Feeder::flush`], for a thread that is woken by a result and does not call before: if nothing was collected, the next item does not
    /// wait for others.
    #[cfg(feature = "async")]
    pub(super) fn be_quick(&self) {
        self.flush();
        let mut collected = self.lock();
        collected.hurried = !collected.over;
    }

    /// Which item of the input is the first of a task, for a call whose results come in any order.
    pub(super) fn first_item(&self, task: u64) -> Option<usize> {
        self.lock().places.as_mut().map(|places| places.take(task))
    }

    /// Whether there is something to hand over.
    fn has_some(&self, collected: &Collected) -> bool {
        !collected.cuts.is_empty() || self.adaptive && !collected.chunk.is_empty()
    }

    fn hand_over(&self, collected: &mut Collected) {
        collected.hurried &= !self.has_some(collected);
        if self.adaptive {
            collected.cuts.extend(collected.chunk.cut());
        }
        let packer = self.hub.packer();
        let mut filling = Filling::new(packer);
        if let Some(places) = &mut collected.places {
            collected.cuts.iter().for_each(|(items, _)| places.add(*items));
        }
        collected.cuts.drain(..).for_each(|c| put(c, &mut filling));
        self.hub.feed(self.job, filling, collected.over);
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Feeder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feeder").field("job", &self.job).finish_non_exhaustive()
    }
}

/// One item, as a packet of its own.
pub(super) fn single<A: Serialize + 'static>(item: &A, packer: &Packer) -> Result<Packet, Error> {
    let mut output = Output::new(packer);
    output.begin_chunk();
    output.part(item)?;
    output.pack()
}
