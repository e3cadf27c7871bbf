//! Messages over a socket that keeps their boundaries: each arrives complete or not at all, also when a process is
//! killed.
//!
//! Only Rust's pipes use it (`packet_end` says why).
//!
//! A message takes one system call on each side, and processes that share an end cannot mix up their messages. A packet
//! has at most [`MOST`] bytes; a longer message travels in a [`parcel`].

use super::frame::Until;
use super::parcel::{self, Came};
use super::room::{Receivers, Waiting};
use crate::error::{Doing, Error, Result};
pub use crate::wait::AdaptiveSpin;
use maniple_sys::BorrowedHandle;
use maniple_sys::ready::{self, Interest};
use maniple_sys::{OwnedHandle, stream, wire};
use std::io::ErrorKind;

/// The greatest number of bytes of a packet: several packets fit into the system's buffer, and up to this size a system
/// call is faster than shared memory.
pub const MOST: usize = 48 * 1024;

/// Sends a packet, and waits for room. Returns false, and sends nothing, if there was no room before the time limit
/// expired.
///
/// # Errors
/// [`Error::BothSend`] where the other end waits in the same way.
pub fn send(
    socket: BorrowedHandle<'_>,
    bytes: &[u8],
    handles: &[BorrowedHandle<'_>],
    until: Until,
    receivers: Receivers,
) -> Result<bool> {
    let mut waiting = None;
    loop {
        if stream::send_packet(socket, bytes, handles).doing("send a message")? {
            return Ok(true);
        }
        if !waiting.get_or_insert_with(|| Waiting::new(socket, until, receivers)).wait()? {
            return Ok(false);
        }
    }
}

/// Receives the next packet into the start of `bytes`, and what is attached to it. Returns its length, or `None` if the
/// time limit expired. If this process has no number left for handles, the buffers of a parcel, which begins behind the
/// first byte, arrive nevertheless.
pub fn receive(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    came: &mut Vec<Came>,
    until: Until,
    adaptive: &AdaptiveSpin,
) -> Result<Option<usize>> {
    const WHAT: &str = "receive a message";
    loop {
        let mut handles = Vec::new();
        match receive_handles(socket, bytes, &mut handles, until, adaptive) {
            Err(Error::Os { source, .. }) if wire::is_out_of_handles(&source) => {
                let mut begins = [0; 1 + parcel::HEAD];
                let seen = stream::peek_packet(socket, &mut begins).doing(WHAT)?.unwrap_or(0);
                match parcel::receive_aside(socket, bytes, begins.get(1..seen).unwrap_or(&[])) {
                    Err(error) if is_passing(&error) => continue,
                    received => {
                        let (got, buffers) = received.doing(WHAT)?;
                        came.extend(buffers);
                        return Ok(Some(got));
                    }
                }
            }
            Ok(Some(_)) if stream::take_cut() => {
                return Err(wire::out_of_handles()).doing("receive the descriptors of a message, which is lost");
            }
            got => {
                came.extend(handles.into_iter().map(Came::from));
                return got;
            }
        }
    }
}

fn receive_handles(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
    until: Until,
    adaptive: &AdaptiveSpin,
) -> Result<Option<usize>> {
    const WHAT: &str = "receive a message";
    let mut begun = None;
    let mut got = if matches!(until, Until::Now) {
        match awake(|| stream::read_now(socket, bytes, Some(handles))).doing(WHAT)? {
            None => return Ok(None),
            got => got,
        }
    } else {
        let (wait, found) = adaptive.first(socket, bytes, Some(handles));
        begun = Some(wait);
        match found {
            Err(e) if is_passing(&e) => None,
            other => other.doing(WHAT)?,
        }
    };
    while got.is_none() {
        got = match until.left() {
            None => Some(awake(|| stream::read_with(socket, bytes, handles)).doing(WHAT)?),
            Some(left) => {
                let ready = ready::wait(&mut [Interest::new(socket)], Some(left)).doing("wait for a message")?;
                if ready == 0 && left.is_zero() {
                    return Ok(None);
                }
                awake(|| stream::read_now(socket, bytes, Some(handles))).doing(WHAT)?
            }
        };
    }
    if let Some(begun) = begun {
        adaptive.ended(begun);
    }
    match got {
        // No sender sends an empty one.
        Some(0) => Err(Error::EndOfStream),
        got => Ok(got),
    }
}

/// Whether the error says nothing about the messages in the socket. If the other end closed without having received
/// everything, the system reports that once, before it returns what the other end sent.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset)
}

/// Tries again after such an error.
fn awake<T>(mut act: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match act() {
            Err(e) if is_passing(&e) => {}
            other => return other,
        }
    }
}
