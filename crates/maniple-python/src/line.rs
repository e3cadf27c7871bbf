//! `Line`: the connection between a proxy and the server of its manager, after authentication.
//!
//! Small plain values are pickled and unpickled here ([`pickle`]), other values by the functions with which the line
//! was made. No thread holds the line in the meantime, because these functions may use the line themselves.

use crate::args::Out;
use crate::error::{Saying as _, os};
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
use pyo3::types::{PyBytes, PyTuple};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// One end of the connection. The first exchange that fails closes it: the next message could belong to another call.
///
/// The line belongs to the process that made it. Forked children do not have its descriptor, so the other end detects
/// the end of this process although it has descendants. In a forked child the line is closed.
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
    /// `None` if the line is closed.
    stream: Option<FramedStream>,
    /// The number of answers to interrupted calls of `call_steadily` that have not arrived yet.
    owed: usize,
    /// The number of calls that were requested.
    asked: u64,
    born: Epoch,
}

impl End {
    fn open(&mut self) -> PyResult<&mut FramedStream> {
        match &mut self.stream {
            Some(stream) if self.born.since() != Since::Born => Ok(stream),
            _ => Err(PyOSError::saying("handle is closed")),
        }
    }

    /// Requests a call, and waits for its answer. Skips the answers to earlier calls.
    ///
    /// If a handler raises after the request was sent, the line stays open if `keep`. If a handler raises before that,
    /// the line stays open if `steady`: then the request, which is short, is sent as a whole. After `limit` the answer
    /// stays expected.
    fn ask(&mut self, message: &[u8], keep: bool, steady: bool, limit: Option<Duration>) -> PyResult<Vec<u8>> {
        self.open()?;
        let End { stream: Some(stream), owed, asked, .. } = self else { return Err(exception(Error::EndOfStream)) };
        let mut raised = None;
        let mut interrupted = || signals(&mut raised);
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let sent = if steady {
            // This send is not interrupted: there is always room for a request as short as this.
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
                    let copy = made::copy(answer).map_err(std::io::Error::from);
                    return Ok(Some(
                        copy.map_err(|source| Error::Os { doing: "receive the answer of a manager's server", source })?,
                    ));
                }
            }
        });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(PyTimeoutError::saying("the server of the manager does not answer")),
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
            // The line is closed already, and another file may have its number.
            return std::mem::forget(stream);
        }
        // One step: a fork in between would find the line open and not registered.
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

/// The exception of a signal handler that interrupted a wait.
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
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::saying(
                "this connection to a manager already waits for an answer; each thread needs a separate connection",
            )),
        }
    }

    /// Calls `work` with the open line, without the interpreter lock. A failure closes the line.
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

    /// Calls `work` with the pickle of a tuple of `items`.
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
    /// Takes over the descriptor of a connected stream socket. `dumps` and `loads` pickle values that are not plain;
    /// `dumps` returns `bytes`. With a `number`, calls can be withdrawn.
    #[new]
    #[pyo3(signature = (handle, dumps, loads, number=None))]
    fn new(handle: RawHandle, dumps: Py<PyAny>, loads: Py<PyAny>, number: Option<u64>) -> PyResult<Self> {
        let handle = adopt(vec![handle]).pop().ok_or_else(|| PyOSError::saying("invalid handle"))?;
        count_forks().map_err(|e| os("watch for forks", e))?;
        let born = Epoch::now();
        atfork::making(|| atfork::register(handle.as_handle())).map_err(|e| os("watch for forks", e))?;
        let end = End { stream: Some(FramedStream::new(handle)), owed: 0, asked: 0, born };
        Ok(PyLine { end: Mutex::new(end), born, dumps, loads, number })
    }

    /// Requests a call, and waits for the answer. If a signal handler raises during the wait, a line with a number
    /// stays open: the call can be withdrawn, and the next call skips the answer.
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

    /// As `call`, but the line stays open if a signal handler raises during the wait: the server makes the call, and
    /// the next call skips the answer. Raises `TimeoutError` after `timeout` seconds, if `timeout` is not None; the
    /// line stays open then, too.
    #[pyo3(signature = (method, args, timeout=None))]
    fn call_steadily<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (none, kwds) = (py.None().into_bound(py), made::dict(py)?.into_any());
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

    /// Returns the number of calls that were requested.
    #[getter]
    fn asked(&self) -> Out<u64> {
        Out(self.end.try_lock().map_or(0, |end| end.asked))
    }

    /// Returns whether the line is closed, at this end or, as far as that is visible without waiting, at the other end.
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

    /// Returns whether a call can be made: the line is open, and no call waits for its answer.
    #[getter]
    fn ready(&self) -> bool {
        self.end.try_lock().is_ok_and(|mut end| end.open().is_ok())
    }

    /// Returns whether the line was closed, by `close`, by a failure or by a fork.
    #[getter]
    fn closed(&self) -> bool {
        self.is_foreign() || self.end.try_lock().is_ok_and(|end| end.stream.is_none())
    }

    /// Returns the descriptor.
    fn fileno(&self) -> PyResult<Out<RawHandle>> {
        self.taken()?.open().map(|stream| Out(stream.as_handle().as_raw()))
    }

    /// Closes the line. If a thread waits on it, that thread closes it.
    fn close(&self) {
        if let Ok(mut end) = self.end.try_lock() {
            end.close();
        }
    }
}
