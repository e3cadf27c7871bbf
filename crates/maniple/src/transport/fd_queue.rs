//! The descriptors of a queue's messages: a queue of descriptors beside the queue's log.
//!
//! A log is shared memory, which cannot carry descriptors. They travel through a socket of which every user of the
//! queue holds both ends. For each message with descriptors there is one packet, a *note*: `position: u64 · nonce:
//! u64`, and the descriptors. The notes have the order of their messages: a writer sends its note under the writers'
//! lock, just before it publishes the message, and a reader takes it under the readers' lock, just after it has taken
//! the message.
//!
//! The message contains the nonce, too. A killed writer may leave a note without a message: the next message has the
//! same position but another nonce. A killed reader may leave the note of a message that it had taken: its position is
//! past. Both notes are *orphans*. The reader of a later message finds them before its own note, and drops them.
//!
//! If the socket is full (it holds a few hundred notes), the writer waits without a lock.

use super::message::lock;
use crate::error::{ChannelError, Error, Result};
use maniple_engine::channel::frame::Until;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, ready, stream, wire};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Mutex;
use std::time::Duration;

/// Both ends of the socket.
#[derive(Debug)]
pub(super) struct FdQueue {
    into: OwnedHandle,
    out: OwnedHandle,
    // A `RandomState`, which is cheap to use and expensive to make.
    random: Mutex<(RandomState, u64)>,
}

/// The length of a note.
const NOTE: usize = 16;
/// How often a waiting writer checks for room: the kernel tells it nothing about notes that were taken.
const SLICE: Duration = Duration::from_millis(50);

fn note(position: u64, nonce: u64) -> [u8; NOTE] {
    let mut bytes = [0; NOTE];
    bytes[..8].copy_from_slice(&position.to_ne_bytes());
    bytes[8..].copy_from_slice(&nonce.to_ne_bytes());
    bytes
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> maniple_engine::Error {
    move |source| maniple_engine::Error::Os { doing, source }
}

impl FdQueue {
    pub(super) fn new() -> Result<FdQueue> {
        let (into, out) = stream::packet_pair().map_err(failed("make a queue's socket"))?;
        Ok(FdQueue::over(into, out))
    }

    pub(super) fn over(into: OwnedHandle, out: OwnedHandle) -> FdQueue {
        FdQueue { into, out, random: Mutex::new((RandomState::new(), 0)) }
    }

    pub(super) fn ends(&self) -> (BorrowedHandle<'_>, BorrowedHandle<'_>) {
        (self.into.as_handle(), self.out.as_handle())
    }

    /// Returns a number that no other process and no other call uses.
    pub(super) fn nonce(&self) -> u64 {
        let (state, count) = &mut *lock(&self.random);
        *count += 1;
        // A forked child has its parent's state.
        let mut hasher = state.build_hasher();
        hasher.write_u64(*count);
        hasher.write_u32(std::process::id());
        hasher.finish()
    }

    /// Sends a note. The caller holds the writers' lock. Returns false if there is no room.
    pub(super) fn send(&self, position: u64, nonce: u64, handles: &[OwnedHandle]) -> maniple_engine::Result<bool> {
        let handles: Vec<BorrowedHandle<'_>> = handles.iter().map(AsHandle::as_handle).collect();
        match stream::send_packet(self.into.as_handle(), &note(position, nonce), &handles) {
            Err(e) if wire::is_crowded(&e) => Ok(false),
            other => other.map_err(failed("put descriptors into a queue")),
        }
    }

    /// Waits a while for room. Returns false if the time limit has passed.
    pub(super) fn wait(&self, until: Until) -> Result<bool> {
        let left = until.left();
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let time = left.map_or(SLICE, |left| left.min(SLICE));
        let mut interest = [ready::Interest::room(self.into.as_handle())];
        if ready::wait(&mut interest, Some(time)).map_err(failed("wait for a queue's socket"))? > 0 {
            // There may be room in the socket and too many descriptors of this user on their way. No event shows the
            // end of that.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    /// Takes the descriptors of the message at `position`. The caller holds the readers' lock.
    pub(super) fn take(&self, position: u64, nonce: u64) -> Result<Vec<OwnedHandle>> {
        const WHAT: &str = "take descriptors out of a queue";
        let mine = note(position, nonce);
        let lost = || Error::Channel(ChannelError::Message("its descriptors were not sent with it"));
        loop {
            let mut head = [0; NOTE];
            if stream::peek_packet(self.out.as_handle(), &mut head).map_err(failed(WHAT))? != Some(NOTE) {
                return Err(lost());
            }
            if head[..8] != mine[..8] && u64_of(&head) > position {
                // The note belongs to the next reader.
                return Err(lost());
            }
            let mut handles = Vec::new();
            stream::read_now(self.out.as_handle(), &mut head, Some(&mut handles)).map_err(failed(WHAT))?;
            if head == mine {
                return Ok(handles);
            }
        }
    }
}

fn u64_of(head: &[u8; NOTE]) -> u64 {
    head.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<OwnedHandle> {
        vec![maniple_sys::process::nothing().unwrap()]
    }

    #[test]
    fn orphans_are_dropped_and_later_notes_left_alone() {
        let fds = FdQueue::new().unwrap();
        // The notes of a message whose reader died; of a message that was never published; of this message; of the
        // next.
        for (position, nonce) in [(8, 1), (16, 2), (16, 3), (24, 4)] {
            assert!(fds.send(position, nonce, &file()).unwrap());
        }
        assert_eq!(fds.take(16, 3).unwrap().len(), 1);
        assert!(fds.take(16, 3).is_err());
        assert_eq!(fds.take(24, 4).unwrap().len(), 1);
        assert!(fds.take(32, 5).is_err());
    }

    #[test]
    fn a_full_one_says_so() {
        let fds = FdQueue::new().unwrap();
        let mut sent = 0;
        while fds.send(sent, 0, &file()).unwrap() {
            sent += 1;
        }
        assert!(sent > 50, "{sent}");
        assert!(!fds.wait(Until::Now).unwrap());
        fds.take(sent / 2, 0).unwrap();
        while fds.take(sent - 1, 0).is_err() {}
        assert!(fds.send(sent, 0, &file()).unwrap());
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        let fds = FdQueue::new().unwrap();
        assert_ne!(fds.nonce(), fds.nonce());
    }
}
