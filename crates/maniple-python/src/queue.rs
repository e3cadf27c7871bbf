//! `Log`: the frequent operations of queues.

mod pieces;
mod put;
mod take;

use crate::deadline::deadline;
use crate::flat::{bytes_of, flat};
use crate::handles::adopt;
use crate::lazy::Lazy;
use crate::made;
use crate::memory::PyMemory;
use crate::message::{OF_QUEUES, dump, exception, lost, rejoin, waiting};
use crate::pickle;
use crate::shelf::Shelf;
use crate::signals::interrupts;
use crate::truth::Truth;
use maniple_engine::Error;
use maniple_engine::channel::log::{Log, View};
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::{self as sys, RawHandle};
use pieces::take_pieces;
use put::{Wait, put_parts, put_pickled};
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyList};
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use take::{Message, take_one};

/// A queue of objects in shared memory. Any number of processes may put and get.
///
/// If file sizes are limited, the memory of the queue is limited too, and an object may be longer than the memory. Then
/// objects travel in [`pieces`].
#[pyclass(name = "Log", module = "maniple._maniple", frozen)]
pub struct PyLog {
    state: Mutex<State>,
    // The number of queue ends that use it.
    ends: AtomicUsize,
    shelf: Shelf,
}

enum State {
    Open(Arc<Log>, Epoch),
    /// Without descriptors: only its counts can be read.
    Seen(Arc<View>),
    Closed,
}

/// An object whose counts can be read.
enum Sight {
    Log(Arc<Log>),
    View(Arc<View>),
}

impl Deref for Sight {
    type Target = View;

    fn deref(&self) -> &View {
        match self {
            Sight::Log(log) => log,
            Sight::View(view) => view,
        }
    }
}

/// Returns whether an exception says that this process ran out of a resource. The object is not the cause.
fn is_shortage(py: Python<'_>, error: &PyErr) -> bool {
    let number = || error.value(py).getattr("errno").and_then(|number| number.extract::<i32>());
    error.is_instance_of::<PyMemoryError>(py)
        || (error.is_instance_of::<PyOSError>(py)
            && number().is_ok_and(|number| sys::is_shortage(&std::io::Error::from_raw_os_error(number))))
}

fn closed() -> PyErr {
    PyOSError::new_err("handle is closed")
}

impl PyLog {
    fn over(log: Log) -> Self {
        PyLog {
            state: Mutex::new(State::Open(Arc::new(log), Epoch::now())),
            ends: AtomicUsize::new(0),
            shelf: Shelf::default(),
        }
    }

    fn log(&self) -> PyResult<Arc<Log>> {
        // The lock is held for moments, and with the interpreter lock; no thread forks without the interpreter lock.
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            State::Open(log, epoch) => {
                if epoch.since() == Since::Born {
                    // The parent's other threads may have held locks of their `Log`, so the child opens its own.
                    (*log, *epoch) = (Arc::new(log.again()), Epoch::now());
                }
                Ok(log.clone())
            }
            State::Seen(_) | State::Closed => Err(closed()),
        }
    }

    fn sight(&self) -> PyResult<Sight> {
        if let State::Seen(view) = &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Sight::View(view.clone()));
        }
        self.log().map(Sight::Log)
    }

    /// Returns the message that is kept, if there is one.
    fn next_kept<'py>(&self, py: Python<'py>, log: &Log) -> Option<PyResult<Bound<'py, PyAny>>> {
        let kept = self.shelf.next(py);
        if kept.is_some() || log.held_back() > 0 {
            self.tell_of_kept(log);
        }
        kept
    }

    /// Tells the waiting threads of this process that a message is kept, or that it is not kept any more.
    fn tell_of_kept(&self, log: &Log) {
        let kept = self.shelf.len() as u64;
        if kept != log.held_back() {
            log.hold_back(kept);
        }
    }
}

/// Takes the next message. Returns None if there is none, at once or (if `wait`) until `until`.
fn next_message(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
    if log.is_limited() {
        return take_pieces(py, log, wait, until);
    }
    take_one(py, log, wait, until, false)
}

