//! Signals: their handlers run while a thread waits without the interpreter lock, and the exception of a handler
//! reaches the program.
//!
//! A handler may run in the middle of any Python code: while an item is pickled, or while a result is unpickled. Its
//! exception is not a failure of that item. The operation that it interrupted raises it at once and stores it nowhere,
//! so the operation can be repeated.

use crate::args::Calls as _;
use crate::made::{Attributes as _, import, name};
use maniple_sys as sys;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};
use std::cell::RefCell;
use std::mem::ManuallyDrop;

thread_local! {
    // The exception that a handler raised in this thread while the engine called it to make tasks. `detached` takes it
    // before the thread can end, so it needs no destructor: the C library ends a process that has no memory to register
    // a thread's first destructor.
    static HELD: RefCell<ManuallyDrop<Option<PyErr>>> = const { RefCell::new(ManuallyDrop::new(None)) };
}

/// Runs the handlers that are due, and returns the exception that one of them raised. Python runs handlers in its first
/// thread only. Another thread must not request the interpreter here, because it may still wait while the interpreter
/// ends.
pub fn look_for_signals() -> Option<PyErr> {
    let due = || sys::is_first_thread().then(|| Python::attach(|py| py.check_signals().err())).flatten();
    held().or_else(due)
}

/// Keeps the exception of a handler until this thread has returned from the engine.
pub fn hold(error: PyErr) {
    HELD.with(|held| **held.borrow_mut() = Some(error));
}

/// Takes the exception that [`hold`] has kept in this thread.
pub fn held() -> Option<PyErr> {
    HELD.with(|held| held.borrow_mut().take())
}

/// Releases the interpreter for `work`. An exception that a handler raised while tasks were made takes precedence.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let done = py.detach(work);
    held().map_or(Ok(done), Err)
}

/// Returns whether an exception of foreign code, usually of a pickle, is not a failure of that code: a signal handler
/// raised it, or it requests the end of the program.
pub fn interrupts(py: Python<'_>, error: &PyErr) -> bool {
    if !error.is_instance_of::<PyException>(py) {
        return true;
    }
    sys::is_first_thread() && passed_through_handler(py, error).unwrap_or(false)
}

/// `interrupts(error)`: return whether a signal handler raised the exception, or the exception requests the end of the
/// program.
#[pyfunction(name = "interrupts")]
pub fn py_interrupts(py: Python<'_>, error: &Bound<'_, PyAny>) -> bool {
    interrupts(py, &PyErr::from_value(error.clone()))
}

/// As [`interrupts`], for an exception that was raised while the outcome of a task was decoded. Code that a pickle names
/// may call `sys.exit`: such a SystemExit is a failure of the outcome, unless a signal handler raised it.
pub fn interrupts_decoding(py: Python<'_>, error: &PyErr) -> bool {
    if error.is_instance_of::<PySystemExit>(py) {
        return sys::is_first_thread() && passed_through_handler(py, error).unwrap_or(true);
    }
    interrupts(py, error)
}

/// `interrupts_decoding(error)`: as `interrupts`, for an exception that was raised while the outcome of a task was decoded.
#[pyfunction(name = "interrupts_decoding")]
pub fn py_interrupts_decoding(py: Python<'_>, error: &Bound<'_, PyAny>) -> bool {
    interrupts_decoding(py, &PyErr::from_value(error.clone()))
}

/// Returns whether a signal handler raised an exception that ends a program.
pub fn leaves(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py)
        && !error.is_instance_of::<PyKeyboardInterrupt>(py)
        && sys::is_first_thread()
        && passed_through_handler(py, error).unwrap_or(false)
}

/// Returns whether a signal handler is among the frames of an exception's traceback.
///
/// A handler is recognized by the interpreter's arguments: the signal's number, and the interrupted frame, which called
/// it. A handler that has dropped its arguments is recognized by its code, as long as it is installed.
fn passed_through_handler(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let mut installed = None;
    let mut entry = error.traceback(py).map(Bound::into_any);
    while let Some(at) = entry.filter(|entry| !entry.is_none()) {
        let frame = at.getattr(name!(py, "tb_frame")?)?;
        let code = frame.getattr(name!(py, "f_code")?)?;
        if was_called_as_handler(&frame, &code)? {
            return Ok(true);
        }
        let known = match &mut installed {
            Some(known) => known,
            None => installed.insert(installed_handlers(py)?),
        };
        if known.iter().any(|handler| handler.is(&code)) {
            return Ok(true);
        }
        entry = Some(at.getattr(name!(py, "tb_next")?)?);
    }
    Ok(false)
}

fn was_called_as_handler(frame: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> PyResult<bool> {
    /// The flag of a code object that takes `*args`.
    const STARRED: u32 = 4;
    let py = frame.py();
    let caller = frame.getattr(name!(py, "f_back")?)?;
    if caller.is_none() {
        return Ok(false);
    }
    let positional: usize = code.getattr(name!(py, "co_argcount")?)?.extract()?;
    let keywords: usize = code.getattr(name!(py, "co_kwonlyargcount")?)?.extract()?;
    let names = code.getattr(name!(py, "co_varnames")?)?.cast_into::<PyTuple>()?;
    let locals = frame.getattr(name!(py, "f_locals")?)?;
    let mut given = Vec::new();
    for name in names.iter().take(positional) {
        given.extend(locals.get_item(name).ok());
    }
    if code.getattr(name!(py, "co_flags")?)?.extract::<u32>()? & STARRED != 0
        && let Ok(rest) = names.get_item(positional + keywords).and_then(|name| locals.get_item(name))
        && let Ok(rest) = rest.cast_into::<PyTuple>()
    {
        given.extend(rest.iter());
    }
    Ok(given.windows(2).any(|pair| pair[0].is_instance_of::<PyInt>() && pair[1].is(&caller)))
}

/// Returns the code of the installed handlers.
fn installed_handlers(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    /// The largest signal number of Linux.
    const SIGNALS: i32 = 64;
    let get = import(py, "_signal")?.attr("getsignal")?;
    let mut codes = Vec::new();
    for number in 1..=SIGNALS {
        let Ok(mut handler) = get.with((number,)) else { continue };
        if handler.is_none() || handler.is_instance_of::<PyInt>() {
            continue;
        }
        // A method's function, a `partial`'s function, or an object's `__call__`; each may be wrapped in another.
        for _ in 0..8 {
            if let Ok(code) = handler.getattr(name!(py, "__code__")?) {
                codes.push(code);
                break;
            }
            let inner = handler.getattr(name!(py, "__func__")?).or_else(|_| handler.getattr(name!(py, "func")?));
            handler = match inner.or_else(|_| handler.get_type().getattr(name!(py, "__call__")?)) {
                Ok(inner) => inner,
                Err(_) => break,
            };
        }
    }
    Ok(codes)
}
