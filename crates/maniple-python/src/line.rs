//! `Line`: the connection between a proxy and the server of its manager, once both know each other.
//!
//! Small values of the commonest types are pickled and unpickled here ([`pickle`]), everything else by the functions that the line was made with.
//! Neither is done while the line is taken: what they call may use the line itself.

use crate::error::python;
use crate::handles::adopt;
use crate::pickle;
use crate::signals::look_for_signals;
use maniple_engine::Error;
use maniple_engine::dialogue::Dialogue;
use pyo3::exceptions::{PyEOFError, PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// One end of the connection. It is closed by the first exchange that fails: what comes then would be taken for another answer.
#[pyclass(name = "Line", module = "maniple._maniple", frozen)]
pub struct PyLine {
    /// `None`: closed.
    dialogue: Mutex<Option<Dialogue>>,
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
}

/// What `go_on` raised, where a wait was interrupted.
type Raised = Option<PyErr>;

fn signals(raised: &mut Raised) -> bool {
    *raised = look_for_signals();
    raised.is_none()
}

fn say(dialogue: &mut Dialogue, message: &[u8]) -> PyResult<()> {
    let mut raised = None;
    dialogue.say(message, &mut || signals(&mut raised)).map_err(|error| cause(error, raised))
}

fn hear(dialogue: &mut Dialogue) -> PyResult<&[u8]> {
    let mut raised = None;
    match dialogue.hear(&mut || signals(&mut raised)) {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(PyEOFError::new_err(())),
        Err(error) => Err(cause(error, raised)),
    }
}

fn cause(error: Error, raised: Raised) -> PyErr {
    raised.unwrap_or_else(|| python(error))
}

impl PyLine {
    fn taken(&self) -> PyResult<MutexGuard<'_, Option<Dialogue>>> {
        match self.dialogue.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(
                "this connection to a manager waits for an answer already; each thread needs a connection of its own",
            )),
        }
    }

    /// Does something with the open line, without the interpreter lock. A failure closes it.
    fn exchange<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Dialogue) -> PyResult<T> + Send) -> PyResult<T> {
        let mut guard = self.taken()?;
        let dialogue = guard.as_mut().ok_or_else(|| PyOSError::new_err("handle is closed"))?;
        let done = py.detach(|| work(dialogue));
        if done.is_err() {
            *guard = None;
        }
        done
    }

    /// Does so with the pickle of a tuple of `items`.
    fn pickled<'py, T>(
        &self,
        items: &[Borrowed<'_, 'py, PyAny>],
        work: impl FnOnce(Python<'py>, &[u8]) -> PyResult<T>,
        py: Python<'py>,
    ) -> PyResult<T> {
        if let Some(message) = pickle::dump_tuple(items) {
            return work(py, &message);
        }
        let message = self.dumps.bind(py).call1((PyTuple::new(py, items)?,))?;
        work(py, message.cast::<PyBytes>()?.as_bytes())
    }

    fn unpickled<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some(value) = pickle::load(py, message) {
            return Ok(value);
        }
        self.loads.bind(py).call1((PyBytes::new(py, message),))
    }
}

#[pymethods]
impl PyLine {
    /// Takes over the descriptor of a connected stream socket. `dumps` and `loads` pickle what is not plain; `dumps` gives `bytes`.
    #[new]
    fn new(handle: i32, dumps: Py<PyAny>, loads: Py<PyAny>) -> PyResult<Self> {
        let handle = adopt(vec![handle]).pop().ok_or_else(|| PyOSError::new_err("invalid handle"))?;
        Ok(PyLine { dialogue: Mutex::new(Some(Dialogue::new(handle))), dumps, loads })
    }

    /// Asks for a call, and waits for the answer.
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
                self.exchange(py, |dialogue| {
                    say(dialogue, message)?;
                    hear(dialogue).map(<[u8]>::to_vec)
                })
            },
            py,
        )?;
        self.unpickled(py, &answer)
    }

    /// Sends a tuple.
    fn send<'py>(&self, message: &Bound<'py, PyTuple>) -> PyResult<()> {
        let items: Vec<_> = message.iter_borrowed().collect();
        self.pickled(&items, |py, message| self.exchange(py, |dialogue| say(dialogue, message)), message.py())
    }

    /// Receives an object. EOFError when the other end is closed.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let message = self.exchange(py, |dialogue| hear(dialogue).map(<[u8]>::to_vec))?;
        self.unpickled(py, &message)
    }

    /// Whether a call can be made: it is open, and none waits for its answer.
    #[getter]
    fn ready(&self) -> bool {
        self.dialogue.try_lock().is_ok_and(|dialogue| dialogue.is_some())
    }

    /// Whether it is closed, by `close` or by a failure.
    #[getter]
    fn closed(&self) -> bool {
        self.dialogue.try_lock().is_ok_and(|dialogue| dialogue.is_none())
    }

    /// The descriptor.
    fn fileno(&self) -> PyResult<i32> {
        match &*self.taken()? {
            Some(dialogue) => Ok(dialogue.as_fd().as_raw_fd()),
            None => Err(PyOSError::new_err("handle is closed")),
        }
    }

    /// Closes it. One that waits is closed by whoever waits.
    fn close(&self) {
        if let Ok(mut dialogue) = self.dialogue.try_lock() {
            *dialogue = None;
        }
    }
}
