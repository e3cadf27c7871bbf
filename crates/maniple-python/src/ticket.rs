//! `Ticket`: the outcome of a call. The thread that requests the outcome decodes it.

use crate::args::Out;
use crate::deadline::deadline;
use crate::error::python;
use crate::handler_free::Attempts;
use crate::made::{self, Attributes as _};
use crate::mailbox::{Awaited, PyMailbox};
use crate::outcome::{Arrived, Decoded, Interrupt, Kept, Kind, Piece, failure, miscounted, results, timed_out, wait};
use crate::signals::{detached, interrupts};
use maniple_engine::Error;
use maniple_engine::pool::Ticket;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use slotmap::Key;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The form of a call's outcome.
#[derive(Clone, Copy)]
pub enum Shape {
    /// One value. `returns`: or the exception as a value.
    One { returns: bool },
    /// A list of so many values. `returns`: with the exceptions of failed items.
    Many { count: usize, returns: bool },
}

/// The outcome of a call, and the wait for it.
#[pyclass(name = "Ticket", module = "maniple._maniple", frozen)]
pub struct PyTicket {
    ticket: Ticket,
    shape: Shape,
    name: Py<PyAny>,
    // The outcomes that arrived, from the time when they are taken out of the hub until they are decoded.
    arrived: Mutex<Option<Arc<Arrived>>>,
    // The value or the exception. The first thread that requests it decodes it, in as many attempts as necessary.
    outcome: OnceLock<Result<Py<PyAny>, Py<PyBaseException>>>,
    attempts: Attempts,
    kept: Kept,
    awaited: Awaited,
}

impl PyTicket {
    pub fn new(ticket: Ticket, shape: Shape, name: Py<PyAny>) -> Self {
        PyTicket {
            ticket,
            shape,
            name,
            arrived: Mutex::default(),
            outcome: OnceLock::new(),
            attempts: Attempts::default(),
            kept: Kept::default(),
            awaited: Awaited::default(),
        }
    }

    /// Holds this function until the outcome is there.
    pub fn keeping(self, function: Option<Py<PyAny>>) -> Self {
        PyTicket { kept: Kept::new(function), ..self }
    }

    /// Returns the outcome, which must be there, as it arrived. `None` if it was decoded in the meantime.
    fn arrived(&self) -> Option<Arc<Arrived>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if arrived.is_none() && self.outcome.get().is_none() {
            let made: Arrived = self.ticket.take(usize::MAX).0.into();
            if made.pieces.iter().any(Piece::takes_once) {
                self.attempts.begin_elsewhere();
            }
            *arrived = Some(Arc::new(made));
        }
        arrived.clone()
    }

    fn decode<'py>(&self, py: Python<'py>, arrived: &Arrived) -> Decoded<'py> {
        let missing = || python(Error::Damaged("a job without an outcome"));
        match self.shape {
            Shape::One { returns } => match arrived.pieces.first() {
                Some(Piece { kind: Kind::Done(content), .. }) => {
                    let mut values = Vec::with_capacity(1);
                    let read = results(py, content, arrived.regions(0), None, |value| {
                        values.push(value);
                        Ok(())
                    })?;
                    let single = |mut values: Vec<_>| {
                        let value = values.pop().filter(|_| values.is_empty());
                        value.ok_or_else(|| miscounted(py))
                    };
                    let read = read.and_then(|()| single(values));
                    Ok(if returns {
                        read.or_else(|error| Ok(error.into_value(py).into_bound(py).into_any()))
                    } else {
                        read
                    })
                }
                Some(piece) => {
                    let error = failure(py, piece, arrived.regions(0), &self.name, None)?;
                    // The end of the pool is not the task's failure.
                    let returned = returns && !matches!(piece.kind, Kind::Terminated);
                    Ok(if returned { Ok(error.into_value(py).into_bound(py).into_any()) } else { Err(error) })
                }
                None => Ok(Err(missing())),
            },
            Shape::Many { count, returns } => {
                let returned = |kind: &Kind| returns && !matches!(kind, Kind::Terminated);
                let is_done = |one: &Piece| matches!(one.kind, Kind::Done(_)) || returned(&one.kind);
                if let Some(at) = arrived.pieces.iter().position(|one| !is_done(one)) {
                    let first = arrived.pieces[..at].iter().map(|one| one.items).sum();
                    let (one, regions) = (&arrived.pieces[at], arrived.regions(at));
                    return Ok(Err(failure(py, one, regions, &self.name, Some(first))?));
                }
                let list = match made::empty_list(py) {
                    Ok(list) => list,
                    Err(error) => return Ok(Err(error)),
                };
                let mut due = 0;
                // The last piece represents all tasks that were never made.
                let unmade = count.saturating_sub(arrived.pieces.iter().map(|one| one.items).sum());
                for (at, one) in arrived.pieces.iter().enumerate() {
                    if !matches!(one.kind, Kind::Done(_)) {
                        let further = if at + 1 == arrived.pieces.len() { unmade } else { 0 };
                        for place in due..due + one.items + further {
                            let error = failure(py, one, arrived.regions(at), &self.name, Some(place))?.into_value(py);
                            if let Err(error) = list.append(error) {
                                return Ok(Err(error));
                            }
                        }
                        due += further;
                    }
                    if let Kind::Done(content) = &one.kind
                        && let Err(error) =
                            results(py, content, arrived.regions(at), Some((due, one.items)), |value| {
                                list.append(value)
                            })?
                    {
                        if !returns {
                            return Ok(Err(error));
                        }
                        // In the place of each result of its task.
                        let error = error.into_value(py);
                        let places = made::list(py, (0..one.items).map(|_| error.bind(py).clone().into_any()));
                        let placed = places.and_then(|places| list.set_slice(due, list.len(), &places));
                        if let Err(error) = placed {
                            return Ok(Err(error));
                        }
                    }
                    due += one.items;
                    if list.len() != due {
                        return Ok(Err(miscounted(py)));
                    }
                }
                if list.len() != count {
                    return Ok(Err(python(Error::Damaged("a job with fewer results than items"))));
                }
                Ok(Ok(list.into_any()))
            }
        }
    }

    /// Returns the outcome, which must be there. An error is the exception of a signal handler; the outcome can be
    /// requested again.
    ///
    /// No lock is held while the outcome is decoded, because that runs code of the program, and a handler may request
    /// the same outcome.
    fn outcome<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a Result<Py<PyAny>, Py<PyBaseException>>> {
        let this = slf.get();
        loop {
            if let Some(outcome) = this.outcome.get() {
                return Ok(outcome);
            }
            drop(this.arrived());
            if this.attempts.need_another_thread() {
                this.attempts.elsewhere(slf.py(), || slf.attr("_decode"))?;
            } else {
                this.attempt(slf.py())?;
            }
        }
    }
}

