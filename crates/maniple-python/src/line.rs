//! `Line`: the connection between a proxy and the server of its manager, once both know each other.
//!
//! Small values of the commonest types are pickled and unpickled here ([`pickle`]), everything else by the functions that the line was made with.
//! Neither is done while the line is taken: what they call may use the line itself.

use crate::error::os;
use crate::handles::adopt;
use crate::made;
use crate::message::exception;
use crate::pickle;
use crate::signals::look_for_signals;
use crate::unended;
use maniple_engine::Error;
use maniple_engine::channel::framed_stream::FramedStream;
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::ready::{self, Interest};
use maniple_sys::{AsHandle, RawHandle, atfork};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// One end of the connection. It is closed by the first exchange that fails: what comes then would be taken for another answer.
///
/// It belongs to the process that made it. Forked children do not have its descriptor, so that the other end detects the end of this
/// process although it has descendants; in these it is closed.
#[pyclass(name = "Line", module = "maniple._maniple", frozen)]
pub struct PyLine {
    end: Mutex<End>,
    born: Epoch,
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
    /// The server's number for this line, which a client names when it withdraws a call.
    #[pyo3(get)]
    number: Option<u64>,
}

struct End {
    /// `None`: closed.
    stream: Option<FramedStream>,
    /// Expected answers to interrupted calls of `call_steadily`.
    owed: usize,
    /// Calls asked for so far.
    asked: u64,
    born: Epoch,
}

impl End {
    fn open(&mut self) -> PyResult<&mut FramedStream> {
        match &mut self.stream {
            Some(stream) if self.born.since() != Since::Born => Ok(stream),
            _ => Err(PyOSError::new_err("handle is closed")),
        }
    }

    /// Asks for a call, and waits for its answer; skips the answers to earlier calls.
    ///
    /// A handler's exception that comes after the request leaves the line open if `keep`. It leaves the line open before that, too, if
    /// `steady`: then the request, which is short, is sent as a whole. After `limit` the answer is owed.
    fn ask(&mut self, message: &[u8], keep: bool, steady: bool, limit: Option<Duration>) -> PyResult<Vec<u8>> {
        self.open()?;
        let End { stream: Some(stream), owed, asked, .. } = self else { return Err(exception(Error::EndOfStream)) };
        let mut raised = None;
        let mut interrupted = || signals(&mut raised);
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let sent = if steady {
            // Not to be interrupted: there is always room for what is as short as this.
            stream.send(message, &mut || false)
        } else {
            stream.send(message, &mut interrupted)
        };
        let is_sent = sent.is_ok();
        let answer = sent.and_then(|()| {
            *owed += 1;
            *asked += 1;
            loop {
                if let Some(until) = until
                    && !stream.is_ready(until, &mut interrupted)?
                {
                    return Ok(None);
                }
                let answer = stream.receive(&mut interrupted)?;
                *owed -= 1;
                if *owed == 0 {
                    return Ok(Some(answer.to_vec()));
                }
            }
        });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(PyTimeoutError::new_err("the server of the manager does not answer")),
            Err(Error::Interrupted) if keep && is_sent && raised.is_some() => Err(cause(Error::Interrupted, raised)),
            Err(error) => {
                self.close();
                Err(cause(error, raised))
            }
        }
    }

    fn close(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if self.born.since() == Since::Born {
            // Closed already; its number may be another's by now.
            return std::mem::forget(stream);
        }
        // As one step: a fork in between would find it open and not registered.
        atfork::making(|| {
            atfork::unregister(stream.as_handle().as_raw());
            drop(stream);
        });
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a signal's handler raised, where a wait was interrupted.
type Raised = Option<PyErr>;

fn signals(raised: &mut Raised) -> bool {
    *raised = look_for_signals();
    raised.is_some()
}

fn send(stream: &mut FramedStream, message: &[u8]) -> PyResult<()> {
    let mut raised = None;
    stream.send(message, &mut || signals(&mut raised)).map_err(|error| cause(error, raised))
}

fn receive(stream: &mut FramedStream) -> PyResult<&[u8]> {
    let mut raised = None;
    stream.receive(&mut || signals(&mut raised)).map_err(|error| cause(error, raised))
}

fn cause(error: Error, raised: Raised) -> PyErr {
    raised.unwrap_or_else(|| exception(error))
}

impl PyLine {
    fn taken(&self) -> PyResult<MutexGuard<'_, End>> {
        match self.end.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(
                "this connection to a manager already waits for an answer; each thread needs a separate connection",
            )),
        }
    }

    /// Does something with the open line, without the interpreter lock. A failure closes it.
    fn exchange<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut FramedStream) -> PyResult<T> + Send,
    ) -> PyResult<T> {
        let mut end = self.taken()?;
        let stream = end.open()?;
        let done = py.detach(|| work(stream));
        if done.is_err() {
            end.close();
        }
        done
    }

    fn is_foreign(&self) -> bool {
        self.born.since() == Since::Born
    }

    /// Does so with the pickle of a tuple of `items`.
    fn pickled<'py, T>(
        &self,
        items: &[Borrowed<'_, 'py, PyAny>],
        work: impl FnOnce(Python<'py>, &[u8]) -> PyResult<T>,
        py: Python<'py>,
    ) -> PyResult<T> {
        if let Some(message) = pickle::dump_tuple(py, items) {
            return work(py, &message);
        }
        let items = made::tuple(py, items.iter().map(|&item| Bound::clone(&item)))?;
        let message = unended::call(self.dumps.bind(py), (items,), None)?;
        work(py, message.cast::<PyBytes>()?.as_bytes())
    }

    fn unpickled<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some(value) = pickle::load(py, message, &[]) {
            return Ok(value);
        }
        let message = made::bytes(py, message)?;
        unended::call(self.loads.bind(py), (message,), None)
    }
}

