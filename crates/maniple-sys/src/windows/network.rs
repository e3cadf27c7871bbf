//! Sockets of the network: what all calls that wait or do not wait need of them.
#![allow(unsafe_code)]

use crate::BorrowedHandle;
use crate::handle::known;
use std::io;
use std::sync::Once;
use windows_sys::Win32::Networking::WinSock;

/// Starts the system's network library, and returns whether a number is a socket's.
pub(super) fn is_network(number: isize) -> bool {
    if known::of(number).is_some_and(|known| known.is_socket()) {
        return true;
    }
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: all zeros is a valid value of the type, to which the call writes.
        unsafe {
            let mut told = std::mem::zeroed();
            WinSock::WSAStartup(0x0202, &mut told);
        }
    });
    let (mut kind, mut len) = (0i32, 4);
    // SAFETY: writes at most `len` bytes to `kind`.
    let failed = unsafe {
        let room = (&raw mut kind).cast();
        WinSock::getsockopt(number as usize, WinSock::SOL_SOCKET, WinSock::SO_TYPE, room, &mut len)
    };
    failed == 0
}

fn network_call(done: i32) -> io::Result<Option<usize>> {
    if done >= 0 {
        return Ok(Some(done as usize));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error if matches!(error.kind(), io::ErrorKind::ConnectionAborted) => Err(io::ErrorKind::BrokenPipe.into()),
        error => Err(error),
    }
}

/// Makes the calls on a socket return at once: a wait is a call of its own.
fn without_waiting(socket: BorrowedHandle<'_>) {
    let mut on = 1;
    // SAFETY: reads `on`.
    unsafe { WinSock::ioctlsocket(socket.as_raw() as usize, WinSock::FIONBIO, &mut on) };
}

fn receive_with(socket: BorrowedHandle<'_>, bytes: &mut [u8], flags: i32) -> io::Result<Option<usize>> {
    without_waiting(socket);
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: writes at most `len` bytes to `bytes`.
    network_call(unsafe { WinSock::recv(socket.as_raw() as usize, bytes.as_mut_ptr(), len, flags) })
}

/// Receives without waiting.
pub(super) fn receive(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    receive_with(socket, bytes, 0)
}

/// As [`receive`]; the bytes stay.
pub(super) fn peek(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    receive_with(socket, bytes, WinSock::MSG_PEEK)
}

/// Sends without waiting.
pub(super) fn transmit(socket: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<Option<usize>> {
    without_waiting(socket);
    let len = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: reads at most `len` bytes of `bytes`.
    network_call(unsafe { WinSock::send(socket.as_raw() as usize, bytes.as_ptr(), len, 0) })
}
