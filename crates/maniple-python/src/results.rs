//! `Results`: returns the results of `imap` one by one, from pools of all kinds.
//!
//! A signal handler may raise after any step of Python code, and an object that this code has just taken would then be
//! lost. So one native step takes a result: it checks for signals last, immediately before it returns the result to the
//! caller.
#![allow(unsafe_code)]

use crate::born::Born;
use crate::error::Saying as _;
use crate::made::{self, Attributes as _, import, name};
use crate::outcome::is_timed_out;
use crate::stream::PyStream;
use crate::unended;
use pyo3::exceptions::{PyIndexError, PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple, PyType};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The base of iterators over a pool's results. The results come from a stream, or from a method `_ready(timeout)` of
/// the stream or of the iterator itself. That method waits for results, and returns a deque of pairs: whether it is a
/// result, and the result or an exception. A stream with the attribute `gives_ahead` may put several results into one
/// element of the deque: a triple of True, an iterator over the results that runs no Python code, and True.
#[pyclass(name = "Results", module = "maniple._maniple", subclass, frozen)]
pub struct PyResults {
    source: Born<OnceLock<Source>>,
    ahead: Born<Mutex<Ahead>>,
}

/// What can be taken without a call of the source, if the source allows it.
#[derive(Default)]
struct Ahead {
    /// The rests of elements that hold several results. There is more than one only if several threads take results.
    several: VecDeque<Py<PyIterator>>,
    /// The method `popleft` of the last deque.
    take: Option<Py<PyAny>>,
}

struct Source {
    stream: Py<PyAny>,
    gives_ahead: bool,
}

#[pymethods]
impl PyResults {
    #[new]
    #[pyo3(signature = (*_args, **_kwds))]
    fn new(_args: &Bound<'_, PyTuple>, _kwds: Option<&Bound<'_, PyDict>>) -> Self {
        PyResults { source: Born::default(), ahead: Born::default() }
    }

    /// Sets the stream from which the results come.
    #[pyo3(name = "_take_from")]
    fn take_from(&self, py: Python<'_>, stream: Py<PyAny>) -> PyResult<()> {
        let gives_ahead = stream.bind(py).hasattr(name!(py, "gives_ahead")?)?;
        // The first stream stays.
        let _ = self.source.set(Source { stream, gives_ahead });
        Ok(())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::step(slf, None)
    }

    /// Return the run-time value of an annotation such as `IMapIterator[str]`.
    #[classmethod]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: two live objects. `Py_GenericAlias` returns an owned reference, or null with an exception set.
        unsafe { made::owned(cls.py(), ffi::Py_GenericAlias(cls.as_ptr(), item.as_ptr())) }
    }
}

