//! Waiting for a log: for a message, asleep or by descriptor, and for messages to be reported done.

use super::{Interrupted, Log, SLICE, hold};
use crate::error::{Error, Result};
use crate::sys::futex::{self, Woken};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Log {
    pub(super) fn has_news(&self) -> bool {
        !self.is_empty() || self.is_closed()
    }

    /// Waits until there is a message or the log is closed, or until `deadline`. Gives whether it is so.
    pub fn wait(&self, deadline: Option<Instant>, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        let calls = &self.header().calls;
        loop {
            let allowed = self.shared.cores > 1;
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
                futex::wait(calls.readers.bell(), seat.seen, Some(left.map_or(SLICE, |l| l.min(SLICE))))
            } else {
                Woken::Rung
            };
            calls.readers.leave(seat);
            if self.has_news() {
                return Ok(true);
            }
            if woken == Woken::Signal && interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// From now on [`Log::event`] is readable whenever there is a message.
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

    /// Whether somebody has called [`Log::watch`].
    pub fn is_watched(&self) -> bool {
        self.header().calls.watched.load(Ordering::Relaxed) != 0
    }

    /// What to wait for along with other things, after [`Log::watch`].
    pub fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Makes the event quiet if the log is empty. Gives whether it is.
    pub(super) fn hush(&self, mut interrupted: Option<Interrupted<'_, '_>>) -> Result<bool> {
        let header = self.header();
        loop {
            let Some(readers) = hold(&header.readers, interrupted.as_deref_mut())? else { return Ok(true) };
            if let Some(_writers) = hold(&header.writers, None)? {
                let empty = self.is_empty();
                if empty && !self.is_closed() {
                    self.shared.event.clear();
                }
                return Ok(empty);
            }
            // Nothing is held while waiting: a front's signal handler may want to use the queue.
            drop(readers);
            let Some(interrupted) = interrupted.as_deref_mut() else { return Ok(true) };
            drop(hold(&header.writers, Some(interrupted))?);
        }
    }

    // ---- messages that are reported done ----

    /// Reports a counted message as done. False: more were reported than put.
    pub fn done(&self) -> bool {
        let undone = &self.header().calls.undone;
        match undone.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| n.checked_sub(1)) {
            Ok(1) => {
                futex::wake(undone, u32::MAX >> 1);
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Counts a message that is still to be put.
    pub fn count(&self) {
        self.header().calls.undone.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every counted message is reported done.
    pub fn join(&self, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let undone = &self.header().calls.undone;
        loop {
            // Partner: `done`.
            match undone.load(Ordering::Acquire) {
                0 => return Ok(()),
                n => {
                    if futex::wait(undone, n, Some(SLICE)) == Woken::Signal && interrupted() {
                        return Err(Error::Interrupted);
                    }
                }
            }
        }
    }
}
