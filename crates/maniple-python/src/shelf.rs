//! Messages that were taken out of a queue or a connection, and that no caller has received because a signal handler
//! raised. The next call takes them first.

use crate::handler_free::Attempts;
use crate::made::{self, name};
use crate::memory::PyMemory;
use crate::message::{Parts, Pickled, Picklers, dump, lost, lost_again};
use crate::once::takes_once;
use crate::signals::interrupts;
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::ready::Kick;
use maniple_sys::{self as sys, AsHandle, RawHandle};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The number of shelves in this process that contain a message, usually 0.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Returns whether a connection or a queue may have a message that its descriptor does not show.
#[pyfunction]
pub fn something_is_kept() -> bool {
    USED.load(Ordering::Relaxed) > 0
}

/// Wakes the threads other than the first that wait for several objects, when an object is put on a shelf.
static KEPT_EVENTS: Mutex<Vec<Weak<Kick>>> = Mutex::new(Vec::new());

thread_local! {
    static KEPT_EVENT: RefCell<Option<Arc<Kick>>> = const { RefCell::new(None) };
}

/// Resets and returns this thread's event, which is set when a message is put on a shelf. `None` if handlers run in
/// this thread, or if there is no descriptor left.
pub fn kept_event() -> Option<Arc<Kick>> {
    if sys::is_first_thread() {
        return None;
    }
    KEPT_EVENT.with(|event| {
        let mut event = event.borrow_mut();
        if event.is_none() {
            let made = Arc::new(Kick::new().ok()?);
            KEPT_EVENTS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&made));
            *event = Some(made);
        }
        let event = event.clone()?;
        event.clear();
        Some(event)
    })
}

/// As `kept_event`, for a thread that waits for these objects. `None` also if none of their classes keeps messages.
#[pyfunction]
pub fn kept_event_of(objects: &Bound<'_, PyList>) -> Option<RawHandle> {
    let name = name!(objects.py(), "_is_kept").ok()?;
    // The class is checked, because the value of the attribute may change.
    let may = |object: Bound<'_, PyAny>| object.get_type().hasattr(name).unwrap_or(false);
    if !sys::is_first_thread() && objects.iter().any(may) {
        kept_event().map(|event| event.as_handle().as_raw())
    } else {
        None
    }
}

fn call_ears() {
    let mut events = KEPT_EVENTS.lock().unwrap_or_else(PoisonError::into_inner);
    events.retain(|event| event.upgrade().inspect(|event| event.kick()).is_some());
}

/// A message that is being unpickled.
#[pyclass(name = "Unread", module = "maniple._maniple", frozen)]
pub struct PyUnread {
    picklers: &'static Picklers,
    parts: Parts,
    value: Mutex<Option<Py<PyAny>>>,
    attempts: Attempts,
}

/// The result of unpickling a message, or the error of a handler that interrupted it.
type Attempt<'py> = Result<PyResult<Bound<'py, PyAny>>, PyErr>;

fn attempted<'py>(py: Python<'_>, read: PyResult<Bound<'py, PyAny>>) -> Attempt<'py> {
    match read {
        Err(error) if interrupts(py, &error) => Err(error),
        read => Ok(read),
    }
}

impl PyUnread {
    /// Unpickles the message, in this thread or in another.
    fn read<'py>(&self, py: Python<'py>, message: &Py<PyUnread>) -> Attempt<'py> {
        if self.attempts.need_another_thread() {
            let made = || Ok(message.clone_ref(py).into_bound(py).into_any());
            return match self.attempts.outcome_elsewhere(py, made) {
                // There was no other thread.
                Err(error) => attempted(py, Err(error)),
                outcome => outcome,
            };
        }
        let again = self.attempts.is_repeated();
        let read = attempted(py, self.parts.load(py, self.picklers))?;
        Ok(if again { read.map_err(|error| lost_again(py, error)) } else { read })
    }

    fn value(&self) -> MutexGuard<'_, Option<Py<PyAny>>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyUnread {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.parts.load(py, self.picklers)
    }
}

/// The messages that one queue or connection keeps in this process.
#[derive(Default)]
pub struct Shelf {
    used: AtomicBool,
    messages: Mutex<(Option<Epoch>, VecDeque<Py<PyUnread>>)>,
}

impl Shelf {
    fn messages(&self) -> MutexGuard<'_, (Option<Epoch>, VecDeque<Py<PyUnread>>)> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of messages.
    pub fn len(&self) -> usize {
        if !self.used.load(Ordering::Relaxed) {
            return 0;
        }
        let messages = self.messages();
        // The parent reads the messages; a forked child drops its copies.
        if messages.0.is_some_and(|epoch| epoch.since() == Since::Born) { 0 } else { messages.1.len() }
    }

    fn take(&self) -> Option<Py<PyUnread>> {
        if self.len() == 0 {
            return None;
        }
        self.messages().1.pop_front()
    }

    /// Drops the next message. Returns false if there is none.
    pub fn drop_next(&self) -> bool {
        self.take().is_some()
    }

