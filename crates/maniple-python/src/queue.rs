//! `Log`: the frequent operations of queues.

mod many;
mod pieces;
mod put;
mod take;

use crate::args::{Calls as _, Out};
use crate::deadline::deadline;
use crate::error::Saying as _;
use crate::flat::{bytes_of, flat};
use crate::handles::adopt;
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import};
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
use put::{Placed, Wait, put_parts, put_pickled};
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyIterator, PyList};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use take::{Message, take_one};

/// A thread that waits until all objects are reported done looks so often whether the queue was shut down at once.
const LOOK_UP: Duration = Duration::from_secs(1);

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
    let number = || error.value(py).attr("errno").and_then(|number| number.extract::<i32>());
    error.is_instance_of::<PyMemoryError>(py)
        || (error.is_instance_of::<PyOSError>(py)
            && number().is_ok_and(|number| sys::is_shortage(&std::io::Error::from_raw_os_error(number))))
}

fn closed() -> PyErr {
    PyOSError::saying("handle is closed")
}

/// Returns the exception of this name in a module, with a text; without memory for the text, without.
fn queue_error(
    py: Python<'_>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
    text: impl Into<Cow<'static, str>>,
) -> PyErr {
    let class = cell.get_or_make(py, || PyResult::Ok(import(py, module)?.attr(name)?.unbind()));
    let made = class.and_then(|class| match made::text(py, &text.into()) {
        Ok(text) => class.bind(py).with((text,)),
        Err(_) => class.bind(py).call0(),
    });
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Returns the error of a wait for an object: `waited` says how long it was, in seconds, if it was limited.
fn empty(py: Python<'_>, waited: Option<f64>) -> PyErr {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let text = match waited {
        None => Cow::Borrowed("the queue is empty"),
        Some(seconds) => format!("the queue was empty for {} s", seconds.max(0.0)).into(),
    };
    queue_error(py, &EMPTY, "queue", "Empty", text)
}

fn shut_down(py: Python<'_>, text: &'static str) -> PyErr {
    static SHUT_DOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    queue_error(py, &SHUT_DOWN, "maniple.queues", "ShutDown", text)
}

/// What `put` says of a queue that was shut down, and what `get` says.
const NO_MORE_IN: &str = "the queue is shut down and accepts no more items";
const NO_MORE_OUT: &str = "the queue is empty and shut down";
const DROPPED: &str = "the queue was shut down at once (immediate=True)";

