//! One end of somebody else's socket or pipe: frames of the standard package's format.
//!
//! A frame's content is what the codec wrote, so that the bytes of a format which other programs know can be read by these. A frame
//! with large buffers or descriptors beside it is a *parcel* (the engine's `channel::parcel`), which only another end of this crate can
//! take. A receiver marks its end, where that is a local socket's; a sender looks for the mark before it sends a large buffer so.

use super::attendance::Attendance;
use super::message::{beginning, continuing, decode, lock, sending};
use crate::baggage::{self, Sink, Source};
use crate::codec::Codec;
use crate::error::{ChannelError, Error, Result};
use maniple_engine::channel::frame::{self, AdaptiveSpin, Until};
use maniple_engine::channel::parcel::{self, Came, Load, Outbox};
use maniple_sys::stream::{self, Kind};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use maniple_sys::{ready, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// How long somebody with a time limit sleeps who finds another thread at work.
const AGAIN: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(super) struct Frames {
    end: OwnedHandle,
    kind: Kind,
    marked: AtomicBool,
    peer_marked: AtomicBool,
    // Each held while a message is on its way out of or into this value. None: no large buffer was sent yet.
    sending: Mutex<Option<Outbox>>,
    receiving: Mutex<()>,
    adaptive: AdaptiveSpin,
    pub(super) attendance: Attendance,
}

/// A message as it came.
#[derive(Debug)]
struct Message {
    content: Vec<u8>,
    handles: Vec<Came>,
}

impl Frames {
    pub(super) fn over(end: OwnedHandle) -> Frames {
        let kind = stream::kind(end.as_handle());
        // Where it cannot be set, reading and writing will say why.
        let _ = stream::set_blocking(end.as_handle());
        Frames {
            end,
            kind,
            marked: AtomicBool::new(false),
            peer_marked: AtomicBool::new(false),
            sending: Mutex::new(None),
            receiving: Mutex::new(()),
            adaptive: AdaptiveSpin::default(),
            attendance: Attendance::default(),
        }
    }

    pub(super) fn into_end(self) -> OwnedHandle {
        self.end
    }

    /// Whether large buffers may go beside a message.
    fn takes_parcels(&self) -> bool {
        if self.peer_marked.load(Ordering::Relaxed) {
            return true;
        }
        let marked = self.kind == Kind::Local && stream::is_peer_marked(self.end.as_handle());
        if marked {
            self.peer_marked.store(true, Ordering::Relaxed);
        }
        marked
    }

    // ---- sending ----

    /// False: there was no room for its beginning until then.
    fn write(&self, content: &[u8], handles: &[BorrowedHandle<'_>], until: Until) -> maniple_engine::Result<bool> {
        let end = self.end.as_handle();
        if self.kind == Kind::Other {
            return Ok(room(end, until)? && frame::send(end, content, handles, &mut || false).map(|()| true)?);
        }
        frame::send_until(end, content, handles, until, self.attendance.receivers())
    }

    pub(super) fn send_bytes(&self, bytes: &[u8], until: Until) -> Result<bool> {
        let Some(_held) = turn(&self.sending, until) else { return Ok(false) };
        self.write(bytes, &[], until).map_err(sending)
    }

    /// Sends a value; false: there was no room for its beginning until then.
    pub(super) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        let Some(mut kept) = turn(&self.sending, until) else { return Ok(false) };
        if !C::BESIDE || self.kind != Kind::Local {
            let mut bytes = Vec::with_capacity(128);
            baggage::encode::<C, T>(value, &mut bytes, &mut Sink::default())?;
            return self.write(&bytes, &[], until).map_err(sending);
        }
        if !self.takes_parcels() {
            return self.send_without_blocks::<C, T>(value, until);
        }
        let outbox = match kept.take() {
            Some(outbox) => outbox,
            None => Outbox::new()?,
        };
        let mut bytes = Vec::with_capacity(128);
        let mut sink = Sink::parcel(outbox);
        let encoded = baggage::encode::<C, T>(value, &mut bytes, &mut sink);
        let handles = sink.take_handles();
        let Some((mut outbox, load)) = sink.take_parcel() else {
            return encoded
                .and(Err(Error::Channel(ChannelError::Message("its large buffers were lost while it was encoded"))));
        };
        let sent = match encoded {
            Ok(()) => self.send_parcel(&load, &bytes, &handles, until),
            Err(error) => {
                *kept = Some(outbox);
                return Err(error);
            }
        };
        match sent {
            Err(maniple_engine::Error::Os { source, .. }) if wire::is_crowded(&source) && !load.is_empty() => {
                outbox.unsent(load);
                *kept = Some(outbox);
                self.send_without_blocks::<C, T>(value, until)
            }
            Ok(false) => {
                outbox.unsent(load);
                *kept = Some(outbox);
                Ok(false)
            }
            other => {
                outbox.sent(load);
                *kept = Some(outbox);
                other.map_err(sending)
            }
        }
    }

    /// Sends a value with its large buffers inside.
    fn send_without_blocks<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        let (mut bytes, mut sink) = (Vec::with_capacity(128), Sink::handles());
        baggage::encode::<C, T>(value, &mut bytes, &mut sink)?;
        self.send_parcel(&Load::default(), &bytes, &sink.take_handles(), until).map_err(sending)
    }

    fn send_parcel(
        &self,
        load: &Load,
        bytes: &[u8],
        handles: &[OwnedHandle],
        until: Until,
    ) -> maniple_engine::Result<bool> {
        if load.is_empty() && handles.is_empty() {
            return self.write(bytes, &[], until);
        }
        let mut content = Vec::with_capacity(load.head_len() + bytes.len());
        load.write_head(handles.len() as u32, &mut content);
        content.extend_from_slice(bytes);
        let mut going = load.handles();
        going.extend(handles.iter().map(AsHandle::as_handle));
        self.write(&content, &going, until)
    }

    // ---- receiving ----

    /// Waits for the next message. `None`: the time is up.
    fn receive(&self, until: Until, limit: u64) -> Result<Option<Message>> {
        let socket = self.kind != Kind::Other;
        self.attendance.receives();
        let Some(_held) = turn(&self.receiving, until) else { return Ok(None) };
        let (mut content, mut handles) = (Vec::new(), Vec::new());
        let bring = (self.kind == Kind::Local).then_some(&mut handles);
        let length =
            frame::receive_length_until(self.end.as_handle(), socket, until, &self.adaptive, bring, &mut || false)
                .map_err(beginning)?;
        let Some(length) = length else { return Ok(None) };
        if length > limit {
            return Err(Error::Channel(ChannelError::Message(
                "it is longer than it may be; the connection is of no more use",
            )));
        }
        frame::receive(self.end.as_handle(), &mut content, length, &mut || false).map_err(continuing)?;
        Ok(Some(Message { content, handles }))
    }

    pub(super) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.receive(until, limit)? {
            None => Ok(None),
            Some(message) if message.handles.is_empty() => Ok(Some(message.content)),
            Some(_) => Err(Error::Channel(ChannelError::Message(
                "it is a value with large buffers or descriptors beside it; receive it as a value",
            ))),
        }
    }

    pub(super) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        if C::BESIDE && self.kind == Kind::Local && !self.marked.swap(true, Ordering::Relaxed) {
            // Where it is marked already, or cannot be, nothing is lost.
            let _ = stream::mark(self.end.as_handle());
        }
        let Some(Message { content, handles }) = self.receive(until, u64::MAX)? else { return Ok(None) };
        let (mut source, at) = if handles.is_empty() {
            (Source::default(), 0)
        } else {
            let opened = parcel::open_all(&content, handles)?;
            (Source::parcel(opened.buffers, opened.others), opened.at)
        };
        decode::<C, T>(&content[at..], &mut source).map(Some)
    }
}

/// This thread's turn; `None`: the time is up.
fn turn<T>(mutex: &Mutex<T>, until: Until) -> Option<MutexGuard<'_, T>> {
    loop {
        match until {
            Until::Ever => return Some(lock(mutex)),
            _ => match mutex.try_lock() {
                Ok(held) => return Some(held),
                Err(TryLockError::Poisoned(held)) => return Some(held.into_inner()),
                Err(TryLockError::WouldBlock) => match until.left() {
                    Some(Duration::ZERO) => return None,
                    left => std::thread::sleep(left.map_or(AGAIN, |left| left.min(AGAIN))),
                },
            },
        }
    }
}

/// Waits until something can be written.
pub(super) fn room(end: BorrowedHandle<'_>, until: Until) -> maniple_engine::Result<bool> {
    let doing = |source| maniple_engine::Error::Os { doing: "wait for a pipe's room", source };
    loop {
        let left = until.left();
        if left.is_none() || ready::wait(&mut [ready::Interest::room(end)], left).map_err(doing)? > 0 {
            return Ok(true);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
    }
}

maniple_sys::as_handle!(impl[] for Frames, |this| this.end.as_handle());