    fn keep(&self, message: Py<PyUnread>) {
        // If forks cannot be counted, a child may read the same messages as its parent.
        let _ = count_forks();
        let mut messages = self.messages();
        let mut inherited = VecDeque::new();
        if messages.0.is_some_and(|epoch| epoch.since() == Since::Born) {
            inherited = std::mem::take(&mut messages.1);
        }
        messages.0 = Some(Epoch::now());
        messages.1.push_front(message);
        drop(messages);
        drop(inherited);
        if !self.used.swap(true, Ordering::Relaxed) {
            USED.fetch_add(1, Ordering::Relaxed);
        }
        call_ears();
    }

    /// Returns the value of a message that has just been taken. Keeps the message if a handler raises.
    pub fn load<'py>(
        &self,
        py: Python<'py>,
        picklers: &'static Picklers,
        stream: Vec<u8>,
        buffers: Vec<PyMemory>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let unread = |parts| PyUnread { picklers, parts, value: Mutex::default(), attempts: Attempts::default() };
        let buffers = match buffers.is_empty() {
            true => Vec::new(),
            false => {
                let buffers = buffers.into_iter().map(|buffer| Bound::new(py, buffer)).collect::<PyResult<Vec<_>>>();
                buffers.map_err(|error| lost(py, error))?
            }
        };
        if let Some(value) = picklers.load_quickly(py, &stream, &buffers).map_err(|error| lost(py, error))? {
            // A signal may have arrived during the wait for the message.
            return self.settle(py, Ok(Ok(value)), || Py::new(py, unread(Parts::new(py, stream, buffers)?)));
        }
        let once = takes_once(&stream);
        let parts = Parts::new(py, stream, buffers).map_err(|error| lost(py, error))?;
        if once {
            let message = Py::new(py, unread(parts)).map_err(|error| lost(py, error))?;
            message.get().attempts.begin_elsewhere();
            let read = message.get().read(py, &message);
            return self.settle(py, read, || Ok(message));
        }
        let read = attempted(py, parts.load(py, picklers));
        self.settle(py, read, || Py::new(py, unread(parts)))
    }

    /// Keeps a value that was taken, and that no caller has received.
    pub fn take_back(&self, py: Python<'_>, picklers: &'static Picklers, value: Bound<'_, PyAny>) -> PyResult<()> {
        // Its pickle is only for a caller that wants the bytes. A value that cannot be pickled again has none.
        let stream = match dump(&value, picklers, || usize::MAX) {
            Ok(Pickled::Whole(bytes)) => made::copy(&bytes).unwrap_or_default(),
            _ => Vec::new(),
        };
        let unread = PyUnread {
            picklers,
            parts: Parts::new(py, stream, Vec::new())?,
            value: Mutex::new(Some(value.unbind())),
            attempts: Attempts::default(),
        };
        self.keep(Py::new(py, unread)?);
        Ok(())
    }

    /// Returns the value of the kept message, if there is one.
    pub fn next<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        let message = self.take()?;
        let unread = message.get();
        let made = unread.value().take();
        let read = match made {
            Some(value) => Ok(Ok(value.into_bound(py))),
            None => unread.read(py, &message),
        };
        Some(self.settle(py, read, || Ok(message)))
    }

    /// Returns the result of an attempt. If a handler has raised, or raises now, the message is kept.
    fn settle<'py>(
        &self,
        py: Python<'py>,
        read: Attempt<'py>,
        message: impl FnOnce() -> PyResult<Py<PyUnread>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (error, value) = match read {
            Ok(Ok(value)) => match py.check_signals() {
                Ok(()) => return Ok(value),
                Err(error) => (error, Some(value.unbind())),
            },
            Ok(Err(error)) => return Err(lost(py, error)),
            Err(error) => (error, None),
        };
        let message = message()?;
        let unread = message.get();
        if value.is_none() {
            unread.attempts.broken_off();
        }
        *unread.value() = value;
        self.keep(message);
        Err(error)
    }

    /// Runs the handlers of signals that have arrived. If one raises, keeps the message, which consists of `bytes`.
    pub fn settle_bytes(&self, py: Python<'_>, picklers: &'static Picklers, bytes: &[u8]) -> PyResult<()> {
        let Err(error) = py.check_signals() else { return Ok(()) };
        let Ok(bytes) = made::copy(bytes) else {
            let unkept = lost(py, PyMemoryError::new_err(()));
            unkept.set_cause(py, Some(error));
            return Err(unkept);
        };
        let parts = Parts::new(py, bytes, Vec::new())?;
        let unread = PyUnread { picklers, parts, value: Mutex::default(), attempts: Attempts::default() };
        self.keep(Py::new(py, unread)?);
        Err(error)
    }

    /// As `next`, but returns the pickle of the message.
    pub fn next_pickle<'py>(&self, py: Python<'py>) -> Option<PyResult<Bound<'py, PyAny>>> {
        let message = self.take()?;
        let whole = message.get().parts.whole(py);
        if whole.is_err() {
            self.keep(message);
        }
        Some(whole.and_then(|whole| Ok(whole.cast_into::<PyBytes>()?.into_any())))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        if *self.used.get_mut() {
            USED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
