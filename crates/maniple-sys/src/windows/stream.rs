//! Bytes over a pipe, a line or a connection of the network, and handles with them over a line.
#![allow(unsafe_code)]

use super::line::{self, Done, End};
use super::ready::{self, Interest, Object};
use super::{network, nt, pipe, unsupported};
use crate::handle::known::{self, Known};
use crate::whole;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use windows_sys::Win32::Networking::WinSock;
use windows_sys::Win32::Storage::FileSystem::{ReadFile, WriteFile};
use windows_sys::Win32::System::IO::{GetOverlappedResult, OVERLAPPED};

pub use crate::terms::{Kind, Received};

/// The greatest number of handles of a message.
pub const MOST_HANDLES: usize = line::MOST;

/// Returns the kind of object that a handle leads to.
pub fn kind(handle: BorrowedHandle<'_>) -> Kind {
    match ready::object(handle) {
        Object::Line(_) => Kind::Local,
        Object::Network => Kind::Remote,
        _ => Kind::Other,
    }
}

/// Returns whether it is a line for packets.
pub fn is_packets(handle: BorrowedHandle<'_>) -> bool {
    line::of(handle).is_some_and(|end| end.is_for_packets())
}

/// Returns whether it is an end of a pipe for bytes.
pub fn is_pipe(handle: BorrowedHandle<'_>) -> bool {
    matches!(ready::object(handle), Object::Pipe)
}

/// Returns the section of a line, which no process may have open while an end travels.
pub fn companion(handle: BorrowedHandle<'_>) -> Option<OwnedHandle> {
    line::section_of(handle)
}

/// Learns whether a number that other code has opened is a socket's: sockets are closed by a call of their own. Opens the
/// shared part of a line.
pub fn recognize(number: RawHandle) {
    // SAFETY: the handle is used only during the call, which finds nothing for a number that is not open.
    if line::of(unsafe { BorrowedHandle::borrow_raw(number) }).is_some() {
        return;
    }
    if matches!(known::of(number), None | Some(Known::Socket)) {
        // An entry may be left from a socket that other code has closed.
        drop(known::forget(number));
        if network::is_network(number) {
            known::note(number, Known::Socket);
        }
    }
}

/// Does nothing: every call says itself whether it waits.
pub fn set_blocking(_handle: BorrowedHandle<'_>) -> io::Result<()> {
    Ok(())
}

fn line_of(handle: BorrowedHandle<'_>) -> io::Result<Arc<End>> {
    line::of(handle).ok_or_else(|| match pipe::is_closed(handle.as_raw()) {
        // Of a line whose other end was closed before this process used this end, its name is not always known.
        true => io::ErrorKind::BrokenPipe.into(),
        false => unsupported("handles and packets over anything but a local connection"),
    })
}

