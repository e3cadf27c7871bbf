//! One end of a pair that maniple made, whose messages are packets.
//!
//! ```text
//! PLAIN   bytes                               a message
//! PARCEL  head · bytes                        the same with buffers in shared memory and handles beside it
//! LONG    head                                the first of the buffers holds what is too long for a packet
//! ```
//! The first byte says which. A head is that of a `parcel`. A packet arrives complete or not at all, so a death leaves
//! no partial message, and several processes can use copies of an end.
//!
//! Only Rust's pipes use it: the ends of Python's pipes have to be readable as frames by stock Python, and by
//! `os.read`.

use super::attendance::Attendance;
use super::frame::Until;
use super::packet_socket;
use super::parcel::{self, Came, Load, Parcel};
use crate::error::{Doing, Error, Result};
use crate::shm::region::Region;
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, stream};
use std::sync::{Mutex, PoisonError};

pub use super::packet_socket::{AdaptiveSpin, MOST};

const PLAIN: u8 = 0;
const PARCEL: u8 = 1;
const LONG: u8 = 2;

/// The first byte of a message that is to be [prepared](Outgoing::new).
pub const FIRST: u8 = PLAIN;

/// One end.
#[derive(Debug)]
pub struct PacketEnd {
    end: OwnedHandle,
    // None: in use, or not needed yet.
    buffer: Mutex<Option<Box<[u8]>>>,
    adaptive: AdaptiveSpin,
    attendance: Attendance,
}

/// A message to send.
#[derive(Debug)]
pub enum Outgoing {
    /// Bytes alone, behind a first one.
    Plain(Vec<u8>),
    /// Bytes with buffers or handles beside them. `None`: it was sent.
    Beside(Option<Parcel>),
}

/// A received message.
#[derive(Debug)]
pub struct ReceivedPacket<'a> {
    long: Option<Region>,
    short: &'a [u8],
    /// The large buffers beside it, and the other handles.
    pub beside: Option<(Vec<Region>, Vec<OwnedHandle>)>,
}

impl ReceivedPacket<'_> {
    /// The message's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.long.as_ref().map_or(self.short, Region::as_slice)
    }
}

impl Outgoing {
    /// Of a message, which begins with [`FIRST`], and what goes beside it.
    ///
    /// # Errors
    /// There is no memory or descriptor for a block, which a message of more than [`MOST`] bytes needs.
    pub fn new(packet: Vec<u8>, load: Load, handles: Vec<OwnedHandle>) -> Result<Outgoing> {
        let beside = !(load.is_empty() && handles.is_empty());
        let head = if beside { Parcel::head_len(&load) } else { 0 };
        let bytes = &packet[1..];
        if head + packet.len() > MOST {
            return Outgoing::long(bytes, load, handles);
        }
        Ok(if beside {
            Outgoing::Beside(Some(Parcel::new(&[PARCEL], bytes, load, handles)))
        } else {
            Outgoing::Plain(packet)
        })
    }

    /// Of bytes alone.
    ///
    /// # Errors
    /// As [`Outgoing::new`].
    pub fn of_bytes(bytes: &[u8]) -> Result<Outgoing> {
        if bytes.len() < MOST {
            Ok(Outgoing::Plain([&[PLAIN], bytes].concat()))
        } else {
            Outgoing::long(bytes, Load::default(), Vec::new())
        }
    }

    fn long(bytes: &[u8], load: Load, handles: Vec<OwnedHandle>) -> Result<Outgoing> {
        let mut first = Load::default();
        if let Err(error) = first.add(bytes) {
            load.unsent();
            return Err(error);
        }
        first.append(load);
        Ok(Outgoing::Beside(Some(Parcel::new(&[LONG], &[], first, handles))))
    }

    /// Ends a message that will not be sent.
    pub fn unsent(self) {
        if let Outgoing::Beside(Some(parcel)) = self {
            parcel.unsent();
        }
    }
}

