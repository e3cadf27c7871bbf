//! The limits of a log: a bound on its messages, and its end.
//!
//! A bound is not a count of free places, which a process could take and lose when it dies: a writer that holds the
//! lock compares how many messages were put and how many were taken. A reader that is killed between taking and
//! counting leaves the difference one too large until the next reader takes a message. An empty log may have no next
//! reader, so an empty log never counts as full.
//!
//! Closing happens under the writers' lock: a process that sees the log closed sees every message there will ever be.

use super::put::length_of;
use super::{Interrupted, Log, SLICE, View, hold};
use crate::error::{Error, Result};
use crate::wait::word::{self, Woken};
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

/// The values of the word `closed`.
const CLOSED: u32 = 1;
const REVOKED: u32 = 2;

impl View {
    /// Sets the greatest number of messages (0: any number), before any other process has the log.
    pub fn limit(&self, messages: u64) {
        self.header().calls.bound.store(messages, Ordering::Relaxed);
    }

    /// Whether the log has as many messages as its bound allows.
    pub fn is_full(&self) -> bool {
        let bound = self.header().calls.bound.load(Ordering::Relaxed);
        if bound == 0 {
            return false;
        }
        let there = if self.is_empty() { 0 } else { self.len() };
        there + self.held_back() >= bound
    }

    /// Whether there is room for the bytes of a message of these parts.
    pub fn has_room(&self, parts: &[&[u8]]) -> Result<bool> {
        let header = self.header();
        let head = header.readers.at.load(Ordering::Acquire);
        let held = header.writers.at.load(Ordering::Acquire).saturating_sub(head);
        Ok(length_of(parts)? <= self.capacity().saturating_sub(held))
    }

