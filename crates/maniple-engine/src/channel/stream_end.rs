//! One end of a connection over a stream of frames: Python's `Connection`, and Rust's connection over a socket of any
//! program.
//!
//! The end knows what may travel beside its frames, receives them piece by piece, and keeps the received part if a
//! signal handler interrupts the reception. It does not own the descriptor: a program may put another descriptor into a
//! Python connection. The front defines what a message means.
//!
//! A message is not sent or received in one step. So the threads of a process take turns: the front waits for
//! [`StreamEnd::sending`] or [`StreamEnd::receiving`] before the first step, and keeps the turn until the last one.
//! Processes that share an end have to take turns by a lock of their own.
//!
//! | what is beside a frame | the sender | the receiver |
//! | --- | --- | --- |
//! | nothing | every end | every end |
//! | large buffers in blocks, handles (`parcel`) | an end of a local socket, to a marked end | an end of a local socket, or a marked end |
//!
//! | sending | leaves |
//! | --- | --- |
//! | interrupted by the caller's hook in a message | the rest of the message, which is sent before the next message |
//!
//! | a reception | leaves |
//! | --- | --- |
//! | interrupted by the caller's hook | the received part, for the next call |
//! | of a message longer than the caller's limit | a stream that cannot be received from any more ([`Error::TooLong`]) |
//! | for which memory or descriptors are missing | a stream from which the next message can be received |

use super::attendance::Attendance;
use super::frame::{self, AdaptiveSpin, Interrupted, Message, Partial, Until, Way};
use super::parcel::Parcel;
use super::readiness;
use crate::error::{Error, Result};
use crate::wait::Turn;
use maniple_sys::BorrowedHandle;
use maniple_sys::stream::{self, Kind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is known of an end.
#[derive(Debug, Default)]
pub struct StreamEnd {
    // Of a socket, and of a local one.
    socket: AtomicBool,
    local: AtomicBool,
    // Known to be a socket, which does not turn on the adaptive waits and the attendance of `socket`.
    is_known_socket: AtomicBool,
    // Whether it is known what the descriptor leads to, this end to be marked, and the other one.
    looked: AtomicBool,
    marked: AtomicBool,
    peer_marked: AtomicBool,
    adaptive: AdaptiveSpin,
    partial: Mutex<Option<Partial>>,
    // The unsent rest of a message whose sending was interrupted in its middle, and whether there is a rest.
    rest: Mutex<Vec<u8>>,
    has_rest: AtomicBool,
    attendance: Attendance,
    sending: Turn,
    receiving: Turn,
}

/// The beginning of a message, or all of it.
#[derive(Debug)]
pub enum Received {
    /// All of it.
    Whole(Message),
    /// Its length. The body is to be received by [`StreamEnd::fill`] or [`StreamEnd::finish`].
    Length(Partial),
}

/// The result of sending a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was sent.
    Whole,
    /// The time limit expired before there was room.
    NoRoom,
    /// Too many handles of this user are under way. The message may be sent without blocks.
    Crowded,
}

impl StreamEnd {
    /// Creates an end of this kind. (By default the kind is determined at the first reception.)
    pub fn of(kind: Kind) -> StreamEnd {
        StreamEnd {
            socket: (kind != Kind::Other).into(),
            local: (kind == Kind::Local).into(),
            looked: true.into(),
            ..StreamEnd::default()
        }
    }

    /// Another descriptor replaces the previous descriptor.
    pub fn replaced(&self) {
        self.has_rest.store(false, Ordering::Relaxed);
        self.rest().clear();
        self.looked.store(false, Ordering::Relaxed);
        self.is_known_socket.store(false, Ordering::Relaxed);
        self.peer_marked.store(false, Ordering::Relaxed);
    }

    /// Whether large buffers may travel beside its messages, because it is known to be an end of a local socket.
    pub fn is_local(&self) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_local(&self, local: bool) {
        self.local.store(local, Ordering::Relaxed);
    }

    /// Says that it is a socket.
    pub fn set_socket(&self) {
        self.is_known_socket.store(true, Ordering::Relaxed);
    }

    /// Whether it is known to be a socket.
    pub fn is_socket(&self) -> bool {
        self.socket.load(Ordering::Relaxed) || self.is_local() || self.is_known_socket.load(Ordering::Relaxed)
    }

