//! Calls of Python code in a thread that the interpreter may end during the call.
//!
//! When a program has ended, its interpreter no longer passes its lock to other threads. Before Python 3.14 it ends a
//! thread that requests the lock by unwinding its stack. A frame of Rust cannot be unwound in this way: the whole
//! program would abort. So such a thread stays forever in the frame that has called Python code, as it does with later
//! versions, and ends with its process.
//!
//! PyO3's own calls are declared as functions that do not unwind, so their callers cannot stop an unwinding. Code that
//! runs long or often in a thread other than the first is called by the functions of this module.
#![allow(unsafe_code)]

use crate::args::Args;
use crate::made;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};
use std::hint::black_box;

/// Stops an unwinding of the stack that is not a panic.
struct Stay;

impl Drop for Stay {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

type Call =
    unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;
type Step = unsafe extern "C-unwind" fn(*mut ffi::PyObject) -> *mut ffi::PyObject;

/// Returns a function of the interpreter, declared so that it may unwind. `black_box` hides from the compiler which
/// function it is, because elsewhere it is declared without unwinding.
fn call_of(
    function: unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject,
) -> Call {
    // SAFETY: the two function types differ only in whether they may unwind; arguments and results are passed in the
    // same way.
    black_box(unsafe { std::mem::transmute::<*const (), Call>(function as *const ()) })
}

fn step_of(function: unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject) -> Step {
    // SAFETY: as above.
    black_box(unsafe { std::mem::transmute::<*const (), Step>(function as *const ()) })
}

/// Runs `work`, which calls Python code by such a function.
#[inline]
fn unended<R>(work: impl FnOnce() -> R) -> R {
    let stay = Stay;
    let done = work();
    std::mem::forget(stay);
    done
}

/// Returns the result of `func(*args, **kwargs)`.
pub fn call<'py, A>(
    func: &Bound<'py, PyAny>,
    args: A,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>>
where
    A: Args<'py>,
{
    let args = args.tuple(func.py())?;
    let kwargs = kwargs.map_or(std::ptr::null_mut(), |kwargs| kwargs.as_ptr());
    // SAFETY: live objects of the right types. The call returns a new reference, or null with an exception set.
    unsafe { made::owned(func.py(), unended(|| call_of(ffi::PyObject_Call)(func.as_ptr(), args.as_ptr(), kwargs))) }
}

/// Returns `iter(items)`.
pub fn iterate<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    // SAFETY: as in `call`. `PyObject_GetIter` has checked that the result is an iterator.
    unsafe {
        let iterator = made::owned(items.py(), unended(|| step_of(ffi::PyObject_GetIter)(items.as_ptr())))?;
        Ok(iterator.cast_into_unchecked())
    }
}

/// Returns the next item of an iterator; `None` if there is no more.
pub fn next<'py>(iterator: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let py = iterator.py();
    // SAFETY: an iterator. `PyIter_Next` returns a new reference, or null; an exception is set unless the iterator has
    // ended.
    match unsafe { Bound::from_owned_ptr_or_opt(py, unended(|| step_of(ffi::PyIter_Next)(iterator.as_ptr()))) } {
        Some(item) => Some(Ok(item)),
        None => PyErr::take(py).map(Err),
    }
}
