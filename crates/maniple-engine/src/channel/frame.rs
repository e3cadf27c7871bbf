//! Frames (`length_prefix`) over a descriptor that several processes may share.
//!
//! No call reads beyond the frame at hand: what lies behind it may be for another process that has the descriptor.
//!
//! An answer to what was sent a moment ago is looked for awake for a while, where that pays ([`AdaptiveSpin`]).

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

/// Up to here length and message are joined for one write; above, the system gathers them.
const JOINED: usize = 16 * 1024;
/// Bytes that are read at once at most. A claimed length costs no memory before so much has come.
const PIECE: usize = if cfg!(fuzzing) { 1 << 20 } else { 64 << 20 };

/// Whether to break off after a call that has done less than it was asked to: a signal handler may be the reason, and the
/// next call would not be interrupted by it.
fn check(more: bool, interrupted: Interrupted<'_, '_>) -> Result<()> {
    if more && interrupted() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Tries again until it is something other than a signal handler's having run.
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
/// Interrupted in the middle of a message, the connection is of no more use, as with the standard package.
pub fn send(
    fd: BorrowedHandle<'_>,
    body: &[u8],
    handles: &[BorrowedHandle<'_>],
    interrupted: Interrupted<'_, '_>,
) -> Result<()> {
    let write = |parts: &[IoSlice<'_>], handles: &[BorrowedHandle<'_>]| {
        let write = || match (parts, handles) {
            (parts, []) => stream::write(fd, parts),
            (parts, _) => stream::write_with(fd, &parts[0], handles),
        };
        let sent = retry(interrupted, write, WHAT_SEND)?;
        check(sent < parts.iter().map(|part| part.len()).sum(), interrupted)?;
        Ok(Some(sent))
    };
    send_by(write, body, handles).map(|_| ())
}

/// The same over a socket, without the signal that a closed other end otherwise has for a process that does not ignore it. Waits for
/// the message's first room until then. False: there was none, and nothing is sent.
///
/// # Errors
/// [`Error::BothSend`] where the other end waits in the same way. In the middle of a message, the connection is of no more use, and is
/// closed in this direction.
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
    let sent = send_by(write, body, handles);
    if begun && matches!(sent, Err(Error::BothSend)) {
        let _ = stream::shut(socket, false);
    }
    sent
}

const WHAT_SEND: &str = "send a message";

/// Has `write` write it, piece by piece, the handles with the first one. False: `write` gave up.
fn send_by(
    mut write: impl FnMut(&[IoSlice<'_>], &[BorrowedHandle<'_>]) -> Result<Option<usize>>,
    body: &[u8],
    mut handles: &[BorrowedHandle<'_>],
) -> Result<bool> {
    let length = Length::of(body);
    let mut head = length.bytes();
    let mut body = body;
    let mut small = [0; 512];
    let long;
    if !handles.is_empty() && body.len() > JOINED {
        // A reader that has no numbers for the handles has to see with the first byte what they are.
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
            write(&[IoSlice::new(head)], handles)?
        } else if head.is_empty() {
            write(&[IoSlice::new(body)], handles)?
        } else {
            write(&[IoSlice::new(head), IoSlice::new(body)], handles)?
        };
        let Some(sent) = sent else { return Ok(false) };
        handles = &[];
        let from_head = sent.min(head.len());
        head = &head[from_head..];
        body = &body[sent - from_head..];
    }
    Ok(true)
}

/// Reads the first bytes of a message by `read`, and what comes with them. Where this process has no number left for handles, the buffers
/// of a parcel come all the same.
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

/// The same by an [`AdaptiveSpin`].
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

/// Receives the length of the next message. `adaptive` is given where the end is a socket's. With `handles` given (the end must be a
/// local socket's), what comes beside it is put there.
pub fn receive_length(
    fd: BorrowedHandle<'_>,
    adaptive: Option<&AdaptiveSpin>,
    mut handles: Option<&mut Vec<Came>>,
    interrupted: Interrupted<'_, '_>,
) -> Result<u64> {
    let mut head = [0; SHORT];
    let mut done = 0;
    let mut wait = None;
    if let Some(adaptive) = adaptive {
        let (begun, found) = look_out(adaptive, fd, &mut head, handles.as_deref_mut());
        match found.doing("receive a message")? {
            Some(0) => return Err(length_prefix::ended(false)),
            Some(got) => done = got,
            None => {}
        }
        wait = Some((adaptive, begun));
    }
    while done < SHORT {
        let rest = &mut head[done..];
        let read = || {
            let got = first(fd, rest, handles.as_deref_mut(), |bytes, handles| match handles {
                Some(handles) => stream::read_with(fd, bytes, handles).map(Some),
                None => stream::read_into(fd, bytes).map(Some),
            });
            got.map(|got| got.unwrap_or(0))
        };
        let got = retry(interrupted, read, "receive a message")?;
        if got == 0 {
            return Err(length_prefix::ended(done > 0));
        }
        done += got;
    }
    if let Some((adaptive, begun)) = wait {
        adaptive.ended(begun);
    }
    whole(fd, length(fd, head, interrupted)?, interrupted)
}

/// The length of a message whose handles have all come. One whose handles did not is passed over: the next can be received.
fn whole(fd: BorrowedHandle<'_>, length: u64, interrupted: Interrupted<'_, '_>) -> Result<u64> {
    if stream::take_cut() {
        skip(fd, length, interrupted)?;
        return Err(wire::out_of_handles()).doing("receive the descriptors of a message, which is lost");
    }
    Ok(length)
}

/// Passes over the next `len` bytes of a message.
pub fn skip(fd: BorrowedHandle<'_>, mut len: u64, interrupted: Interrupted<'_, '_>) -> Result<()> {
    let mut scratch = [0; 16 * 1024];
    while len > 0 {
        let piece = len.min(scratch.len() as u64) as usize;
        match retry(interrupted, || stream::read_into(fd, &mut scratch[..piece]), "receive a message")? {
            0 => return Err(length_prefix::ended(true)),
            got => len -= got as u64,
        }
        check(len > 0, interrupted)?;
    }
    Ok(())
}

/// The length that begins with `head`; reads the rest of a long one.
fn length(fd: BorrowedHandle<'_>, head: [u8; SHORT], interrupted: Interrupted<'_, '_>) -> Result<u64> {
    let mut long = [0; LONG];
    long[..SHORT].copy_from_slice(&head);
    let mut have = SHORT;
    loop {
        match length_prefix::begin(&long[..have])? {
            Begin::Known { len, .. } => return Ok(len as u64),
            Begin::Missing(missing) => {
                fill(fd, &mut long[have..have + missing], interrupted)?;
                have += missing;
            }
        }
    }
}

/// [`receive_length`] with a limit to the wait for the message's begin; `None`: the time is up. With `socket` it is taken even
/// where somebody else may be faster, and without sleeping in the read itself: that is also woken when the other end reads.
pub fn receive_length_until(
    fd: BorrowedHandle<'_>,
    socket: bool,
    until: Until,
    adaptive: &AdaptiveSpin,
    mut handles: Option<&mut Vec<Came>>,
    interrupted: Interrupted<'_, '_>,
) -> Result<Option<u64>> {
    const WHAT: &str = "receive a message";
    let mut head = [0; SHORT];
    let mut got = None;
    let mut begun = None;
    let read = |bytes: &mut [u8], handles: Option<&mut Vec<OwnedHandle>>| stream::read_now(fd, bytes, handles);
    if socket && matches!(until, Until::Now) {
        got = retry(interrupted, || first(fd, &mut head, handles.as_deref_mut(), read), WHAT)?;
        if got.is_none() {
            return Ok(None);
        }
    } else if socket {
        let (wait, found) = look_out(adaptive, fd, &mut head, handles.as_deref_mut());
        got = found.doing(WHAT)?;
        begun = Some(wait);
    }
    let mut done = loop {
        if let Some(got) = got {
            break got;
        }
        let left = until.left();
        if ready::wait(&mut [Interest::new(fd)], left).doing("wait for a message")? == 0 {
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
            continue;
        }
        got = match socket {
            true => retry(interrupted, || first(fd, &mut head, handles.as_deref_mut(), read), WHAT)?,
            false => Some(retry(interrupted, || stream::read_into(fd, &mut head), WHAT)?),
        };
    };
    if done == 0 {
        return Err(length_prefix::ended(false));
    }
    while done < head.len() {
        match retry(interrupted, || stream::read_into(fd, &mut head[done..]), WHAT)? {
            0 => return Err(length_prefix::ended(true)),
            more => done += more,
        }
    }
    if let Some(begun) = begun {
        adaptive.ended(begun);
    }
    let length = length(fd, head, interrupted)?;
    whole(fd, length, interrupted).map(Some)
}

/// Receives the next `len` bytes of a message. Where there is no memory for them, they are passed over, so that the next message can be
/// received.
pub fn receive(fd: BorrowedHandle<'_>, bytes: &mut Vec<u8>, len: u64, interrupted: Interrupted<'_, '_>) -> Result<()> {
    let mut left = usize::try_from(len).map_err(|_| Error::BadLength)?;
    let mut reserved = bytes.try_reserve_exact(left.min(PIECE));
    while left > 0 {
        let piece = left.min(PIECE);
        reserved = reserved.and_then(|()| bytes.try_reserve(piece));
        if reserved.is_err() {
            *bytes = Vec::new();
            skip(fd, left as u64, interrupted)?;
            return Err(Error::out_of_memory("receive a message, which is lost"));
        }
        match retry(interrupted, || stream::read(fd, bytes, piece), "receive a message")? {
            0 => return Err(length_prefix::ended(true)),
            got => left -= got,
        }
        check(left > 0, interrupted)?;
    }
    Ok(())
}

/// Receives bytes of a message until `bytes` is full.
pub fn fill(fd: BorrowedHandle<'_>, bytes: &mut [u8], interrupted: Interrupted<'_, '_>) -> Result<()> {
    fill_on(fd, bytes, &mut 0, interrupted)
}

/// The same from byte `done` on, which says afterwards how far it came.
pub fn fill_on(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    done: &mut usize,
    interrupted: Interrupted<'_, '_>,
) -> Result<()> {
    while *done < bytes.len() {
        match retry(interrupted, || stream::read_into(fd, &mut bytes[*done..]), "receive a message")? {
            0 => return Err(length_prefix::ended(true)),
            got => *done += got,
        }
        check(*done < bytes.len(), interrupted)?;
    }
    Ok(())
}
