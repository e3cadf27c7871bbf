//! Python code, called in a thread that the interpreter may end in its middle.
//!
//! When a program is over, its interpreter no longer passes its lock to other threads. Before Python 3.14 it ends a thread that asks for it,
//! by unwinding its stack; if that goes through a frame of Rust, which cannot be unwound in this way, the whole program is
//! aborted. So a thread stays forever in the frame from which it has called Python code, as it does with later versions, and ends with
//! its process.
//!
//! PyO3's own calls do not say that they may be unwound, so that nothing could be done in their callers. What runs long or often outside
//! of the first thread is called from here.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};
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

/// One of the interpreter's functions, declared so that it may unwind. The compiler must not see which it is: elsewhere it is declared otherwise.
fn call_of(
    function: unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject,
) -> Call {
    // SAFETY: the two ways of calling differ in what is said about unwinding alone.
    black_box(unsafe { std::mem::transmute::<*const (), Call>(function as *const ()) })
}

fn step_of(function: unsafe extern "C" fn(*mut ffi::PyObject) -> *mut ffi::PyObject) -> Step {
    // SAFETY: as above.
    black_box(unsafe { std::mem::transmute::<*const (), Step>(function as *const ()) })
}

/// Runs what calls Python code by one of these functions.
#[inline]
fn unended<R>(work: impl FnOnce() -> R) -> R {
    let stay = Stay;
    let done = work();
    std::mem::forget(stay);
    done
}

/// What `func(*args, **kwargs)` returns.
pub fn call<'py, A>(
    func: &Bound<'py, PyAny>,
    args: A,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
    Bound<'py, PyTuple>: From<A::Output>,
    PyErr: From<A::Error>,
{
    let args: Bound<'py, PyTuple> = args.into_pyobject(func.py())?.into();
    let kwargs = kwargs.map_or(std::ptr::null_mut(), |kwargs| kwargs.as_ptr());
    // SAFETY: live objects of the right types; what is given is a new reference, or null with an exception set.
    unsafe {
        Bound::from_owned_ptr_or_err(
            func.py(),
            unended(|| call_of(ffi::PyObject_Call)(func.as_ptr(), args.as_ptr(), kwargs)),
        )
    }
}

/// What `iter(items)` returns.
pub fn iterate<'py>(items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyIterator>> {
    // SAFETY: as in `call`; the result was checked to be an iterator.
    unsafe {
        let iterator =
            Bound::from_owned_ptr_or_err(items.py(), unended(|| step_of(ffi::PyObject_GetIter)(items.as_ptr())))?;
        Ok(iterator.cast_into_unchecked())
    }
}

/// The next item of an iterator; `None`: there is no more.
pub fn next<'py>(iterator: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let py = iterator.py();
    // SAFETY: an iterator; what is given is a new reference, or null, with an exception set where it has not just ended.
    match unsafe { Bound::from_owned_ptr_or_opt(py, unended(|| step_of(ffi::PyIter_Next)(iterator.as_ptr()))) } {
        Some(item) => Some(Ok(item)),
        None => PyErr::take(py).map(Err),
    }
}
