//! One end of a pair that was made here: packets.
//!
//! ```text
//! PLAIN   bytes                               a value as its codec wrote it, or bytes
//! PARCEL  head · bytes                        the same with buffers in shared memory and descriptors beside it
//! LONG    head                                the first of the buffers holds what is too long for a packet
//! ```
//! The first byte tells. A head is that of the engine's `channel::parcel`. A packet comes as one or not at all, so a death leaves nothing
//! in pieces, and several processes can use copies of one end.

use super::attendance::Attendance;
use super::message::{beginning, decode, lock, sending};
use crate::baggage::{self, Sink, Source};
use crate::codec::Codec;
use crate::error::{ChannelError, Error, Result};
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::packet::{self, AdaptiveSpin};
use maniple_engine::channel::parcel::{self, Arrived, Came, Load, Outbox};
use maniple_sys::{AsHandle, OwnedHandle};
use maniple_sys::{stream, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Mutex;

const PLAIN: u8 = 0;
const PARCEL: u8 = 1;
const LONG: u8 = 2;

/// One end.
#[derive(Debug)]
pub(crate) struct Packets {
    end: OwnedHandle,
    // None: in use, or not needed yet.
    outbox: Mutex<Option<Outbox>>,
    buffer: Mutex<Option<Box<[u8]>>>,
    adaptive: AdaptiveSpin,
    pub(super) attendance: Attendance,
}

/// A message on its way out.
pub(super) struct Outgoing {
    packet: Vec<u8>,
    load: Load,
    handles: Vec<OwnedHandle>,
}

/// A message that came.
struct Incoming<'a> {
    long: Option<Arrived>,
    short: &'a [u8],
    source: Source,
    beside: bool,
}

impl Incoming<'_> {
    fn bytes(&self) -> &[u8] {
        self.long.as_ref().map_or(self.short, Arrived::as_slice)
    }
}

impl Packets {
    pub(super) fn pair() -> Result<(Packets, Packets)> {
        let doing = |source| maniple_engine::Error::Os { doing: "make a pipe", source };
        let (a, b) = stream::packet_pair().map_err(doing)?;
        Ok((Packets::over(a), Packets::over(b)))
    }

    pub(super) fn over(end: OwnedHandle) -> Packets {
        Packets {
            end,
            outbox: Mutex::new(None),
            buffer: Mutex::new(None),
            adaptive: AdaptiveSpin::default(),
            attendance: Attendance::default(),
        }
    }

    pub(super) fn into_end(self) -> OwnedHandle {
        self.end
    }

    // ---- sending ----

    fn outbox(&self) -> Result<Outbox> {
        let kept = lock(&self.outbox).take();
        Ok(kept.map_or_else(Outbox::new, Ok)?)
    }

    fn keep(&self, outbox: Outbox) {
        *lock(&self.outbox) = Some(outbox);
    }

