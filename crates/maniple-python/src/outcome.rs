//! The outcome of a task, until it is decoded: a value, or a failure that becomes an exception.

use crate::args::Calls as _;
use crate::decode::Decoder;
use crate::error::{Saying as _, helper, python};
use crate::greenlets;
use crate::message::short_of_memory;
use crate::once::{failure_takes_once, payload_takes_once};
use crate::signals::interrupts_decoding;
use crate::unended;
use maniple_engine::Error;
use maniple_engine::pool::{Loss, LossCause, Outcome, ReceivedPacket, Settled, Ticket};
use maniple_engine::process::Exit;
use maniple_engine::shm::region::Region;
use pyo3::exceptions::{PyMemoryError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The outcome of a task as it arrived. It has the size of a `Settled`, so that a list of outcomes takes no new memory.
pub struct Piece {
    pub index: u64,
    pub items: usize,
    pub kind: Kind,
}

/// Why a task has fewer items than it should: the iterator over the items raised this.
pub struct InputFailed(pub PyErr);

/// How a task ended.
pub enum Kind {
    Done(ReceivedPacket),
    Failed(ReceivedPacket),
    // The task was not sent, or its answer did not fit into memory.
    Unsent(Box<PyErr>),
    // The program's iterator raised it in the place of an item.
    NoItem(Box<PyErr>),
    Lost(Arc<Loss>),
    Cancelled,
    Terminated,
    // The last try, and the earlier ones with their large buffers.
    AfterTries(Box<(Kind, Vec<(Kind, Regions)>)>),
}

impl From<Outcome> for Kind {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done(content) => Kind::Done(content),
            Outcome::Failed(content) => Kind::Failed(content),
            Outcome::Unsent(why) => match why.downcast::<InputFailed>() {
                Ok(failed) => Kind::NoItem(Box::new(failed.0)),
                Err(why) => Kind::Unsent(why.downcast::<PyErr>().unwrap_or_else(|why| {
                    Box::new(why.downcast::<Error>().map_or_else(|_| python(Error::NotRunning), |error| python(*error)))
                })),
            },
            Outcome::Unreceived(error) => Kind::Unsent(Box::new(python(*error))),
            Outcome::Lost(loss) => Kind::Lost(loss),
            Outcome::Cancelled => Kind::Cancelled,
            Outcome::Terminated => Kind::Terminated,
            Outcome::AfterTries(tries) => {
                let last = Kind::from(tries.last);
                if matches!(last, Kind::Done(_)) {
                    // Only an error tells of the tries before it.
                    return last;
                }
                let shared = tries.earlier.into_iter().map(|outcome| {
                    let mut kind = Kind::from(outcome);
                    let regions = kind.share();
                    (kind, regions)
                });
                Kind::AfterTries(Box::new((last, shared.collect())))
            }
        }
    }
}

impl From<Settled> for Piece {
    fn from(Settled { index, items, outcome, .. }: Settled) -> Self {
        Piece { index, items, kind: outcome.into() }
    }
}

impl Piece {
    /// Returns whether the outcome can be decoded only once.
    pub fn takes_once(&self) -> bool {
        match &self.kind {
            Kind::Done(content) => payload_takes_once(content.bytes()),
            Kind::Failed(content) => failure_takes_once(content.bytes()),
            Kind::AfterTries(tries) => match &tries.0 {
                Kind::Failed(content) => failure_takes_once(content.bytes()),
                _ => false,
            },
            _ => false,
        }
    }

    /// Takes the large buffers out, so that values share them if the outcome is read more than once.
    pub fn share(&mut self) -> Regions {
        self.kind.share()
    }
}

impl Kind {
    /// Returns whether it is no item that has failed, but its input, or the pool, which was terminated or has no worker that
    /// gets ready.
    pub fn is_end(&self) -> bool {
        match self {
            Kind::Terminated | Kind::NoItem(_) => true,
            Kind::Lost(loss) => matches!(loss.cause, LossCause::Unfit(_) | LossCause::Unready { .. }),
            _ => false,
        }
    }

