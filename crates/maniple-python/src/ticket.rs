//! Outcomes, decoded in the thread that wants them.

use crate::decode::Decoder;
use crate::error::{helper, python};
use crate::handler_free::Attempts;
use crate::message::short_of_memory;
use crate::once::{failure_takes_once, payload_takes_once};
use crate::signals::{detached, held, interrupts, look_for_signals};
use crate::unended;
use maniple_engine::Error;
use maniple_engine::pool::policy::{report_after, take_at_once};
use maniple_engine::pool::{Incoming, Loss, LossCause, Outcome, Settled, Ticket};
use maniple_engine::process::Exit;
use maniple_engine::shm::inbox::Region;
use pyo3::exceptions::{PyBaseException, PyMemoryError, PyStopIteration, PyTimeoutError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use rustc_hash::FxHashMap;
use slotmap::Key;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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
    // What arrived, from when it is taken out of the hub until it is decoded.
    arrived: Mutex<Option<Arc<Arrived>>>,
    // Decoded by whoever asks first, in as many attempts as it takes: the value, or the exception.
    outcome: OnceLock<Result<Py<PyAny>, Py<PyBaseException>>>,
    attempts: Attempts,
    kept: Kept,
}

/// A task's outcome as it arrived. As large as what it is made from, so that a list of them takes no new memory.
struct Piece {
    index: u64,
    items: usize,
    kind: Kind,
}

enum Kind {
    Done(Incoming),
    Failed(Incoming),
    // It was not sent, or the answer did not fit in.
    Unsent(Box<PyErr>),
    Lost(Arc<Loss>),
    Cancelled,
}

impl From<Settled> for Piece {
    fn from(Settled { index, items, outcome, .. }: Settled) -> Self {
        let kind = match outcome {
            Outcome::Done(content) => Kind::Done(content),
            Outcome::Failed(content) => Kind::Failed(content),
            Outcome::Unsent(why) => Kind::Unsent(why.downcast::<PyErr>().unwrap_or_else(|why| {
                Box::new(why.downcast::<Error>().map_or_else(|_| python(Error::NotRunning), |error| python(*error)))
            })),
            Outcome::Unreceived(error) => Kind::Unsent(Box::new(python(*error))),
            Outcome::Lost(loss) => Kind::Lost(loss),
            Outcome::Cancelled => Kind::Cancelled,
        };
        Piece { index, items, kind }
    }
}

impl Piece {
    /// Whether it can be decoded once only.
    fn takes_once(&self) -> bool {
        match &self.kind {
            Kind::Done(content) => payload_takes_once(content.bytes()),
            Kind::Failed(content) => failure_takes_once(content.bytes()),
            _ => false,
        }
    }

    /// Takes its large buffers out, for values to share: it may be read more than once.
    fn share(&mut self) -> Regions {
        match &mut self.kind {
            Kind::Done(content) | Kind::Failed(content) => {
                std::mem::take(&mut content.regions).into_iter().map(Arc::new).collect()
            }
            _ => Vec::new(),
        }
    }
}

type Regions = Vec<Arc<Region>>;

/// The outcomes of a call's tasks, and the large buffers of those that have some.
struct Arrived {
    pieces: Vec<Piece>,
    regions: FxHashMap<usize, Regions>,
}

impl From<Vec<Settled>> for Arrived {
    fn from(settled: Vec<Settled>) -> Self {
        let mut pieces: Vec<Piece> = settled.into_iter().map(Piece::from).collect();
        let shared = pieces.iter_mut().map(Piece::share).enumerate();
        let regions = shared.filter(|(_, regions)| !regions.is_empty()).collect();
        Arrived { pieces, regions }
    }
}

impl Arrived {
    fn regions(&self, at: usize) -> &[Arc<Region>] {
        self.regions.get(&at).map_or(&[], Vec::as_slice)
    }
}

/// What a signal's handler raised while an outcome was decoded: the outcome is still to be decoded.
struct Interrupt(PyErr);

/// An outcome decoded: a value, or the exception that it consists of.
type Decoded<'py> = Result<PyResult<Bound<'py, PyAny>>, Interrupt>;

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
    match (waited, raised.or_else(held)) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(python(error)),
        (Ok(ready), None) => Ok(ready),
    }
}

