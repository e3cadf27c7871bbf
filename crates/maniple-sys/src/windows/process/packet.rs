//! A line that carries whole packets with handles; its calls wait.
#![allow(unsafe_code)]

use super::super::line::{self, Done};
use super::super::ready::{self, Interest};
use crate::{BorrowedHandle, OwnedHandle};
use std::io::{self, IoSlice};

/// The greatest number of handles of a packet.
pub const MOST_HANDLES: usize = line::MOST;

/// Creates a line and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    line::pair(true)
}

/// Sends one packet.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
    let end = line::of(socket).ok_or_else(crate::own::not_there)?;
    while end.write(socket.as_raw(), &[IoSlice::new(bytes)], handles, true)? == Done::Nothing {
        ready::wait_for(Interest::room(socket))?;
    }
    Ok(())
}

/// Receives one packet, and appends its handles to `handles`. Returns its length, or 0 if the other end is gone, and
/// whether all of its handles arrived.
pub fn receive(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
) -> io::Result<(usize, bool)> {
    let end = line::of(socket).ok_or_else(crate::own::not_there)?;
    loop {
        match end.read(socket.as_raw(), bytes, Some(handles), false)? {
            (Done::Bytes(got), is_whole) => return Ok((got, is_whole)),
            (Done::Nothing, _) => drop(ready::wait_for(Interest::new(socket))?),
        }
    }
}