    /// The receivers of this end.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// The turns of the threads that send.
    pub fn sending(&self) -> &Turn {
        &self.sending
    }

    /// The turns of the threads that receive.
    pub fn receiving(&self) -> &Turn {
        &self.receiving
    }

    // ---- marks ----

    /// Whether handles may be attached to messages.
    fn may_bring(&self, end: BorrowedHandle<'_>) -> bool {
        if self.is_local() {
            return true;
        }
        if !self.looked.swap(true, Ordering::Relaxed) {
            // It was made around a descriptor, which may be that of a pipe.
            self.marked.store(stream::is_marked(end), Ordering::Relaxed);
        }
        self.marked.load(Ordering::Relaxed)
    }

    /// Marks the end, so that the other end sees that this end's reader takes parcels.
    pub fn takes_parcels(&self, end: BorrowedHandle<'_>) {
        if self.is_local() && !self.marked.swap(true, Ordering::Relaxed) {
            // If it is already marked, or cannot be marked, nothing is lost.
            let _ = stream::mark(end);
        }
    }

    /// Whether the reader at the other end takes parcels.
    pub fn may_send_parcels(&self, end: BorrowedHandle<'_>) -> bool {
        if self.peer_marked.load(Ordering::Relaxed) {
            return true;
        }
        let marked = self.is_local() && stream::is_peer_marked(end);
        if marked {
            self.peer_marked.store(true, Ordering::Relaxed);
        }
        marked
    }

    // ---- sending ----

    /// Sends a message. Waits in the system while there is no room.
    ///
    /// # Errors
    /// [`Error::Interrupted`]: in the middle of the message, its rest is sent before the next message. The operating
    /// system's error.
    pub fn send(&self, end: BorrowedHandle<'_>, body: &[u8], interrupted: Interrupted<'_, '_>) -> Result<()> {
        self.send_with(end, body, &[], interrupted)
    }