#[pymethods]
impl PyLine {
    /// Takes over the descriptor of a connected stream socket. `dumps` and `loads` pickle what is not plain; `dumps` returns `bytes`.
    /// A `number` says that calls can be withdrawn.
    #[new]
    #[pyo3(signature = (handle, dumps, loads, number=None))]
    fn new(handle: RawHandle, dumps: Py<PyAny>, loads: Py<PyAny>, number: Option<u64>) -> PyResult<Self> {
        let handle = adopt(vec![handle]).pop().ok_or_else(|| PyOSError::new_err("invalid handle"))?;
        count_forks().map_err(|e| os("watch for forks", e))?;
        let born = Epoch::now();
        atfork::making(|| atfork::register(handle.as_handle())).map_err(|e| os("watch for forks", e))?;
        let end = End { stream: Some(FramedStream::new(handle)), owed: 0, asked: 0, born };
        Ok(PyLine { end: Mutex::new(end), born, dumps, loads, number })
    }

    /// Asks for a call, and waits for the answer. When a signal handler raises while it waits, a line with a number stays open: the
    /// call can be withdrawn, and the next one skips the answer.
    fn call<'py>(
        &self,
        py: Python<'py>,
        ident: &Bound<'py, PyAny>,
        method: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        kwds: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = [ident, method, args, kwds].map(Bound::as_borrowed);
        let answer = self.pickled(
            &request,
            |py, message| {
                let mut end = self.taken()?;
                let end = &mut *end;
                py.detach(|| end.ask(message, self.number.is_some(), false, None))
            },
            py,
        )?;
        self.unpickled(py, &answer)
    }

    /// `call` that keeps the line when a signal handler raises while it waits: the call is made all the same, and the
    /// next one skips the answer. `TimeoutError` after `timeout` seconds, if it is given; the line is kept then, too.
    #[pyo3(signature = (method, args, timeout=None))]
    fn call_steadily<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (none, kwds) = (py.None().into_bound(py), PyDict::new(py).into_any());
        let request = [&none, method, args, &kwds].map(Bound::as_borrowed);
        let limit = timeout.and_then(|timeout| Duration::try_from_secs_f64(timeout).ok());
        let answer = self.pickled(
            &request,
            |py, message| {
                let mut end = self.taken()?;
                let end = &mut *end;
                py.detach(|| end.ask(message, true, true, limit))
            },
            py,
        )?;
        self.unpickled(py, &answer)
    }

    /// How many calls it has asked for.
    #[getter]
    fn asked(&self) -> u64 {
        self.end.try_lock().map_or(0, |end| end.asked)
    }

    /// Whether it is closed, at this end or, as far as can be seen without waiting, at the other.
    #[getter]
    fn over(&self) -> bool {
        let Ok(mut end) = self.end.try_lock() else { return self.is_foreign() };
        match end.open() {
            Ok(stream) => {
                let mut interests = [Interest::new(stream.as_handle())];
                let is_readable = ready::wait(&mut interests, Some(Duration::ZERO)).is_ok_and(|found| found > 0);
                end.owed == 0 && is_readable
            }
            Err(_) => true,
        }
    }

    /// Sends a tuple.
    fn send<'py>(&self, message: &Bound<'py, PyTuple>) -> PyResult<()> {
        let items: Vec<_> = message.iter_borrowed().collect();
        self.pickled(&items, |py, message| self.exchange(py, |stream| send(stream, message)), message.py())
    }

    /// Receives an object. EOFError when the other end is closed.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let message = self.exchange(py, |stream| receive(stream).map(<[u8]>::to_vec))?;
        self.unpickled(py, &message)
    }

    /// Whether a call can be made: it is open, and none waits for its answer.
    #[getter]
    fn ready(&self) -> bool {
        self.end.try_lock().is_ok_and(|mut end| end.open().is_ok())
    }

    /// Whether it is closed, by `close`, by a failure or by a fork.
    #[getter]
    fn closed(&self) -> bool {
        self.is_foreign() || self.end.try_lock().is_ok_and(|end| end.stream.is_none())
    }

    /// The descriptor.
    fn fileno(&self) -> PyResult<RawHandle> {
        self.taken()?.open().map(|stream| stream.as_handle().as_raw())
    }

    /// Closes it. If a thread waits on it, that thread closes it.
    fn close(&self) {
        if let Ok(mut end) = self.end.try_lock() {
            end.close();
        }
    }
}
