//! The place of a listener, by its name: clients put handles on their lines there.

use super::shared::{Line, PREFIX, ROOM};
use super::{Done, End};
use crate::handle::known::{self, Known};
use crate::windows::nt::Closing;
use crate::windows::pipe;
use crate::{AsHandle, OwnedHandle};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Creates a listener: a line whose second end this process keeps open as well.
pub fn listen(name: &str, backlog: u32) -> io::Result<OwnedHandle> {
    let (a, b) = pipe::ends(&format!("{PREFIX}{name}"), true).map_err(|error| match error.kind() {
        // Another listener has the name.
        io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy => io::ErrorKind::AddrInUse.into(),
        _ => error,
    })?;
    let line = Arc::new(Line::create(name).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => io::ErrorKind::AddrInUse.into(),
        _ => error,
    })?);
    line.shared().for_packets.store(1, Relaxed);
    line.shared().backlog.store(backlog.max(1), Relaxed);
    let end = End { keeps: Some(Arc::new(Closing::new(b))), ..End::new(line, 0) };
    known::note(a.as_raw(), Known::Line(Arc::new(end)));
    Ok(a)
}

/// A client's way to a listener.
#[derive(Debug)]
pub struct Way(End);

/// Opens the way to the listener of a name (`ConnectionRefused`: there is none).
pub fn find(name: &str) -> io::Result<Way> {
    let line = Line::open(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::ErrorKind::ConnectionRefused.into(),
        _ => error,
    })?;
    Ok(Way(End { line: Arc::new(line), side: 1, keeps: None }))
}

impl Way {
    /// The event that says that a client was accepted.
    pub fn event(&self) -> isize {
        self.0.events().1
    }

    /// Passes the listener an end of a line. False: too many clients wait.
    pub fn give(&self, handle: &OwnedHandle) -> io::Result<bool> {
        // The listener reads end 0; handles go to its process.
        let end = &self.0;
        let is_full = end.line.locked(|shared| {
            let waiting = shared.ways[1].content.load(Relaxed);
            let is_full = waiting >= u64::from(shared.backlog.load(Relaxed));
            // The room event says when a client was accepted.
            shared.ways[1].wanted.store(if is_full { ROOM } else { 0 }, Relaxed);
            end.line.tell(shared, false);
            is_full
        });
        if is_full {
            return Ok(false);
        }
        end.write_to(handle)
    }
}

impl End {
    /// As [`End::write`], without a look at the pipe, of which a client has no end.
    fn write_to(&self, handle: &OwnedHandle) -> io::Result<bool> {
        let written = self.write(-1, &[IoSlice::new(b"c")], &[handle.as_handle()], true)?;
        Ok(written != Done::Nothing)
    }
}