/// Closes one direction of a connection, in all processes that hold it: the direction to it (`incoming`), or from it.
pub fn shut(handle: BorrowedHandle<'_>, incoming: bool) -> io::Result<()> {
    match ready::object(handle) {
        Object::Line(end) => end.shut(incoming),
        Object::Network => {
            let how = if incoming { WinSock::SD_RECEIVE } else { WinSock::SD_SEND };
            // SAFETY: numbers only.
            if unsafe { WinSock::shutdown(handle.as_raw() as usize, how) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        _ => return Err(unsupported("closing one direction of a pipe")),
    }
    Ok(())
}

/// Creates a connection for both directions and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    line::pair(false)
}

/// Creates a pipe and returns the end to read from and the end to write to.
pub fn pipe() -> io::Result<(OwnedHandle, OwnedHandle)> {
    pipe::ends(&format!("maniple-p-{}", nt::random_name()?), false)
}

/// Reads until the other end is closed.
pub fn read_to_end(handle: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    whole::read_to_end(|bytes| read(handle, bytes, 4096))
}

/// Appends at most `len` bytes to `bytes` and returns their number; 0 at the end of the stream.
pub fn read(handle: BorrowedHandle<'_>, bytes: &mut Vec<u8>, len: usize) -> io::Result<usize> {
    let start = bytes.len();
    bytes.resize(start + len, 0);
    let read = read_into(handle, &mut bytes[start..]);
    bytes.truncate(start + *read.as_ref().unwrap_or(&0));
    read
}

/// Fills the start of `bytes`. `Interrupted`, from time to time while there is nothing: look at what interrupts, and
/// call again.
pub fn read_into(handle: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    read_waiting(handle, bytes, None)
}

fn read_waiting(
    handle: BorrowedHandle<'_>,
    bytes: &mut [u8],
    mut handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<usize> {
    loop {
        if let Some(got) = read_at_once(handle, bytes, handles.as_deref_mut())? {
            return Ok(got);
        }
        if !ready::wait_for(Interest::new(handle))? {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

fn read_at_once(
    handle: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<usize>> {
    match ready::object(handle) {
        Object::Line(end) => {
            let (done, is_whole) = end.read(handle.as_raw(), bytes, handles, false)?;
            if !is_whole {
                CUT.set(true);
            }
            Ok(match done {
                Done::Bytes(got) => Some(got),
                Done::Nothing => None,
            })
        }
        Object::Network => network::receive(handle, bytes),
        Object::Pipe => match pipe::peek(handle.as_raw()) {
            Ok(0) if !bytes.is_empty() => Ok(None),
            Ok(available) => {
                let len = bytes.len().min(available);
                transfer(handle.as_raw(), Bytes::Into(&mut bytes[..len])).map(Some)
            }
            Err(error) if pipe::is_end(&error) => Ok(Some(0)),
            Err(error) => Err(error),
        },
        Object::File => transfer(handle.as_raw(), Bytes::Into(bytes)).map(Some),
        Object::Other => Err(io::Error::new(io::ErrorKind::InvalidInput, "the handle leads to no stream")),
    }
}

enum Bytes<'a> {
    Into(&'a mut [u8]),
    From(&'a [u8]),
}

/// One read from a pipe or file, or one write to it, until it has ended.
fn transfer(number: isize, bytes: Bytes<'_>) -> io::Result<usize> {
    const IO_INCOMPLETE: i32 = 996;
    const IO_PENDING: i32 = 997;
    const END_OF_FILE: i32 = 38;
    let event = nt::event(None)?;
    // SAFETY: all zeros is a valid OVERLAPPED.
    let mut overlapped = unsafe { std::mem::zeroed::<OVERLAPPED>() };
    overlapped.hEvent = nt::raw(event.as_raw());
    let piece = |len: usize| u32::try_from(len).unwrap_or(1 << 30);
    let (mut got, state, none) = (0, &raw mut overlapped, std::ptr::null_mut());
    let reads = matches!(bytes, Bytes::Into(_));
    // SAFETY: the bytes and the structure outlive the operation, which has ended when the last call returns.
    let done = unsafe {
        let begun = match bytes {
            Bytes::Into(bytes) => ReadFile(nt::raw(number), bytes.as_mut_ptr(), piece(bytes.len()), none, state),
            Bytes::From(bytes) => WriteFile(nt::raw(number), bytes.as_ptr(), piece(bytes.len()), none, state),
        };
        if begun == 0 && io::Error::last_os_error().raw_os_error() != Some(IO_PENDING) {
            Err(io::Error::last_os_error())
        } else {
            // The event says when it has ended; the call that waits itself was seen to hang under Wine.
            while !nt::wait_one(event.as_raw(), None).unwrap_or(true) {}
            loop {
                match nt::check(GetOverlappedResult(nt::raw(number), state, &mut got, 0)) {
                    Err(error) if error.raw_os_error() == Some(IO_INCOMPLETE) => std::thread::yield_now(),
                    done => break done,
                }
            }
        }
    };
    match done {
        Ok(()) => Ok(got as usize),
        Err(error) if pipe::is_end(&error) || error.raw_os_error() == Some(END_OF_FILE) => {
            if reads {
                Ok(0)
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        Err(error) => Err(error),
    }
}

/// Reads like [`read_into`] without waiting; `None` if nothing is available. `handle` may be any stream.
pub fn read_available(handle: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    read_at_once(handle, bytes, None)
}

/// Writes the start of the parts.
pub fn write(handle: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    write_waiting(handle, parts, &[])
}

fn write_waiting(
    handle: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<usize> {
    loop {
        if let Some(sent) = write_at_once(handle, parts, handles)? {
            return Ok(sent);
        }
        if !ready::wait_for(Interest::room(handle))? {
            return Err(io::ErrorKind::Interrupted.into());
        }
    }
}

fn write_at_once(
    handle: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    let object = ready::object(handle);
    if !handles.is_empty() {
        line_of(handle)?;
    }
    let first = || parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| &part[..]);
    match object {
        Object::Line(end) => Ok(match end.write(handle.as_raw(), parts, handles, false)? {
            Done::Bytes(sent) => Some(sent),
            Done::Nothing => None,
        }),
        Object::Network => network::transmit(handle, first()),
        Object::Pipe | Object::File => transfer(handle.as_raw(), Bytes::From(first())).map(Some),
        Object::Other => Err(io::Error::new(io::ErrorKind::InvalidInput, "the handle leads to no stream")),
    }
}

/// As [`write()`], to a connection.
pub fn write_socket(socket: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    if kind(socket) == Kind::Other { Err(crate::own::not_there()) } else { write(socket, parts) }
}

/// As [`read_into`], from a connection.
pub fn read_socket(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    if kind(socket) == Kind::Other { Err(crate::own::not_there()) } else { read_into(socket, bytes) }
}

/// Writes all of `bytes`.
pub fn write_all(handle: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<()> {
    whole::write_all(bytes, |bytes| write(handle, &[IoSlice::new(bytes)]))
}

/// Writes as much of the parts as there is room for, the handles with the first byte. `None`: there is no room.
pub fn write_now(
    socket: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    if kind(socket) == Kind::Other {
        return Err(unsupported("writing to a pipe without waiting"));
    }
    write_at_once(socket, parts, handles)
}

/// Writes the start of `bytes`, the handles with its first byte.
pub fn write_with(handle: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<usize> {
    write_waiting(handle, &[IoSlice::new(bytes)], handles)
}

/// Fills the start of `bytes`, and appends the handles that came with them.
pub fn read_with(handle: BorrowedHandle<'_>, bytes: &mut [u8], handles: &mut Vec<OwnedHandle>) -> io::Result<usize> {
    read_waiting(handle, bytes, Some(handles))
}

/// Reads like [`read_with`] without waiting; `None` if nothing is available. Returns an error unless `handle` is a
/// connection.
pub fn read_now(
    handle: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<usize>> {
    if kind(handle) == Kind::Other {
        return Err(crate::own::not_there());
    }
    read_at_once(handle, bytes, handles)
}

thread_local! {
    static CUT: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread has lost received handles since its last call: the process that had them has ended, or
/// this process had no number for them.
pub fn take_cut() -> bool {
    CUT.replace(false)
}

/// Creates a connection for *packets* and returns its two ends. A packet consists of bytes and handles, and arrives as
/// a whole or not at all.
pub fn packet_pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    line::pair(true)
}

/// Sends a packet if there is room for it, and returns whether it was sent.
pub fn send_packet(handle: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<bool> {
    let sent = line_of(handle)?.write(handle.as_raw(), &[IoSlice::new(bytes)], handles, true)?;
    Ok(sent != Done::Nothing)
}

/// Copies the start of the next packet, or of the next data of a stream, without removing it; returns the number of
/// bytes. `None`: there is no packet and no data.
pub fn peek_packet(handle: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    if let Object::Network = ready::object(handle) {
        return network::peek(handle, bytes);
    }
    Ok(match line_of(handle)?.read(handle.as_raw(), bytes, None, true)? {
        (Done::Bytes(got), _) => Some(got),
        (Done::Nothing, _) => None,
    })
}

/// Appends available bytes to `into`, at most its spare capacity. Does not wait.
pub fn receive(socket: BorrowedHandle<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
    let start = into.len();
    into.resize(into.capacity(), 0);
    let got = read_now(socket, &mut into[start..], None);
    into.truncate(start + got.as_ref().ok().copied().flatten().unwrap_or(0));
    Ok(match got? {
        Some(0) => Received::Closed,
        Some(got) => Received::Bytes(got),
        None => Received::Nothing,
    })
}

/// Sends some of `bytes`, waiting until there is room for the first, and returns their number. 0, from time to time
/// while there is no room: look at what interrupts, and call again. `more` has no meaning here.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], _more: bool) -> io::Result<usize> {
    match write_socket(socket, &[IoSlice::new(bytes)]) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        other => other,
    }
}

/// Ends a connection for all holders of this end. A connection that has ended is not affected.
pub fn hang_up(socket: BorrowedHandle<'_>) {
    match ready::object(socket) {
        Object::Line(end) => {
            end.shut(true);
            end.shut(false);
        }
        Object::Network => {
            // SAFETY: numbers only.
            unsafe { WinSock::shutdown(socket.as_raw() as usize, WinSock::SD_BOTH) };
        }
        _ => {}
    }
}

/// Marks an end.
pub fn mark(handle: BorrowedHandle<'_>) -> io::Result<()> {
    line_of(handle)?.mark();
    Ok(())
}

/// Returns whether this end is marked.
pub fn is_marked(handle: BorrowedHandle<'_>) -> bool {
    line::of(handle).is_some_and(|end| end.is_marked())
}

/// Returns whether the other end is marked.
pub fn is_peer_marked(handle: BorrowedHandle<'_>) -> bool {
    line::of(handle).is_some_and(|end| end.is_peer_marked())
}
