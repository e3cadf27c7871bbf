//! The tasks of a call: its items, encoded in chunks when there is room for more.

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

/// The outcome of adding an item.
enum Added {
    /// There is room for more.
    Open,
    /// The chunk is full.
    Full,
    /// The item cannot be encoded. It is not in the chunk, which ends before it.
    Refused(Error),
}

/// A task, or the reason why there is none: the number of items, and their packet.
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

    /// Adds the first of these items, as many as there is room for, if they are numbers. Returns the number of added
    /// items.
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

    /// Ends the chunk, unless it is empty, and begins the next.
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
        // Each item has its own outcome.
        (items, Err(why)) => out.unsent(items, why),
    }
}

/// Drops an item. Returns the panic of its `Drop`, which belongs to the caller.
fn drop_item<A>(value: A) -> Option<CallersPanic> {
    if !std::mem::needs_drop::<A>() {
        return None;
    }
    catch_unwind(AssertUnwindSafe(|| drop(value))).err().map(CallersPanic)
}

/// Items that all exist. The thread that drives the hub encodes them.
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
                let added = self.chunk.add(&item, items);
                if let Some(panic) = drop_item(item) {
                    // As a panic of an iterator does, it ends the input.
                    self.chunk.cut().into_iter().for_each(|c| put(c, out));
                    out.unsent(1, Box::new(panic));
                    return true;
                }
                added
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
        // Determined now and not in the next call, so that no call waits needlessly for the last task.
        self.items.as_slice().is_empty()
    }
}

impl<A> Drop for Items<A> {
    fn drop(&mut self) {
        // One by one: the panic of one does not keep the others, nor the thread of the pool that runs this.
        self.items.by_ref().for_each(|item| drop(drop_item(item)));
    }
}

/// A slow input, which a separate thread reads, so that it delays neither results nor other calls.
///
/// The thread collects items into chunks. A chunk must not wait for an item that arrives late, or that arrives only
/// after the chunk's own results. So the thread submits a chunk early if an item took long; and the thread that waits
/// for results submits the collected items by [`Feeder::flush`]. Chunks whose size the caller has set stay whole.
pub(super) struct Feeder {
    hub: Hub,
    job: JobId,
    adaptive: bool,
    // The greatest number of items in a chunk.
    most: usize,
    // Locked during a submission, which takes the hub's lock inside: tasks must arrive in the order of their items.
    collected: Mutex<Collected>,
}

struct Collected {
    chunk: Chunk,
    cuts: Vec<Cut>,
    over: bool,
    // Items were submitted by another thread than the reading thread, so the requested number is out of date.
    flushed: bool,
    // The waiting thread cannot call again: the next items are submitted as they arrive.
    hurried: bool,
    // Set for a call whose results arrive in any order.
    places: Option<Places>,
}

/// The index of the first item of each task.
#[derive(Default)]
struct Places {
    /// By the number of the task, until its outcome arrives.
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

    /// Items that were never submitted have separate outcomes if their number is known and the call ends early.
    fn take(&mut self, task: u64) -> usize {
        self.first.remove(&task).unwrap_or_else(|| self.items + task.saturating_sub(self.tasks) as usize)
    }
}

/// An item that took this long does not wait for the next item.
const SLOW: Duration = Duration::from_micros(50);

impl Feeder {
    /// Begins to read `items`. With a `share`, a chunk may be shorter than requested, and has at most that many items.
    /// `unordered`: notes which items are in each task.
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
                // A panic of the input belongs to the caller, and ends the input.
                let item = catch_unwind(AssertUnwindSafe(|| items.next()));
                let mut collected = self.lock();
                let collected = &mut *collected;
                let item = match item {
                    Ok(Some(item)) => {
                        let added = collected.chunk.add(&item, each.min(self.most));
                        match drop_item(item) {
                            None => Ok(Some(added)),
                            Some(panic) => Err(panic),
                        }
                    }
                    Ok(None) => Ok(None),
                    Err(panic) => Err(CallersPanic(panic)),
                };
                match item {
                    Ok(Some(added)) => {
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
                            collected.cuts.push((1, Err(Box::new(panic))));
                        }
                        collected.over = true;
                        self.hand_over(collected);
                        return;
                    }
                }
            }
        }
    }

    /// Submits the collected items. Returns true if there will be no more.
    pub(super) fn flush(&self) -> bool {
        let mut collected = self.lock();
        if !collected.over && self.has_some(&collected) {
            self.hand_over(&mut collected);
            collected.flushed = true;
        }
        collected.over
    }

    /// As [`Feeder::flush`], for a thread that a result wakes and that does not call before: if no item was collected,
    /// the next item does not wait for others.
    #[cfg(feature = "async")]
    pub(super) fn be_quick(&self) {
        self.flush();
        let mut collected = self.lock();
        collected.hurried = !collected.over;
    }

    /// Returns the index of the first item of a task, for a call whose results arrive in any order.
    pub(super) fn first_item(&self, task: u64) -> Option<usize> {
        self.lock().places.as_mut().map(|places| places.take(task))
    }

    /// Returns whether there are items to submit.
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

/// Encodes one item as a separate packet.
pub(super) fn single<A: Serialize + 'static>(item: &A, packer: &Packer) -> Result<Packet, Error> {
    let mut output = Output::new(packer);
    output.begin_chunk();
    output.part(item)?;
    output.pack()
}
