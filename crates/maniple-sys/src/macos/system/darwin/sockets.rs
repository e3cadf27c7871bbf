//! Local sockets.
//!
//! From bsd/kern/uipc_usrreq.c: bytes go directly into the receive buffer of the other end, and the room of the sender
//! (`sb_hiwat`) shrinks by what is unreceived there (`uipc_send`); `fstat` returns as block size the sum of both
//! (`uipc_sense`). `proc_pidfdinfo` returns the shrunk room.

use crate::BorrowedHandle;
use std::io;

/// The greatest length of a frame that is sent as a whole or not at all.
pub const LONGEST_FRAME: usize = 64 * 1024;
/// The room of a socket for frames: several of the longest. (The default is 8 KiB: `PIPSIZ`.)
const ROOM: i32 = 256 * 1024;
/// `PROC_PIDFDSOCKETINFO`.
const SOCKET_INFO: i32 = 3;
/// Bytes of `struct socket_fdinfo`, and the place of `soi_snd.sbi_hiwat` in it (bsd/sys/proc_info.h).
const INFO: usize = 792;
const SEND_ROOM_AT: usize = 24 + 136 + 16 + 12 + 16 + 4 + 24 + 4;

/// Makes writes to a closed end of this socket an error, and not a signal (`setsockopt(2)`: `SO_NOSIGPIPE`).
pub fn silence(socket: BorrowedHandle<'_>) {
    let _ = set(socket, libc::SO_NOSIGPIPE, 1);
}

/// Makes the room of a connection larger than the default.
pub fn widen(socket: BorrowedHandle<'_>) {
    let _ = set(socket, libc::SO_SNDBUF, ROOM).and_then(|()| set(socket, libc::SO_RCVBUF, ROOM));
}

/// Makes a socket accept a frame of at most [`LONGEST_FRAME`] bytes as a whole or not at all. The kernel refuses to
/// send if there is less room than both the message and `SO_SNDLOWAT` (bsd/kern/uipc_socket.c: `sosendcheck`).
pub fn prepare_frames(socket: BorrowedHandle<'_>) -> io::Result<()> {
    set(socket, libc::SO_SNDBUF, ROOM)?;
    set(socket, libc::SO_RCVBUF, ROOM)?;
    set(socket, libc::SO_SNDLOWAT, LONGEST_FRAME as i32)
}

/// Returns true: [`prepare_frames`] makes the kernel refuse a frame that has no room.
pub fn has_room(_socket: BorrowedHandle<'_>, _len: usize) -> bool {
    true
}

/// Returns the bytes that this end has sent and the other end has not received.
pub fn unread_there(socket: BorrowedHandle<'_>) -> io::Result<u64> {
    let whole = rustix::fs::fstat(socket)?.st_blksize as u64;
    let mut info = [0u32; INFO / 4];
    // SAFETY: there is as much room as the call receives as its size, which outlives the call.
    let got = unsafe {
        libc::proc_pidfdinfo(libc::getpid(), socket.as_raw(), SOCKET_INFO, info.as_mut_ptr().cast(), INFO as i32)
    };
    if got != INFO as i32 {
        return Err(io::Error::last_os_error());
    }
    let left = u64::from(info[SEND_ROOM_AT / 4]);
    Ok(whole.saturating_sub(left))
}

/// Returns the process at the other end (`LOCAL_PEERPID`, sys/un.h).
pub fn peer_process(socket: BorrowedHandle<'_>) -> Option<i32> {
    /// `SOL_LOCAL`.
    const LOCAL: i32 = 0;
    let mut pid = 0;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `pid`.
    let done =
        unsafe { libc::getsockopt(socket.as_raw(), LOCAL, libc::LOCAL_PEERPID, (&raw mut pid).cast(), &raw mut size) };
    (done == 0 && pid > 0).then_some(pid)
}

fn set(socket: BorrowedHandle<'_>, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to a value of the stated size, which outlives the call.
    let done = unsafe {
        let size = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw(), libc::SOL_SOCKET, option, (&raw const value).cast(), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
