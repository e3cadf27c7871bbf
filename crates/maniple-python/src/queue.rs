//! `Log`: what queues do often.

mod pieces;
mod put;
mod take;

use crate::connection::deadline;
use crate::handles::adopt;
use crate::lazy::Lazy;
use crate::made;
use crate::memory::PyMemory;
use crate::message::{OF_QUEUES, bytes_of, dump, exception, lost, rejoin, waiting};
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
use pyo3::types::PyBool;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use take::{Message, take_one};

/// A queue of objects in shared memory, for any number of processes that put and get.
///
/// Where file sizes are limited, its memory is, and an object may be longer than it. So there objects go in *pieces*: messages of a mark and
/// some bytes. A process that puts or gets excludes others meanwhile; the marks tell what a writer or reader that died has left of an object.
#[pyclass(name = "Log", module = "maniple._maniple", frozen)]
pub struct PyLog {
    state: Mutex<State>,
    // Ends of queues that use it.
    ends: AtomicUsize,
    shelf: Shelf,
}

enum State {
    Open(Arc<Log>, Epoch),
    /// Without descriptors: it can only be looked at.
    Seen(Arc<View>),
    Closed,
}

/// What can be looked at.
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

/// Whether an exception says that this process ran out of something, which is not the object's fault.
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
        // Held for moments, and with the interpreter lock, without which no thread forks.
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            State::Open(log, epoch) => {
                if epoch.since() == Since::Born {
                    // What the parent's other threads may have been doing with theirs is not our business.
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

    /// The message that is kept, if there is one.
    fn next_kept<'py>(&self, py: Python<'py>, log: &Log) -> Option<PyResult<Bound<'py, PyAny>>> {
        let kept = self.shelf.next(py);
        if kept.is_some() || log.held_back() > 0 {
            self.tell_of_kept(log);
        }
        kept
    }

    /// Has those who wait in this process see what is kept, or that it is not kept any more.
    fn tell_of_kept(&self, log: &Log) {
        let kept = self.shelf.len() as u64;
        if kept != log.held_back() {
            log.hold_back(kept);
        }
    }
}

/// The next message. None: there is none, at once or (where it waits) until `until`.
fn next_message(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
    if log.is_limited() {
        return take_pieces(py, log, wait, until);
    }
    take_one(py, log, wait, until, false)
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

    /// The queue whose descriptors another process gave; they belong to it from here on.
    #[staticmethod]
    fn adopt(memory: RawHandle, event: RawHandle) -> PyResult<Self> {
        let mut handles = adopt(vec![memory, event]).into_iter();
        match (handles.next(), handles.next()) {
            (Some(memory), Some(event)) => Ok(PyLog::over(Log::open(memory, event).map_err(exception)?)),
            _ => Err(exception(Error::BadHandles("there must be two"))),
        }
    }

    /// The descriptors by which another process can open it.
    fn descriptors(&self) -> PyResult<(RawHandle, RawHandle)> {
        let log = self.log()?;
        let (memory, event) = log.handles();
        Ok((memory.as_raw(), event.as_raw()))
    }

    /// Whether the memory of a log that is created now would be limited.
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

    /// Removes an end; the descriptors are closed with the last one.
    fn leave(&self) {
        if self.ends.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.shed();
        }
    }

    /// Closes the descriptors. The number of objects, and of those not reported done, can still be read.
    fn shed(&self) {
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(log, _) = &*slot {
            let view = Arc::new(log.view());
            let old = std::mem::replace(&mut *slot, State::Seen(view));
            drop(slot);
            drop(old);
        }
    }

    /// A descriptor that is readable, from now on, whenever there is something to get.
    fn watch(&self, py: Python<'_>) -> PyResult<RawHandle> {
        let log = self.log()?;
        waiting(py, |interrupted| log.watch(interrupted))?;
        Ok(log.event().as_raw())
    }

    /// Pickles an object and puts it in. `counted`: it is to be reported done. None: it is in; False: there was no place for it, at once or
    /// within `timeout` seconds; an exception: the object cannot be pickled, for this reason.
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
        let pickled = match dump(obj, &OF_QUEUES, || if log.is_limited() { usize::MAX } else { pickle::MIDDLING }) {
            Ok(pickled) => pickled,
            Err(error) if !interrupts(py, &error) && !is_shortage(py, &error) => {
                return Ok(error.into_value(py).into_bound(py).into_any());
            }
            Err(error) => return Err(error),
        };
        if put_pickled(py, &log, obj, pickled, counted, wait)? { Ok(py.None().into_bound(py)) } else { full() }
    }

    /// Puts a pickle in, waiting for a place.
    #[pyo3(signature = (pickle, counted=false))]
    fn put_pickle(&self, py: Python<'_>, pickle: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let buffer = crate::connection::flat(pickle)?;
        put_parts(py, &*self.log()?, &[bytes_of(&buffer)], &[], counted, Wait::Ever).map(|_| ())
    }

    /// Whether there are as many objects in it as there may be.
    fn full(&self) -> PyResult<bool> {
        Ok(self.sight()?.is_full())
    }

    /// Takes an object out, waiting for one at most `timeout` seconds. `queue.Empty` where there is none.
    #[pyo3(signature = (block=Truth(true), timeout=None), text_signature = "($self, block=True, timeout=None)")]
    fn get<'py>(&self, py: Python<'py>, block: Truth, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let log = self.log()?;
        let Truth(block) = block;
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

    /// Takes a pickle out, waiting for one.
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

    /// Whether something can be got, waiting for it at most `timeout` seconds.
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

    /// Whether something that was taken here is still to be got, since a signal's handler kept it from its caller.
    #[getter(_is_kept)]
    fn is_kept(&self) -> bool {
        self.shelf.len() > 0
    }

    /// How many counted things are not reported done.
    fn undone(&self) -> PyResult<u32> {
        Ok(self.sight()?.undone())
    }

    /// Reports one counted thing as done. False: more were reported than put.
    fn done(&self) -> PyResult<bool> {
        Ok(self.sight()?.done())
    }

    /// Waits until all counted objects are reported done, at most `timeout` seconds. Returns whether they are.
    #[pyo3(signature = (timeout=None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let log = self.sight()?;
        let until = deadline(timeout);
        waiting(py, |interrupted| log.join(until, interrupted))
    }
}
