//! Outcomes, decoded in the thread that wants them.

use crate::decode::{Decoder, open};
use crate::error::{helper, python};
use crate::signals::look_for_signals;
use maniple_engine::Error;
use maniple_engine::pool::{Incoming, LossCause, Outcome, Settled, Ticket};
use maniple_engine::process::Exit;
use pyo3::exceptions::{PyBaseException, PyStopIteration, PyTimeoutError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::{OnceLockExt, PyOnceLock};
use pyo3::types::PyList;
use slotmap::Key;
use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

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
    // Decoded by whoever asks first: the value, or the exception.
    outcome: OnceLock<Result<Py<PyAny>, Py<PyBaseException>>>,
    kept: Kept,
}

/// The function of a call, until its outcome is there: several workers, one after another, may unpickle it, and what it refers to
/// in a manager is to live until then.
#[derive(Default)]
struct Kept(Mutex<Option<Py<PyAny>>>);

impl Kept {
    fn forget(&self) {
        let function = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(function);
    }
}

fn deadline(timeout: Option<f64>) -> Option<Instant> {
    // Beyond what a clock can hold is for ever.
    timeout.and_then(|t| Instant::now().checked_add(Duration::try_from_secs_f64(t.max(0.0)).ok()?))
}

/// Waits without the interpreter lock. True: something can be taken; false: the time is up.
fn wait(py: Python<'_>, ticket: &Ticket, deadline: Option<Instant>) -> PyResult<bool> {
    let mut raised = None;
    let waited = py.detach(|| {
        ticket.wait(deadline, &mut || {
            raised = look_for_signals();
            raised.is_none()
        })
    });
    match (waited, raised) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(python(error)),
        (Ok(ready), None) => Ok(ready),
    }
}

