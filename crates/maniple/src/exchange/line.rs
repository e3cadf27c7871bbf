//! One end of a line of messages, whatever their type and whichever way they travel.

use super::attendance::Attendance;
use super::frames::{Frames, room};
use super::packets::Packets;
use super::reactor::{until_done, until_some};
use crate::baggage;
use crate::codec::Codec;
use crate::error::Result;
use maniple_engine::channel::frame::Until;
use maniple_engine::channel::room::Waiting;
use maniple_sys::ready;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One end.
#[derive(Debug)]
pub(crate) enum Line {
    /// Of a pair that was made here.
    Packets(Packets),
    /// Of anything else.
    Frames(Frames),
}

impl Line {
    /// Two ends, each the other's.
    pub(crate) fn pair() -> Result<(Line, Line)> {
        let (a, b) = Packets::pair()?;
        Ok((Line::Packets(a), Line::Packets(b)))
    }

    /// An end around a descriptor. `paired`: it was of a pair made here.
    pub(crate) fn over(end: OwnedHandle, paired: bool) -> Line {
        if paired { Line::Packets(Packets::over(end)) } else { Line::Frames(Frames::over(end)) }
    }

    pub(crate) fn into_end(self) -> OwnedHandle {
        match self {
            Line::Packets(line) => line.into_end(),
            Line::Frames(line) => line.into_end(),
        }
    }

    /// Sends a value. False: there was no room until then.
    pub(crate) fn send<C: Codec, T: Serialize + ?Sized>(&self, value: &T, until: Until) -> Result<bool> {
        match self {
            Line::Packets(line) => line.send::<C, T>(value, until),
            Line::Frames(line) => line.send::<C, T>(value, until),
        }
    }

    fn attendance(&self) -> &Attendance {
        match self {
            Line::Packets(line) => &line.attendance,
            Line::Frames(line) => &line.attendance,
        }
    }

    /// The same as a future.
    pub(crate) async fn send_async<C: Codec, T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        match self {
            Line::Packets(line) => {
                let mut outgoing = line.prepare::<C, T>(value)?;
                patiently(line.as_handle(), &line.attendance, || line.post(&mut outgoing, Until::Now)).await
            }
            Line::Frames(line) => {
                patiently(line.as_handle(), &line.attendance, || Ok(room(line.as_handle(), Until::Now)?)).await?;
                line.send::<C, T>(value, Until::Ever).map(|_| ())
            }
        }
    }

    #[cfg(feature = "async")]
    pub(crate) fn receives_in_turns(&self) {
        self.attendance().receives_in_turns();
    }

    /// The same as a future.
    pub(crate) async fn recv_async<C: Codec, T: DeserializeOwned>(&self) -> Result<T> {
        self.attendance().receives_in_turns();
        until_some(self.as_handle(), || self.recv::<C, T>(Until::Now)).await
    }

    pub(crate) fn send_bytes(&self, bytes: &[u8], until: Until) -> Result<bool> {
        match self {
            Line::Packets(line) => line.send_bytes(bytes, until),
            Line::Frames(line) => line.send_bytes(bytes, until),
        }
    }

    /// The next value; `None`: the time is up.
    pub(crate) fn recv<C: Codec, T: DeserializeOwned>(&self, until: Until) -> Result<Option<T>> {
        match self {
            Line::Packets(line) => line.recv::<C, T>(until),
            Line::Frames(line) => line.recv::<C, T>(until),
        }
    }

    pub(crate) fn receive_bytes(&self, until: Until, limit: u64) -> Result<Option<Vec<u8>>> {
        match self {
            Line::Packets(line) => line.receive_bytes(until, limit),
            Line::Frames(line) => line.receive_bytes(until, limit),
        }
    }

    /// Whether a message, or the end, can be had without waiting.
    pub(crate) fn poll(&self, until: Until) -> Result<bool> {
        self.attendance().receives();
        loop {
            let left = until.left();
            let mut interest = [ready::Interest::new(self.as_handle())];
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

maniple_sys::as_handle!(impl[] for Line, |this| match this {
    Line::Packets(line) => line.as_handle(),
    Line::Frames(line) => line.as_handle(),
});

/// Tries until it is done, each time that `end` has room, but not where the other end waits in the same way.
async fn patiently(
    end: BorrowedHandle<'_>,
    attendance: &Attendance,
    mut attempt: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut waiting = Waiting::new(end, Until::Ever, attendance.receivers());
    let attempt = || {
        let done = attempt()?;
        if !done {
            waiting.look()?;
        }
        Ok(done)
    };
    until_done(end, attempt).await
}

/// How an end goes into a value: what it is of, and its descriptor's number.
pub(crate) fn serialize<S: serde::Serializer>(
    what: &'static str,
    line: &Line,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    line.attendance().give_away();
    (matches!(line, Line::Packets(_)), baggage::send_handle::<S::Error>(what, line.as_handle())?).serialize(serializer)
}

pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
    what: &'static str,
    deserializer: D,
) -> Result<Line, D::Error> {
    let (paired, number) = <(bool, u32) as serde::Deserialize>::deserialize(deserializer)?;
    Ok(Line::over(baggage::take_handle::<D::Error>(what, number)?, paired))
}