impl PyLog {
    fn take<'py>(&self, py: Python<'py>, block: bool, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let log = self.log()?;
        let mut until = None;
        let message = loop {
            if let Some(kept) = self.next_kept(py, &log) {
                return kept;
            }
            until = until.or_else(|| if block { deadline(timeout) } else { None });
            match next_message(py, &log, block, until)? {
                None if log.held_back() > 0 => {}
                message => break message,
            }
        };
        match message {
            Some(message) => {
                let rest = message.rest.into_iter().map(PyMemory::from).collect();
                let loaded = self.shelf.load(py, &OF_QUEUES, message.first, rest);
                if loaded.is_err() {
                    self.tell_of_kept(&log);
                }
                loaded
            }
            None => {
                let kind = EMPTY.get_or_make(py, || PyResult::Ok(py.import("queue")?.getattr("Empty")?.unbind()))?;
                Err(PyErr::from_value(kind.bind(py).call0()?))
            }
        }
    }
}

#[pymethods]
impl PyLog {
    #[new]
    #[pyo3(signature = (bound=0))]
    fn new(bound: u64) -> PyResult<Self> {
        let log = Log::create().map_err(exception)?;
        log.limit(bound);
        Ok(PyLog::over(log))
    }

    /// Opens the queue whose descriptors another process sent. The queue owns the descriptors from now on.
    #[staticmethod]
    fn adopt(memory: RawHandle, event: RawHandle) -> PyResult<Self> {
        let mut handles = adopt(vec![memory, event]).into_iter();
        match (handles.next(), handles.next()) {
            (Some(memory), Some(event)) => Ok(PyLog::over(Log::open(memory, event).map_err(exception)?)),
            _ => Err(exception(Error::BadHandles("there must be two"))),
        }
    }

    /// Returns the descriptors by which another process can open the queue.
    fn descriptors(&self) -> PyResult<(RawHandle, RawHandle)> {
        let log = self.log()?;
        let (memory, event) = log.handles();
        Ok((memory.as_raw(), event.as_raw()))
    }

    /// Returns whether the memory of a log that is created now would be limited.
    #[staticmethod]
    fn would_be_limited() -> bool {
        Log::would_be_limited()
    }

