//! Requests and answers over a stream socket that only this process has: one side sends requests, the other answers
//! each, and sends nothing else.
//!
//! A message is a frame (`length_prefix`), so the other end may be stock Python.
//!
//! A round trip of a few bytes is mostly waiting for a wake-up: the client sleeps while the other side works, which
//! sleeps until the next request. So each side spins for its message for a while before it sleeps (`wait::spin`), as
//! long as that pays. A message is received with all bytes that have arrived, which saves a system call. The sides take
//! turns, so there are rarely more bytes than the message's; they stay in the [`FramedStream`], which therefore owns
//! its socket. (`frame` is for descriptors that several processes share.)
//!
//! | what happens | what the other side sees |
//! | --- | --- |
//! | an end is closed, or its process dies, between messages | `receive` fails with [`Error::EndOfStream`]; `send` fails |
//! | the same within a message | `receive` fails with [`Error::CutOff`] |
//! | a length that no frame can have | `receive` fails with [`Error::BadLength`] |
//! | the caller's hook ends a wait | nothing; but this end has lost its place in the stream and must be closed |

use super::frame::Interrupted;
use super::length_prefix::{self, Begin, Length};
use crate::error::{Doing, Error, Result};
use crate::wait::spin::Spin;
use maniple_sys::own::Own;
use maniple_sys::ready::{self, Interest};
use maniple_sys::stream::{self, Received};
use maniple_sys::{AsHandle, OwnedHandle};
use std::io;
use std::time::Instant;

/// Bytes of a body up to which length and body are joined and sent in one call.
const JOINED: usize = 16 * 1024;
/// Bytes that are requested when the length of the next message is unknown.
const FIRST: usize = 4 * 1024;
/// Bytes by which room for a long message grows at a time: its length is not trusted before the bytes arrive.
const STEP: usize = 1 << 20;
/// Bytes of room that are kept for the next message.
const KEPT: usize = 64 * 1024;

/// One end.
#[derive(Debug)]
pub struct FramedStream {
    socket: Own,
    spin: Spin,
    /// Received bytes that were not returned yet, behind the message that was returned last. With its length, that
    /// message has `handed_out` bytes.
    inbox: Vec<u8>,
    handed_out: usize,
    outbox: Vec<u8>,
}

