//! `Log`: what queues do often.

use crate::connection::deadline;
use crate::handles::adopt;
use crate::lazy::Lazy;
use crate::made;
use crate::memory::PyMemory;
use crate::message::{Bytes, OF_QUEUES, Pickled, bytes_of, dump, exception, lost, rejoin, waiting};
use crate::pickle;
use crate::shelf::Shelf;
use crate::signals::interrupts;
use crate::truth::Truth;
use maniple_engine::Error;
use maniple_engine::channel::log::{Interrupted, Log, MOST_PARTS, Put, Terms, View};
use maniple_engine::shm::buffers::Buffer;
use maniple_sys::epoch::{Epoch, Since};
use maniple_sys::{self as sys, RawHandle};
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages of more bytes are copied without the interpreter lock.
const LONG: usize = 64 * 1024;

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

/// Marks of pieces: the first of an object, and the last.
const FIRST: u8 = 1;
const LAST: u8 = 2;
/// While another message is kept, the queue is checked so often for the next piece of an object.
const PAUSE: Duration = Duration::from_millis(1);
/// A piece is at most this part of the memory, and so long.
const SHARE: u64 = 4;
const PIECE: u64 = 1 << 20;

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

/// How long a writer waits for a place.
#[derive(Clone, Copy)]
enum Wait {
    Not,
    Until(Instant),
    Ever,
}

impl Wait {
    fn of(block: bool, timeout: Option<f64>) -> Self {
        match deadline(timeout) {
            _ if !block => Wait::Not,
            Some(then) => Wait::Until(then),
            None => Wait::Ever,
        }
    }
}

struct Message {
    first: Vec<u8>,
    rest: Vec<Buffer>,
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

    /// Puts a message in, of which some parts are these buffers. False: there is no place for it, at once or (where it waits) until `until`.
    fn put_parts(
        py: Python<'_>,
        log: &Log,
        parts: &[&[u8]],
        buffers: &[Bytes],
        counted: bool,
        wait: Wait,
    ) -> PyResult<bool> {
        if log.is_limited() {
            return waiting(py, |interrupted| put_pieces(log, parts, interrupted)).map(|()| true);
        }
        let terms = || Terms { counted, hurried: !matches!(wait, Wait::Ever), before: None };
        let long = parts.iter().map(|p| p.len()).sum::<usize>() > LONG;
        if !long {
            match log.put_on(parts, terms(), None).map_err(exception)? {
                Put::Done => return Ok(true),
                Put::Full if matches!(wait, Wait::Not) => return Ok(false),
                _ => {}
            }
        }
        let until = if let Wait::Until(then) = wait { Some(then) } else { None };
        let _pins: Vec<_> = buffers.iter().filter_map(|bytes| bytes.pin(py)).collect();
        waiting(py, |interrupted| {
            loop {
                let late = || until.is_some_and(|until| Instant::now() >= until);
                // A writer that was stopped may hold the queue for as long as it likes.
                match log.put_on(parts, terms(), Some(&mut || late() || interrupted())) {
                    Ok(Put::Done) => return Ok(true),
                    Ok(Put::Full) if matches!(wait, Wait::Not) => return Ok(false),
                    Ok(_) => {}
                    Err(Error::Interrupted) if late() => return Ok(false),
                    Err(error) => return Err(error),
                }
                if !log.wait_for_room(None, until, interrupted)? {
                    return Ok(false);
                }
            }
        })
    }

