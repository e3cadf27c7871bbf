//! Bytes over a pipe or a socket, and handles with them over a local socket.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io::{self, IoSlice};

pub use crate::terms::{Kind, Received};

/// The greatest number of handles of a message.
pub const MOST_HANDLES: usize = 253;

/// Returns `Other`.
pub fn kind(_handle: BorrowedHandle<'_>) -> Kind {
    Kind::Other
}

/// Returns false.
pub fn is_packets(_socket: BorrowedHandle<'_>) -> bool {
    false
}

/// Returns the error "not supported".
pub fn set_blocking(_handle: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Returns `None`.
pub fn companion(_handle: BorrowedHandle<'_>) -> Option<OwnedHandle> {
    None
}

/// Does nothing.
pub fn recognize(_number: RawHandle) {}

/// Returns the error "not supported".
pub fn shut(_handle: BorrowedHandle<'_>, _incoming: bool) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn pipe() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_to_end(_handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read(_handle: BorrowedHandle<'_>, _bytes: &mut Vec<u8>, _len: usize) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_into(_handle: BorrowedHandle<'_>, _bytes: &mut [u8]) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write(_handle: BorrowedHandle<'_>, _parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write_all(_handle: BorrowedHandle<'_>, _bytes: &[u8]) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write_now(
    _socket: BorrowedHandle<'_>,
    _parts: &[IoSlice<'_>],
    _handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write_with(_handle: BorrowedHandle<'_>, _bytes: &[u8], _handles: &[BorrowedHandle<'_>]) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn write_socket(_handle: BorrowedHandle<'_>, _parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns false: no pipe exists.
pub fn is_pipe(_handle: BorrowedHandle<'_>) -> bool {
    false
}

/// Returns the error "not supported".
pub fn read_socket(_handle: BorrowedHandle<'_>, _bytes: &mut [u8]) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_with(_handle: BorrowedHandle<'_>, _bytes: &mut [u8], _handles: &mut Vec<OwnedHandle>) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_available(_handle: BorrowedHandle<'_>, _bytes: &mut [u8]) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn read_now(
    _handle: BorrowedHandle<'_>,
    _bytes: &mut [u8],
    _handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Returns false: no handle was lost.
pub fn take_cut() -> bool {
    false
}

/// Returns the error "not supported".
pub fn packet_pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn send_packet(_handle: BorrowedHandle<'_>, _bytes: &[u8], _handles: &[BorrowedHandle<'_>]) -> io::Result<bool> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn peek_packet(_handle: BorrowedHandle<'_>, _bytes: &mut [u8]) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn receive(_socket: BorrowedHandle<'_>, _into: &mut Vec<u8>) -> io::Result<Received> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn send(_socket: BorrowedHandle<'_>, _bytes: &[u8], _more: bool) -> io::Result<usize> {
    Err(unsupported())
}

/// Does nothing: no connection exists.
pub fn hang_up(_socket: BorrowedHandle<'_>) {}

/// Returns the error "not supported".
pub fn mark(_handle: BorrowedHandle<'_>) -> io::Result<()> {
    Err(unsupported())
}

/// Returns false: no end is marked.
pub fn is_marked(_handle: BorrowedHandle<'_>) -> bool {
    false
}

/// Returns false: no end is marked.
pub fn is_peer_marked(_handle: BorrowedHandle<'_>) -> bool {
    false
}