impl FramedStream {
    /// Over a connected stream socket in blocking mode.
    pub fn new(socket: OwnedHandle) -> FramedStream {
        let socket = Own::new(socket);
        FramedStream { socket, spin: Spin::default(), inbox: Vec::new(), handed_out: 0, outbox: Vec::new() }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The system's, and [`Error::Interrupted`].
    pub fn send(&mut self, body: &[u8], interrupted: Interrupted<'_, '_>) -> Result<()> {
        self.outbox.clear();
        self.outbox.extend_from_slice(Length::of(body).bytes());
        if body.len() <= JOINED {
            self.outbox.extend_from_slice(body);
            return send_all(&self.socket, &self.outbox, false, interrupted);
        }
        send_all(&self.socket, &self.outbox, true, interrupted)?;
        send_all(&self.socket, body, false, interrupted)
    }

    /// Waits until `receive` finds something, or until that time. Returns whether there is something.
    ///
    /// # Errors
    /// The system's, and [`Error::Interrupted`].
    pub fn is_ready(&self, until: Instant, interrupted: Interrupted<'_, '_>) -> Result<bool> {
        loop {
            let mut interests = [Interest::new(self.socket.as_handle())];
            let left = until.saturating_duration_since(Instant::now());
            if self.inbox.len() > self.handed_out
                || ready::wait(&mut interests, Some(left)).doing("wait for a message")? > 0
            {
                return Ok(true);
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// [`Error::EndOfStream`], [`Error::CutOff`], [`Error::BadLength`], the system's, and [`Error::Interrupted`].
    pub fn receive(&mut self, interrupted: Interrupted<'_, '_>) -> Result<&[u8]> {
        const WHAT: &str = "receive a message";
        self.inbox.drain(..self.handed_out);
        self.handed_out = 0;
        if self.inbox.is_empty() {
            self.inbox.shrink_to(KEPT);
        }
        loop {
            let missing = match length_prefix::begin(&self.inbox)? {
                Begin::Missing(missing) => missing,
                Begin::Known { body, len } => {
                    let end = body + len;
                    if self.inbox.len() >= end {
                        self.handed_out = end;
                        return Ok(&self.inbox[body..end]);
                    }
                    end - self.inbox.len()
                }
            };
            let room = missing.clamp(FIRST, STEP);
            self.inbox.try_reserve(room).map_err(io::Error::from).doing(WHAT)?;
            match self.read().doing(WHAT)? {
                Received::Bytes(_) | Received::Nothing => {}
                Received::Closed => return Err(length_prefix::ended(!self.inbox.is_empty())),
                Received::Signal if interrupted() => return Err(Error::Interrupted),
                Received::Signal => {}
            }
        }
    }

    fn read(&mut self) -> io::Result<Received> {
        let FramedStream { socket, spin, inbox, .. } = self;
        let mut found = Ok(Received::Nothing);
        let there = spin.until_asked(|| {
            found = stream::receive(socket.as_handle(), inbox);
            !matches!(found, Ok(Received::Nothing))
        });
        if there {
            return found;
        }
        // A plain recv() would also be woken when the other side reads what this side sent (that makes room for
        // writers, and the kernel wakes all sleepers in recv() on a Unix socket). poll() is woken only by the events
        // that it waits for.
        if ready::wait_for(Interest::new(socket.as_handle()))? {
            stream::receive(socket.as_handle(), inbox)
        } else {
            Ok(Received::Signal)
        }
    }
}

maniple_sys::as_handle!(impl[] for FramedStream, |this| this.socket.as_handle());

fn send_all(socket: &Own, mut bytes: &[u8], more: bool, interrupted: Interrupted<'_, '_>) -> Result<()> {
    while !bytes.is_empty() {
        match stream::send(socket.as_handle(), bytes, more) {
            Ok(0) if interrupted() => return Err(Error::Interrupted),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let room = ready::wait_for(Interest::room(socket.as_handle())).doing("send a message")?;
                if !room && interrupted() {
                    return Err(Error::Interrupted);
                }
            }
            Err(source) => return Err(Error::Os { doing: "send a message", source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use maniple_sys::IntoHandle;
    use maniple_sys::testing::Stream;
    use std::io::{Read, Write};

    fn pair() -> (FramedStream, Stream) {
        let (a, b) = Stream::pair().unwrap();
        (FramedStream::new(a.into_handle()), b)
    }

    fn receive(stream: &mut FramedStream) -> Result<Vec<u8>> {
        stream.receive(&mut || false).map(<[u8]>::to_vec)
    }

    #[test]
    fn messages_come_one_by_one_however_the_stream_is_cut() {
        let (mut stream, mut peer) = pair();
        let long: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let sender = std::thread::spawn(move || {
            let mut bytes = b"\0\0\0\x03one\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\x03two".to_vec();
            bytes.extend_from_slice(&300_000i32.to_be_bytes());
            bytes.extend_from_slice(&long);
            let (bytewise, rest) = bytes.split_at(40);
            bytewise.iter().for_each(|byte| peer.write_all(&[*byte]).unwrap());
            rest.chunks(70_001).for_each(|chunk| peer.write_all(chunk).unwrap());
            (peer, long)
        });
        assert_eq!(receive(&mut stream).unwrap(), b"one");
        assert_eq!(receive(&mut stream).unwrap(), b"");
        assert_eq!(receive(&mut stream).unwrap(), b"two");
        let got = receive(&mut stream).unwrap();
        let (peer, long) = sender.join().unwrap();
        assert_eq!(got, long);
        drop(peer);
        assert!(matches!(receive(&mut stream), Err(Error::EndOfStream)));
    }

    #[test]
    fn what_is_sent_is_framed() {
        let (mut stream, mut peer) = pair();
        for len in [0, 5, JOINED, JOINED + 1, 1 << 20] {
            let body = vec![7; len];
            let reader = std::thread::spawn(move || {
                let mut got = vec![0; len + 4];
                peer.read_exact(&mut got).unwrap();
                (peer, got)
            });
            stream.send(&body, &mut || false).unwrap();
            let got;
            (peer, got) = reader.join().unwrap();
            assert_eq!(got[..4], (len as i32).to_be_bytes());
            assert_eq!(got[4..], body);
        }
    }

    #[test]
    fn an_end_within_a_message_is_an_error() {
        for beginning in [&b"\0\0"[..], b"\0\0\0\x05abc", b"\xff\xff\xff\xff\0\0"] {
            let (mut stream, mut peer) = pair();
            peer.write_all(beginning).unwrap();
            drop(peer);
            assert!(matches!(receive(&mut stream), Err(Error::CutOff)));
        }
    }

    #[test]
    fn a_length_out_of_this_world_is_an_error_and_costs_no_memory() {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"\xff\xff\xff\xfe").unwrap();
        assert!(matches!(receive(&mut stream), Err(Error::BadLength)));
        let (mut stream, mut peer) = pair();
        let long = (isize::MAX as u64 >> 3).to_be_bytes();
        peer.write_all(&[&b"\xff\xff\xff\xff"[..], &long, b"...."].concat()).unwrap();
        drop(peer);
        assert!(matches!(receive(&mut stream), Err(Error::CutOff)));
        assert!(stream.inbox.capacity() <= 2 * STEP);
    }

    #[test]
    fn a_peer_that_is_gone_is_noticed_by_sending() {
        let (mut stream, peer) = pair();
        drop(peer);
        let error = stream.send(b"hello", &mut || false).unwrap_err();
        assert!(matches!(error, Error::Os { source, .. } if source.kind() == io::ErrorKind::BrokenPipe));
    }
}
