//! Question and answer over a stream socket: one side asks, the other answers, and neither says anything unasked.
//!
//! ```text
//! message := length body
//! length  := i32 (at least 0) | i32 -1, u64        most significant byte first
//! ```
//! That is the format of Python's `multiprocessing`; the other end may be a stock one.
//!
//! A round trip of a few bytes is mostly waiting to be woken: the asker sleeps while the other side works, which sleeps until the
//! next question. So each side looks for its message for a while before it sleeps (`wait::spin`), as long as that pays. A message is
//! received with whatever came along: since nobody speaks out of turn there is hardly ever more, and what there is stays here, in
//! the `Dialogue`, which therefore owns its socket.
//!
//! | what happens | what the other side sees |
//! | --- | --- |
//! | an end is closed, or its process dies, between messages | [`Dialogue::hear`] gives `None`; `say` fails |
//! | the same within a message | `hear` fails: what it has of the message is worth nothing |
//! | a length that no healthy peer sends | `hear` fails |
//! | a wait is broken off by the caller's hook | nothing; but this end has lost its place and must be closed |

use crate::error::{Doing, Error, Result};
use crate::wait::spin::Spin;
use maniple_sys::own::Own;
use maniple_sys::ready::{self, Interest};
use maniple_sys::stream::{Received, receive, send};
use maniple_sys::{AsHandle, OwnedHandle};
use std::io;

/// Bytes of a body up to which it is joined to its length and sent in one go.
const JOINED: usize = 16 * 1024;
/// Bytes asked for when nothing is known of what comes.
const FIRST: usize = 4 * 1024;
/// Bytes by which room for a long message grows at a time: what its length says is not believed before it comes.
const STEP: usize = 1 << 20;
/// Bytes of room that are kept for the next message.
const KEPT: usize = 64 * 1024;
/// Bytes of the two forms of a length.
const SHORT_LENGTH: usize = 4;
const LONG_LENGTH: usize = 12;

/// One end.
#[derive(Debug)]
pub struct Dialogue {
    socket: Own,
    spin: Spin,
    /// Came, and has not been handed out; the message handed out last is at its beginning, `heard` bytes long.
    inbox: Vec<u8>,
    heard: usize,
    outbox: Vec<u8>,
}

/// Called when a signal handler ran; false breaks the wait off.
pub type GoOn<'a> = &'a mut dyn FnMut() -> bool;

impl Dialogue {
    /// Over a connected stream socket in blocking mode.
    pub fn new(socket: OwnedHandle) -> Dialogue {
        Dialogue { socket: Own::new(socket), spin: Spin::default(), inbox: Vec::new(), heard: 0, outbox: Vec::new() }
    }

    /// Sends one message.
    pub fn say(&mut self, body: &[u8], go_on: GoOn<'_>) -> Result<()> {
        self.outbox.clear();
        match i32::try_from(body.len()) {
            Ok(len) => self.outbox.extend_from_slice(&len.to_be_bytes()),
            Err(_) => {
                self.outbox.extend_from_slice(&(-1i32).to_be_bytes());
                self.outbox.extend_from_slice(&(body.len() as u64).to_be_bytes());
            }
        }
        if body.len() <= JOINED {
            self.outbox.extend_from_slice(body);
            return send_all(&self.socket, &self.outbox, false, go_on);
        }
        send_all(&self.socket, &self.outbox, true, go_on)?;
        send_all(&self.socket, body, false, go_on)
    }

    /// Waits for the next message. `None`: the other end is closed, or its process gone.
    pub fn hear(&mut self, go_on: GoOn<'_>) -> Result<Option<&[u8]>> {
        self.inbox.drain(..self.heard);
        self.heard = 0;
        if self.inbox.is_empty() {
            self.inbox.shrink_to(KEPT);
        }
        loop {
            let missing = match frame(&self.inbox).doing("receive a message")? {
                Frame::Whole { body, end } => {
                    self.heard = end;
                    return Ok(Some(&self.inbox[body..end]));
                }
                Frame::Missing(bytes) => bytes,
            };
            let room = missing.clamp(FIRST, STEP);
            self.inbox.try_reserve(room).map_err(io::Error::from).doing("receive a message")?;
            match self.receive().doing("receive a message")? {
                Received::Bytes(_) | Received::Nothing => {}
                Received::Closed if self.inbox.is_empty() => return Ok(None),
                Received::Closed => {
                    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "got end of file during message");
                    return Err(Error::Os { doing: "receive a message", source });
                }
                Received::Signal if go_on() => {}
                Received::Signal => return Err(Error::Interrupted),
            }
        }
    }

    fn receive(&mut self) -> io::Result<Received> {
        let Dialogue { socket, spin, inbox, .. } = self;
        let mut found = Ok(Received::Nothing);
        let there = spin.until_asked(|| {
            found = receive(socket.as_handle(), inbox);
            !matches!(found, Ok(Received::Nothing))
        });
        if there {
            return found;
        }
        // A plain recv() would be woken by the other side's reading of what we said, too (it makes room for writers, and who sleeps
        // in recv() on a Unix socket is not asked what for); poll() only by what we wait for.
        if ready::wait_for(Interest::new(socket.as_handle()))? {
            receive(socket.as_handle(), inbox)
        } else {
            Ok(Received::Signal)
        }
    }
}

maniple_sys::as_handle!(impl[] for Dialogue, |this| this.socket.as_handle());

