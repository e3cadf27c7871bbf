//! One end of a pipe or connection, for values: encodes and decodes them, and converts the engine's errors.
//!
//! The two ends of a pair that this crate made exchange packets (the engine's `packet_end`). An end of any other socket
//! or pipe exchanges frames (`stream_end`), whose content is the output of the codec, so that other programs that know
//! the format can read it.

use super::message::{decode, receiving, sending};
use super::reactor::{until_done, until_some};
use crate::codec::Codec;
use crate::error::{ChannelError, Error, Result};
use crate::sideband::{self, Sink, Source};
use maniple_engine::channel::attendance::Attendance;
use maniple_engine::channel::auth::CHALLENGE;
use maniple_engine::channel::frame::{Message, Until};
use maniple_engine::channel::packet_end::{self, Outgoing, PacketEnd};
use maniple_engine::channel::parcel::{self, Parcel};
use maniple_engine::channel::readiness;
use maniple_engine::channel::room::Waiting;
use maniple_engine::channel::stream_end::{Sent, StreamEnd};
use maniple_engine::wait::{Held, Taken, Turn};
use maniple_sys::epoch::count_forks;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, stream, wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end.
#[derive(Debug)]
pub(crate) enum Endpoint {
    /// An end of a pair that this crate made.
    Paired(PacketEnd),
    /// Any other end.
    Stream(SharedStream),
}

/// An end of any other socket or pipe. The threads that share it take turns, because a frame is not sent or received in
/// one step.
#[derive(Debug)]
pub(crate) struct SharedStream {
    end: OwnedHandle,
    state: StreamEnd,
}

/// Waits for this thread's turn. `None` if the time limit has passed.
fn turn(turn: &Turn, until: Until) -> Option<Held<'_>> {
    match turn.take(until, &mut || true) {
        Taken::Ours(held) => Some(held),
        Taken::TimedOut | Taken::Interrupted => None,
    }
}

/// Encodes a value for a message that is received as bytes.
const NOT_BYTES: Error = Error::Channel(ChannelError::Message(
    "it is a value with large buffers or descriptors beside it; receive it as a value",
));

/// Encodes a value as a packet.
fn packet<C: Codec, T: Serialize + ?Sized>(value: &T) -> Result<Outgoing> {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(packet_end::FIRST);
    let mut sink = if C::BESIDE { Sink::parcel() } else { Sink::default() };
    sideband::encode::<C, T>(value, &mut bytes, &mut sink)?;
    Ok(Outgoing::new(bytes, sink.take_load(), sink.take_handles())?)
}

/// Sends a packet. Returns false if there was no room until the time limit.
fn post(end: &PacketEnd, outgoing: &mut Outgoing, until: Until) -> Result<bool> {
    end.send(outgoing, until).map_err(|error| match error {
        maniple_engine::Error::Os { source, .. } if wire::is_crowded(&source) => Error::Channel(ChannelError::Message(
            "this user has too many descriptors in messages under way (RLIMIT_NOFILE); receive some first",
        )),
        other => sending(other),
    })
}

/// As above, without waiting.
fn post_now(end: &PacketEnd, mut outgoing: Outgoing, until: Until) -> Result<bool> {
    let posted = post(end, &mut outgoing, until);
    outgoing.unsent();
    posted
}

/// Returns the error of a client without a key that receives the first message of the authentication.
fn no_key() -> Error {
    Error::Channel(ChannelError::Authentication(
        "the listener asks for a key: connect with the key of the listener (Client::builder().authkey(...))".to_owned(),
    ))
}

impl SharedStream {
    fn over(end: OwnedHandle) -> SharedStream {
        let state = StreamEnd::of(stream::kind(end.as_handle()));
        // If it cannot be set, reading and writing report the reason.
        let _ = stream::set_blocking(end.as_handle());
        // If forks cannot be counted, a forked child waits for the turns of its parent's threads.
        let _ = count_forks();
        SharedStream { end, state }
    }

    fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        let Some(_held) = turn(self.state.sending(), until) else { return Ok(false) };
        if !(C::BESIDE && self.state.is_local()) {
            return self.send_with::<C, T>(value, Sink::default(), until).map(|sent| sent == Sent::Whole);
        }
        if self.state.may_send_parcels(self.end.as_handle()) {
            match self.send_with::<C, T>(value, Sink::parcel(), until)? {
                Sent::Crowded => {}
                sent => return Ok(sent == Sent::Whole),
            }
        }
        // Large buffers go into the bytes.
        self.send_with::<C, T>(value, Sink::handles(), until).map(|sent| sent == Sent::Whole)
    }

    fn send_with<C: Codec, T: Serialize + ?Sized>(&self, value: &T, mut sink: Sink, until: Until) -> Result<Sent> {
        let mut bytes = Vec::with_capacity(128);
        sideband::encode::<C, T>(value, &mut bytes, &mut sink)?;
        let (load, handles) = (sink.take_load(), sink.take_handles());
        let end = self.end.as_handle();
        let sent = if load.is_empty() && handles.is_empty() {
            let sent = self.state.send_until(end, &bytes, until);
            sent.map(|sent| if sent { Sent::Whole } else { Sent::NoRoom })
        } else {
            self.state.send_parcel_until(end, Parcel::new(&[], &bytes, load, handles), until)
        };
        sent.map_err(sending)
    }

    fn send_bytes(&self, bytes: &[u8], until: Until) -> Result<bool> {
        let Some(_held) = turn(self.state.sending(), until) else { return Ok(false) };
        self.state.send_until(self.end.as_handle(), bytes, until).map_err(sending)
    }

    /// Receives the next message. `None` if the time limit has passed.
    fn receive(&self, until: Until, limit: Option<u64>) -> Result<Option<Message>> {
        self.state.attendance().receives();
        let Some(_held) = turn(self.state.receiving(), until) else { return Ok(None) };
        let end = self.end.as_handle();
        let begun = self.state.begin(end, until, limit, &mut || false).map_err(|error| receiving(error, false))?;
        let Some(partial) = begun else { return Ok(None) };
        let message = self.state.finish(end, partial, &mut || false);
        message.map(Some).map_err(|error| receiving(error, true))
    }

    fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        if C::BESIDE {
            self.state.takes_parcels(self.end.as_handle());
        }
        let Some(Message { content, came }) = self.receive(until, None)? else { return Ok(None) };
        if came.is_empty() {
            let decoded = decode::<C, T>(&content, &mut Source::default());
            return decoded.map(Some).map_err(|error| if content.starts_with(CHALLENGE) { no_key() } else { error });
        }
        let opened = parcel::open_all(&content, came)?;
        decode::<C, T>(&content[opened.at..], &mut Source::with(opened.buffers, opened.others)).map(Some)
    }

    fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.receive(until, Some(limit))? {
            None => Ok(None),
            Some(message) if message.came.is_empty() => Ok(Some(message.content)),
            Some(_) => Err(NOT_BYTES),
        }
    }
}

impl Endpoint {
    /// Returns two connected ends.
    pub(crate) fn pair() -> Result<(Endpoint, Endpoint)> {
        let (a, b) = PacketEnd::pair()?;
        Ok((Endpoint::Paired(a), Endpoint::Paired(b)))
    }

    /// Returns the end of a descriptor. `paired`: it belongs to a pair that this crate made.
    pub(crate) fn over(end: OwnedHandle, paired: bool) -> Endpoint {
        if paired { Endpoint::Paired(PacketEnd::over(end)) } else { Endpoint::Stream(SharedStream::over(end)) }
    }

    pub(crate) fn into_end(self) -> OwnedHandle {
        match self {
            Endpoint::Paired(end) => end.into_end(),
            Endpoint::Stream(end) => end.end,
        }
    }

    fn attendance(&self) -> &Attendance {
        match self {
            Endpoint::Paired(end) => end.attendance(),
            Endpoint::Stream(end) => end.state.attendance(),
        }
    }

