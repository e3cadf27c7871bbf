//! Waiting for a log: for a message, asleep or by descriptor, and for messages to be reported done.

use super::super::layout::Calls;
use super::{Interrupted, Log, SLICE, View, hold, hold_writers};
use crate::error::{Error, Result};
use crate::wait::word::{self, Woken};
use maniple_sys::{AsHandle, BorrowedHandle};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl View {
    pub(super) fn has_news(&self) -> bool {
        !self.is_empty() || self.is_closed() || self.held_back() > 0
    }

    /// Waits until there is a message or the log is closed, or until `deadline`. Returns whether it is so.
    pub fn wait(&self, deadline: Option<Instant>, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        let calls = &self.header().calls;
        loop {
            let allowed = self.cores > 1;
            let spun = match self.spin.try_lock() {
                Ok(mut spin) => spin.until(allowed, || self.has_news()),
                Err(_) => false,
            };
            if spun {
                return Ok(true);
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(self.has_news());
            }
            let seat = calls.readers.join();
            let woken = if !self.has_news() {
                word::sleep(calls.readers.bell(), seat.seen, Some(left.map_or(SLICE, |l| l.min(SLICE))))
            } else {
                Woken::Rung
            };
            calls.readers.leave(seat);
            if self.has_news() {
                return Ok(true);
            }
            // Also if the time limit expired: a signal that arrived just before the sleep does not end the sleep.
            if woken != Woken::Rung && interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }

    // ---- messages that are reported done ----

    /// How many counted messages are not reported done yet.
    pub fn undone(&self) -> u32 {
        let calls = &self.header().calls;
        // In this order: a message that is counted meanwhile makes the number too large, never too small.
        let done = calls.done.load(Ordering::Acquire);
        calls.counted.load(Ordering::Acquire).wrapping_sub(done)
    }

    /// Reports a counted message as done. Returns false if more were reported than put.
    pub fn done(&self) -> bool {
        let Calls { counted, done, .. } = &self.header().calls;
        // A process that reports a message has taken it, and so sees it counted.
        let one_more = |n: u32| (n != counted.load(Ordering::Acquire)).then(|| n.wrapping_add(1));
        let Ok(before) = done.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) else { return false };
        if before.wrapping_add(1) == counted.load(Ordering::Acquire) {
            word::wake(done, u32::MAX >> 1);
        }
        true
    }

    /// Waits until every counted message is reported done, or until `deadline`. Returns whether it is so.
    pub fn join(&self, deadline: Option<Instant>, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        let header = self.header();
        loop {
            // Partner: `done`.
            let seen = header.calls.done.load(Ordering::Acquire);
            if seen == header.calls.counted.load(Ordering::Acquire) {
                return Ok(true);
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            let woken = word::sleep(&header.calls.done, seen, Some(left.map_or(SLICE, |left| left.min(SLICE))));
            if woken == Woken::Rung {
                continue;
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
            // A writer may have been killed after it counted its message and before it published it.
            drop(hold_writers(header, None)?);
        }
    }
}

impl Log {
    /// Makes [`Log::event`] readable whenever there is a message, from now on.
    pub fn watch(&self, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let header = self.header();
        if header.calls.watched.load(Ordering::Relaxed) == 0 {
            let held = hold(&header.writers, Some(interrupted))?;
            header.calls.watched.store(1, Ordering::Relaxed);
            if self.has_news() {
                self.shared.event.kick();
            }
            drop(held);
        }
        Ok(())
    }

    /// Whether any process has called [`Log::watch`].
    pub fn is_watched(&self) -> bool {
        self.header().calls.watched.load(Ordering::Relaxed) != 0
    }

    /// Returns the handle to wait for, together with others, after [`Log::watch`].
    pub fn event(&self) -> BorrowedHandle<'_> {
        self.shared.event.as_handle()
    }

    /// Makes the event quiet if the log is empty. Returns whether it is.
    pub(super) fn hush(&self, mut interrupted: Option<Interrupted<'_, '_>>) -> Result<bool> {
        let header = self.header();
        loop {
            let Some(readers) = hold(&header.readers, interrupted.as_deref_mut())? else { return Ok(true) };
            if let Some(_writers) = hold(&header.writers, None)? {
                let empty = self.is_empty();
                if empty && !self.is_closed() && self.held_back() == 0 {
                    self.shared.event.clear();
                }
                return Ok(empty);
            }
            // No lock is held during a wait: a front's signal handler may use the queue.
            drop(readers);
            let Some(interrupted) = interrupted.as_deref_mut() else { return Ok(true) };
            drop(hold(&header.writers, Some(interrupted))?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Terms;
    use super::*;

    const COUNTED: Terms<'static, 'static> = Terms { counted: true, hurried: false, before: None };

    #[test]
    fn what_a_dead_writer_counted_but_did_not_publish_is_not_waited_for() {
        let log = Log::create().unwrap();
        log.put_on(&[b"one"], COUNTED, None).unwrap();
        let header = log.header();
        // What a writer does under its lock, up to its death before and after it publishes.
        header.count(header.writers.at.load(Ordering::Relaxed));
        assert_eq!(log.undone(), 2);
        assert!(log.done() && !log.join(Some(Instant::now()), &mut || false).unwrap());
        assert!(log.join(None, &mut || false).unwrap() && log.undone() == 0);

        header.count(header.writers.at.load(Ordering::Relaxed));
        header.writers.advance(header.writers.at.load(Ordering::Relaxed) + 8);
        drop(hold_writers(header, None).unwrap());
        assert_eq!(log.undone(), 1);
        assert!(log.done() && !log.done());
    }
}
