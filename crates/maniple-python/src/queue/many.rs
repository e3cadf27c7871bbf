//! Several objects at a time.

use super::put::{Placed, Wait, put_pickled};
use super::{NO_MORE_IN, PyLog, closed, is_shortage, next_message, shut_down};
use crate::made;
use crate::message::{OF_QUEUES, dump, waiting};
use crate::pickle;
use crate::signals::interrupts;
use crate::unended;
use maniple_engine::channel::log::Log;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyIterator, PyList};

/// Takes objects out without waiting, until `place` has `most`. Without `most`: those that are there at the beginning.
pub(super) fn take_rest(log: &PyLog, py: Python<'_>, most: Option<usize>, place: &Bound<'_, PyList>) -> PyResult<()> {
    let (this, log) = (log, log.log()?);
    let most = most.unwrap_or_else(|| place.len() + log.len() as usize + this.shelf.len());
    while place.len() < most && !log.is_revoked() {
        let item = match this.next_kept(py, &log) {
            Some(kept) => kept?,
            None => match next_message(py, &log, false, None)? {
                Some(message) => this.load(py, &log, message)?,
                None => break,
            },
        };
        place.append(item)?;
    }
    Ok(())
}

/// Puts in the objects of an iterator; see `PyLog::put_many`.
pub(super) fn put<'py>(
    log: &PyLog,
    py: Python<'py>,
    objects: &Bound<'py, PyIterator>,
    counted: bool,
    wait: Wait,
    count: &Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    let log = log.log()?;
    let mut put: usize = count.get_item(0)?.extract()?;
    let before = put;
    let mut left = None;
    let done = put_each(py, &log, objects, counted, wait, &mut put, &mut left);
    if put != before {
        count.set_item(0, put)?;
    }
    if let Some(left) = left {
        count.append(left)?;
    }
    done
}

fn put_each<'py>(
    py: Python<'py>,
    log: &Log,
    objects: &Bound<'py, PyIterator>,
    counted: bool,
    wait: Wait,
    put: &mut usize,
    left: &mut Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    loop {
        if log.is_closed() {
            return Err(shut_down(py, NO_MORE_IN));
        }
        let Some(object) = unended::next(objects) else { return Ok(py.None().into_bound(py)) };
        let object = object?;
        let apart = || if log.is_limited() { usize::MAX } else { pickle::LEAST_APART };
        let pickled = match dump(&object, &OF_QUEUES, apart) {
            Ok(pickled) => pickled,
            Err(error) if !interrupts(py, &error) && !is_shortage(py, &error) => {
                let error = error.into_value(py).into_bound(py).into_any();
                return Ok(made::tuple(py, [error, object])?.into_any());
            }
            Err(error) => return Err(error),
        };
        match put_pickled(py, log, &object, pickled, counted, wait)? {
            Placed::In => *put += 1,
            Placed::Full => {
                *left = Some(object);
                return Ok(PyBool::new(py, false).to_owned().into_any());
            }
            Placed::Closed => {
                *left = Some(object);
                return Err(shut_down(py, NO_MORE_IN));
            }
            Placed::Shut => {
                *left = Some(object);
                return Err(closed());
            }
        }
        py.check_signals()?;
    }
}

/// Takes all objects out and drops them; if they are `counted`, reports them done.
pub(super) fn drop_all(log: &PyLog, py: Python<'_>, shared: &Log, counted: bool) -> PyResult<()> {
    while log.shelf.drop_next() {
        if counted {
            shared.done();
        }
    }
    log.tell_of_kept(shared);
    let mut taken = Vec::new();
    waiting(py, |interrupted| {
        while shared.take(&mut taken, Some(&mut *interrupted))?.is_some() {
            if counted {
                shared.done();
            }
        }
        Ok(())
    })
}