impl PyResults {
    /// Waits for the next result at most `timeout` seconds, and returns it. Raises StopIteration if there are no more.
    pub fn step<'py>(slf: &Bound<'py, Self>, timeout: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let given = match slf.get().source.get() {
            Some(source) => match source.stream.bind(py).cast::<PyStream>() {
                Ok(stream) => {
                    let timeout = timeout.map(|timeout| timeout.extract()).transpose()?;
                    PyStream::next(stream, timeout).map(|value| value.into_bound(py))
                }
                Err(_) if source.gives_ahead => slf.get().taken_ahead(source.stream.bind(py), &Wait::For(timeout)),
                Err(_) => taken(source.stream.bind(py), &Wait::For(timeout)),
            },
            None => taken(slf.as_any(), &Wait::For(timeout)),
        };
        match given {
            Err(error) if error.is_instance_of::<PyValueError>(py) => {
                // The pool may be gone if the program is ending.
                let stay = import(py, "maniple._impl.pool.results")?.attr("stay_if_program_ends")?;
                unended::call(&stay, (), None)?;
                Err(error)
            }
            given => given,
        }
    }

    /// Returns the next result if it is there, otherwise `nothing`. Raises StopIteration if there are no more results.
    pub fn step_now<'py>(slf: &Bound<'py, Self>, nothing: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let wait = Wait::Not(nothing);
        match slf.get().source.get() {
            Some(source) => match source.stream.bind(py).cast::<PyStream>() {
                Ok(stream) => {
                    let found = PyStream::next_now(stream)?;
                    Ok(found.map_or_else(|| wait.nothing(py), |value| value.into_bound(py)))
                }
                Err(_) if source.gives_ahead => slf.get().taken_ahead(source.stream.bind(py), &wait),
                Err(_) => taken(source.stream.bind(py), &wait),
            },
            None => taken(slf.as_any(), &wait),
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the first result of the last deque; waits for another deque if that one is empty.
    fn taken_ahead<'py>(&self, source: &Bound<'py, PyAny>, wait: &Wait<'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = source.py();
        loop {
            let several = self.ahead().several.front().map(|several| several.clone_ref(py));
            let Some(several) = several else { break };
            py.check_signals()?;
            if let Some(value) = several.bind(py).clone().next() {
                return value;
            }
            let mut ahead = self.ahead();
            // Another thread may have removed it.
            let exhausted = ahead.several.front().is_some_and(|front| front.is(&several));
            let exhausted = if exhausted { ahead.several.pop_front() } else { None };
            drop(ahead);
            drop(exhausted);
        }
        let mut take = self.ahead().take.as_ref().map(|take| take.bind(py).clone());
        loop {
            if let Some(take) = take
                && let Some(found) = first(&take)?
            {
                let found = found.cast_into::<PyTuple>()?;
                if found.len() == 2 {
                    return outcome(&found);
                }
                let several = found.get_item(1)?.cast_into::<PyIterator>()?;
                self.ahead().several.push_back(several.clone().unbind());
                if let Some(value) = several.into_iter().next() {
                    return value;
                }
            }
            let Some(next) = wait.ready(source)? else { return Ok(wait.nothing(py)) };
            let before = self.ahead().take.replace(next.clone().unbind());
            drop(before);
            take = Some(next);
        }
    }
}

/// Takes the first outcome of a deque by its method `popleft`; `None` if another thread has taken the last one.
fn first<'py>(take: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = take.py();
    py.check_signals()?;
    match take.call0() {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if error.is_instance_of::<PyIndexError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the result, or raises the exception.
fn outcome<'py>(outcome: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let (is_fine, value) = (outcome.get_item(0)?, outcome.get_item(1)?);
    if is_fine.is_truthy()? { Ok(value) } else { Err(not_an_end(value.py(), PyErr::from_value(value))) }
}

/// Returns the exception that a task raised, unless the caller would take it for the end of an iterator: then a
/// RuntimeError that has it as its cause, as a generator raises.
pub fn not_an_end(py: Python<'_>, raised: PyErr) -> PyErr {
    if !raised.is_instance_of::<PyStopIteration>(py) {
        return raised;
    }
    let error = PyRuntimeError::saying("a task raised StopIteration");
    error.set_cause(py, Some(raised));
    error
}

/// Waits for results, and takes the first.
fn taken<'py>(source: &Bound<'py, PyAny>, wait: &Wait<'py>) -> PyResult<Bound<'py, PyAny>> {
    loop {
        let Some(take) = wait.ready(source)? else { return Ok(wait.nothing(source.py())) };
        if let Some(found) = first(&take)? {
            return outcome(found.cast::<PyTuple>()?);
        }
    }
}

/// How long a call waits for results.
enum Wait<'py> {
    /// For so many seconds; None means no limit.
    For(Option<Bound<'py, PyAny>>),
    /// Not at all: the object is returned in place of a result.
    Not(Bound<'py, PyAny>),
}

impl<'py> Wait<'py> {
    /// Calls the method `_ready`, and returns the method `popleft` of its deque. Returns `None` if there is no result and
    /// the call does not wait.
    fn ready(&self, source: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = source.py();
        let ready = source.getattr(name!(py, "_ready")?)?;
        let results = match self {
            Wait::For(timeout) => unended::call(&ready, (timeout.clone(),), None)?,
            Wait::Not(_) => match unended::call(&ready, (0.0,), None) {
                // No task has raised it: outcomes are in the deque.
                Err(error) if is_timed_out(py, &error) => return Ok(None),
                results => results?,
            },
        };
        results.getattr(name!(py, "popleft")?).map(Some)
    }

    fn nothing(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Wait::Not(nothing) => nothing.clone(),
            Wait::For(_) => py.None().into_bound(py),
        }
    }
}