/// The exception that a failed task of the function `name` raises in the caller. `first` is the number of its first item, for those who count.
fn failure(py: Python<'_>, settled: Settled, name: &Py<PyAny>, first: Option<usize>) -> PyErr {
    static LOST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static REMOTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static GONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let items = settled.items;
    let raised = (|| match settled.outcome {
        Outcome::Failed(content) => {
            let (name, report) = remote(py, content)?;
            helper(py, &REMOTE, name)?.call1((report,))
        }
        Outcome::Unsent(why) => match why.downcast::<PyErr>() {
            Ok(error) => Err(*error),
            Err(why) => Err(why.downcast::<Error>().map_or_else(|_| python(Error::NotRunning), |e| python(*e))),
        },
        Outcome::Unreceived(why) => Err(python(*why)),
        Outcome::Lost(loss) => {
            let report = match &loss.cause {
                LossCause::Unfit(Some(said)) => Some(said),
                _ => None,
            };
            let cause = report.and_then(|said| {
                let bytes = said.bytes();
                let mut decoder = Decoder::new(Vec::new().into_iter(), bytes);
                decoder.value(py).ok()
            });
            let started = matches!(loss.cause, LossCause::Died);
            let exitcode = loss.exit.and_then(Exit::number);
            helper(py, &LOST, "lost")?.call1((loss.pid, exitcode, &loss.stderr, started, cause, name, first, items))
        }
        Outcome::Cancelled | Outcome::Done(_) => helper(py, &GONE, "cancelled")?.call0(),
    })();
    match raised {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn remote(py: Python<'_>, mut content: Incoming) -> PyResult<(&'static str, Bound<'_, PyAny>)> {
    let (regions, bytes) = open(&mut content);
    Ok(("raised", Decoder::new(regions, bytes).value(py)?))
}

/// Hands each result of a task to `each`.
fn results<'py>(
    py: Python<'py>,
    mut content: Incoming,
    each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    static UNREADABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (regions, bytes) = open(&mut content);
    Decoder::new(regions, bytes).sequence(py, each).map_err(|error| unreadable(py, &UNREADABLE, error))
}

fn unreadable(py: Python<'_>, cell: &'static PyOnceLock<Py<PyAny>>, error: PyErr) -> PyErr {
    match helper(py, cell, "unreadable").and_then(|f| f.call1((error.into_value(py),))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

impl PyTicket {
    pub fn new(ticket: Ticket, shape: Shape, name: Py<PyAny>) -> Self {
        PyTicket { ticket, shape, name, outcome: OnceLock::new(), kept: Kept::default() }
    }

    /// Holds this function until the outcome is there.
    pub fn keeping(self, function: Option<Py<PyAny>>) -> Self {
        PyTicket { kept: Kept(Mutex::new(function)), ..self }
    }

    /// Takes the outcome, which is there, out of the hub.
    fn collect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (settled, _) = self.ticket.take(usize::MAX);
        match self.shape {
            Shape::One => {
                let one = settled.into_iter().next();
                match one {
                    Some(Settled { outcome: Outcome::Done(content), .. }) => {
                        let mut value = None;
                        results(py, content, |v| {
                            value = Some(v);
                            Ok(())
                        })?;
                        value.ok_or_else(|| python(Error::Damaged("a result without a value")))
                    }
                    Some(settled) => Err(failure(py, settled, &self.name, None)),
                    None => Err(python(Error::Damaged("a job without an outcome"))),
                }
            }
            Shape::Many { count } => {
                if let Some(at) = settled.iter().position(|s| !matches!(s.outcome, Outcome::Done(_))) {
                    let first = settled[..at].iter().map(|s| s.items).sum();
                    return settled.into_iter().nth(at).map_or_else(
                        || Err(python(Error::Damaged("a job without an outcome"))),
                        |failed| Err(failure(py, failed, &self.name, Some(first))),
                    );
                }
                let list = PyList::empty(py);
                for s in settled {
                    if let Outcome::Done(content) = s.outcome {
                        results(py, content, |value| list.append(value))?;
                    }
                }
                if list.len() != count {
                    return Err(python(Error::Damaged("a job with fewer results than items")));
                }
                Ok(list.into_any())
            }
        }
    }

    fn outcome(&self, py: Python<'_>) -> &Result<Py<PyAny>, Py<PyBaseException>> {
        self.outcome.get_or_init_py_attached(py, || {
            let collected = self.collect(py).map(Bound::unbind).map_err(|error| error.into_value(py));
            self.kept.forget();
            collected
        })
    }
}

#[pymethods]
impl PyTicket {
    /// The job's number, as `Hub.keep` reports it.
    #[getter]
    fn job(&self) -> u64 {
        self.ticket.job().data().as_ffi()
    }

    /// Whether the outcome is there.
    fn ready(&self, py: Python<'_>) -> bool {
        self.outcome.get().is_some() || py.detach(|| self.ticket.is_ready())
    }

    /// How many items have no outcome yet.
    fn left(&self, py: Python<'_>) -> usize {
        let count = match self.shape {
            Shape::One => 1,
            Shape::Many { count } => count,
        };
        match py.detach(|| self.ticket.progress()) {
            (_, true) => 0,
            (done, false) => count.saturating_sub(done),
        }
    }

    /// Whether the outcome, which must be there, is a value and not an exception.
    fn successful(&self, py: Python<'_>) -> bool {
        self.outcome(py).is_ok()
    }

    /// Waits for the outcome, at most `timeout` seconds. Gives whether it is there.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        Ok(self.outcome.get().is_some() || wait(py, &self.ticket, deadline(timeout))?)
    }

    /// The outcome, waited for at most `timeout` seconds: a value, a list of values, or an exception; `TimeoutError` if there is none.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        if !self.wait(py, timeout)? {
            return Err(timed_out(py));
        }
        match self.outcome(py) {
            Ok(value) => Ok(value.clone_ref(py)),
            Err(error) => Err(PyErr::from_value(error.bind(py).clone().into_any())),
        }
    }

    // An exception refers to its traceback, that to the frames, and one of those, as a rule, to this ticket. Where there is such a
    // circle, something else in it can be cleared.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.outcome.get() {
            Some(Ok(value)) => visit.call(value),
            Some(Err(error)) => visit.call(error),
            None => Ok(()),
        }
    }
}

