//! Waits for any of several handles, and for a kick by another thread.
//!
//! A wait looks at every handle first. If none is ready, it *arms* them: each contributes objects that the system can
//! wait for, which only say that it is time to look again. Up to 64 objects are waited for in one call, more by the
//! system's pool of threads.
//!
//! ```text
//! end of a line      its event, and a read of its pipe, which ends when the other end is closed
//! end of a pipe      a read of no bytes, which ends when there are some or the other end is closed
//! network            an event that the system signals for the socket
//! anything else      the object itself: a process, an event
//! ```
#![allow(unsafe_code)]

use super::interrupt::Interrupt;
use super::line::{self, End};
use super::network;
use super::{nt, pipe};
use crate::own::Own;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};
use windows_sys::Win32::Networking::WinSock;
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_CHAR, FILE_TYPE_DISK, FILE_TYPE_PIPE, GetFileType, ReadFile};
use windows_sys::Win32::System::IO::{CancelIoEx, OVERLAPPED};
use windows_sys::Win32::System::Threading::{RegisterWaitForSingleObject, UnregisterWaitEx, WT_EXECUTEONLYONCE};

/// A handle to wait for, and the result of the last wait.
#[derive(Debug)]
pub struct Interest<'a> {
    handle: BorrowedHandle<'a>,
    for_room: bool,
    is_ready: bool,
}

impl<'a> Interest<'a> {
    /// Creates an interest that is ready when `handle` is readable, at its end, or closed at its other end.
    pub fn new(handle: BorrowedHandle<'a>) -> Self {
        Interest { handle, for_room: false, is_ready: false }
    }

    /// Creates an interest that is ready when `handle` has room for a write, or is closed at its other end.
    pub fn room(handle: BorrowedHandle<'a>) -> Self {
        Interest { handle, for_room: true, is_ready: false }
    }

    /// Returns whether the last wait found it ready.
    pub fn ready(&self) -> bool {
        self.is_ready
    }
}

/// What a handle leads to.
#[derive(Debug)]
pub(super) enum Object {
    Line(Arc<End>),
    Network,
    Pipe,
    /// A file, or a device: it never waits.
    File,
    /// An object that the system can wait for.
    Other,
}

pub(super) fn object(handle: BorrowedHandle<'_>) -> Object {
    if let Some(end) = line::of(handle) {
        return Object::Line(end);
    }
    // SAFETY: numbers only.
    match unsafe { GetFileType(nt::raw(handle.as_raw())) } {
        FILE_TYPE_PIPE if network::is_network(handle.as_raw()) => Object::Network,
        FILE_TYPE_PIPE => Object::Pipe,
        FILE_TYPE_DISK | FILE_TYPE_CHAR => Object::File,
        _ => Object::Other,
    }
}

fn is_ready(interest: &Interest<'_>, object: &Object) -> io::Result<bool> {
    let number = interest.handle.as_raw();
    Ok(match object {
        Object::Line(end) if interest.for_room => end.has_room(number),
        Object::Line(end) => end.is_readable(number),
        Object::Network => {
            let events = if interest.for_room { WinSock::POLLWRNORM } else { WinSock::POLLRDNORM };
            let mut look = WinSock::WSAPOLLFD { fd: number as usize, events, revents: 0 };
            // SAFETY: one entry, which outlives the call.
            match unsafe { WinSock::WSAPoll(&mut look, 1, 0) } {
                -1 => return Err(io::Error::last_os_error()),
                found => found > 0,
            }
        }
        // The system does not tell by an object when a pipe has room: a write to it waits.
        Object::Pipe if interest.for_room => true,
        Object::Pipe => match pipe::peek(number) {
            Ok(available) => available > 0,
            Err(error) if pipe::is_write_only(&error) => nt::is_pipe_closing(number),
            Err(error) => pipe::is_end(&error),
        },
        Object::File => true,
        Object::Other => nt::wait_one(number, Some(Duration::ZERO))?,
    })
}

/// The longest sleep: what is not told by an object (a change of a broken line) is noticed after it.
const SLICE: Duration = Duration::from_millis(500);
/// The longest sleep on a socket whose event another thread may have taken over.
const NETWORK_SLICE: Duration = Duration::from_millis(20);
/// The longest sleep for a pipe that cannot be read in the background.
const PLAIN_PIPE_SLICE: Duration = Duration::from_millis(2);