    fn put_pickled(
        py: Python<'_>,
        log: &Log,
        obj: &Bound<'_, PyAny>,
        pickled: Pickled,
        counted: bool,
        wait: Wait,
    ) -> PyResult<bool> {
        match pickled {
            Pickled::Apart(..) if log.is_limited() => {
                Err(PyOSError::new_err("an object is pickled differently each time"))
            }
            Pickled::Whole(bytes) => Self::put_parts(py, log, &[&bytes], &[], counted, wait),
            Pickled::Apart(stream, buffers) if buffers.len() < MOST_PARTS => {
                let parts: Vec<&[u8]> = std::iter::once(&stream).chain(&buffers).map(|bytes| &**bytes).collect();
                Self::put_parts(py, log, &parts, &buffers, counted, wait)
            }
            Pickled::Apart(..) => match dump(obj, &OF_QUEUES, || usize::MAX)? {
                Pickled::Whole(bytes) => Self::put_parts(py, log, &[&bytes], &[], counted, wait),
                Pickled::Apart(..) => Err(PyOSError::new_err("an object is pickled differently each time")),
            },
        }
    }

    /// The next message. None: there is none, at once or (where it waits) until `until`.
    fn take(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
        if log.is_limited() {
            return Self::take_pieces(py, log, wait, until);
        }
        Self::take_one(py, log, wait, until, false)
    }

    fn take_pieces(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
        let mut first = Vec::new();
        let mut begun = false;
        loop {
            // Once there is a piece, the rest is on its way.
            let until = if begun { None } else { until };
            let Some(piece) = Self::take_one(py, log, wait || begun, until, begun)? else { return Ok(None) };
            let (Some(mark), [bytes]) = (piece.first.first(), &piece.rest[..]) else {
                return Err(exception(Error::Damaged("an object in a queue is not in pieces")));
            };
            if mark & FIRST != 0 {
                // What was there of another was left by a writer that died.
                first.clear();
                begun = true;
            }
            if begun {
                first.extend_from_slice(bytes.bytes());
                if mark & LAST != 0 {
                    return Ok(Some(Message { first, rest: Vec::new() }));
                }
            }
        }
    }

    fn take_one(
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
            loop {
                // A reader that was stopped may hold the queue for as long as it likes.
                match log.take(&mut first, Some(&mut || late() || interrupted())) {
                    Ok(Some(taken)) => return Ok(Some(Message { first, rest: taken.rest })),
                    Err(Error::Interrupted) if late() => return Ok(None),
                    other => drop(other?),
                }
                let is_kept = log.held_back() > 0;
                if !wait || is_kept && !goes_on || !log.wait(until, interrupted)? {
                    return Ok(None);
                }
                if is_kept {
                    std::thread::sleep(PAUSE);
                }
            }
        })
    }
}

/// Puts an object's only part in, piece by piece, waiting for room.
fn put_pieces(log: &Log, parts: &[&[u8]], interrupted: Interrupted<'_, '_>) -> Result<(), Error> {
    let [object] = parts else { return Err(Error::Damaged("an object in pieces has one part")) };
    let most = (log.capacity() / SHARE).min(PIECE) as usize;
    let count = object.len().div_ceil(most).max(1);
    for index in 0..count {
        let mark = [if index == 0 { FIRST } else { 0 } | if index + 1 == count { LAST } else { 0 }];
        let piece = [&mark[..], &object[index * most..object.len().min((index + 1) * most)]];
        loop {
            match log.put_on(&piece, Terms { hurried: true, ..Terms::default() }, Some(&mut *interrupted))? {
                Put::Done => break,
                _ => log.wait_for_room(Some(&piece), None, &mut *interrupted)?,
            };
        }
    }
    Ok(())
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
        if Self::put_pickled(py, &log, obj, pickled, counted, wait)? { Ok(py.None().into_bound(py)) } else { full() }
    }

    /// Puts a pickle in, waiting for a place.
    #[pyo3(signature = (pickle, counted=false))]
    fn put_pickle(&self, py: Python<'_>, pickle: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let buffer = crate::connection::flat(pickle)?;
        Self::put_parts(py, &*self.log()?, &[bytes_of(&buffer)], &[], counted, Wait::Ever).map(|_| ())
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
            match Self::take(py, &log, block, until)? {
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
            match Self::take(py, &log, true, None)? {
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