    fn send_with(
        &self,
        end: BorrowedHandle<'_>,
        body: &[u8],
        handles: &[BorrowedHandle<'_>],
        interrupted: Interrupted<'_, '_>,
    ) -> Result<()> {
        let is_socket = self.is_socket();
        let mut rest = Vec::new();
        if self.has_rest.load(Ordering::Relaxed) {
            rest = std::mem::take(&mut *self.rest());
            if let Err(error) = frame::send_rest(end, is_socket, &mut rest, interrupted) {
                *self.rest() = rest;
                return Err(error);
            }
            self.has_rest.store(false, Ordering::Relaxed);
        }
        let sent = frame::send(end, is_socket, body, handles, &mut rest, interrupted);
        if !rest.is_empty() {
            *self.rest() = rest;
            self.has_rest.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn rest(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message, and waits until the deadline for room for its beginning. Returns false, and sends nothing, if
    /// there was no room.
    ///
    /// # Errors
    /// The system's; of a socket [`Error::BothSend`], where the other end waits in the same way.
    pub fn send_until(&self, end: BorrowedHandle<'_>, body: &[u8], until: Until) -> Result<bool> {
        self.put(end, body, &[], until)
    }

    fn put(&self, end: BorrowedHandle<'_>, body: &[u8], handles: &[BorrowedHandle<'_>], until: Until) -> Result<bool> {
        if self.socket.load(Ordering::Relaxed) {
            self.attendance.resume(end);
            let sent = frame::send_until(end, body, handles, until, self.attendance.receivers());
            return sent.inspect_err(|error| self.attendance.failed(error));
        }
        Ok(readiness::room(end, until, &mut || false)?
            && self.send_with(end, body, handles, &mut || false).map(|()| true)?)
    }

    /// Sends a parcel, as [`send`](StreamEnd::send) does.
    ///
    /// # Errors
    /// The same.
    pub fn send_parcel(
        &self,
        end: BorrowedHandle<'_>,
        parcel: Parcel,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Sent> {
        settle(parcel, |body, handles| self.send_with(end, body, handles, interrupted).map(|()| true))
    }

    /// Sends a parcel, as [`send_until`](StreamEnd::send_until) does.
    ///
    /// # Errors
    /// The same.
    pub fn send_parcel_until(&self, end: BorrowedHandle<'_>, parcel: Parcel, until: Until) -> Result<Sent> {
        settle(parcel, |body, handles| self.put(end, body, handles, until))
    }

    // ---- receiving ----

    /// Waits until the deadline for the length of the next message, and for what is attached to it. Returns `None` if
    /// the time limit expired.
    ///
    /// # Errors
    /// [`Error::TooLong`]: it has more than `limit` bytes. [`Error::EndOfStream`], [`Error::CutOff`], [`Error::BadLength`], the system's, and
    /// [`Error::Interrupted`].
    pub fn begin(
        &self,
        end: BorrowedHandle<'_>,
        until: Until,
        limit: Option<u64>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Option<Partial>> {
        self.attendance.resume(end);
        let brings = self.may_bring(end);
        let adaptive = (brings || self.socket.load(Ordering::Relaxed)).then_some(&self.adaptive);
        let mut partial = self.partial().take().unwrap_or_default();
        match partial.begin(end, Way { adaptive, brings, is_socket: self.is_socket(), until }, interrupted) {
            Ok(true) if limit.is_some_and(|limit| partial.len() as u64 > limit) => Err(Error::TooLong),
            Ok(true) => Ok(Some(partial)),
            Ok(false) => Ok(None),
            Err(error) => Err(self.broken_off(error, partial)),
        }
    }

    /// Waits for the next message. Receives it completely if it has up to `whole` bytes, or anything beside it.
    /// Otherwise it receives the length.
    ///
    /// # Errors
    /// As [`StreamEnd::begin`].
    pub fn receive(
        &self,
        end: BorrowedHandle<'_>,
        limit: Option<u64>,
        whole: usize,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Received> {
        match self.begin(end, Until::Ever, limit, interrupted)? {
            // Without a time limit there is a message.
            None => Err(Error::EndOfStream),
            Some(partial) if partial.is_bare() && partial.len() > whole => Ok(Received::Length(partial)),
            Some(partial) => self.finish(end, partial, interrupted).map(Received::Whole),
        }
    }

    /// Receives the next message if it has begun to arrive. Returns `None` otherwise, also if another receiver takes the
    /// message first.
    ///
    /// # Errors
    /// As [`StreamEnd::begin`].
    pub fn receive_now(&self, end: BorrowedHandle<'_>, interrupted: Interrupted<'_, '_>) -> Result<Option<Message>> {
        let begun = self.begin(end, Until::Now, None, interrupted)?;
        begun.map(|partial| self.finish(end, partial, interrupted)).transpose()
    }

    /// Waits for the rest of a message.
    ///
    /// # Errors
    /// As [`StreamEnd::begin`].
    pub fn finish(
        &self,
        end: BorrowedHandle<'_>,
        mut partial: Partial,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Message> {
        match partial.finish(end, interrupted) {
            Ok(()) => Ok(partial.into()),
            Err(error) => Err(self.broken_off(error, partial)),
        }
    }

    /// The same in `room`, which has the message's length.
    ///
    /// # Errors
    /// As [`StreamEnd::begin`].
    pub fn fill(
        &self,
        end: BorrowedHandle<'_>,
        mut partial: Partial,
        room: &mut [u8],
        interrupted: Interrupted<'_, '_>,
    ) -> Result<()> {
        let filled = partial.fill(end, room, interrupted);
        filled.map_err(|error| self.broken_off(error, partial))
    }

    /// Keeps the received part of a message if a signal handler interrupts the reception.
    fn broken_off(&self, error: Error, partial: Partial) -> Error {
        if matches!(error, Error::Interrupted) && partial.has_begun() {
            *self.partial() = Some(partial);
        }
        error
    }

    fn partial(&self) -> std::sync::MutexGuard<'_, Option<Partial>> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends a parcel, and then releases its blocks according to the result.
fn settle(parcel: Parcel, send: impl FnOnce(&[u8], &[BorrowedHandle<'_>]) -> Result<bool>) -> Result<Sent> {
    match send(parcel.content(), &parcel.handles()) {
        Ok(true) => {
            parcel.sent();
            Ok(Sent::Whole)
        }
        Ok(false) => {
            parcel.unsent();
            Ok(Sent::NoRoom)
        }
        // The handles are attached to the first byte: nothing was sent.
        Err(error) if parcel.is_crowded(&error) => {
            parcel.unsent();
            Ok(Sent::Crowded)
        }
        Err(error) => {
            // The reader may have the blocks.
            parcel.sent();
            Err(error)
        }
    }
}