impl PyLog {
    /// Takes a pickle out. Waits for it.
    pub fn get_pickle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
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
            None if log.is_shut() => Err(closed()),
            None => Err(PyEOFError::new_err(())),
        }
    }

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
        let log = self.log()?;
        let mut until = None;
        let message = loop {
            if log.is_revoked() {
                return Err(shut_down(py, DROPPED));
            }
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
            Some(message) => self.load(py, &log, message),
            None if log.is_shut() => Err(closed()),
            None if log.is_over() => Err(shut_down(py, if log.is_revoked() { DROPPED } else { NO_MORE_OUT })),
            None => Err(empty(py, timeout.filter(|_| block))),
        }
    }

    fn load<'py>(&self, py: Python<'py>, log: &Log, message: Message) -> PyResult<Bound<'py, PyAny>> {
        let rest = match message.rest.is_empty() {
            true => Vec::new(),
            false => message.rest.into_iter().map(PyMemory::from).collect(),
        };
        let loaded = self.shelf.load(py, &OF_QUEUES, message.first, rest);
        if loaded.is_err() {
            self.tell_of_kept(log);
        }
        loaded
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
    fn descriptors(&self) -> PyResult<Out<(RawHandle, RawHandle)>> {
        let log = self.log()?;
        let (memory, event) = log.handles();
        Ok(Out((memory.as_raw(), event.as_raw())))
    }

    /// Returns whether the memory of a log that is created now would be limited.
    #[staticmethod]
    fn would_be_limited() -> bool {
        Log::would_be_limited()
    }

    /// Releases the queue in this process.
    fn close(&self) {
        let old = std::mem::replace(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner), State::Closed);
        if let State::Open(log, _) = &old {
            log.shut();
        }
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
            log.shut();
            let view = Arc::new(log.view());
            let old = std::mem::replace(&mut *slot, State::Seen(view));
            drop(slot);
            drop(old);
        }
    }

    /// Returns a descriptor that is readable, from now on, whenever there is an object to get.
    fn watch(&self, py: Python<'_>) -> PyResult<Out<RawHandle>> {
        let log = self.log()?;
        waiting(py, |interrupted| log.watch(interrupted))?;
        Ok(Out(log.event().as_raw()))
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
        if log.is_closed() {
            return Err(shut_down(py, NO_MORE_IN));
        }
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
        match put_pickled(py, &log, obj, pickled, counted, wait)? {
            Placed::In => Ok(py.None().into_bound(py)),
            Placed::Full => full(),
            Placed::Closed => Err(shut_down(py, NO_MORE_IN)),
            Placed::Shut => Err(closed()),
        }
    }

    /// Puts in the objects of an iterator, until it ends. Returns the number of objects that are in, and None; or, if there
    /// was no room for one, False; or, if one cannot be pickled, the exception and that object. An exception of the
    /// iterator has no number: `count`, a list of one element, has it in any case. An object for which there was no room,
    /// or that came after the queue was shut down, is appended to `count`.
    #[pyo3(signature = (objects, counted, block, timeout, count))]
    fn put_many<'py>(
        &self,
        py: Python<'py>,
        objects: &Bound<'py, PyIterator>,
        counted: bool,
        block: Truth,
        timeout: Option<f64>,
        count: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        many::put(self, py, objects, counted, Wait::of(block.0, timeout), count)
    }

    /// Puts a pickle in. Waits for room.
    #[pyo3(signature = (pickle, counted=false))]
    fn put_pickle(&self, py: Python<'_>, pickle: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let buffer = flat(pickle)?;
        match put_parts(py, &*self.log()?, &[bytes_of(&buffer)], &[], counted, Wait::Ever)? {
            Placed::Closed => Err(shut_down(py, NO_MORE_IN)),
            Placed::Shut => Err(closed()),
            _ => Ok(()),
        }
    }

    /// Waits at most `timeout` seconds until there is room for an object, or until the queue is shut down. Returns whether
    /// that is so.
    fn wait_for_room(&self, py: Python<'_>, timeout: f64) -> PyResult<bool> {
        let log = self.sight()?;
        let until = deadline(Some(timeout));
        waiting(py, |interrupted| log.wait_for_room(None, until, interrupted))
    }

    /// Lets no more objects in. `at_once`: nor out; objects that are in the queue are dropped, and, if they are `counted`,
    /// reported done.
    fn shut_down(&self, py: Python<'_>, at_once: bool, counted: bool) -> PyResult<()> {
        let log = self.log()?;
        if !at_once {
            return waiting(py, |interrupted| log.close(interrupted));
        }
        waiting(py, |interrupted| log.revoke(interrupted))?;
        many::drop_all(self, py, &log, counted)
    }

    /// Returns whether no more objects come in.
    fn is_shut_down(&self) -> PyResult<bool> {
        Ok(self.sight()?.is_closed())
    }

    /// Returns whether the queue holds as many objects as its bound allows.
    fn full(&self) -> PyResult<bool> {
        Ok(self.sight()?.is_full())
    }

    /// Takes an object out. Waits for it at most `timeout` seconds, and raises `queue.Empty` if there is none.
    ///
    /// It is `log[block, timeout]`, because the interpreter runs signal handlers after a call, and not after a subscription:
    /// a handler that raises there would lose the object. A function that returns the subscription has the object when
    /// the next handler runs.
    fn __getitem__<'py>(&self, py: Python<'py>, wait: (Truth, Option<f64>)) -> PyResult<Bound<'py, PyAny>> {
        let (block, timeout) = wait;
        self.take(py, block.0, timeout)
    }

    /// Takes out what is there: at least one object, for which it waits at most `timeout` seconds, and at most `most`. The
    /// objects are appended to `place`, also if the call raises.
    #[pyo3(signature = (most, block, timeout, place))]
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        most: Option<usize>,
        block: Truth,
        timeout: Option<f64>,
        place: &Bound<'py, PyList>,
    ) -> PyResult<()> {
        place.append(self.take(py, block.0, timeout)?)?;
        many::take_rest(self, py, most, place)
    }

    /// Keeps the objects that `get_many` has taken and no caller has received: the next calls of this process return them.
    fn take_all_back(&self, py: Python<'_>, items: &Bound<'_, PyList>) -> PyResult<()> {
        let log = self.log()?;
        for item in items.iter().rev() {
            self.shelf.take_back(py, &OF_QUEUES, item)?;
            self.tell_of_kept(&log);
        }
        Ok(())
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
        let seen = self.sight()?;
        let until = deadline(timeout);
        loop {
            if let Sight::Log(log) = &seen
                && log.is_revoked()
            {
                // The process that shut the queue down may have died before it had dropped everything.
                many::drop_all(self, py, log, true)?;
            }
            let look = Instant::now() + LOOK_UP;
            let turn = until.map_or(look, |until| until.min(look));
            if waiting(py, |interrupted| seen.join(Some(turn), interrupted))? {
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
        }
    }
}