#[pymethods]
impl PyTicket {
    /// Decodes the outcome, which must be there, in this thread.
    #[pyo3(name = "_decode")]
    fn attempt(&self, py: Python<'_>) -> PyResult<()> {
        while self.outcome.get().is_none() {
            let Some(arrived) = self.arrived() else { continue };
            let decoded = self.decode(py, &arrived).map_err(|Interrupt(error)| {
                if interrupts(py, &error) {
                    self.attempts.broken_off();
                }
                error
            })?;
            // If two threads decoded it, the result of the first stays.
            let second = self.outcome.set(decoded.map(Bound::unbind).map_err(|error| error.into_value(py)));
            drop(self.arrived.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.kept.forget();
            drop((second, arrived));
        }
        Ok(())
    }

    /// The job's number, as `Hub.keep` reports it.
    #[getter]
    fn job(&self) -> Out<u64> {
        Out(self.ticket.job().data().as_ffi())
    }

    /// Returns whether the outcome is there.
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || detached(py, || self.ticket.is_ready())?)
    }

    /// Whether the outcome was decoded. Unlike `ready`, this does none of the pool's work.
    #[getter]
    fn is_decoded(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Returns the number of items without an outcome.
    fn left(&self, py: Python<'_>) -> PyResult<Out<usize>> {
        let count = match self.shape {
            Shape::One { .. } => 1,
            Shape::Many { count, .. } => count,
        };
        Ok(Out(match detached(py, || self.ticket.progress())? {
            (_, true) => 0,
            (done, false) => count.saturating_sub(done),
        }))
    }

    /// Returns whether the outcome, which must be there, is a value and not an exception.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(Self::outcome(slf)?.is_ok())
    }

    /// Cancels the call: tasks that have not begun do not begin. `end_running`: the workers that run its tasks are ended.
    /// Returns whether any task was cancelled.
    fn cancel(&self, py: Python<'_>, end_running: bool) -> bool {
        self.outcome.get().is_none() && py.detach(|| self.ticket.cancel(end_running))
    }

    /// Returns whether a task of the call was cancelled.
    fn cancelled(&self) -> bool {
        self.ticket.has_cancelled()
    }

    /// Returns whether a worker runs a task of the call.
    fn running(&self, py: Python<'_>) -> PyResult<bool> {
        if self.outcome.get().is_some() {
            return Ok(false);
        }
        detached(py, || self.ticket.is_running())
    }

    /// Posts `number` in the mailbox when the outcome is there. Returns true, and posts nothing, if it is there already.
    fn tell(&self, py: Python<'_>, mailbox: &PyMailbox, number: u64) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || self.awaited.tell(py, &self.ticket, mailbox, number)?)
    }

    /// Ends such a wait. Returns the number of those that are left.
    fn forget(&self, mailbox: &PyMailbox, number: u64) -> usize {
        self.awaited.forget(mailbox, number)
    }

    /// Waits at most `timeout` seconds for the outcome. Returns whether it is there.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || wait(py, &self.ticket, deadline(timeout))?)
    }

    /// Waits at most `timeout` seconds for the outcome, and returns it: a value, a list of values, or an exception.
    /// Raises `TimeoutError` if there is none.
    #[pyo3(signature = (timeout=None))]
    fn get(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        if !slf.get().wait(py, timeout)? {
            return Err(timed_out(py));
        }
        match Self::outcome(slf)? {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(PyErr::from_value(error.bind(py).clone().into_any())),
        }
    }

    // An exception refers to its traceback, the traceback to frames, and one of the frames usually to this ticket. The
    // collector breaks such a cycle at another object in it.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.outcome.get() {
            Some(Ok(value)) => visit.call(value),
            Some(Err(error)) => visit.call(error),
            None => Ok(()),
        }
    }
}
