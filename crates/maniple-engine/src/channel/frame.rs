//! Frames (`length_prefix`) over a descriptor that several processes may share.
//!
//! No call reads beyond the current frame: the bytes behind it may be for another process that has the descriptor.
//!
//! After a send, a reader spins for the answer for a while, if that pays ([`AdaptiveSpin`]).

use super::length_prefix::{self, Begin, LONG, Length, SHORT};
use super::parcel::{self, Came};
use super::room::{Receivers, Waiting};
use crate::error::{Doing, Error, Result};
use crate::wait::adaptive_spin::Begun;
pub use crate::wait::{AdaptiveSpin, Until};
use maniple_sys::BorrowedHandle;
use maniple_sys::ready::{self, Interest};
use maniple_sys::{OwnedHandle, stream, wire};
use std::io::{self, ErrorKind, IoSlice};

pub use super::log::Interrupted;

/// Up to this length, length and message are joined for one write; above, the system gathers them.
const JOINED: usize = 16 * 1024;
/// The greatest number of bytes that are read at once. A claimed length costs no memory before so much has arrived.
const PIECE: usize = if cfg!(fuzzing) { 1 << 20 } else { 64 << 20 };

/// Whether to end after a call that has done less than requested: a signal handler may be the reason, and it would not
/// interrupt the next call.
fn check(more: bool, interrupted: Interrupted<'_, '_>) -> Result<()> {
    if more && interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Repeats the call as long as only a signal handler has interrupted it.
fn retry<T>(interrupted: Interrupted<'_, '_>, mut act: impl FnMut() -> io::Result<T>, what: &'static str) -> Result<T> {
    loop {
        match act() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {
                if interrupted() {
                    return Err(Error::Interrupted);
                }
            }
            other => return other.doing(what),
        }
    }
}