    fn share(&mut self) -> Regions {
        match self {
            Kind::Done(content) | Kind::Failed(content) => {
                std::mem::take(&mut content.regions).into_iter().map(Arc::new).collect()
            }
            Kind::AfterTries(tries) => tries.0.share(),
            _ => Vec::new(),
        }
    }
}

/// The large buffers of an outcome.
pub type Regions = Vec<Arc<Region>>;

/// The outcomes of a call's tasks, and the large buffers of those that have any.
pub struct Arrived {
    pub pieces: Vec<Piece>,
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
    pub fn regions(&self, at: usize) -> &[Arc<Region>] {
        self.regions.get(&at).map_or(&[], Vec::as_slice)
    }
}

/// The exception of a signal handler during the decoding of an outcome. The outcome can be decoded again.
pub struct Interrupt(pub PyErr);

/// A decoded outcome: a value or an exception.
pub type Decoded<'py> = Result<PyResult<Bound<'py, PyAny>>, Interrupt>;

/// The function of a call, until the outcome is there. Several workers, one after another, may unpickle the function,
/// and the managers' objects that it refers to must live until then.
#[derive(Default)]
pub struct Kept(Mutex<Option<Py<PyAny>>>);

impl Kept {
    pub fn new(function: Option<Py<PyAny>>) -> Kept {
        Kept(Mutex::new(function))
    }

    /// Drops the function.
    pub fn forget(&self) {
        let function = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(function);
    }
}

/// Waits without the interpreter lock. Returns true if there is an outcome to take, and false if the time limit has
/// passed.
pub fn wait(py: Python<'_>, ticket: &Ticket, deadline: Option<Instant>) -> PyResult<bool> {
    greenlets::wait(py, deadline, |until, interrupted| ticket.wait(until, interrupted))
}

/// Returns the exception that a failed task of the function `name` raises in the caller. `first` is the number of its
/// first item, if the caller counts items.
pub fn failure(
    py: Python<'_>,
    piece: &Piece,
    regions: &[Arc<Region>],
    name: &Py<PyAny>,
    first: Option<usize>,
) -> Result<PyErr, Interrupt> {
    static TRIED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let Kind::AfterTries(tries) = &piece.kind else {
        return exception(py, &piece.kind, regions, name, first, piece.items);
    };
    let (last, earlier) = &**tries;
    let error = exception(py, last, regions, name, first, piece.items)?;
    let mut before = Vec::new();
    for (kind, regions) in earlier {
        before.push(exception(py, kind, regions, name, first, piece.items)?.into_value(py));
    }
    let told = helper(py, &TRIED, "after_tries").and_then(|tell| tell.with((error.value(py), before)));
    match told {
        Ok(_) => Ok(error),
        Err(told) => settled(py, Err(told)),
    }
}

fn settled(py: Python<'_>, raised: PyResult<Bound<'_, PyAny>>) -> Result<PyErr, Interrupt> {
    match raised {
        Ok(exception) => Ok(PyErr::from_value(exception)),
        Err(error) if interrupts_decoding(py, &error) => Err(Interrupt(error)),
        Err(error) => Ok(error),
    }
}

fn exception(
    py: Python<'_>,
    kind: &Kind,
    regions: &[Arc<Region>],
    name: &Py<PyAny>,
    first: Option<usize>,
    items: usize,
) -> Result<PyErr, Interrupt> {
    static GONE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static CANCELLED: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let raised = match kind {
        Kind::Failed(content) => failed(py, content, regions, first, items),
        Kind::Unsent(error) | Kind::NoItem(error) => Ok(error.clone_ref(py).into_value(py).into_bound(py).into_any()),
        Kind::Lost(loss) => lost(py, loss, name, first, items),
        Kind::Cancelled => helper(py, &CANCELLED, "withdrawn").and_then(|made| made.with((name, first, items))),
        Kind::Terminated | Kind::Done(_) | Kind::AfterTries(_) => {
            helper(py, &GONE, "cancelled").and_then(|made| made.call0())
        }
    };
    settled(py, raised)
}