    /// Waits until there is room for a message or the log is closed, or until `deadline`. Returns whether it is so. With `parts`: until there
    /// is room for this message's bytes, too.
    pub fn wait_for_room(
        &self,
        parts: Option<&[&[u8]]>,
        deadline: Option<Instant>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<bool> {
        let calls = &self.header().calls;
        loop {
            let seen = calls.room.load(Ordering::Relaxed);
            calls.pacing.store(1, Ordering::Relaxed);
            // Partner: the fence in `take_and`.
            fence(Ordering::SeqCst);
            let is_cramped = parts.map_or(Ok(false), |parts| self.has_room(parts).map(|has| !has))?;
            if (!self.is_full() && !is_cramped) || self.is_closed() {
                return Ok(true);
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            // A reader may be killed before it wakes a writer.
            let woken = word::sleep(&calls.room, seen, Some(left.map_or(SLICE, |left| left.min(SLICE))));
            if woken != Woken::Rung && interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Wakes the writers that wait for room.
    fn call_writers(&self) {
        let calls = &self.header().calls;
        calls.room.fetch_add(1, Ordering::Relaxed);
        word::wake(&calls.room, u32::MAX >> 1);
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        // Partner: `close`.
        self.header().calls.closed.load(Ordering::Acquire) != 0
    }

    /// Whether it was closed, and every message was taken: there is nothing to take any more, and never will be.
    pub fn is_over(&self) -> bool {
        // In this order: no message is put after the log was closed.
        self.is_closed() && self.is_empty()
    }

    /// Whether it was closed by [`Log::revoke`].
    pub fn is_revoked(&self) -> bool {
        self.header().calls.closed.load(Ordering::Acquire) == REVOKED
    }
}

impl Log {
    /// Closes the log: later puts fail, the messages in the log can still be taken, and no thread waits any more.
    pub fn close(&self, interrupted: Interrupted<'_, '_>) -> Result<()> {
        self.close_as(CLOSED, interrupted)
    }

    /// Closes the log, and declares that its messages are not wanted ([`View::is_revoked`]). The caller takes them, and drops them.
    pub fn revoke(&self, interrupted: Interrupted<'_, '_>) -> Result<()> {
        self.close_as(REVOKED, interrupted)
    }

    fn close_as(&self, how: u32, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let header = self.header();
        let held = hold(&header.writers, Some(interrupted))?;
        // Partner: `is_closed`; what was put comes before.
        header.calls.closed.fetch_max(how, Ordering::Release);
        if header.calls.watched.load(Ordering::Relaxed) != 0 {
            self.shared.event.kick();
        }
        drop(held);
        header.calls.readers.call(|bell| word::wake(bell, u32::MAX >> 1));
        self.call_writers();
        Ok(())
    }

    /// Sets how many messages were taken in this process but not delivered, and are delivered next. They count for the
    /// bound in this process, and wake its threads that wait for a message or for the descriptor; other processes do
    /// not see them.
    pub fn hold_back(&self, messages: u64) {
        let before = self.set_held_back(messages);
        let watched = self.is_watched();
        if messages > before {
            if watched {
                self.shared.event.kick();
            }
            self.header().calls.readers.call(|bell| word::wake(bell, u32::MAX >> 1));
        } else if messages < before {
            self.call_writers();
            if messages == 0 && watched {
                // If the lock is not free now, the next reader that checks does it.
                let _ = self.hush(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Put, Terms};
    use super::*;

    fn put(log: &Log) -> Put {
        log.put_on(&[b"one"], Terms::default(), Some(&mut || false)).unwrap()
    }

    #[test]
    fn a_reader_that_died_before_it_counted_leaves_no_empty_log_that_is_full() {
        let log = Log::create().unwrap();
        log.limit(1);
        assert_eq!((put(&log), put(&log)), (Put::Done, Put::Full));
        // What `Side::advance` does first.
        let header = log.header();
        header.readers.at.store(header.writers.at.load(Ordering::Relaxed), Ordering::Release);
        assert!(log.is_empty() && log.len() == 1);
        assert!(log.wait_for_room(None, Some(Instant::now()), &mut || false).unwrap());
        assert_eq!(put(&log), Put::Done);
    }

    #[test]
    fn a_message_that_its_writer_does_not_want_after_all_is_not_there() {
        let log = Log::create().unwrap();
        let mut places = Vec::new();
        for wanted in [true, false, true] {
            let mut before = |place| {
                places.push(place);
                Ok(wanted)
            };
            let terms = Terms { before: Some(&mut before), ..Terms::default() };
            let put = log.put_on(&[b"one"], terms, Some(&mut || false)).unwrap();
            assert_eq!(put, if wanted { Put::Done } else { Put::Refused });
        }
        assert_eq!(log.len(), 2);
        // The next message has the place of the one that was not put, and a reader gets the same places.
        assert!(places[0] < places[1] && places[1] == places[2]);
        let (mut taken, mut first) = (Vec::new(), Vec::new());
        while log.take_and(&mut first, Some(&mut || false), &mut |place, _| taken.push(place)).unwrap().is_some() {}
        assert_eq!(taken, [places[0], places[2]]);
    }

    #[test]
    fn a_closed_log_takes_nothing_gives_what_it_has_and_keeps_its_event_up() {
        let log = Log::create().unwrap();
        assert_eq!(put(&log), Put::Done);
        log.watch(&mut || false).unwrap();
        log.close(&mut || false).unwrap();
        assert_eq!(put(&log), Put::Closed);
        let mut first = Vec::new();
        assert!(log.take(&mut first, Some(&mut || false)).unwrap().is_some());
        assert!(log.take(&mut first, Some(&mut || false)).unwrap().is_none());
        assert!(log.wait(None, &mut || false).unwrap() && log.wait_for_room(None, None, &mut || false).unwrap());
        let mut event = [maniple_sys::ready::Interest::new(log.event())];
        assert_eq!(maniple_sys::ready::wait(&mut event, Some(std::time::Duration::ZERO)).unwrap(), 1);
    }

    #[test]
    fn a_revoked_log_says_that_its_messages_are_not_wanted_until_they_are_taken() {
        let log = Log::create().unwrap();
        let elsewhere = log.again();
        assert_eq!([put(&log), put(&log)], [Put::Done; 2]);
        log.close(&mut || false).unwrap();
        assert!(elsewhere.is_closed() && !elsewhere.is_revoked() && !elsewhere.is_over());
        log.revoke(&mut || false).unwrap();
        // A later end of the milder kind changes nothing.
        log.close(&mut || false).unwrap();
        assert!(elsewhere.is_revoked() && !elsewhere.is_over() && put(&elsewhere) == Put::Closed);
        // If the process that revoked it dies, another takes the messages.
        let mut first = Vec::new();
        while elsewhere.take(&mut first, Some(&mut || false)).unwrap().is_some() {}
        assert!(log.is_over() && log.is_empty());
    }

    #[test]
    fn the_end_of_a_log_wakes_readers_and_writers() {
        for revoked in [false, true] {
            let (empty, full) = (Log::create().unwrap(), Log::create().unwrap());
            full.limit(1);
            assert_eq!(put(&full), Put::Done);
            std::thread::scope(|scope| {
                let waiting = [
                    scope.spawn(|| empty.wait(None, &mut || false)),
                    scope.spawn(|| full.wait_for_room(None, None, &mut || false)),
                ];
                std::thread::sleep(std::time::Duration::from_millis(50));
                for log in [&empty, &full] {
                    if revoked { log.revoke(&mut || false) } else { log.close(&mut || false) }.unwrap();
                }
                assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap().unwrap()));
            });
            assert!(empty.is_over() && !full.is_over());
        }
    }

    #[test]
    fn what_is_held_back_is_there_for_this_process_alone() {
        let log = Log::create().unwrap();
        let elsewhere = log.again();
        log.limit(1);
        log.watch(&mut || false).unwrap();
        let is_readable = || {
            let mut event = [maniple_sys::ready::Interest::new(log.event())];
            maniple_sys::ready::wait(&mut event, Some(std::time::Duration::ZERO)).unwrap() == 1
        };
        let soon = || Some(Instant::now() + std::time::Duration::from_millis(20));
        assert!(!log.wait(soon(), &mut || false).unwrap() && !is_readable());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.wait(None, &mut || false));
            std::thread::sleep(std::time::Duration::from_millis(50));
            log.hold_back(1);
            assert!(waiting.join().unwrap().unwrap());
        });
        assert!(log.is_full() && log.view().is_full() && put(&log) == Put::Full && is_readable());
        assert!(!elsewhere.is_full() && !elsewhere.wait(soon(), &mut || false).unwrap());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.wait_for_room(None, None, &mut || false));
            std::thread::sleep(std::time::Duration::from_millis(50));
            log.hold_back(0);
            assert!(waiting.join().unwrap().unwrap());
        });
        assert!(!log.is_full() && !is_readable() && put(&log) == Put::Done);
    }
}
