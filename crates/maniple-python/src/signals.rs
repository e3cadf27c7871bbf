//! Signals: their handlers run while a thread waits without the interpreter lock, and what a handler raises goes to the program.
//!
//! A handler may run in the middle of anything that is Python code: while an item is pickled, while a result is unpickled. What it
//! raises is no failure of that item. It has to surface from the operation that it interrupted, at once, and be kept nowhere: the
//! operation can be tried again.

use maniple_sys as sys;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};
use std::cell::RefCell;
use std::mem::ManuallyDrop;

thread_local! {
    // What a handler raised in this thread while the engine had it make tasks. `detached` takes it before the thread can end, so it needs no
    // destructor: the C library ends a process that has no memory to note a thread's first one.
    static HELD: RefCell<ManuallyDrop<Option<PyErr>>> = const { RefCell::new(ManuallyDrop::new(None)) };
}

/// What a signal's handler raised, if one is due. Python runs handlers in its first thread only; any other must not ask for the
/// interpreter here, since it may still wait while the interpreter ends.
pub fn look_for_signals() -> Option<PyErr> {
    let due = || sys::is_first_thread().then(|| Python::attach(|py| py.check_signals().err())).flatten();
    held().or_else(due)
}

/// Keeps what a handler raised until this thread is back from the engine.
pub fn hold(error: PyErr) {
    HELD.with(|held| **held.borrow_mut() = Some(error));
}

/// What [`hold`] was given in this thread since this was last asked.
pub fn held() -> Option<PyErr> {
    HELD.with(|held| held.borrow_mut().take())
}

/// Releases the interpreter for `work`; an exception that a handler raised meanwhile, while tasks were made, comes first.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let done = py.detach(work);
    held().map_or(Ok(done), Err)
}

/// Whether an exception that came out of foreign code (usually a pickle's) is no failure of that code: a signal handler raised it,
/// or it requests the end of the program.
pub fn interrupts(py: Python<'_>, error: &PyErr) -> bool {
    if !error.is_instance_of::<PyException>(py) {
        return true;
    }
    sys::is_first_thread() && passed_through_handler(py, error).unwrap_or(false)
}

/// `interrupts(error)`: whether an exception was raised by a signal's handler, or asks the program to end.
#[pyfunction(name = "interrupts")]
pub fn py_interrupts(py: Python<'_>, error: &Bound<'_, PyAny>) -> bool {
    interrupts(py, &PyErr::from_value(error.clone()))
}

/// Whether an exception that ends a program was raised by a signal's handler, to end this one.
pub fn leaves(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py)
        && !error.is_instance_of::<PyKeyboardInterrupt>(py)
        && sys::is_first_thread()
        && passed_through_handler(py, error).unwrap_or(false)
}

/// Whether a signal's handler is among the calls that an exception came through.
///
/// A handler is recognized by the interpreter's arguments: the signal's number and the frame that it interrupts, from which it was
/// called. A handler that has dropped its arguments is recognized by its code, as long as it is installed.
fn passed_through_handler(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let mut installed = None;
    let mut entry = error.traceback(py).map(Bound::into_any);
    while let Some(at) = entry.filter(|entry| !entry.is_none()) {
        let frame = at.getattr(intern!(py, "tb_frame"))?;
        let code = frame.getattr(intern!(py, "f_code"))?;
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
        entry = Some(at.getattr(intern!(py, "tb_next"))?);
    }
    Ok(false)
}

fn was_called_as_handler(frame: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> PyResult<bool> {
    /// A code object's flag: it takes `*args`.
    const STARRED: u32 = 4;
    let py = frame.py();
    let caller = frame.getattr(intern!(py, "f_back"))?;
    if caller.is_none() {
        return Ok(false);
    }
    let positional: usize = code.getattr(intern!(py, "co_argcount"))?.extract()?;
    let keywords: usize = code.getattr(intern!(py, "co_kwonlyargcount"))?.extract()?;
    let names = code.getattr(intern!(py, "co_varnames"))?.cast_into::<PyTuple>()?;
    let locals = frame.getattr(intern!(py, "f_locals"))?;
    let mut given = Vec::new();
    for name in names.iter().take(positional) {
        given.extend(locals.get_item(name).ok());
    }
    if code.getattr(intern!(py, "co_flags"))?.extract::<u32>()? & STARRED != 0
        && let Ok(rest) = names.get_item(positional + keywords).and_then(|name| locals.get_item(name))
        && let Ok(rest) = rest.cast_into::<PyTuple>()
    {
        given.extend(rest.iter());
    }
    Ok(given.windows(2).any(|pair| pair[0].is_instance_of::<PyInt>() && pair[1].is(&caller)))
}

/// The code of the handlers that are installed.
fn installed_handlers(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    /// Linux has no more signals than this.
    const SIGNALS: i32 = 64;
    let get = py.import("_signal")?.getattr("getsignal")?;
    let mut codes = Vec::new();
    for number in 1..=SIGNALS {
        let Ok(mut handler) = get.call1((number,)) else { continue };
        if handler.is_none() || handler.is_instance_of::<PyInt>() {
            continue;
        }
        // A method's function, a `partial`'s, an object's `__call__`; each may be wrapped in another.
        for _ in 0..8 {
            if let Ok(code) = handler.getattr(intern!(py, "__code__")) {
                codes.push(code);
                break;
            }
            let inner = handler.getattr(intern!(py, "__func__")).or_else(|_| handler.getattr(intern!(py, "func")));
            handler = match inner.or_else(|_| handler.get_type().getattr(intern!(py, "__call__"))) {
                Ok(inner) => inner,
                Err(_) => break,
            };
        }
    }
    Ok(codes)
}
