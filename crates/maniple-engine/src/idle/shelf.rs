//! Things that are kept to be used again.

use super::{Kept, Watched};
use maniple_sys::atfork;
use maniple_sys::epoch::{Epoch, Since};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much a shelf keeps. It drops the longest unused things beyond that.
#[derive(Clone, Copy, Debug)]
pub struct Limits<T> {
    /// Things at most.
    pub things: usize,
    /// Bytes of memory in them at most.
    pub bytes: usize,
    /// Bytes of memory in a thing.
    pub size: fn(&T) -> usize,
}

/// Things of one kind that are kept to be used again. The sweeper returns those that were not used for a second or two.
///
/// Methods whose names begin with `try_` do nothing while another thread uses the shelf, or did so when this process was forked.
/// The others wait. Use either for a shelf: only where all wait, a forked child finds the lock free.
///
/// What was kept before a fork belongs to the parent: a forked child drops it.
#[derive(Debug)]
pub struct Shelf<T> {
    content: Mutex<Content<T>>,
    watched: Watched,
    limits: Limits<T>,
}

#[derive(Debug)]
struct Content<T> {
    /// The longest unused first, each with the time at which it was laid down.
    things: Vec<(T, Instant)>,
    epoch: Epoch,
}

impl<T> Content<T> {
    /// As this process has it: in a forked child there is nothing yet.
    fn own(&mut self) -> &mut Vec<(T, Instant)> {
        if self.epoch.since() == Since::Born {
            self.things.clear();
        }
        self.epoch = Epoch::now();
        &mut self.things
    }

    /// Adds things, and takes out those beyond the limits.
    fn add(&mut self, new: impl Iterator<Item = T>, limits: &Limits<T>) -> Vec<(T, Instant)> {
        let now = Instant::now();
        let things = self.own();
        things.extend(new.map(|thing| (thing, now)));
        let mut bytes: usize = things.iter().map(|(thing, _)| (limits.size)(thing)).sum();
        let beyond = things.iter().enumerate().position(|(i, (thing, _))| {
            let fits = things.len() - i <= limits.things && bytes <= limits.bytes;
            bytes -= (limits.size)(thing);
            fits
        });
        things.drain(..beyond.unwrap_or(things.len())).collect()
    }
}

impl<T: Send + 'static> Shelf<T> {
    /// An empty one.
    pub fn new(limits: Limits<T>) -> Arc<Shelf<T>> {
        let content = Content { things: Vec::new(), epoch: Epoch::now() };
        Arc::new(Shelf { content: Mutex::new(content), watched: Watched::default(), limits })
    }

    fn lock(&self) -> MutexGuard<'_, Content<T>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the thing that was used last among those that `fits` accepts.
    pub fn try_take(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut content = self.content.try_lock().ok()?;
        let things = content.own();
        let at = things.iter().rposition(|(thing, _)| fits(thing))?;
        Some(things.remove(at).0)
    }

    /// Keeps a thing, or drops it.
    pub fn try_keep(this: &Arc<Self>, thing: T) {
        // Freeing memory takes a while: not under the lock.
        let gone = match this.content.try_lock() {
            Ok(mut content) => content.add(std::iter::once(thing), &this.limits),
            Err(_) => return,
        };
        drop(gone);
        this.watch(this);
    }

    /// Keeps some things.
    pub fn keep(this: &Arc<Self>, things: impl Iterator<Item = T>) {
        // No fork comes meanwhile, so a child finds the lock free.
        let gone = atfork::making(|| this.lock().add(things, &this.limits));
        drop(gone);
        this.watch(this);
    }

    /// Works on the things. No fork comes meanwhile.
    pub fn with<R>(&self, work: impl FnOnce(&mut Vec<(T, Instant)>) -> R) -> R {
        atfork::making(|| work(self.lock().own()))
    }

    fn watch(&self, this: &Arc<Self>) {
        if !self.watched.begin(this) {
            self.trim(Duration::ZERO);
        }
    }
}

impl<T: Send + 'static> Kept for Shelf<T> {
    fn trim(&self, unused: Duration) -> bool {
        // A fork waits for the lock: its holder releases it in a moment.
        let content = if unused.is_zero() { Some(self.lock()) } else { self.content.try_lock().ok() };
        let Some(mut content) = content else { return true };
        let now = Instant::now();
        let things = &mut content.things;
        let stay = things.iter().position(|(_, since)| now.duration_since(*since) < unused).unwrap_or(things.len());
        let gone: Vec<_> = things.drain(..stay).collect();
        let has_more = !things.is_empty();
        if !has_more {
            self.watched.end();
        }
        drop(content);
        drop(gone);
        has_more
    }
}
