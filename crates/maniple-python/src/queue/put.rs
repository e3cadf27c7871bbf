//! Puts messages into a log.

use super::pieces::put_pieces;
use crate::deadline::deadline;
use crate::error::Saying as _;
use crate::message::{Bytes, OF_QUEUES, Pickled, dump, exception, waiting};
use maniple_engine::Error;
use maniple_engine::channel::log::{Log, MOST_PARTS, Put, Terms};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::time::Instant;

/// Longer messages are copied without the interpreter lock.
const LONG: usize = 64 * 1024;

/// How long a writer waits for room.
#[derive(Clone, Copy)]
pub(super) enum Wait {
    Not,
    Until(Instant),
    Ever,
}

impl Wait {
    pub(super) fn of(block: bool, timeout: Option<f64>) -> Self {
        match deadline(timeout) {
            _ if !block => Wait::Not,
            Some(then) => Wait::Until(then),
            None => Wait::Ever,
        }
    }
}

/// The result of putting an object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    In,
    /// There was no room, at once or until the time limit.
    Full,
    /// The queue is shut down.
    Closed,
    /// This process has closed the queue.
    Shut,
}

/// Puts in a message; `buffers` are those parts of it that need a pin.
pub(super) fn put_parts(
    py: Python<'_>,
    log: &Log,
    parts: &[&[u8]],
    buffers: &[Bytes],
    counted: bool,
    wait: Wait,
) -> PyResult<Placed> {
    if log.is_limited() {
        return waiting(py, |interrupted| {
            unless_shut(log, put_pieces(log, parts, &mut || interrupted() || log.is_shut()))
        });
    }
    let terms = || Terms { counted, hurried: !matches!(wait, Wait::Ever), before: None };
    let long = parts.iter().map(|p| p.len()).sum::<usize>() > LONG;
    if !long {
        match log.put_on(parts, terms(), None).map_err(exception)? {
            Put::Done => return Ok(Placed::In),
            Put::Full if matches!(wait, Wait::Not) => return Ok(Placed::Full),
            Put::Closed => return Ok(Placed::Closed),
            _ => {}
        }
    }
    let until = if let Wait::Until(then) = wait { Some(then) } else { None };
    let _pins: Vec<_> = buffers.iter().filter_map(|bytes| bytes.pin(py)).collect();
    waiting(py, |interrupted| {
        let mut ends = || interrupted() || log.is_shut();
        loop {
            let late = || until.is_some_and(|until| Instant::now() >= until);
            // A stopped writer may hold the queue's lock without limit.
            match log.put_on(parts, terms(), Some(&mut || late() || ends())) {
                Ok(Put::Done) => return Ok(Placed::In),
                Ok(Put::Full) if matches!(wait, Wait::Not) => return Ok(Placed::Full),
                Ok(Put::Closed) => return Ok(Placed::Closed),
                Ok(_) => {}
                Err(Error::Interrupted) if late() => return Ok(Placed::Full),
                Err(error) => return unless_shut(log, Err(error)),
            }
            match log.wait_for_room(None, until, &mut ends) {
                Ok(true) => {}
                Ok(false) => return Ok(Placed::Full),
                Err(error) => return unless_shut(log, Err(error)),
            }
        }
    })
}

/// The result of a wait that ended because this process has closed the queue, or the result itself.
fn unless_shut(log: &Log, done: Result<Placed, Error>) -> Result<Placed, Error> {
    if matches!(done, Err(Error::Interrupted)) && log.is_shut() { Ok(Placed::Shut) } else { done }
}

pub(super) fn put_pickled(
    py: Python<'_>,
    log: &Log,
    obj: &Bound<'_, PyAny>,
    pickled: Pickled,
    counted: bool,
    wait: Wait,
) -> PyResult<Placed> {
    match pickled {
        Pickled::Apart(..) if log.is_limited() => Err(PyOSError::saying("an object is pickled differently each time")),
        Pickled::Whole(bytes) => put_parts(py, log, &[&bytes], &[], counted, wait),
        Pickled::Apart(stream, buffers) if buffers.len() < MOST_PARTS => {
            let parts: Vec<&[u8]> = std::iter::once(&stream).chain(&buffers).map(|bytes| &**bytes).collect();
            put_parts(py, log, &parts, &buffers, counted, wait)
        }
        Pickled::Apart(..) => match dump(obj, &OF_QUEUES, || usize::MAX)? {
            Pickled::Whole(bytes) => put_parts(py, log, &[&bytes], &[], counted, wait),
            Pickled::Apart(..) => Err(PyOSError::saying("an object is pickled differently each time")),
        },
    }
}
