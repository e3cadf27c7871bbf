//! One end of a stream of messages, whatever their type: encoded values, and what goes beside them.
//!
//! A message is a frame of the standard package's format; its content is what the codec wrote, so that the bytes of a format which
//! other programs know can be read by these. A frame with large buffers or descriptors beside it is a *parcel* (the engine's
//! `channel::parcel`), which only another end of this crate can take. Whether the other end is one is known of the pairs made here, and
//! seen by its mark on any other local socket.

use crate::baggage::{self, Sink, Source};
use crate::codec::Codec;
use crate::error::{Error, Result};
use maniple_engine::channel::frame::{self, Lookout, Until};
use maniple_engine::channel::parcel::{self, Load, Outbox};
use maniple_engine::sys::stream::{self, Kind};
use maniple_engine::sys::{ready, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long somebody with a time limit sleeps who finds another thread receiving.
const AGAIN: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(crate) struct Line {
    end: OwnedFd,
    kind: Kind,
    // The other end was made together with this one, so it is one of this crate's.
    paired: bool,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sending(error: maniple_engine::Error) -> Error {
    match &error {
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Closed,
        _ => error.into(),
    }
}

fn beginning(error: maniple_engine::Error) -> Error {
    match &error {
        maniple_engine::Error::EndOfStream => Error::Closed,
        maniple_engine::Error::Os { source, .. } if is_gone(source) => Error::Closed,
        maniple_engine::Error::CutOff => Error::CutOff,
        _ => error.into(),
    }
}

fn continuing(error: maniple_engine::Error) -> Error {
    match beginning(error) {
        Error::Closed => Error::CutOff,
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}

impl Line {
    /// Two ends, each the other's.
    pub(crate) fn pair() -> Result<(Line, Line)> {
        let doing = |source| maniple_engine::Error::Os { doing: "make a pipe", source };
        let (a, b) = stream::pair().map_err(doing)?;
        Ok((Line::over(a, true), Line::over(b, true)))
    }

    /// An end around a descriptor. `paired`: it was of a pair made by this crate.
    pub(crate) fn over(end: OwnedFd, paired: bool) -> Line {
        let kind = if paired { Kind::Local } else { stream::kind(end.as_fd()) };
        if !paired {
            // Where it cannot be set, reading and writing will say why.
            let _ = stream::set_blocking(end.as_fd());
        }
        Line {
            end,
            kind,
            paired,
            marked: AtomicBool::new(false),
            peer_marked: AtomicBool::new(false),
            sending: Mutex::new(None),
            receiving: Mutex::new(()),
            lookout: Lookout::default(),
        }
    }

    pub(crate) fn into_end(self) -> OwnedFd {
        self.end
    }

    pub(crate) fn is_paired(&self) -> bool {
        self.paired
    }

    /// Whether large buffers may go beside a message.
    fn takes_parcels(&self) -> bool {
        if self.paired || self.peer_marked.load(Ordering::Relaxed) {
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

    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        let _held = lock(&self.sending);
        self.write(bytes, &[]).map_err(sending)
    }

    pub(crate) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
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

    /// Whether a small message can be sent without waiting.
    pub(crate) fn has_room(&self) -> Result<bool> {
        let mut interest = [ready::Interest::room(self.end.as_fd())];
        let doing = |source| maniple_engine::Error::Os { doing: "wait for a pipe's room", source };
        Ok(ready::wait(&mut interest, Some(Duration::ZERO)).map_err(doing)? > 0)
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

    pub(crate) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.receive(until, limit)? {
            None => Ok(None),
            Some(message) if message.handles.is_empty() => Ok(Some(message.content)),
            Some(_) => {
                Err(Error::Message("it is a value with large buffers or descriptors beside it; receive it as a value"))
            }
        }
    }

    pub(crate) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        if C::BESIDE && self.kind == Kind::Local && !self.paired && !self.marked.swap(true, Ordering::Relaxed) {
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
        let mut bytes = &content[at..];
        let value = baggage::decode::<C, T>(&mut bytes, &mut source)?;
        if !bytes.is_empty() {
            return Err(Error::codec::<T>(
                "decoded",
                format_args!("{} bytes are left over; the other side sends another type", bytes.len()),
            ));
        }
        Ok(Some(value))
    }

    /// Whether a message, or the end, can be had without waiting.
    pub(crate) fn poll(&self, until: Until) -> Result<bool> {
        loop {
            let left = until.left();
            let mut interest = [ready::Interest::new(self.end.as_fd())];
            let doing = |source| maniple_engine::Error::Os { doing: "wait for a message", source };
            if ready::wait(&mut interest, left).map_err(doing)? > 0 {
                return Ok(true);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

/// How an end goes into a value: what it is of, and its descriptor's number.
pub(crate) fn serialize<S: serde::Serializer>(
    what: &'static str,
    line: &Line,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    (line.is_paired(), baggage::send_handle::<S::Error>(what, line.as_fd())?).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
    what: &'static str,
    deserializer: D,
) -> Result<Line, D::Error> {
    let (paired, number) = <(bool, u32) as serde::Deserialize>::deserialize(deserializer)?;
    Ok(Line::over(baggage::take_handle::<D::Error>(what, number)?, paired))
}