/// Sends a message. With `handles` the end must be a local socket's.
///
/// # Errors
/// [`Error::Interrupted`]. In the middle of a message `rest` contains the unsent part, which has to be sent before
/// anything else ([`send_rest`]).
pub fn send(
    fd: BorrowedHandle<'_>,
    is_socket: bool,
    body: &[u8],
    handles: &[BorrowedHandle<'_>],
    rest: &mut Vec<u8>,
    interrupted: Interrupted<'_, '_>,
) -> Result<()> {
    let mut broken_off = false;
    let put = |parts: &[IoSlice<'_>], handles: &[BorrowedHandle<'_>]| {
        if broken_off {
            return Err(Error::Interrupted);
        }
        let once = || match (parts, handles) {
            (parts, []) => write(fd, is_socket, parts),
            (parts, _) => stream::write_with(fd, &parts[0], handles),
        };
        let sent = retry(interrupted, once, WHAT_SEND)?;
        // What has been sent counts first.
        broken_off = sent < parts.iter().map(|part| part.len()).sum() && interrupted();
        Ok(Some(sent))
    };
    send_by(put, body, handles, rest).map(|_| ())
}

/// Writes to a stream. The call for sockets fails if the program has closed the socket and opened a file under its number.
fn write(fd: BorrowedHandle<'_>, is_socket: bool, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    if is_socket { stream::write_socket(fd, parts) } else { stream::write(fd, parts) }
}

/// Sends the part of a message that [`send`] has left.
///
/// # Errors
/// As [`send`].
pub fn send_rest(
    fd: BorrowedHandle<'_>,
    is_socket: bool,
    rest: &mut Vec<u8>,
    interrupted: Interrupted<'_, '_>,
) -> Result<()> {
    let mut sent = 0;
    let mut done = Ok(());
    while sent < rest.len() && done.is_ok() {
        match retry(interrupted, || write(fd, is_socket, &[IoSlice::new(&rest[sent..])]), WHAT_SEND) {
            Ok(more) => {
                sent += more;
                done = check(sent < rest.len(), interrupted);
            }
            Err(error) => done = Err(error),
        }
    }
    rest.drain(..sent);
    done
}

/// As [`send`], over a socket, without the signal that writing to a closed end otherwise sends to a process that does
/// not ignore it. Waits for room until the deadline. Returns false if there was no room; nothing is sent then.
///
/// # Errors
/// [`Error::BothSend`] if the other end waits in the same way. In the middle of a message, the connection becomes
/// unusable, and is closed in this direction.
pub fn send_until(
    socket: BorrowedHandle<'_>,
    body: &[u8],
    handles: &[BorrowedHandle<'_>],
    until: Until,
    receivers: Receivers,
) -> Result<bool> {
    let mut begun = false;
    let mut waiting = Waiting::new(socket, until, receivers);
    let write = |parts: &[IoSlice<'_>], handles: &[BorrowedHandle<'_>]| {
        loop {
            if let Some(sent) = retry(&mut || false, || stream::write_now(socket, parts, handles), WHAT_SEND)? {
                if !begun {
                    begun = true;
                    waiting.commit();
                }
                return Ok(Some(sent));
            }
            if !waiting.wait()? {
                return Ok(None);
            }
        }
    };
    let sent = send_by(write, body, handles, &mut Vec::new());
    if begun && matches!(sent, Err(Error::BothSend)) {
        let _ = stream::shut(socket, false);
    }
    sent
}

const WHAT_SEND: &str = "send a message";

/// Calls `write` for each piece, with the handles for the first. Returns false if `write` gave up. `rest` is the
/// remainder of a message that was interrupted in its middle.
fn send_by(
    mut write: impl FnMut(&[IoSlice<'_>], &[BorrowedHandle<'_>]) -> Result<Option<usize>>,
    body: &[u8],
    mut handles: &[BorrowedHandle<'_>],
    rest: &mut Vec<u8>,
) -> Result<bool> {
    let mut begun = false;
    let length = Length::of(body);
    let mut head = length.bytes();
    let mut body = body;
    let mut small = [0; 512];
    let long;
    if !handles.is_empty() && body.len() > JOINED {
        // A reader that has no numbers for the handles has to learn from the first byte what they are.
        let (first, rest) = body.split_at(parcel::HEAD);
        long = [head, first].concat();
        (head, body) = (&long, rest);
    } else if head.len() + body.len() <= small.len() {
        let total = head.len() + body.len();
        small[..head.len()].copy_from_slice(head);
        small[head.len()..total].copy_from_slice(body);
        (head, body) = (&small[..total], &[]);
    } else if body.len() <= JOINED {
        long = [head, body].concat();
        (head, body) = (&long, &[]);
    }
    while !(head.is_empty() && body.is_empty()) {
        let sent = if body.is_empty() || !handles.is_empty() {
            write(&[IoSlice::new(head)], handles)
        } else if head.is_empty() {
            write(&[IoSlice::new(body)], handles)
        } else {
            write(&[IoSlice::new(head), IoSlice::new(body)], handles)
        };
        if begun && matches!(sent, Err(Error::Interrupted)) {
            rest.extend_from_slice(head);
            rest.extend_from_slice(body);
        }
        let Some(sent) = sent? else { return Ok(false) };
        begun = true;
        handles = &[];
        let from_head = sent.min(head.len());
        head = &head[from_head..];
        body = &body[sent - from_head..];
    }
    Ok(true)
}

/// Reads the first bytes of a message by `read`, and what is attached to them. If this process has no number left for
/// handles, the buffers of a parcel arrive nevertheless.
fn first(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    came: Option<&mut Vec<Came>>,
    read: impl FnOnce(&mut [u8], Option<&mut Vec<OwnedHandle>>) -> io::Result<Option<usize>>,
) -> io::Result<Option<usize>> {
    let Some(came) = came else { return read(bytes, None) };
    let mut handles = Vec::new();
    let got = match read(bytes, Some(&mut handles)) {
        Err(error) if wire::is_out_of_handles(&error) => {
            let mut begins = [0; LONG + parcel::HEAD];
            let seen = stream::peek_packet(fd, &mut begins)?.unwrap_or(0);
            let content = match length_prefix::begin(&begins[..seen]) {
                Ok(Begin::Known { body, .. }) => &begins[body..seen],
                _ => &[],
            };
            let (got, buffers) = parcel::receive_aside(fd, bytes, content)?;
            came.extend(buffers);
            return Ok(Some(got));
        }
        got => got?,
    };
    came.extend(handles.into_iter().map(Came::from));
    Ok(got)
}

/// The same by a adaptive.
fn look_out(
    adaptive: &AdaptiveSpin,
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    came: Option<&mut Vec<Came>>,
) -> (Begun, io::Result<Option<usize>>) {
    let mut begun = Begun::default();
    let found = first(fd, bytes, came, |bytes, handles| {
        let (wait, found) = adaptive.first(fd, bytes, handles);
        begun = wait;
        found
    });
    (begun, found.or_else(|e| if e.kind() == ErrorKind::Interrupted { Ok(None) } else { Err(e) }))
}

const WHAT: &str = "receive a message";

/// How the beginning of a frame is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// Present if the end is a socket's. Then a wait with a limit receives the message even if another process may be
    /// faster.
    pub adaptive: Option<&'a AdaptiveSpin>,
    /// Whether handles may be attached: the end is a local socket's.
    pub brings: bool,
    /// Whether it is known to be a socket. Then no other file is read that the program has opened under its number.
    pub is_socket: bool,
    /// Until when.
    pub until: Until,
}

/// The received part of a frame. If a signal handler interrupts the reception, the next call continues it.
#[derive(Debug, Default)]
pub struct Partial {
    head: [u8; LONG],
    have: usize,
    /// Bytes of the body, once the length has arrived.
    len: Option<usize>,
    content: Vec<u8>,
    came: Vec<Came>,
    /// Some of its handles are lost.
    is_cut: bool,
}

/// A whole message.
#[derive(Debug)]
pub struct Message {
    /// The frame's body.
    pub content: Vec<u8>,
    /// What arrived beside it.
    pub came: Vec<Came>,
}

impl Partial {
    /// Bytes of the body; 0 before [`Partial::begin`] is done.
    pub fn len(&self) -> usize {
        self.len.unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether only the length has arrived, so that the body can be received into any memory.
    pub fn is_bare(&self) -> bool {
        self.content.is_empty() && self.came.is_empty()
    }

    /// Whether any byte has arrived.
    pub fn has_begun(&self) -> bool {
        self.have > 0
    }

    /// Waits for the length, and for what is attached to its first byte. Returns false if the time limit expired before
    /// a byte arrived.
    ///
    /// # Errors
    /// After [`Error::Interrupted`] it can be called again. After other errors the frame is lost; after a lack of a
    /// descriptor or of memory it has been skipped.
    pub fn begin(&mut self, fd: BorrowedHandle<'_>, way: Way<'_>, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        let mut wait = None;
        if self.have == 0 {
            let waited = self.wait(fd, way, interrupted);
            self.is_cut = stream::take_cut();
            let Some((got, begun)) = waited? else { return Ok(false) };
            if got == 0 {
                return Err(length_prefix::ended(false));
            }
            self.have = got;
            wait = begun;
        }
        let len = loop {
            match length_prefix::begin(&self.head[..self.have])? {
                Begin::Known { len, .. } => break len,
                Begin::Missing(missing) => {
                    let end = self.have + missing;
                    fill_on(fd, &mut self.head[..end], &mut self.have, interrupted)?;
                }
            }
        };
        self.len = Some(len);
        if let (Some(begun), Some(adaptive)) = (wait, way.adaptive) {
            adaptive.ended(begun);
        }
        if self.is_cut {
            // The handles that have arrived are useless without the others.
            skip(fd, len as u64, interrupted)?;
            return Err(wire::out_of_handles()).doing("receive the descriptors of a message, which is lost");
        }
        Ok(true)
    }

    /// Waits for the first bytes, and reads them. Returns `None` if the time limit expired.
    fn wait(
        &mut self,
        fd: BorrowedHandle<'_>,
        way: Way<'_>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Option<(usize, Option<Begun>)>> {
        let Partial { head, came, .. } = self;
        let head = &mut head[..SHORT];
        let mut came = way.brings.then_some(came);
        let now = |bytes: &mut [u8], handles: Option<&mut Vec<OwnedHandle>>| stream::read_now(fd, bytes, handles);
        let (mut got, mut begun) = (None, None);
        match (way.adaptive, way.until) {
            (None, Until::Now) if !way.is_socket => {
                let got = retry(interrupted, || stream::read_available(fd, head), WHAT)?;
                return Ok(got.map(|got| (got, None)));
            }
            (_, Until::Now) => {
                got = retry(interrupted, || first(fd, head, came.as_deref_mut(), now), WHAT)?;
                return Ok(got.map(|got| (got, None)));
            }
            (None, _) => {}
            (Some(adaptive), _) => {
                let (wait, found) = look_out(adaptive, fd, head, came.as_deref_mut());
                (got, begun) = (found.doing(WHAT)?, Some(wait));
            }
        }
        loop {
            if let Some(got) = got {
                return Ok(Some((got, begun)));
            }
            let Some(left) = way.until.left() else {
                // One call of the system; it waits there.
                let read = || {
                    first(fd, head, came.as_deref_mut(), |bytes, handles| match handles {
                        Some(handles) => stream::read_with(fd, bytes, handles).map(Some),
                        None if way.is_socket => stream::read_socket(fd, bytes).map(Some),
                        None => stream::read_into(fd, bytes).map(Some),
                    })
                };
                got = retry(interrupted, read, WHAT)?;
                continue;
            };
            if ready::wait(&mut [Interest::new(fd)], Some(left)).doing("wait for a message")? == 0 {
                if left.is_zero() {
                    return Ok(None);
                }
                if interrupted() {
                    return Err(Error::Interrupted);
                }
                continue;
            }
            got = match way.adaptive {
                Some(_) => retry(interrupted, || first(fd, head, came.as_deref_mut(), now), WHAT)?,
                None => Some(retry(interrupted, || stream::read_into(fd, head), WHAT)?),
            };
        }
    }

    /// Waits for the rest of the body. If there is no memory for it, the body is skipped, so that the next frame can be
    /// received.
    ///
    /// # Errors
    /// As [`Partial::begin`].
    pub fn finish(&mut self, fd: BorrowedHandle<'_>, interrupted: Interrupted<'_, '_>) -> Result<()> {
        let mut left = self.len() - self.content.len();
        let mut reserved = self.content.try_reserve_exact(left.min(PIECE));
        while left > 0 {
            let piece = left.min(PIECE);
            reserved = reserved.and_then(|()| self.content.try_reserve(piece));
            if reserved.is_err() {
                self.content = Vec::new();
                skip(fd, left as u64, interrupted)?;
                return Err(Error::out_of_memory("receive a message, which is lost"));
            }
            match retry(interrupted, || stream::read(fd, &mut self.content, piece), WHAT)? {
                0 => return Err(length_prefix::ended(true)),
                got => left -= got,
            }
            check(left > 0, interrupted)?;
        }
        Ok(())
    }

    /// Waits for the body of a frame that [`is_bare`](Partial::is_bare), in `room`, which is as long.
    ///
    /// # Errors
    /// As [`Partial::begin`]; the bytes that have arrived are kept. If there is no memory to keep them in, the rest is
    /// skipped, so that the next frame can be received.
    pub fn fill(&mut self, fd: BorrowedHandle<'_>, room: &mut [u8], interrupted: Interrupted<'_, '_>) -> Result<()> {
        let mut done = 0;
        let filled = fill_on(fd, room, &mut done, interrupted);
        if matches!(filled, Err(Error::Interrupted)) {
            if self.content.try_reserve_exact(done).is_err() {
                skip(fd, (room.len() - done) as u64, &mut || false)?;
                return Err(Error::out_of_memory("keep a message whose reception is interrupted, which is lost"));
            }
            self.content.extend_from_slice(&room[..done]);
        }
        filled
    }

    /// Skips the body.
    ///
    /// # Errors
    /// The stream is then unusable.
    pub fn pass_over(self, fd: BorrowedHandle<'_>, interrupted: Interrupted<'_, '_>) -> Result<()> {
        skip(fd, (self.len() - self.content.len()) as u64, interrupted)
    }
}

impl From<Partial> for Message {
    fn from(partial: Partial) -> Message {
        Message { content: partial.content, came: partial.came }
    }
}

/// Reads and drops the next `len` bytes of a frame.
fn skip(fd: BorrowedHandle<'_>, mut len: u64, interrupted: Interrupted<'_, '_>) -> Result<()> {
    let mut scratch = [0; 16 * 1024];
    while len > 0 {
        let piece = len.min(scratch.len() as u64) as usize;
        match retry(interrupted, || stream::read_into(fd, &mut scratch[..piece]), WHAT)? {
            0 => return Err(length_prefix::ended(true)),
            got => len -= got as u64,
        }
        check(len > 0, interrupted)?;
    }
    Ok(())
}

/// Reads from byte `done` on until `bytes` is full. Sets `done` to the number of bytes in `bytes`.
fn fill_on(fd: BorrowedHandle<'_>, bytes: &mut [u8], done: &mut usize, interrupted: Interrupted<'_, '_>) -> Result<()> {
    while *done < bytes.len() {
        match retry(interrupted, || stream::read_into(fd, &mut bytes[*done..]), WHAT)? {
            0 => return Err(length_prefix::ended(true)),
            got => *done += got,
        }
        check(*done < bytes.len(), interrupted)?;
    }
    Ok(())
}
