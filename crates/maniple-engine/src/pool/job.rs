//! The hub's state for each job: outcomes until they are collected, and the cell on which its callers sleep.

use super::packet::ReceivedPacket;
use super::spec::{Collect, Func, Source};
use crate::process::Exit;
use crate::wait::word::{self, Woken};
use rustc_hash::FxHashMap;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// How a task ended.
#[derive(Debug)]
pub enum Outcome {
    /// With a result.
    Done(ReceivedPacket),
    /// With a failure that the worker reported.
    Failed(ReceivedPacket),
    /// It never ran, because its payload could not be made or sent; the value is the front's own (or an [`crate::Error`]).
    Unsent(Box<dyn Any + Send>),
    /// It was answered, but this process lacked memory or descriptors to receive the answer.
    Unreceived(Box<crate::Error>),
    /// Its worker died while it ran, or no worker could be started.
    Lost(Arc<Loss>),
    /// Its job was cancelled, before it ran or while it ran.
    Cancelled,
    /// The pool was terminated.
    Terminated,
    /// It was tried more than once. (Apart, because that is rare, and a job may have a million outcomes.)
    AfterTries(Box<Tries>),
}

/// The outcomes of a task that was tried more than once.
#[derive(Debug)]
pub struct Tries {
    /// The outcome of the last try.
    pub last: Outcome,
    /// The outcomes of the tries before it, oldest first.
    pub earlier: Vec<Outcome>,
}

/// What is known of a worker's death.
#[derive(Debug)]
pub struct Loss {
    /// The worker; 0 if there was none, because it could not be started.
    pub pid: u32,
    /// How it ended, if that is known.
    pub exit: Option<Exit>,
    /// The last lines that it wrote to its standard error, at most 4 KiB.
    pub stderr: String,
    /// What happened.
    pub cause: LossCause,
    /// Whether the system has ended a process since the pool began, because memory ran out. If the worker was killed,
    /// it was probably this one.
    pub out_of_memory: bool,
}

impl Loss {
    /// The death of a worker that was never started, and `why`, if that is known.
    pub(crate) fn unstarted(why: String) -> Loss {
        Loss { pid: 0, exit: None, stderr: why, cause: LossCause::Unfit(None), out_of_memory: false }
    }
}

/// Why a task has no outcome of its own.
#[derive(Debug)]
pub enum LossCause {
    /// The worker died while it ran the task.
    Died,
    /// The worker was ended, because the task ran for longer than its limit.
    Overdue {
        /// The limit.
        limit: Duration,
        /// How long the task ran.
        ran: Duration,
    },
    /// The worker was ended, because it used more memory than the pool's limit.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
        /// The most memory that the worker is known to have used, in bytes.
        peak: u64,
    },
    /// Worker after worker was ended, because it did not become ready within the limit.
    Unready {
        /// The limit.
        limit: Duration,
    },
    /// Worker after worker ended before it was ready; this was the last, and what it said of itself if it could.
    Unfit(Option<ReceivedPacket>),
}

/// A task's end.
#[derive(Debug)]
pub struct Settled {
    /// Its number in the job, from 0.
    pub index: u64,
    /// Its number for the worker that answered ([`Task::number`](super::Task::number)), so that a front can check
    /// whether the content was made for this task; 0: no worker answered.
    pub number: u64,
    /// How many items it had.
    pub items: usize,
    /// How it ended.
    pub outcome: Outcome,
}

impl Settled {
    /// The end of a task that no worker has answered.
    pub(crate) fn unanswered(index: u64, items: usize, outcome: Outcome) -> Settled {
        Settled { index, number: 0, items, outcome }
    }
}