/// The exception that a failed task of the function `name` raises in the caller. `first` is the number of its first item, for those who count.
fn failure(
    py: Python<'_>,
    piece: &Piece,
    regions: &[Arc<Region>],
    name: &Py<PyAny>,
    first: Option<usize>,
) -> Result<PyErr, Interrupt> {
    static LOST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static REMOTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static GONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let raised = (|| match &piece.kind {
        Kind::Failed(content) => {
            let raised = helper(py, &REMOTE, "raised")?;
            let told = Decoder::new(content.bytes(), regions).value(py)?;
            unended::call(raised, (told,), None)
        }
        Kind::Unsent(error) => Ok(error.clone_ref(py).into_value(py).into_bound(py).into_any()),
        Kind::Lost(loss) => {
            let said = match &loss.cause {
                LossCause::Unfit(Some(said)) => Decoder::new(said.bytes(), &[]).value(py).ok(),
                _ => None,
            };
            let started = matches!(loss.cause, LossCause::Died);
            let exitcode = loss.exit.and_then(Exit::number);
            let lost = (loss.pid, exitcode, &loss.stderr, started, said, name, first, piece.items);
            helper(py, &LOST, "lost")?.call1(lost)
        }
        Kind::Cancelled | Kind::Done(_) => helper(py, &GONE, "cancelled")?.call0(),
    })();
    match raised {
        Ok(exception) => Ok(PyErr::from_value(exception)),
        Err(error) if interrupts(py, &error) => Err(Interrupt(error)),
        Err(error) => Ok(error),
    }
}

const AGAIN: &str = "there was no memory to make an object of a result, which is still there: ask for it again";

/// Hands each result of a task to `each`. An error: they cannot be decoded.
fn results<'py>(
    py: Python<'py>,
    content: &Incoming,
    regions: &[Arc<Region>],
    each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
) -> Result<PyResult<()>, Interrupt> {
    static UNREADABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    match Decoder::new(content.bytes(), regions).sequence(py, each) {
        Ok(()) => Ok(Ok(())),
        Err(error) if interrupts(py, &error) => Err(Interrupt(error)),
        // What has arrived stays: it can be asked for again when there is memory.
        Err(error) if error.is_instance_of::<PyMemoryError>(py) => Err(Interrupt(short_of_memory(py, error, AGAIN))),
        Err(error) => Ok(Err(unreadable(py, &UNREADABLE, error))),
    }
}

/// What a chunk of other than its own number of results is told as: none of its values can be trusted to be that of an item.
fn miscounted(py: Python<'_>) -> PyErr {
    static UNREADABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    unreadable(py, &UNREADABLE, PyValueError::new_err("a worker answered another number of items than it was given"))
}