fn timed_out(py: Python<'_>) -> PyErr {
    static TIMEOUT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let error = helper(py, &TIMEOUT, "TimeoutError").and_then(|kind| kind.call0());
    error.map_or_else(|_| PyTimeoutError::new_err(()), PyErr::from_value)
}

struct Taken {
    settled: VecDeque<Settled>,
    values: VecDeque<Py<PyAny>>,
    unreported: usize,
    given: usize,
    over: bool,
}

/// The results of `imap` and `imap_unordered`: an iterator.
#[pyclass(name = "Stream", module = "maniple._maniple", frozen)]
pub struct PyStream {
    ticket: Ticket,
    // Items are reported as consumed in batches of so many.
    batch: usize,
    chunksize: usize,
    name: Py<PyAny>,
    taken: Mutex<Taken>,
    kept: Kept,
}

impl PyStream {
    pub fn new(ticket: Ticket, window: usize, chunksize: usize, name: Py<PyAny>) -> Self {
        let taken = Taken { settled: VecDeque::new(), values: VecDeque::new(), unreported: 0, given: 0, over: false };
        PyStream {
            ticket,
            batch: (window / 8).clamp(1, 64),
            chunksize,
            name,
            taken: Mutex::new(taken),
            kept: Kept::default(),
        }
    }

    /// Holds this function until all results were taken.
    pub fn keeping(self, function: Option<Py<PyAny>>) -> Self {
        PyStream { kept: Kept(Mutex::new(function)), ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next value, if one is at hand. The lock is not held while Python code runs.
    fn at_hand(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            let mut taken = self.lock();
            if let Some(value) = taken.values.pop_front() {
                drop(taken);
                self.report(py, 1);
                return Ok(Some(value));
            }
            if taken.settled.is_empty() {
                let (settled, over) = self.ticket.take(4 * self.batch);
                taken.settled.extend(settled);
                taken.over = over;
            }
            let Some(settled) = taken.settled.pop_front() else {
                let over = taken.over;
                drop(taken);
                if over {
                    self.kept.forget();
                }
                return Ok(None);
            };
            let first = settled.index as usize * self.chunksize;
            drop(taken);
            let items = settled.items;
            match settled.outcome {
                Outcome::Done(content) => {
                    let mut values = VecDeque::with_capacity(items);
                    let decoded = results(py, content, |value| {
                        values.push_back(value.unbind());
                        Ok(())
                    });
                    if let Err(error) = decoded {
                        self.report(py, items);
                        return Err(error);
                    }
                    self.lock().values.append(&mut values);
                }
                outcome => {
                    self.report(py, items);
                    let failed = Settled { index: settled.index, number: settled.number, items, outcome };
                    return Err(failure(py, failed, &self.name, Some(first)));
                }
            }
        }
    }

    fn report(&self, py: Python<'_>, items: usize) {
        let mut taken = self.lock();
        taken.unreported += items;
        taken.given += items;
        if taken.unreported < self.batch && !(taken.settled.is_empty() && taken.values.is_empty()) {
            return;
        }
        let consumed = std::mem::take(&mut taken.unreported);
        let over = taken.over;
        drop(taken);
        if consumed > 0 && !over {
            py.detach(|| self.ticket.consumed(consumed));
        }
    }
}

#[pymethods]
impl PyStream {
    /// The job's number, for `Hub.feed`.
    #[getter]
    fn job(&self) -> u64 {
        self.ticket.job().data().as_ffi()
    }

    /// How many items have an outcome, how many of those were taken, and whether no more will have one.
    fn progress(&self, py: Python<'_>) -> (usize, usize, bool) {
        let (done, ended) = py.detach(|| self.ticket.progress());
        (done, self.lock().given, ended)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.next(py, None)
    }

    /// The next result; `TimeoutError` when there is none within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let until = deadline(timeout);
        loop {
            if let Some(value) = self.at_hand(py)? {
                return Ok(value);
            }
            if self.lock().over {
                return Err(PyStopIteration::new_err(()));
            }
            if !wait(py, &self.ticket, until)? {
                return Err(timed_out(py));
            }
        }
    }
}