fn send_all(socket: &Own, mut bytes: &[u8], more: bool, go_on: GoOn<'_>) -> Result<()> {
    while !bytes.is_empty() {
        match send(socket.as_handle(), bytes, more) {
            Ok(0) if !go_on() => return Err(Error::Interrupted),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let room = ready::wait_for(Interest::room(socket.as_handle())).doing("send a message")?;
                if !room && !go_on() {
                    return Err(Error::Interrupted);
                }
            }
            Err(source) => return Err(Error::Os { doing: "send a message", source }),
        }
    }
    Ok(())
}

/// What the beginning of a stream is.
enum Frame {
    /// A message whose body is from the first to the second place.
    Whole { body: usize, end: usize },
    /// Part of one; at least so many bytes are missing.
    Missing(usize),
}

fn frame(bytes: &[u8]) -> io::Result<Frame> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "bad message length");
    let Some(short) = bytes.first_chunk::<SHORT_LENGTH>() else {
        return Ok(Frame::Missing(SHORT_LENGTH - bytes.len()));
    };
    let (start, len) = match i32::from_be_bytes(*short) {
        -1 => {
            let Some(long) = bytes.get(SHORT_LENGTH..).and_then(|rest| rest.first_chunk()) else {
                return Ok(Frame::Missing(LONG_LENGTH - bytes.len()));
            };
            (LONG_LENGTH, usize::try_from(u64::from_be_bytes(*long)).map_err(|_| bad())?)
        }
        len => (SHORT_LENGTH, usize::try_from(len).map_err(|_| bad())?),
    };
    let end = start.checked_add(len).ok_or_else(bad)?;
    Ok(if bytes.len() >= end { Frame::Whole { body: start, end } } else { Frame::Missing(end - bytes.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use maniple_sys::IntoHandle;
    use maniple_sys::testing::UnixStream;
    use std::io::{Read, Write};

    fn pair() -> (Dialogue, UnixStream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Dialogue::new(a.into_handle()), b)
    }

    fn hear(dialogue: &mut Dialogue) -> Option<Vec<u8>> {
        dialogue.hear(&mut || true).unwrap().map(<[u8]>::to_vec)
    }

    #[test]
    fn messages_come_one_by_one_however_the_stream_is_cut() {
        let (mut dialogue, mut peer) = pair();
        let long: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let sender = std::thread::spawn(move || {
            let mut stream = b"\0\0\0\x03one\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\x03two".to_vec();
            stream.extend_from_slice(&300_000i32.to_be_bytes());
            stream.extend_from_slice(&long);
            let (bytewise, rest) = stream.split_at(40);
            bytewise.iter().for_each(|byte| peer.write_all(&[*byte]).unwrap());
            rest.chunks(70_001).for_each(|chunk| peer.write_all(chunk).unwrap());
            (peer, long)
        });
        assert_eq!(hear(&mut dialogue).unwrap(), b"one");
        assert_eq!(hear(&mut dialogue).unwrap(), b"");
        assert_eq!(hear(&mut dialogue).unwrap(), b"two");
        let got = hear(&mut dialogue).unwrap();
        let (peer, long) = sender.join().unwrap();
        assert_eq!(got, long);
        drop(peer);
        assert_eq!(hear(&mut dialogue), None);
    }

    #[test]
    fn what_is_said_is_framed() {
        let (mut dialogue, mut peer) = pair();
        for len in [0, 5, JOINED, JOINED + 1, 1 << 20] {
            let body = vec![7; len];
            let reader = std::thread::spawn(move || {
                let mut got = vec![0; len + 4];
                peer.read_exact(&mut got).unwrap();
                (peer, got)
            });
            dialogue.say(&body, &mut || true).unwrap();
            let got;
            (peer, got) = reader.join().unwrap();
            assert_eq!(got[..4], (len as i32).to_be_bytes());
            assert_eq!(got[4..], body);
        }
    }

    #[test]
    fn an_end_within_a_message_is_an_error() {
        for beginning in [&b"\0\0"[..], b"\0\0\0\x05abc", b"\xff\xff\xff\xff\0\0"] {
            let (mut dialogue, mut peer) = pair();
            peer.write_all(beginning).unwrap();
            drop(peer);
            let error = dialogue.hear(&mut || true).unwrap_err();
            assert!(error.to_string().contains("end of file during message"), "{error}");
        }
    }

    #[test]
    fn a_length_out_of_this_world_is_an_error_and_costs_no_memory() {
        let (mut dialogue, mut peer) = pair();
        peer.write_all(b"\xff\xff\xff\xfe").unwrap();
        assert!(dialogue.hear(&mut || true).unwrap_err().to_string().contains("bad message length"));
        let (mut dialogue, mut peer) = pair();
        peer.write_all(b"\xff\xff\xff\xff\x0f\xff\xff\xff\xff\xff\xff\xff....").unwrap();
        drop(peer);
        assert!(dialogue.hear(&mut || true).unwrap_err().to_string().contains("end of file"));
        assert!(dialogue.inbox.capacity() <= 2 * STEP);
    }

    #[test]
    fn a_peer_that_is_gone_is_noticed_when_one_speaks_to_it() {
        let (mut dialogue, peer) = pair();
        drop(peer);
        let error = dialogue.say(b"hello", &mut || true).unwrap_err();
        assert!(matches!(error, Error::Os { source, .. } if source.kind() == io::ErrorKind::BrokenPipe));
    }
}