/// A read in the background that only tells when to look again.
struct Reading {
    number: isize,
    state: ManuallyDrop<Box<(OVERLAPPED, [u8; 1])>>,
    event: ManuallyDrop<OwnedHandle>,
}

impl Reading {
    /// Begins to read `len` (0 or 1) bytes. `None`: it is time to look again.
    fn new(number: isize, len: u32) -> io::Result<Option<Reading>> {
        const IO_PENDING: i32 = 997;
        let event = nt::event(None)?;
        // SAFETY: all zeros is a valid OVERLAPPED.
        let mut state = Box::new((unsafe { std::mem::zeroed::<OVERLAPPED>() }, [0]));
        state.0.hEvent = nt::raw(event.as_raw());
        let (overlapped, room) = (&raw mut state.0, &raw mut state.1);
        // SAFETY: the box outlives the read: the destructor cancels it and waits for its end.
        let done = unsafe { ReadFile(nt::raw(number), room.cast(), len, std::ptr::null_mut(), overlapped) };
        let pends = done == 0 && io::Error::last_os_error().raw_os_error() == Some(IO_PENDING);
        Ok(pends.then(|| Reading { number, state: ManuallyDrop::new(state), event: ManuallyDrop::new(event) }))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        /// The system ends a cancelled read at once, but it does not promise when.
        const LIMIT: Duration = Duration::from_secs(1);
        // SAFETY: the read was begun with this structure, which is still there.
        unsafe { CancelIoEx(nt::raw(self.number), &self.state.0) };
        if nt::wait_one(self.event.as_raw(), Some(LIMIT)).unwrap_or(false) {
            // SAFETY: the read has ended, so the system uses neither any more; both are dropped here only.
            unsafe {
                ManuallyDrop::drop(&mut self.state);
                ManuallyDrop::drop(&mut self.event);
            }
        }
        // Otherwise both stay forever: the system may still write to them.
    }
}

/// The association of a socket with an event.
struct Selected(usize, OwnedHandle);

impl Selected {
    fn new(number: isize, for_room: bool) -> io::Result<Selected> {
        let event = nt::event(None)?;
        let kinds =
            if for_room { WinSock::FD_WRITE | WinSock::FD_CONNECT } else { WinSock::FD_READ | WinSock::FD_ACCEPT };
        // SAFETY: numbers only.
        let failed =
            unsafe { WinSock::WSAEventSelect(number as usize, event.as_raw(), (kinds | WinSock::FD_CLOSE) as i32) };
        if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(Selected(number as usize, event)) }
    }
}

impl Drop for Selected {
    fn drop(&mut self) {
        // SAFETY: numbers only.
        unsafe { WinSock::WSAEventSelect(self.0, 0, 0) };
    }
}

/// What a wait has begun.
#[derive(Default)]
struct Armed {
    readings: Vec<Reading>,
    selected: Vec<Selected>,
    numbers: Vec<isize>,
    longest: Option<Duration>,
}

impl Armed {
    /// Arms a handle. False: it is time to look again.
    fn arm(&mut self, interest: &Interest<'_>, object: &Object) -> io::Result<bool> {
        let number = interest.handle.as_raw();
        match object {
            Object::Line(end) => {
                let (readable, room) = end.events();
                self.numbers.push(if interest.for_room { room } else { readable });
                return self.read(number, 1);
            }
            // Such a handle cannot tell of the other end, except when it is asked.
            Object::Pipe if pipe::peek(number).is_err_and(|error| pipe::is_write_only(&error)) => {
                self.at_most(PLAIN_PIPE_SLICE);
            }
            Object::Pipe if nt::is_synchronous(number) => self.at_most(PLAIN_PIPE_SLICE),
            Object::Pipe => return self.read(number, 0),
            Object::Network => {
                let selected = Selected::new(number, interest.for_room)?;
                self.numbers.push(selected.1.as_raw());
                self.selected.push(selected);
                self.at_most(NETWORK_SLICE);
            }
            Object::File => return Ok(false),
            Object::Other => self.numbers.push(number),
        }
        Ok(true)
    }

