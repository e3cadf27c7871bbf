//! `Ticket`: a call's outcome, decoded in the thread that wants it.

use crate::error::python;
use crate::handler_free::Attempts;
use crate::outcome::{
    Arrived, Decoded, Interrupt, Kept, Kind, Piece, deadline, failure, miscounted, results, timed_out, wait,
};
use crate::signals::{detached, interrupts};
use maniple_engine::Error;
use maniple_engine::pool::Ticket;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;
use slotmap::Key;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a call's outcome looks like.
#[derive(Clone, Copy)]
pub enum Shape {
    /// One value.
    One,
    /// A list of so many.
    Many { count: usize },
}

/// A call's outcome, to be waited for.
#[pyclass(name = "Ticket", module = "maniple._maniple", frozen)]
pub struct PyTicket {
    ticket: Ticket,
    shape: Shape,
    name: Py<PyAny>,
    // What arrived, from when it is taken out of the hub until it is decoded.
    arrived: Mutex<Option<Arc<Arrived>>>,
    // Decoded by the first thread that asks, in as many attempts as it takes: the value, or the exception.
    outcome: OnceLock<Result<Py<PyAny>, Py<PyBaseException>>>,
    attempts: Attempts,
    kept: Kept,
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
        }
    }

    /// Holds this function until the outcome is there.
    pub fn keeping(self, function: Option<Py<PyAny>>) -> Self {
        PyTicket { kept: Kept::new(function), ..self }
    }

    /// The outcome, which is there, as it arrived. `None`: it has been decoded meanwhile.
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
            Shape::One => match arrived.pieces.first() {
                Some(Piece { kind: Kind::Done(content), .. }) => {
                    let mut values = Vec::with_capacity(1);
                    let read = results(py, content, arrived.regions(0), |value| {
                        values.push(value);
                        Ok(())
                    })?;
                    let single = |mut values: Vec<_>| {
                        let value = values.pop().filter(|_| values.is_empty());
                        value.ok_or_else(|| miscounted(py))
                    };
                    Ok(read.and_then(|()| single(values)))
                }
                Some(piece) => Ok(Err(failure(py, piece, arrived.regions(0), &self.name, None)?)),
                None => Ok(Err(missing())),
            },
            Shape::Many { count } => {
                let is_done = |one: &Piece| matches!(one.kind, Kind::Done(_));
                if let Some(at) = arrived.pieces.iter().position(|one| !is_done(one)) {
                    let first = arrived.pieces[..at].iter().map(|one| one.items).sum();
                    let (one, regions) = (&arrived.pieces[at], arrived.regions(at));
                    return Ok(Err(failure(py, one, regions, &self.name, Some(first))?));
                }
                let list = PyList::empty(py);
                let mut due = 0;
                for (at, one) in arrived.pieces.iter().enumerate() {
                    if let Kind::Done(content) = &one.kind
                        && let Err(error) = results(py, content, arrived.regions(at), |value| list.append(value))?
                    {
                        return Ok(Err(error));
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

    /// The outcome, which is there. An error: a signal's handler raised it, and the outcome can be asked for again.
    ///
    /// No lock is held while it is decoded: that runs code of the program, and a handler may ask for the very same outcome.
    fn outcome<'a>(slf: &'a Bound<'_, Self>) -> PyResult<&'a Result<Py<PyAny>, Py<PyBaseException>>> {
        let this = slf.get();
        loop {
            if let Some(outcome) = this.outcome.get() {
                return Ok(outcome);
            }
            drop(this.arrived());
            if this.attempts.are_in_vain() {
                this.attempts.elsewhere(slf.py(), || slf.getattr("_decode"))?;
            } else {
                this.attempt(slf.py())?;
            }
        }
    }
}

#[pymethods]
impl PyTicket {
    /// Decodes the outcome, which is there, in this thread.
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
            // Where two threads were at it, the first has made the outcome.
            let second = self.outcome.set(decoded.map(Bound::unbind).map_err(|error| error.into_value(py)));
            drop(self.arrived.lock().unwrap_or_else(PoisonError::into_inner).take());
            self.kept.forget();
            drop((second, arrived));
        }
        Ok(())
    }

    /// The job's number, as `Hub.keep` reports it.
    #[getter]
    fn job(&self) -> u64 {
        self.ticket.job().data().as_ffi()
    }

    /// Whether the outcome is there.
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || detached(py, || self.ticket.is_ready())?)
    }

    /// How many items have no outcome yet.
    fn left(&self, py: Python<'_>) -> PyResult<usize> {
        let count = match self.shape {
            Shape::One => 1,
            Shape::Many { count } => count,
        };
        Ok(match detached(py, || self.ticket.progress())? {
            (_, true) => 0,
            (done, false) => count.saturating_sub(done),
        })
    }

    /// Whether the outcome, which must be there, is a value and not an exception.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(Self::outcome(slf)?.is_ok())
    }

    /// Waits for the outcome, at most `timeout` seconds. Returns whether it is there.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || wait(py, &self.ticket, deadline(timeout))?)
    }

    /// The outcome, waited for at most `timeout` seconds: a value, a list of values, or an exception; `TimeoutError` if there is none.
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

    // An exception refers to its traceback, the traceback to the frames, and one of the frames usually to this ticket.
    // Where there is such a circle, something else in it can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.outcome.get() {
            Some(Ok(value)) => visit.call(value),
            Some(Err(error)) => visit.call(error),
            None => Ok(()),
        }
    }
}