    /// Sends a value. Returns false if there was no room until the time limit.
    pub(crate) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        match self {
            Endpoint::Paired(end) => post_now(end, packet::<C, T>(value)?, until),
            Endpoint::Stream(end) => end.send::<C, T>(value, until),
        }
    }

    /// As above, as a future.
    pub(crate) async fn send_async<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        match self {
            Endpoint::Paired(end) => {
                let mut outgoing = packet::<C, T>(value)?;
                patiently(end.as_handle(), end.attendance(), || post(end, &mut outgoing, Until::Now)).await
            }
            Endpoint::Stream(end) => {
                let handle = end.end.as_handle();
                let has_room = || Ok(readiness::room(handle, Until::Now, &mut || false)?);
                patiently(handle, self.attendance(), has_room).await?;
                end.send::<C, T>(value, Until::Ever).map(|_| ())
            }
        }
    }

    /// Shows senders that this end receives, though no thread waits.
    #[cfg(feature = "async")]
    pub(crate) fn receives_in_turns(&self) {
        self.attendance().receives_in_turns();
    }

    /// Receives the next value, as a future.
    pub(crate) async fn recv_async<C: Codec, T: DeserializeOwned>(&self) -> Result<T> {
        self.attendance().receives_in_turns();
        until_some(self.as_handle(), || self.recv::<C, T>(Until::Now)).await
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8], until: Until) -> Result<bool> {
        match self {
            Endpoint::Paired(end) => post_now(end, Outgoing::of_bytes(bytes)?, until),
            Endpoint::Stream(end) => end.send_bytes(bytes, until),
        }
    }

    /// Receives the next value. `None` if the time limit has passed.
    pub(crate) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        match self {
            Endpoint::Paired(end) => {
                let received = end.receive(until, |mut incoming| {
                    let (buffers, handles) = incoming.beside.take().unwrap_or_default();
                    decode::<C, T>(incoming.bytes(), &mut Source::with(buffers, handles))
                });
                received.map_err(|error| receiving(error, false))?.transpose()
            }
            Endpoint::Stream(end) => end.recv::<C, T>(until),
        }
    }

    pub(crate) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Endpoint::Paired(end) => {
                let received = end.receive(until, |incoming| {
                    if incoming.beside.is_some() {
                        return Err(NOT_BYTES);
                    }
                    if incoming.bytes().len() as u64 > limit {
                        let why = ChannelError::Message("it is longer than the limit; it was dropped");
                        return Err(Error::Channel(why));
                    }
                    Ok(incoming.bytes().to_vec())
                });
                received.map_err(|error| receiving(error, false))?.transpose()
            }
            Endpoint::Stream(end) => end.receive_bytes(until, limit),
        }
    }

    /// Returns whether a message, or the end, can be received without waiting.
    pub(crate) fn poll(&self, until: Until) -> Result<bool> {
        self.attendance().receives();
        Ok(readiness::message(self.as_handle(), until, &mut || false)?)
    }
}

maniple_sys::as_handle!(impl[] for Endpoint, |this| match this {
    Endpoint::Paired(end) => end.as_handle(),
    Endpoint::Stream(end) => end.end.as_handle(),
});

/// Calls `attempt` until it has succeeded, each time that `end` has room, except while the other end waits in the same
/// way.
async fn patiently(
    end: BorrowedHandle<'_>,
    attendance: &Attendance,
    mut attempt: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut waiting = Waiting::new(end, Until::Ever, attendance.receivers());
    let attempt = || {
        let done = attempt()?;
        if !done {
            waiting.look().inspect_err(|error| attendance.failed(error))?;
        }
        Ok(done)
    };
    until_done(end, attempt).await
}

/// The form of an end in a value: its kind, and its descriptor's number.
pub(crate) fn serialize<S: serde::Serializer>(
    what: &'static str,
    endpoint: &Endpoint,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    endpoint.attendance().give_away();
    (matches!(endpoint, Endpoint::Paired(_)), sideband::send_handle::<S::Error>(what, endpoint.as_handle())?)
        .serialize(serializer)
}

pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
    what: &'static str,
    deserializer: D,
) -> Result<Endpoint, D::Error> {
    let (paired, number) = <(bool, u32) as serde::Deserialize>::deserialize(deserializer)?;
    Ok(Endpoint::over(sideband::take_handle::<D::Error>(what, number)?, paired))
}
