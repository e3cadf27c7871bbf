//! Packets over a stream, for a system whose local sockets have none.
//!
//! ```text
//! length: u32 · number of handles: u32 · bytes        the handles are sent with the first byte
//! ```
//! A frame is sent as a whole, if there is room for all of it. In one process the threads that use a socket take turns;
//! a fork waits for them. Several processes may use an end only one after the other: their parts of frames could mix.
//!
//! An end is recognised by its `SO_RCVLOWAT`, which is the length of the head: no process of another package sets that.
#![allow(unsafe_code)]

use super::ready::{self, Interest};
use super::rights;
use super::system::sockets;
use crate::atfork::making;
use crate::own::File;
use crate::unix::bytes::{AT_ONCE, hang_up};
use crate::unix::numbers;
use crate::{BorrowedHandle, OwnedHandle};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::{self, IoSlice};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const HEAD: usize = 8;

/// What a receive has lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Its length, or that of `bytes` if that is less; 0: the other end is gone.
    pub len: usize,
    pub is_cut: bool,
}

/// Makes a connected socket an end for packets.
pub(super) fn prepare(socket: BorrowedHandle<'_>) -> io::Result<()> {
    sockets::prepare_frames(socket)?;
    rustix::io::ioctl_fionbio(socket, true)?;
    let value = HEAD as i32;
    // SAFETY: the pointer is to a value of the stated size, which outlives the call.
    let done = unsafe {
        let size = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const value).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns whether a socket is an end for packets.
pub(super) fn are_on(socket: BorrowedHandle<'_>) -> bool {
    let mut value = 0i32;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `value`.
    let done = unsafe {
        libc::getsockopt(socket.as_raw(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw mut value).cast(), &raw mut size)
    };
    done == 0 && value == HEAD as i32
}

/// The turns of threads, by the socket's file. Two sockets may share one.
static SENDS: [Mutex<()>; 32] = [const { Mutex::new(()) }; 32];
static RECEIVES: [Mutex<()>; 32] = [const { Mutex::new(()) }; 32];

fn in_turn<R>(turns: &'static [Mutex<()>; 32], socket: BorrowedHandle<'_>, act: impl FnOnce() -> R) -> R {
    let (_, inode) = File::of(socket).map_or((0, 0), File::numbers);
    making(|| {
        let _turn = turns[inode as usize % turns.len()].lock().unwrap_or_else(PoisonError::into_inner);
        act()
    })
}

/// Sends a packet, if there is room for it. Returns false if there is none.
pub(super) fn send(socket: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<bool> {
    let whole = HEAD + bytes.len();
    if whole > sockets::LONGEST_FRAME {
        return Err(Errno::MSGSIZE.into());
    }
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(bytes.len() as u32).to_ne_bytes());
    head[4..].copy_from_slice(&(handles.len() as u32).to_ne_bytes());
    in_turn(&SENDS, socket, || {
        if !sockets::has_room(socket, whole) {
            // A socket whose other end is gone is full as well.
            return closed(socket).map(|()| false);
        }
        let sent = loop {
            match rights::send(socket, &[IoSlice::new(&head), IoSlice::new(bytes)], handles, AT_ONCE) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                other => break other?,
            }
        };
        // The kernel accepts all or nothing, as far as `sockets` can ensure that. What has begun is completed.
        let frame = [&head[..], bytes].concat();
        let mut rest = &frame[sent..];
        while !rest.is_empty() {
            match rights::send(socket, &[IoSlice::new(rest)], &[], AT_ONCE) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait(socket, Interest::room(socket))? {
                        return Err(io::ErrorKind::BrokenPipe.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    })
}

/// Returns the error of a write to a socket whose other end is gone.
fn closed(socket: BorrowedHandle<'_>) -> io::Result<()> {
    if is_hung_up(socket) { Err(Errno::PIPE.into()) } else { Ok(()) }
}

/// Returns whether the other end of a connection is gone.
pub(super) fn is_hung_up(socket: BorrowedHandle<'_>) -> bool {
    use rustix::event::{PollFd, Timespec, poll};
    // XNU looks at nothing if no event is asked for (bsd/kern/sys_generic.c: `poll_nocancel`).
    let mut look = [PollFd::from_borrowed_fd(socket.into(), PollFlags::HUP | PollFlags::IN)];
    matches!(poll(&mut look, Some(&Timespec::default())), Ok(1)) && look[0].revents().contains(PollFlags::HUP)
}

/// Waits for the other end in the middle of a frame. The kernel takes and returns frames as a whole, so this is for
/// damage: a process that waited for longer could not fork meanwhile. False: nothing has happened for long, and the
/// connection is given up.
fn wait(socket: BorrowedHandle<'_>, interest: Interest<'_>) -> io::Result<bool> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let until = Instant::now() + PATIENCE;
    let mut interest = [interest];
    while ready::wait(&mut interest, Some(until.saturating_duration_since(Instant::now())))? == 0 {
        if Instant::now() >= until {
            hang_up(socket);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Receives the next packet into the start of `bytes`, without waiting, and appends its handles; without a list they
/// are closed. `None`: there is none.
///
/// # Errors
/// There is no number left for the handles: the packet stays.
pub(super) fn receive(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<Packet>> {
    in_turn(&RECEIVES, socket, || {
        let mut unwanted = Vec::new();
        let handles = match handles {
            Some(handles) => {
                if numbers::are_scarce() {
                    check_numbers(socket)?;
                }
                handles
            }
            None => &mut unwanted,
        };
        let (mut head, before) = ([0; HEAD], handles.len());
        let Some(first) = rights::receive_now(socket, &mut head, handles)? else { return Ok(None) };
        if first.bytes == 0 || !complete(socket, &mut head[first.bytes..])? {
            handles.truncate(before);
            return Ok(Some(Packet { len: 0, is_cut: false }));
        }
        let (len, number) = read_head(&head);
        let taken = len.min(bytes.len());
        // If the sender ends within a frame, the packet does not arrive.
        if !complete(socket, &mut bytes[..taken])? || !skip(socket, len - taken)? {
            handles.truncate(before);
            return Ok(Some(Packet { len: 0, is_cut: false }));
        }
        Ok(Some(Packet { len: taken, is_cut: first.is_cut || handles.len() - before < number }))
    })
}

fn read_head(head: &[u8; HEAD]) -> (usize, usize) {
    let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes)) as usize;
    (number(0).min(sockets::LONGEST_FRAME), number(4))
}

/// Fills all of `bytes`, which belong to a frame that has begun. False: the sender has ended.
fn complete(socket: BorrowedHandle<'_>, mut bytes: &mut [u8]) -> io::Result<bool> {
    while !bytes.is_empty() {
        match rustix::net::recv(socket, &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Ok(false),
            Ok((_, got)) => bytes = &mut bytes[got..],
            Err(Errno::AGAIN) if !wait(socket, Interest::new(socket))? => return Ok(false),
            Err(Errno::AGAIN) => {}
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn skip(socket: BorrowedHandle<'_>, len: usize) -> io::Result<bool> {
    if len == 0 { Ok(true) } else { complete(socket, &mut vec![0; len]) }
}

/// Returns an error if there are no numbers for the handles of the next packet.
fn check_numbers(socket: BorrowedHandle<'_>) -> io::Result<()> {
    let mut head = [0; HEAD];
    if look(socket, &mut head)? == Some(HEAD) {
        let numbers = (0..read_head(&head).1).map(|_| rustix::io::fcntl_dupfd_cloexec(socket, 3).ok());
        if numbers.collect::<Option<Vec<_>>>().is_none() {
            return Err(Errno::MFILE.into());
        }
    }
    Ok(())
}

/// Copies the start of what can be received, without removing it.
fn look(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(socket, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, got)) => return Ok(Some(got)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Copies the start of the next packet, which stays, and returns the number of bytes. `None`: there is none.
pub(super) fn peek(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    let mut frame = vec![0; HEAD + bytes.len()];
    let Some(got) = look(socket, &mut frame)? else { return Ok(None) };
    if got < HEAD {
        return Ok(Some(0));
    }
    let mut head = [0; HEAD];
    head.copy_from_slice(&frame[..HEAD]);
    let len = read_head(&head).0.min(got - HEAD).min(bytes.len());
    bytes[..len].copy_from_slice(&frame[HEAD..HEAD + len]);
    Ok(Some(len))
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;
    use crate::AsHandle;

    #[test]
    fn packets_of_several_threads_do_not_mix() {
        let (here, there) = stream::packet_pair().unwrap();
        const EACH: usize = 300;
        std::thread::scope(|scope| {
            for thread in 0..3u8 {
                let here = here.as_handle();
                scope.spawn(move || {
                    for number in 0..EACH {
                        let bytes = vec![thread; 1 + number * 37 % 9000];
                        while !send(here, &bytes, &[]).unwrap() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..EACH * 3 / 2 {
                        let mut bytes = vec![9; 10_000];
                        let packet = loop {
                            match receive(there.as_handle(), &mut bytes, None).unwrap() {
                                Some(packet) => break packet,
                                None => std::thread::yield_now(),
                            }
                        };
                        assert!(packet.len > 0 && bytes[..packet.len].iter().all(|&byte| byte == bytes[0]));
                        assert!(bytes[packet.len..].iter().all(|&byte| byte == 9));
                    }
                });
            }
        });
    }

    #[test]
    fn a_packet_whose_sender_ends_within_it_does_not_arrive() {
        for begun in 1..HEAD + 5 {
            let (here, there) = stream::packet_pair().unwrap();
            let frame = [5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5];
            stream::write_all(here.as_handle(), &frame[..begun]).unwrap();
            drop(here);
            let end = receive(there.as_handle(), &mut [0; 10], None).unwrap();
            assert_eq!(end, Some(Packet { len: 0, is_cut: false }));
        }
    }

    #[test]
    fn a_packet_that_is_longer_than_its_room_is_cut_and_the_next_one_is_whole() {
        let (here, there) = stream::packet_pair().unwrap();
        assert!(send(here.as_handle(), b"longer", &[]).unwrap() && send(here.as_handle(), b"next", &[]).unwrap());
        let mut bytes = [0; 4];
        assert_eq!(receive(there.as_handle(), &mut bytes, None).unwrap().unwrap().len, 4);
        assert_eq!(&bytes, b"long");
        assert_eq!(peek(there.as_handle(), &mut bytes[..2]).unwrap(), Some(2));
        assert_eq!(receive(there.as_handle(), &mut bytes, None).unwrap().unwrap().len, 4);
        assert_eq!(&bytes, b"next");
        let long = vec![0; sockets::LONGEST_FRAME];
        assert_eq!(send(here.as_handle(), &long, &[]).unwrap_err().raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));
    }

    #[test]
    fn a_stream_is_not_for_packets() {
        let ((packets, _b), (stream, _d)) = (stream::packet_pair().unwrap(), stream::pair().unwrap());
        assert!(are_on(packets.as_handle()) && !are_on(stream.as_handle()));
    }
}
