//! Takes messages out of a log.

use crate::message::{exception, waiting};
use maniple_engine::Error;
use maniple_engine::channel::log::Log;
use maniple_engine::shm::buffers::Buffer;
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// While another message is kept, the reader checks this often for the next piece of an object.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Message {
    pub(super) first: Vec<u8>,
    pub(super) rest: Vec<Buffer>,
}

/// Takes the next message. Returns None if there is none, at once or (if `wait`) until `until`, or if this process closes the
/// queue. `goes_on`: the message continues an object.
pub(super) fn take_one(
    py: Python<'_>,
    log: &Log,
    wait: bool,
    until: Option<Instant>,
    goes_on: bool,
) -> PyResult<Option<Message>> {
    let mut first = Vec::with_capacity(256);
    if let Some(taken) = log.take(&mut first, None).map_err(exception)? {
        return Ok(Some(Message { first, rest: taken.rest }));
    }
    if !wait && log.is_empty() && !log.is_watched() {
        return Ok(None);
    }
    let late = || until.is_some_and(|until| Instant::now() >= until);
    waiting(py, |interrupted| {
        let mut ends = || interrupted() || log.is_shut();
        loop {
            // A stopped reader may hold the queue's lock without limit.
            match log.take(&mut first, Some(&mut || late() || ends())) {
                Ok(Some(taken)) => return Ok(Some(Message { first, rest: taken.rest })),
                Err(Error::Interrupted) if late() || log.is_shut() => return Ok(None),
                other => drop(other?),
            }
            let is_kept = log.held_back() > 0;
            if !wait || is_kept && !goes_on || log.is_over() {
                return Ok(None);
            }
            match log.wait(until, &mut ends) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(Error::Interrupted) if log.is_shut() => return Ok(None),
                Err(error) => return Err(error),
            }
            if is_kept {
                std::thread::sleep(PAUSE);
            }
        }
    })
}