impl PacketEnd {
    /// Creates two connected ends.
    ///
    /// # Errors
    /// The system's: no descriptor is left.
    pub fn pair() -> Result<(PacketEnd, PacketEnd)> {
        let (a, b) = stream::packet_pair().doing("make a pipe")?;
        Ok((PacketEnd::over(a), PacketEnd::over(b)))
    }

    /// An end of such a pair.
    pub fn over(end: OwnedHandle) -> PacketEnd {
        PacketEnd {
            end,
            buffer: Mutex::new(None),
            adaptive: AdaptiveSpin::default(),
            attendance: Attendance::default(),
        }
    }

    /// Its descriptor.
    pub fn into_end(self) -> OwnedHandle {
        self.end
    }

    /// The receivers of this end.
    pub fn attendance(&self) -> &Attendance {
        &self.attendance
    }

    /// Sends a message, and waits for room until the deadline. Returns false if there was no room. Nothing is sent
    /// then, and the caller can try again.
    ///
    /// # Errors
    /// [`Error::BothSend`] where the other end waits in the same way, and the system's; nothing is sent.
    pub fn send(&self, outgoing: &mut Outgoing, until: Until) -> Result<bool> {
        let (end, receivers) = (self.end.as_handle(), self.attendance.receivers());
        self.attendance.resume(end);
        let sent = match outgoing {
            Outgoing::Plain(packet) => packet_socket::send(end, packet, &[], until, receivers),
            Outgoing::Beside(None) => Ok(true),
            Outgoing::Beside(Some(going)) => {
                packet_socket::send(end, going.content(), &going.handles(), until, receivers)
            }
        };
        let sent = sent.inspect_err(|error| self.attendance.failed(error))?;
        if sent && let Outgoing::Beside(parcel) = outgoing {
            parcel.take().into_iter().for_each(Parcel::sent);
        }
        Ok(sent)
    }

    /// Waits for the next message until the deadline, and calls `read` on it. Returns `None` if the time limit expired.
    ///
    /// # Errors
    /// [`Error::EndOfStream`], [`Error::Damaged`], and the system's.
    pub fn receive<R>(&self, until: Until, read: impl FnOnce(ReceivedPacket<'_>) -> R) -> Result<Option<R>> {
        self.attendance.receives();
        self.attendance.resume(self.end.as_handle());
        let kept = self.buffer().take();
        let mut buffer = kept.unwrap_or_else(|| vec![0; MOST].into());
        let mut came = Vec::new();
        let got = packet_socket::receive(self.end.as_handle(), &mut buffer, &mut came, until, &self.adaptive);
        let result = match got {
            Ok(Some(len)) => take_apart(&buffer[..len], came).map(|received| Some(read(received))),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        *self.buffer() = Some(buffer);
        result
    }

    fn buffer(&self) -> std::sync::MutexGuard<'_, Option<Box<[u8]>>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsHandle for PacketEnd {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.end.as_handle()
    }
}

fn take_apart(packet: &[u8], came: Vec<Came>) -> Result<ReceivedPacket<'_>> {
    let damaged = || Error::Damaged("a message arrived that maniple did not send");
    match packet.split_first() {
        Some((&PLAIN, short)) => Ok(ReceivedPacket { long: None, short, beside: None }),
        Some((&kind @ (PARCEL | LONG), content)) => {
            let mut opened = parcel::open_all(content, came)?;
            let long = match kind {
                LONG if opened.buffers.is_empty() => return Err(damaged()),
                LONG => Some(opened.buffers.remove(0)),
                _ => None,
            };
            let beside = kind == PARCEL || !(opened.buffers.is_empty() && opened.others.is_empty());
            let beside = beside.then_some((opened.buffers, opened.others));
            Ok(ReceivedPacket { long, short: &content[opened.at..], beside })
        }
        _ => Err(damaged()),
    }
}
