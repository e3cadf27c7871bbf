//! One end of somebody else's socket or pipe: frames of the standard package's format.
//!
//! A frame's content is what the codec wrote, so that the bytes of a format which other programs know can be read by these. A frame
//! with large buffers or descriptors beside it is a *parcel* (the engine's `channel::parcel`), which only another end of this crate can
//! take. A receiver marks its end, where that is a local socket's; a sender looks for the mark before it sends a large buffer so.

use super::line::{beginning, continuing, decode, lock, sending};
use crate::baggage::{self, Sink, Source};
use crate::codec::Codec;
use crate::error::{Error, Result};
use maniple_engine::channel::frame::{self, Lookout, Until};
use maniple_engine::channel::parcel::{self, Load, Outbox};
use maniple_engine::sys::stream::{self, Kind};
use maniple_engine::sys::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long somebody with a time limit sleeps who finds another thread receiving.
const AGAIN: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(super) struct Frames {
    end: OwnedFd,
    kind: Kind,
    marked: AtomicBool,
    peer_marked: AtomicBool,
    // Each held while a message is on its way out of or into this value. None: no large buffer was sent yet.
    sending: Mutex<Option<Outbox>>,
    receiving: Mutex<()>,
    lookout: Lookout,
}

/// A message as it came.
#[derive(Debug)]
struct Message {
    content: Vec<u8>,
    handles: Vec<OwnedFd>,
}

impl Frames {
    pub(super) fn over(end: OwnedFd) -> Frames {
        let kind = stream::kind(end.as_fd());
        // Where it cannot be set, reading and writing will say why.
        let _ = stream::set_blocking(end.as_fd());
        Frames {
            end,
            kind,
            marked: AtomicBool::new(false),
            peer_marked: AtomicBool::new(false),
            sending: Mutex::new(None),
            receiving: Mutex::new(()),
            lookout: Lookout::default(),
        }
    }

    pub(super) fn into_end(self) -> OwnedFd {
        self.end
    }

    /// Whether large buffers may go beside a message.
    fn takes_parcels(&self) -> bool {
        if self.peer_marked.load(Ordering::Relaxed) {
            return true;
        }
        let marked = self.kind == Kind::Local && stream::is_peer_marked(self.end.as_fd());
        if marked {
            self.peer_marked.store(true, Ordering::Relaxed);
        }
        marked
    }

    // ---- sending ----

    fn write(&self, content: &[u8], handles: &[BorrowedFd<'_>]) -> maniple_engine::Result<()> {
        match self.kind {
            Kind::Other => frame::send(self.end.as_fd(), content, handles, &mut || false),
            _ => frame::send_quietly(self.end.as_fd(), content, handles, &mut || false),
        }
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        let _held = lock(&self.sending);
        self.write(bytes, &[]).map_err(sending)
    }

    pub(super) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let mut kept = lock(&self.sending);
        if !C::BESIDE || self.kind != Kind::Local {
            let mut bytes = Vec::with_capacity(128);
            baggage::encode::<C, T>(value, &mut bytes, &mut Sink::default())?;
            return self.write(&bytes, &[]).map_err(sending);
        }
        if !self.takes_parcels() {
            return self.send_without_blocks::<C, T>(value);
        }
        let outbox = match kept.take() {
            Some(outbox) => outbox,
            None => Outbox::new()?,
        };
        let mut bytes = Vec::with_capacity(128);
        let mut sink = Sink::parcel(outbox);
        let encoded = baggage::encode::<C, T>(value, &mut bytes, &mut sink);
        let handles = sink.take_handles();
        let Some((mut outbox, load)) = sink.take_parcel() else { return encoded };
        let sent = match encoded {
            Ok(()) => self.send_parcel(&load, &bytes, &handles),
            Err(error) => {
                *kept = Some(outbox);
                return Err(error);
            }
        };
        match sent {
            Err(maniple_engine::Error::Os { source, .. }) if wire::is_crowded(&source) && !load.is_empty() => {
                outbox.unsent(load);
                *kept = Some(outbox);
                self.send_without_blocks::<C, T>(value)
            }
            other => {
                outbox.sent(load);
                *kept = Some(outbox);
                other.map_err(sending)
            }
        }
    }

    /// Sends a value with its large buffers inside.
    fn send_without_blocks<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        let (mut bytes, mut sink) = (Vec::with_capacity(128), Sink::handles());
        baggage::encode::<C, T>(value, &mut bytes, &mut sink)?;
        self.send_parcel(&Load::default(), &bytes, &sink.take_handles()).map_err(sending)
    }

    fn send_parcel(&self, load: &Load, bytes: &[u8], handles: &[OwnedFd]) -> maniple_engine::Result<()> {
        if load.is_empty() && handles.is_empty() {
            return self.write(bytes, &[]);
        }
        let mut content = Vec::with_capacity(load.head_len() + bytes.len());
        load.write_head(handles.len() as u32, &mut content);
        content.extend_from_slice(bytes);
        let mut going = load.handles();
        going.extend(handles.iter().map(AsFd::as_fd));
        self.write(&content, &going)
    }

    // ---- receiving ----

    /// Waits for the next message. `None`: the time is up.
    fn receive(&self, until: Until, limit: u64) -> Result<Option<Message>> {
        let socket = self.kind != Kind::Other;
        let _held = loop {
            match until {
                Until::Ever => break lock(&self.receiving),
                _ => match self.receiving.try_lock() {
                    Ok(held) => break held,
                    Err(std::sync::TryLockError::Poisoned(held)) => break held.into_inner(),
                    Err(std::sync::TryLockError::WouldBlock) => match until.left() {
                        Some(Duration::ZERO) => return Ok(None),
                        left => std::thread::sleep(left.map_or(AGAIN, |left| left.min(AGAIN))),
                    },
                },
            }
        };
        let (mut content, mut handles) = (Vec::new(), Vec::new());
        let bring = (self.kind == Kind::Local).then_some(&mut handles);
        let length = frame::receive_length_until(self.end.as_fd(), socket, until, &self.lookout, bring, &mut || false)
            .map_err(beginning)?;
        let Some(length) = length else { return Ok(None) };
        if length > limit {
            return Err(Error::Message("it is longer than it may be; the connection is of no more use"));
        }
        frame::receive(self.end.as_fd(), &mut content, length, &mut || false).map_err(continuing)?;
        Ok(Some(Message { content, handles }))
    }

    pub(super) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.receive(until, limit)? {
            None => Ok(None),
            Some(message) if message.handles.is_empty() => Ok(Some(message.content)),
            Some(_) => {
                Err(Error::Message("it is a value with large buffers or descriptors beside it; receive it as a value"))
            }
        }
    }

    pub(super) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        if C::BESIDE && self.kind == Kind::Local && !self.marked.swap(true, Ordering::Relaxed) {
            // Where it is marked already, or cannot be, nothing is lost.
            let _ = stream::mark(self.end.as_fd());
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

impl AsFd for Frames {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}