    /// Releases the queue in this process.
    fn close(&self) {
        let old = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Closed);
        drop(old);
    }

    /// Registers an end of a queue that uses it.
    fn enter(&self) {
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes an end. The last removal closes the descriptors.
    fn leave(&self) {
        if self.ends.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shed();
        }
    }

    /// Closes the descriptors. The number of objects, and of objects not reported done, can still be read.
    fn shed(&self) {
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(log, _) = &*slot {
            let view = Arc::new(log.view());
            let old = std::mem::replace(&mut *slot, State::Seen(view));
            drop(slot);
            drop(old);
        }
    }

    /// Returns a descriptor that is readable, from now on, whenever there is an object to get.
    fn watch(&self, py: Python<'_>) -> PyResult<RawHandle> {
        let log = self.log()?;
        waiting(py, |interrupted| log.watch(interrupted))?;
        Ok(log.event().as_raw())
    }

    /// Pickles an object and puts it in. `counted`: the object is to be reported done. Returns None if the object is
    /// in; False if there was no room for it, at once or within `timeout` seconds; the exception if the object cannot
    /// be pickled.
    #[pyo3(signature = (obj, counted=false, block=Truth(true), timeout=None), text_signature = "($self, obj, counted=False, block=True, timeout=None)")]
    fn put<'py>(
        &self,
        py: Python<'py>,
        obj: &Bound<'py, PyAny>,
        counted: bool,
        block: Truth,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let log = self.log()?;
        let full = || Ok(PyBool::new(py, false).to_owned().into_any());
        let wait = Wait::of(block.0, timeout);
        if matches!(wait, Wait::Not) && log.is_full() {
            return full();
        }
        let pickled = match dump(obj, &OF_QUEUES, || if log.is_limited() { usize::MAX } else { pickle::LEAST_APART }) {
            Ok(pickled) => pickled,
            Err(error) if !interrupts(py, &error) && !is_shortage(py, &error) => {
                return Ok(error.into_value(py).into_bound(py).into_any());
            }
            Err(error) => return Err(error),
        };
        if put_pickled(py, &log, obj, pickled, counted, wait)? { Ok(py.None().into_bound(py)) } else { full() }
    }

    /// Puts a pickle in. Waits for room.
    #[pyo3(signature = (pickle, counted=false))]
    fn put_pickle(&self, py: Python<'_>, pickle: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let buffer = flat(pickle)?;
        put_parts(py, &*self.log()?, &[bytes_of(&buffer)], &[], counted, Wait::Ever).map(|_| ())
    }

    /// Returns whether the queue holds as many objects as its bound allows.
    fn full(&self) -> PyResult<bool> {
        Ok(self.sight()?.is_full())
    }

    /// Takes an object out. Waits for it at most `timeout` seconds, and raises `queue.Empty` if there is none. `place`: a
    /// list of one element; the object replaces the element, and None is returned.
    #[pyo3(signature = (block=Truth(true), timeout=None, place=None), text_signature = "($self, block=True, timeout=None, place=None)")]
    fn get<'py>(
        &self,
        py: Python<'py>,
        block: Truth,
        timeout: Option<f64>,
        place: Option<&Bound<'py, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let taken = self.take(py, block.0, timeout)?;
        let Some(place) = place else { return Ok(taken) };
        // No handler runs from the last check for signals on until the object is there.
        place.set_item(0, taken)?;
        Ok(py.None().into_bound(py))
    }

    /// Keeps an object that `get` has taken and no caller has received: the next `get` of this process returns it.
    fn take_back(&self, py: Python<'_>, item: Bound<'_, PyAny>) -> PyResult<()> {
        let log = self.log()?;
        self.shelf.take_back(py, &OF_QUEUES, item)?;
        self.tell_of_kept(&log);
        Ok(())
    }

    /// Takes a pickle out. Waits for it.
    fn get_pickle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let log = self.log()?;
        let message = loop {
            if let Some(kept) = self.shelf.next_pickle(py) {
                self.tell_of_kept(&log);
                return kept;
            }
            match next_message(py, &log, true, None)? {
                None if log.held_back() > 0 => {}
                message => break message,
            }
        };
        match message {
            Some(message) if message.rest.is_empty() => {
                made::bytes(py, &message.first).map(Bound::into_any).map_err(|error| lost(py, error))
            }
            Some(message) => rejoin(py, &message.first, message.rest.into_iter().map(PyMemory::from).collect())
                .map_err(|error| lost(py, error)),
            None => Err(PyEOFError::new_err(())),
        }
    }

    /// Returns whether there is an object to get. Waits for it at most `timeout` seconds.
    #[pyo3(signature = (timeout=Some(0.0)))]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let log = self.sight()?;
        if !log.is_empty() || self.is_kept() {
            return Ok(true);
        }
        if timeout.is_some_and(|t| t <= 0.0) {
            return Ok(false);
        }
        let until = deadline(timeout);
        waiting(py, |interrupted| log.wait(until, interrupted))
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.sight()?.len() as usize + self.shelf.len())
    }

    /// Whether this process has taken out an object that no caller has received, because a signal handler raised.
    #[getter(_is_kept)]
    fn is_kept(&self) -> bool {
        self.shelf.len() > 0
    }

    /// Returns the number of counted objects that are not reported done.
    fn undone(&self) -> PyResult<u32> {
        Ok(self.sight()?.undone())
    }

    /// Reports one counted object as done. Returns False if more objects were reported than put.
    fn done(&self) -> PyResult<bool> {
        Ok(self.sight()?.done())
    }

    /// Waits at most `timeout` seconds until all counted objects are reported done. Returns whether they are.
    #[pyo3(signature = (timeout=None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let log = self.sight()?;
        let until = deadline(timeout);
        waiting(py, |interrupted| log.join(until, interrupted))
    }
}
