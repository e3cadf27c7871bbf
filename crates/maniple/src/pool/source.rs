//! Where a call's tasks come from: its items, encoded chunk by chunk when there is room for more.

use crate::error::Error;
use crate::frame::Output;
use crate::results::CallersPanic;
use maniple_engine::pool::{Filling, Hub, JobId, Packer, Source};
use serde::Serialize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A chunk that holds so many bytes is long enough, whatever was asked for.
const VOLUME: usize = 1 << 20;
/// So many large buffers too: one message can carry 1,024, and one item may have several.
const BLOBS: usize = 256;

/// A call's items.
pub(super) struct Items<I> {
    items: I,
    output: Output,
}

impl<I> Items<I>
where
    I: Iterator,
    I::Item: Serialize,
{
    pub(super) fn new(items: I, packer: &Packer) -> Items<I> {
        Items { items, output: Output::new(packer) }
    }

    /// Puts tasks into `out`; true when there are no more items.
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        for _ in 0..tasks {
            self.output.begin_chunk();
            let mut refused = None;
            let mut over = false;
            while self.output.count() < items && self.output.volume() < VOLUME && self.output.blobs() < BLOBS {
                match self.items.next() {
                    None => {
                        over = true;
                        break;
                    }
                    Some(item) => {
                        if let Err(error) = self.output.item(&item) {
                            refused = Some(error);
                            break;
                        }
                    }
                }
            }
            let count = self.output.count();
            match self.output.pack() {
                Ok(packet) if count > 0 => out.task(count, packet),
                Ok(_) => {}
                Err(error) => out.unsent(count, Box::new(error)),
            }
            if let Some(error) = refused {
                out.unsent(1, Box::new(error));
            }
            if over {
                return true;
            }
        }
        false
    }

    /// The same where `next` is the caller's code: its panic goes to the caller, and ends the items.
    fn fill_guarded(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.fill(tasks, items, out))).unwrap_or_else(|panic| {
            let _ = self.output.pack();
            out.unsent(1, Box::new(CallersPanic(panic)));
            true
        })
    }
}

/// Items that are all there: encoded by whoever drives the hub.
impl<I> Source for Items<I>
where
    I: Iterator + Send,
    I::Item: Serialize,
{
    fn fill(&mut self, tasks: usize, items: usize, out: &mut Filling<'_>) -> bool {
        self.fill_guarded(tasks, items, out)
    }
}

/// Items from an iterator that may take its time: a thread of its own waits for it, so that results are not held up.
pub(super) fn feed<I>(hub: Hub, job: JobId, items: I) -> std::io::Result<()>
where
    I: Iterator + Send + 'static,
    I::Item: Serialize,
{
    let work = move || {
        let packer = hub.packer().clone();
        let mut items = Items::new(items, &packer);
        while let Some((tasks, each)) = hub.wanted(job, Duration::from_secs(60)) {
            if tasks == 0 {
                continue;
            }
            let mut filling = Filling::new(&packer);
            let over = items.fill_guarded(tasks, each, &mut filling);
            hub.feed(job, filling, over);
            if over {
                return;
            }
        }
    };
    std::thread::Builder::new().name("maniple-feeder".into()).spawn(work).map(drop)
}

/// One item, as a packet of its own.
pub(super) fn single<A: Serialize>(item: &A, packer: &Packer) -> Result<maniple_engine::pool::Packet, Error> {
    let mut output = Output::new(packer);
    output.begin_chunk();
    output.item(item)?;
    output.pack()
}
