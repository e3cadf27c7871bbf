//! Bytes over a connected stream socket.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::AsFd;

/// What there was to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The other end sends no more.
    Closed,
    /// Nothing there now.
    Nothing,
    /// A signal handler ran.
    Signal,
}

/// Appends what is there to `into`, at most its spare capacity. Does not wait.
pub fn receive(socket: impl AsFd, into: &mut Vec<u8>) -> io::Result<Received> {
    match rustix::net::recv(socket, spare_capacity(into), RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Ok(Received::Closed),
        Ok((_, n)) => Ok(Received::Bytes(n)),
        Err(Errno::AGAIN) => Ok(Received::Nothing),
        Err(Errno::INTR) => Ok(Received::Signal),
        Err(e) => Err(e.into()),
    }
}

/// Sends some of `bytes`, waiting until there is room for the first; gives how many. 0: a signal handler ran before that. `more`: what
/// follows belongs to them.
pub fn send(socket: impl AsFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    match rustix::net::send(socket, bytes, flags) {
        Ok(n) => Ok(n),
        Err(Errno::INTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}