/// Returns the exception that a worker reported.
fn failed<'py>(
    py: Python<'py>,
    content: &ReceivedPacket,
    regions: &[Arc<Region>],
    first: Option<usize>,
    items: usize,
) -> PyResult<Bound<'py, PyAny>> {
    static REMOTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let raised = helper(py, &REMOTE, "raised")?;
    let told = Decoder::new(content.bytes(), regions).value(py)?;
    unended::call(raised, (told, first, items), None)
}

/// Returns the exception for a task whose worker has ended.
fn lost<'py>(
    py: Python<'py>,
    loss: &Loss,
    name: &Py<PyAny>,
    first: Option<usize>,
    items: usize,
) -> PyResult<Bound<'py, PyAny>> {
    static LOST: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static OVERDUE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static TOO_LARGE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static UNREADY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let said = match &loss.cause {
        LossCause::Overdue { limit, ran } => {
            let told = (loss.pid, limit.as_secs_f64(), ran.as_secs_f64(), name, first, items);
            return helper(py, &OVERDUE, "overdue")?.call1(told);
        }
        LossCause::TooLarge { limit, peak } => {
            return helper(py, &TOO_LARGE, "too_large")?.with((loss.pid, *limit, *peak, name, first, items));
        }
        LossCause::Unready { limit } => {
            return helper(py, &UNREADY, "unready")?.with((loss.pid, limit.as_secs_f64(), &loss.stderr));
        }
        LossCause::Unfit(Some(said)) => Decoder::new(said.bytes(), &[]).value(py).ok(),
        LossCause::Unfit(None) | LossCause::Died => None,
    };
    let started = matches!(loss.cause, LossCause::Died);
    let exitcode = loss.exit.and_then(Exit::number);
    let (pid, starved) = (loss.pid, loss.out_of_memory);
    helper(py, &LOST, "lost")?.with((pid, exitcode, &loss.stderr, started, said, name, first, items, starved))
}

const AGAIN: &str =
    "there was no memory to unpickle a result; an AsyncResult or an iterator keeps it: request it again";

/// Passes each result of a task to `each`. Returns an error if the results cannot be decoded. `place` is the index of the
/// task's first item and the number of its items, if the caller counts items.
pub fn results<'py>(
    py: Python<'py>,
    content: &ReceivedPacket,
    regions: &[Arc<Region>],
    place: Option<(usize, usize)>,
    each: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
) -> Result<PyResult<()>, Interrupt> {
    static UNREADABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    match Decoder::new(content.bytes(), regions).sequence(py, each) {
        Ok(()) => Ok(Ok(())),
        Err(error) if interrupts_decoding(py, &error) => Err(Interrupt(error)),
        // The outcome stays: the caller can request it again when there is memory.
        Err(error) if error.is_instance_of::<PyMemoryError>(py) => Err(Interrupt(short_of_memory(py, error, AGAIN))),
        Err(error) => Ok(Err(unreadable(py, &UNREADABLE, error, place))),
    }
}

/// Returns the error of a chunk whose number of results differs from its number of items. None of its values can be
/// assigned to an item.
pub fn miscounted(py: Python<'_>) -> PyErr {
    static UNREADABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let error = PyValueError::saying("a worker returned more or fewer results than it was sent items");
    unreadable(py, &UNREADABLE, error, None)
}

fn unreadable(
    py: Python<'_>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    error: PyErr,
    place: Option<(usize, usize)>,
) -> PyErr {
    match helper(py, cell, "unreadable").and_then(|f| f.with((error.into_value(py), place))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

const NOT_YET: &str = "the time limit passed before there was a result; it can still be waited for";

static TIMEOUT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Returns whether an error is that of a wait whose time limit has passed.
pub fn is_timed_out(py: Python<'_>, error: &PyErr) -> bool {
    helper(py, &TIMEOUT, "TimeoutError").is_ok_and(|kind| error.is_instance(py, kind))
}

/// Returns the error of a wait whose time limit has passed.
pub fn timed_out(py: Python<'_>) -> PyErr {
    let error = helper(py, &TIMEOUT, "TimeoutError").and_then(|kind| kind.with((NOT_YET,)));
    error.map_or_else(|_| PyTimeoutError::saying(NOT_YET), PyErr::from_value)
}