fn unreadable(py: Python<'_>, cell: &'static PyOnceLock<Py<PyAny>>, error: PyErr) -> PyErr {
    match helper(py, cell, "unreadable").and_then(|f| f.call1((error.into_value(py),))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
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
        PyTicket { kept: Kept(Mutex::new(function)), ..self }
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
    /// No lock is held while it is decoded: that runs anybody's code, and a handler may ask for the very same outcome.
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

    /// Waits for the outcome, at most `timeout` seconds. Gives whether it is there.
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

/// A result, or the exception that stands for so many.
type Given = Result<Py<PyAny>, (PyErr, usize)>;

fn items_of(given: &Given) -> usize {
    given.as_ref().map_or_else(|(_, items)| *items, |_| 1)
}

struct Taken {
    // Each with its large buffers, once somebody has begun to decode it.
    settled: VecDeque<(Piece, Regions)>,
    values: VecDeque<Given>,
    unreported: usize,
    // Items that were reported already although they are in `values` still.
    ahead: usize,
    given: usize,
    over: bool,
}

/// The results of `imap` and `imap_unordered`: an iterator.
#[pyclass(name = "Stream", module = "maniple._maniple", frozen)]
pub struct PyStream {
    ticket: Ticket,
    // How many items may be under way.
    window: usize,
    chunksize: usize,
    name: Py<PyAny>,
    taken: Mutex<Taken>,
    // To decode what is first in `taken`.
    attempts: Attempts,
    kept: Kept,
}

impl PyStream {
    pub fn new(ticket: Ticket, window: usize, chunksize: usize, name: Py<PyAny>) -> Self {
        let taken =
            Taken { settled: VecDeque::new(), values: VecDeque::new(), unreported: 0, ahead: 0, given: 0, over: false };
        PyStream {
            ticket,
            window,
            chunksize,
            name,
            taken: Mutex::new(taken),
            attempts: Attempts::default(),
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
    fn at_hand(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        loop {
            this.report(py);
            // The last thing before a value leaves this: what a handler raises for a signal that came meanwhile takes nothing with it.
            py.check_signals()?;
            let mut taken = this.lock();
            let items = taken.values.front().map(items_of);
            if items.is_some_and(|items| items <= taken.ahead)
                && let (Some(items), Some(value)) = (items, taken.values.pop_front())
            {
                taken.ahead -= items;
                taken.given += items;
                return value.map(Some).map_err(|(error, _)| error);
            }
            drop(taken);
            if items.is_some() {
                // Another thread has taken what was reported.
                continue;
            }
            let decoded = if this.attempts.are_in_vain() {
                this.attempts.elsewhere(py, || slf.getattr("_decode"))?.extract()?
            } else {
                this.attempt(py)?
            };
            if !decoded {
                return Ok(None);
            }
        }
    }

    fn decode(
        &self,
        py: Python<'_>,
        piece: &Piece,
        regions: &[Arc<Region>],
    ) -> Result<PyResult<VecDeque<Given>>, Interrupt> {
        let Kind::Done(content) = &piece.kind else {
            let first = piece.index as usize * self.chunksize;
            return Ok(Err(failure(py, piece, regions, &self.name, Some(first))?));
        };
        let mut values = VecDeque::with_capacity(piece.items);
        let read = results(py, content, regions, |value| {
            values.push_back(Ok(value.unbind()));
            Ok(())
        })?;
        let whole = |values: VecDeque<_>| if values.len() == piece.items { Ok(values) } else { Err(miscounted(py)) };
        Ok(read.and_then(|()| whole(values)))
    }

    /// Reports the items of the value that is given next as consumed. That takes its time, in which signals come.
    fn report(&self, py: Python<'_>) {
        let mut taken = self.lock();
        let Some(items) = taken.values.front().map(items_of).filter(|items| *items > taken.ahead) else { return };
        let items = items - taken.ahead;
        taken.ahead += items;
        taken.unreported += items;
        let is_last = taken.settled.is_empty() && taken.values.len() == 1;
        let consumed = if taken.unreported < report_after(self.window) && !is_last {
            0
        } else {
            std::mem::take(&mut taken.unreported)
        };
        let over = taken.over;
        drop(taken);
        self.ticket.begin();
        if consumed > 0 && !over {
            py.detach(|| self.ticket.consumed(consumed));
        }
    }
}

#[pymethods]
impl PyStream {
    /// Decodes the results of the next task that is there, in this thread. False: there is none.
    #[pyo3(name = "_decode")]
    fn attempt(&self, py: Python<'_>) -> PyResult<bool> {
        let mut taken = self.lock();
        if taken.settled.is_empty() {
            let (settled, over) = self.ticket.take(take_at_once(self.window));
            taken.settled.extend(settled.into_iter().map(|settled| (settled.into(), Vec::new())));
            taken.over = over;
        }
        let Some((mut piece, mut regions)) = taken.settled.pop_front() else {
            let over = taken.over;
            drop(taken);
            if over {
                self.kept.forget();
            }
            return Ok(false);
        };
        if !self.attempts.are_in_vain() && piece.takes_once() {
            self.attempts.begin_elsewhere();
            if self.attempts.are_in_vain() {
                // It is the next one still, for another thread.
                taken.settled.push_front((piece, regions));
                return Ok(true);
            }
        }
        drop(taken);
        regions.append(&mut piece.share());
        match self.decode(py, &piece, &regions) {
            Ok(decoded) => {
                self.attempts.begin_anew();
                let decoded = decoded.unwrap_or_else(|error| VecDeque::from([Err((error, piece.items))]));
                self.lock().values.extend(decoded);
            }
            // A loop that goes on whatever is raised has to come to its end.
            Err(Interrupt(error)) if self.attempts.are_in_vain() && !interrupts(py, &error) => {
                self.attempts.begin_anew();
                self.lock().values.push_back(Err((error, piece.items)));
            }
            Err(Interrupt(error)) => {
                self.attempts.broken_off();
                // It is the next one still.
                self.lock().settled.push_front((piece, regions));
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The job's number, for `Hub.feed`.
    #[getter]
    fn job(&self) -> u64 {
        self.ticket.job().data().as_ffi()
    }

    /// Somebody feeds it. Before that is said, a stream that is dropped, by whatever interrupts its maker, has nothing done.
    fn fed(&self) {
        self.ticket.leave_undone(false);
    }

    /// What has not begun does not begin.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| self.ticket.cancel());
    }

    /// How many items have an outcome, how many of those were taken, and whether no more will have one.
    fn progress(&self, py: Python<'_>) -> PyResult<(usize, usize, bool)> {
        let (done, ended) = detached(py, || self.ticket.progress())?;
        Ok((done, self.lock().given, ended))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::next(slf, None)
    }

    /// The next result; `TimeoutError` when there is none within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    pub fn next(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let (this, py) = (slf.get(), slf.py());
        let until = deadline(timeout);
        loop {
            if let Some(value) = Self::at_hand(slf)? {
                return Ok(value);
            }
            if this.lock().over {
                return Err(PyStopIteration::new_err(()));
            }
            if !wait(py, &this.ticket, until)? {
                return Err(timed_out(py));
            }
        }
    }
}