    /// Sends a value; false: there was no room until then.
    pub(super) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        let outgoing = self.prepare::<C, T>(value)?;
        self.post_whole(outgoing, until)
    }

    fn post_whole(&self, mut outgoing: Outgoing, until: Until) -> Result<bool> {
        let posted = self.post(&mut outgoing, until);
        if !(outgoing.load.is_empty() || matches!(posted, Ok(true))) {
            let mut outbox = self.outbox()?;
            outbox.unsent(outgoing.load);
            self.keep(outbox);
        }
        posted
    }

    /// Makes a message of a value.
    pub(super) fn prepare<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<Outgoing> {
        let mut packet = Vec::with_capacity(128);
        packet.push(PLAIN);
        if !C::BESIDE {
            baggage::encode::<C, T>(value, &mut packet, &mut Sink::default())?;
            return self.fit(packet, None, Load::default(), Vec::new());
        }
        let mut sink = Sink::parcel(self.outbox()?);
        let encoded = baggage::encode::<C, T>(value, &mut packet, &mut sink);
        let handles = sink.take_handles();
        let (outbox, load) = sink.take_parcel().unzip();
        match encoded {
            Ok(()) => self.fit(packet, outbox, load.unwrap_or_default(), handles),
            Err(error) => {
                outbox.into_iter().for_each(|outbox| self.keep(outbox));
                Err(error)
            }
        }
    }

    /// Finds a form for an encoded value (behind a first byte), and what is beside it.
    fn fit(
        &self,
        mut packet: Vec<u8>,
        outbox: Option<Outbox>,
        load: Load,
        handles: Vec<OwnedHandle>,
    ) -> Result<Outgoing> {
        let beside = !(load.is_empty() && handles.is_empty());
        let head = if beside { load.head_len() } else { 0 };
        if head + packet.len() > packet::MOST {
            let mut outbox = outbox.map_or_else(|| self.outbox(), Ok)?;
            let (mut first, mut head) = (Load::default(), Vec::with_capacity(1 + 16 + head));
            let loaded = outbox.load(&mut first, &packet[1..]);
            first.append(load);
            self.keep(outbox);
            loaded?;
            head.push(LONG);
            first.write_head(handles.len() as u32, &mut head);
            return Ok(Outgoing { packet: head, load: first, handles });
        }
        outbox.into_iter().for_each(|outbox| self.keep(outbox));
        if beside {
            let mut whole = Vec::with_capacity(head + packet.len());
            whole.push(PARCEL);
            load.write_head(handles.len() as u32, &mut whole);
            whole.extend_from_slice(&packet[1..]);
            packet = whole;
        }
        Ok(Outgoing { packet, load, handles })
    }

    /// Sends it. False: there was no room until then.
    pub(super) fn post(&self, outgoing: &mut Outgoing, until: Until) -> Result<bool> {
        let receivers = self.attendance.receivers();
        let Outgoing { packet, load, handles } = outgoing;
        if load.is_empty() && handles.is_empty() {
            return packet::send(self.end.as_handle(), packet, &[], until, receivers).map_err(sending);
        }
        let mut going = load.handles();
        going.extend(handles.iter().map(AsHandle::as_handle));
        match packet::send(self.end.as_handle(), packet, &going, until, receivers) {
            Ok(true) => {
                let mut outbox = self.outbox()?;
                outbox.sent(std::mem::take(load));
                self.keep(outbox);
                Ok(true)
            }
            Err(maniple_engine::Error::Os { source, .. }) if wire::is_crowded(&source) => {
                Err(Error::Channel(ChannelError::Message(
                    "as many descriptors are on their way as this user may have there (RLIMIT_NOFILE); receive some first",
                )))
            }
            other => other.map_err(sending),
        }
    }

    pub(super) fn send_bytes(&self, bytes: &[u8], until: Until) -> Result<bool> {
        let mut packet = Vec::with_capacity(1 + bytes.len().min(packet::MOST));
        packet.push(PLAIN);
        let outgoing = if bytes.len() < packet::MOST {
            packet.extend_from_slice(bytes);
            Outgoing { packet, load: Load::default(), handles: Vec::new() }
        } else {
            let (mut outbox, mut load) = (self.outbox()?, Load::default());
            let loaded = outbox.load(&mut load, bytes);
            self.keep(outbox);
            loaded?;
            packet[0] = LONG;
            load.write_head(0, &mut packet);
            Outgoing { packet, load, handles: Vec::new() }
        };
        self.post_whole(outgoing, until)
    }

    // ---- receiving ----

    /// Waits for the next message and has `read` read it. `None`: the time is up.
    fn receive<R>(&self, until: Until, read: impl FnOnce(Incoming<'_>) -> Result<R>) -> Result<Option<R>> {
        self.attendance.receives();
        let kept = lock(&self.buffer).take();
        let mut buffer = kept.unwrap_or_else(|| vec![0; packet::MOST].into());
        let mut handles = Vec::new();
        let got = packet::receive(self.end.as_handle(), &mut buffer, &mut handles, until, &self.adaptive);
        let result = match got {
            Ok(Some(len)) => take_apart(&buffer[..len], handles).and_then(read).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(beginning(error)),
        };
        *lock(&self.buffer) = Some(buffer);
        result
    }

    pub(super) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        self.receive(until, |mut incoming| {
            let mut source = std::mem::take(&mut incoming.source);
            decode::<C, T>(incoming.bytes(), &mut source)
        })
    }

    pub(super) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        self.receive(until, |incoming| {
            if incoming.beside {
                return Err(Error::Channel(ChannelError::Message(
                    "it is a value with large buffers or descriptors beside it; receive it as a value",
                )));
            }
            if incoming.bytes().len() as u64 > limit {
                return Err(Error::Channel(ChannelError::Message("it is longer than it may be; it was dropped")));
            }
            Ok(incoming.bytes().to_vec())
        })
    }
}

fn take_apart(packet: &[u8], handles: Vec<Came>) -> Result<Incoming<'_>> {
    let damaged = || maniple_engine::Error::Damaged("a message came that this program did not send");
    match packet.split_first() {
        Some((&PLAIN, short)) => Ok(Incoming { long: None, short, source: Source::default(), beside: false }),
        Some((&kind @ (PARCEL | LONG), content)) => {
            let opened = parcel::open_all(content, handles)?;
            let mut buffers = opened.buffers.into_iter();
            let long = if kind == LONG { Some(buffers.next().ok_or_else(damaged)?) } else { None };
            let beside = kind == PARCEL || buffers.len() + opened.others.len() > 0;
            let source = Source::parcel(buffers.collect(), opened.others);
            Ok(Incoming { long, short: &content[opened.at..], source, beside })
        }
        _ => Err(damaged().into()),
    }
}

maniple_sys::as_handle!(impl[] for Packets, |this| this.end.as_handle());