/// The word on which a job's callers sleep while another caller drives the hub, and the wakers of futures.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    word: AtomicU32,
    sleepers: AtomicU32,
    ready: AtomicBool,
    // Outlive the job in the hub: a handle can tell its progress after the outcome was collected.
    done: AtomicUsize,
    ended: AtomicBool,
    cancelled: AtomicBool,
    awaited: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Cell {
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// How many items have an outcome. Written under the hub's lock only.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Whether all tasks have ended and there will be no more.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether a task was cancelled.
    pub fn has_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub fn note_cancelled(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    fn count(&self, items: usize) {
        self.done.store(self.done() + items, Ordering::Relaxed);
    }

    /// The count of wake-ups so far. Pass it to `sleep` after a last check of the condition.
    pub fn ticks(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    /// Makes all sleepers check again. Returns the waker of a waiting future. The caller wakes it when the hub's lock
    /// is free, because that may run code of the program.
    #[must_use]
    pub fn call(&self) -> Option<Waker> {
        self.word.fetch_add(1, Ordering::SeqCst);
        // Partner: `sleep`. A sleeper that is not counted yet finds the word changed.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            word::wake(&self.word, u32::MAX >> 1);
        }
        if self.awaited.load(Ordering::SeqCst) { self.waker().take() } else { None }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn sleep(&self, seen: u32, timeout: Option<Duration>) -> Woken {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let woken = word::sleep(&self.word, seen, timeout);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        woken
    }

    pub fn set_waker(&self, waker: &Waker) {
        let waker = waker.clone();
        let before = self.waker().replace(waker);
        self.awaited.store(true, Ordering::SeqCst);
        // Its drop may also run code of the program.
        drop(before);
    }
}

pub(crate) enum Feed {
    /// Tasks were all there from the beginning.
    None,
    /// The thread that drives the hub calls it; it is taken out during the call.
    Inline(Option<Box<dyn Source>>),
    /// A thread of the front waits on the cell until tasks are wanted.
    External { wanted: Option<(usize, usize)>, cell: Arc<Cell> },
}

/// Ended items that may hold values of the front, and wakers. They are dropped and woken when the hub's lock is free.
pub(crate) enum Gone {
    Feed(#[allow(dead_code)] Feed),
    Job(#[allow(dead_code)] Box<Job>),
    Settled(#[allow(dead_code)] Vec<Settled>),
    One(#[allow(dead_code)] Box<Settled>),
    Value(#[allow(dead_code)] Box<dyn Any + Send>),
    Awaited(Waker),
}

impl Gone {
    /// With the hub's lock free: wakes, or drops.
    pub fn go(self) {
        if let Gone::Awaited(waker) = self {
            waker.wake();
        }
    }
}

pub(crate) struct Job {
    pub cell: Arc<Cell>,
    pub collect: Collect,
    pub feed: Feed,
    // Held until no task can name it any more.
    pub func: Option<Func>,
    /// The keeper must tell the front when the job is complete.
    pub notify: bool,
    pub ended: bool,
    /// Bytes of payload that may be under way, if that is limited.
    pub window_bytes: Option<usize>,
    weighed: (usize, usize),
    /// No caller will collect.
    pub orphaned: bool,
    // In order: place 0 is number `first`. Unordered: in the order of arrival.
    settled: VecDeque<Option<Settled>>,
    first: u64,
    // How the earlier tries of tasks ended that are tried again, by the tasks' numbers.
    tries: Option<Box<FxHashMap<u64, Vec<Outcome>>>>,
}

impl Job {
    pub fn new(collect: Collect, feed: Feed, func: Func, notify: bool, single: bool) -> Job {
        Job {
            cell: Arc::default(),
            collect,
            feed,
            func: Some(func),
            notify,
            ended: false,
            orphaned: false,
            window_bytes: None,
            weighed: (0, 0),
            settled: VecDeque::with_capacity(usize::from(single)),
            first: 0,
            tries: None,
        }
    }

    /// A try of a task has failed, and the task is tried again.
    pub fn tried(&mut self, index: u64, outcome: Outcome) {
        if !self.orphaned {
            self.tries.get_or_insert_default().entry(index).or_default().push(outcome);
        }
    }

    /// Stores a task's end. Returns whether callers have to check, or the end itself if no caller wants it.
    pub fn settle(&mut self, mut settled: Settled) -> Result<bool, Box<Settled>> {
        if let Some(earlier) = self.tries.as_mut().and_then(|tries| tries.remove(&settled.index)) {
            settled.outcome = Outcome::AfterTries(Box::new(Tries { last: settled.outcome, earlier }));
        }
        self.cell.count(settled.items);
        if self.orphaned {
            return Err(Box::new(settled));
        }
        if self.collect == Collect::Unordered {
            self.settled.push_back(Some(settled));
            return Ok(self.refresh());
        }
        let place = (settled.index - self.first) as usize;
        while self.settled.len() <= place {
            self.settled.push_back(None);
        }
        self.settled[place] = Some(settled);
        Ok(self.collect == Collect::Ordered && self.refresh())
    }

    /// Returns the outcomes that will not be collected.
    pub fn drop_settled(&mut self) -> Gone {
        Gone::Settled(std::mem::take(&mut self.settled).into_iter().flatten().collect())
    }

    /// Takes a payload's size into account: returns how many items' payloads fit into the window, if that was limited.
    pub fn weigh(&mut self, items: usize, bytes: usize) -> Option<usize> {
        let limit = self.window_bytes?;
        self.weighed = (self.weighed.0 + items, self.weighed.1 + bytes);
        let each = self.weighed.1 / self.weighed.0.max(1);
        (each > 256).then(|| limit / each)
    }

    /// There will be no more tasks. Returns what the job no longer needs.
    pub fn end(&mut self) -> Gone {
        self.ended = true;
        self.func = None;
        let feed = self.drop_feed();
        self.cell.ended.store(true, Ordering::Release);
        self.cell.set_ready(true);
        feed
    }

    /// Ends the input, and wakes a thread that feeds it.
    pub fn drop_feed(&mut self) -> Gone {
        let feed = std::mem::replace(&mut self.feed, Feed::None);
        if let Feed::External { cell, .. } = &feed {
            // A thread sleeps there, not a future.
            let _ = cell.call();
        }
        Gone::Feed(feed)
    }

    fn refresh(&mut self) -> bool {
        let ready = self.ended || (self.collect != Collect::All && matches!(self.settled.front(), Some(Some(_))));
        self.cell.set_ready(ready);
        ready
    }

    /// Takes the outcomes that can be taken now, at most `most`.
    pub fn take(&mut self, most: usize) -> Vec<Settled> {
        let mut taken = Vec::new();
        if self.collect != Collect::All || self.ended {
            while taken.len() < most && matches!(self.settled.front(), Some(Some(_))) {
                taken.extend(self.settled.pop_front().flatten());
                self.first += 1;
            }
        }
        self.refresh();
        taken
    }

    /// How things stand, for people.
    pub fn describe(&self) -> String {
        let (ended, ready, orphaned) = (self.ended, self.cell.is_ready(), self.orphaned);
        let there = self.settled.iter().flatten().count();
        format!(
            "{there} outcomes held from number {}, ended: {ended}, ready: {ready}, orphaned: {orphaned}",
            self.first
        )
    }

    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
    }
}
