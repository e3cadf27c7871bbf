//! `Log`: what queues do often.

use crate::connection::deadline;
use crate::handles::adopt;
use crate::memory::PyMemory;
use crate::message::{Pickled, bytes_of, dump, exception, load, rejoin, waiting};
use crate::truth::Truth;
use maniple_engine::Error;
use maniple_engine::channel::log::{Log, MOST_PARTS};
use maniple_engine::process::epoch::{Epoch, Since};
use pyo3::exceptions::{PyEOFError, PyOSError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Messages of more bytes are copied without the interpreter lock.
const LONG: usize = 64 * 1024;

/// A queue of objects in shared memory, for any number of processes that put and get.
#[pyclass(name = "Log", module = "maniple._maniple", frozen)]
pub struct PyLog(Mutex<Option<(Arc<Log>, Epoch)>>);

struct Message {
    first: Vec<u8>,
    rest: Vec<Vec<u8>>,
}

impl PyLog {
    fn over(log: Log) -> Self {
        PyLog(Mutex::new(Some((Arc::new(log), Epoch::now()))))
    }

    fn log(&self) -> PyResult<Arc<Log>> {
        // Held for moments, and with the interpreter lock, without which nobody forks.
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_mut() {
            Some((log, epoch)) => {
                if epoch.since() == Since::Born {
                    // What the parent's other threads may have been doing with theirs is not our business.
                    (*log, *epoch) = (Arc::new(log.again()), Epoch::now());
                }
                Ok(log.clone())
            }
            None => Err(PyOSError::new_err("handle is closed")),
        }
    }

    fn put_parts(py: Python<'_>, log: &Log, parts: &[&[u8]], counted: bool) -> PyResult<()> {
        let long = parts.iter().map(|p| p.len()).sum::<usize>() > LONG;
        if !long && log.put(parts, counted, None).map_err(exception)? {
            return Ok(());
        }
        waiting(py, |interrupted| log.put(parts, counted, Some(interrupted))).map(|_| ())
    }

    /// The next message. None: there is none, at once or (where it waits) until `until`.
    fn take(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
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
                if !wait || !log.wait(until, interrupted)? {
                    return Ok(None);
                }
            }
        })
    }
}

#[pymethods]
impl PyLog {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(PyLog::over(Log::create().map_err(exception)?))
    }

    /// The queue whose descriptors another process gave; they belong to it from here on.
    #[staticmethod]
    fn adopt(memory: i32, event: i32) -> PyResult<Self> {
        let mut handles = adopt(vec![memory, event]).into_iter();
        match (handles.next(), handles.next()) {
            (Some(memory), Some(event)) => Ok(PyLog::over(Log::open(memory, event).map_err(exception)?)),
            _ => Err(exception(Error::BadHandles("there must be two"))),
        }
    }

    /// The descriptors by which another process can open it.
    fn descriptors(&self) -> PyResult<(i32, i32)> {
        let log = self.log()?;
        let (memory, event) = log.handles();
        Ok((memory.as_raw_fd(), event.as_raw_fd()))
    }

    fn close(&self) {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(log);
    }

    /// A descriptor that is readable, from now on, whenever there is something to get.
    fn watch(&self, py: Python<'_>) -> PyResult<i32> {
        let log = self.log()?;
        waiting(py, |interrupted| log.watch(interrupted))?;
        Ok(log.event().as_raw_fd())
    }

    /// Pickles an object and puts it in. `counted`: it is to be reported done.
    #[pyo3(signature = (obj, counted=false))]
    fn put(&self, py: Python<'_>, obj: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let log = self.log()?;
        match dump(obj, || true)? {
            Pickled::Quick(bytes) => Self::put_parts(py, &log, &[&bytes], counted),
            Pickled::Whole(bytes) => Self::put_parts(py, &log, &[bytes_of(&bytes)], counted),
            Pickled::Apart(stream, buffers, _keep) if buffers.len() < MOST_PARTS => {
                let parts: Vec<&[u8]> = std::iter::once(&stream).chain(&buffers).map(bytes_of).collect();
                Self::put_parts(py, &log, &parts, counted)
            }
            Pickled::Apart(..) => match dump(obj, || false)? {
                Pickled::Whole(bytes) => Self::put_parts(py, &log, &[bytes_of(&bytes)], counted),
                _ => Err(PyOSError::new_err("an object is pickled differently each time")),
            },
        }
    }

    /// Puts a pickle in.
    #[pyo3(signature = (pickle, counted=false))]
    fn put_pickle(&self, py: Python<'_>, pickle: &Bound<'_, PyAny>, counted: bool) -> PyResult<()> {
        let buffer = crate::connection::flat(pickle)?;
        Self::put_parts(py, &*self.log()?, &[bytes_of(&buffer)], counted)
    }

    /// Takes an object out, waiting for one at most `timeout` seconds. `queue.Empty` where there is none. `taken` is called when one is
    /// there, before it is unpickled.
    #[pyo3(signature = (block=Truth(true), timeout=None, taken=None), text_signature = "($self, block=True, timeout=None, taken=None)")]
    fn get<'py>(
        &self,
        py: Python<'py>,
        block: Truth,
        timeout: Option<f64>,
        taken: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let log = self.log()?;
        let Truth(block) = block;
        let until = if block { deadline(timeout) } else { None };
        match Self::take(py, &log, block, until)? {
            Some(message) => {
                if let Some(taken) = taken {
                    taken.call0()?;
                }
                load(py, message.first, message.rest.into_iter().map(PyMemory::from).collect())
            }
            None => {
                let kind =
                    EMPTY.get_or_try_init(py, || PyResult::Ok(py.import("queue")?.getattr("Empty")?.unbind()))?;
                Err(PyErr::from_value(kind.bind(py).call0()?))
            }
        }
    }

    /// Takes a pickle out, waiting for one.
    fn get_pickle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match Self::take(py, &*self.log()?, true, None)? {
            Some(message) if message.rest.is_empty() => Ok(PyBytes::new(py, &message.first).into_any()),
            Some(message) => rejoin(py, &message.first, message.rest.into_iter().map(PyMemory::from).collect()),
            None => Err(PyEOFError::new_err(())),
        }
    }

    /// Whether something can be got, waiting for it at most `timeout` seconds.
    #[pyo3(signature = (timeout=Some(0.0)))]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let log = self.log()?;
        if !log.is_empty() {
            return Ok(true);
        }
        if timeout.is_some_and(|t| t <= 0.0) {
            return Ok(false);
        }
        let until = deadline(timeout);
        waiting(py, |interrupted| log.wait(until, interrupted))
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.log()?.len() as usize)
    }

    /// Counts something that is still to be put.
    fn count(&self) -> PyResult<()> {
        self.log()?.count();
        Ok(())
    }

    /// Reports one counted thing as done. False: more were reported than put.
    fn done(&self) -> PyResult<bool> {
        Ok(self.log()?.done())
    }

    /// Waits until all counted things are reported done.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let log = self.log()?;
        waiting(py, |interrupted| log.join(interrupted))
    }
}