    fn at_most(&mut self, time: Duration) {
        self.longest = Some(self.longest.map_or(time, |longest| longest.min(time)));
    }

    fn read(&mut self, number: isize, len: u32) -> io::Result<bool> {
        let Some(reading) = Reading::new(number, len)? else { return Ok(false) };
        self.numbers.push(reading.event.as_raw());
        self.readings.push(reading);
        Ok(true)
    }
}

/// Waits until at least one handle is ready. Returns the number of ready handles; 0 after the timeout, after Ctrl-C, or
/// after half a second, in which the state of a line may have changed without an event.
pub fn wait(handles: &mut [Interest<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let slice_end = Instant::now() + SLICE;
    let end = deadline.map_or(slice_end, |deadline| deadline.min(slice_end));
    let interrupt = Interrupt::new();
    let objects: Vec<_> = handles.iter().map(|interest| object(interest.handle)).collect();
    loop {
        let mut count = 0;
        for (interest, object) in handles.iter_mut().zip(&objects) {
            interest.is_ready = is_ready(interest, object)?;
            count += usize::from(interest.is_ready);
        }
        let now = Instant::now();
        if count > 0 || now >= end || interrupt.has_come() {
            return Ok(count);
        }
        let mut armed = Armed::default();
        let mut is_armed = true;
        for (interest, object) in handles.iter().zip(&objects) {
            is_armed = armed.arm(interest, object)?;
            if !is_armed {
                break;
            }
        }
        if is_armed {
            armed.numbers.extend(interrupt.event());
            let left = end.saturating_duration_since(Instant::now()).min(armed.longest.unwrap_or(SLICE));
            wait_for_any(&armed.numbers, left)?;
        }
    }
}

/// Waits for the handle. False: a moment has passed; call again.
pub fn wait_for(interest: Interest<'_>) -> io::Result<bool> {
    Ok(wait(&mut [interest], None)? > 0)
}

/// Waits until one of these objects is signalled, or the time is up.
pub(super) fn wait_for_any(numbers: &[isize], time: Duration) -> io::Result<()> {
    const MOST: usize = 64;
    match numbers.len() {
        0 => std::thread::sleep(time),
        len if len <= MOST => drop(nt::wait_few(numbers, Some(time))?),
        _ => {
            let event = nt::event(None)?;
            let mut watches = Watches(Vec::with_capacity(numbers.len()));
            for &number in numbers {
                let mut watch = std::ptr::null_mut();
                // SAFETY: the destructor of `watches` ends the waits before the event is closed.
                nt::check(unsafe {
                    RegisterWaitForSingleObject(
                        &mut watch,
                        nt::raw(number),
                        Some(signal),
                        nt::raw(event.as_raw()),
                        nt::milliseconds(None),
                        WT_EXECUTEONLYONCE,
                    )
                })?;
                watches.0.push(watch as isize);
            }
            nt::wait_one(event.as_raw(), Some(time))?;
        }
    }
    Ok(())
}

extern "system" fn signal(event: *mut core::ffi::c_void, _timed_out: bool) {
    nt::set_event(event as isize, true);
}

/// Waits of the system's pool of threads.
struct Watches(Vec<isize>);

impl Drop for Watches {
    fn drop(&mut self) {
        for &watch in &self.0 {
            // SAFETY: the wait was registered and not ended yet; the call returns after its function has.
            unsafe { UnregisterWaitEx(nt::raw(watch), windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE) };
        }
    }
}

/// Wakes a thread out of [`wait`].
#[derive(Debug)]
pub struct Kick(Own);

impl Kick {
    /// Creates a kick that is not ready.
    pub fn new() -> io::Result<Kick> {
        Ok(Kick(Own::new(nt::event(None)?)))
    }

    /// Takes over a kick of another process: it wakes that process's threads, too.
    pub fn from_handle(handle: OwnedHandle) -> Kick {
        Kick(Own::new(handle))
    }

    /// Makes it ready, until the next [`Kick::clear`].
    pub fn kick(&self) {
        nt::set_event(self.0.as_raw(), true);
    }

    /// Makes it not ready again.
    pub fn clear(&self) {
        nt::set_event(self.0.as_raw(), false);
    }
}

crate::as_handle!(impl[] for Kick, |this| this.0.as_handle());
