//! `SemLock.acquire`, `release` and ``with``, at the least cost.
//!
//! Acquiring a free lock takes some 15 ns, and a method as PyO3 generates it takes about as long again: it parses
//! arguments, checks the type, counts nested attachments, and catches panics. These four methods skip that if the lock
//! is free and the arguments are the usual ones: then they make no difference. Otherwise they call the generated methods.
#![allow(unsafe_code)]

use crate::made::{self, name};
use crate::sync::PySemLock;
use maniple_engine::wait::Until;
use pyo3::ffi::{self, Py_ssize_t, PyCFunctionFastWithKeywords, PyMethodDef, PyMethodDefPointer, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use std::ffi::CStr;

type Args = *const *mut PyObject;

/// Returns the Rust side of a method's `self`.
///
/// # Safety
/// `slf` is the `self` of a method of `SemLock`, called by the interpreter in a thread that is attached to it.
unsafe fn lock<'a>(slf: *mut PyObject) -> &'a PySemLock {
    // SAFETY: the caller's promise: the thread is attached, and the method descriptor has checked the type. The
    // reference is used only while the interpreter's call holds `slf`.
    unsafe {
        let py = Python::assume_attached();
        let slf = Borrowed::from_ptr(py, slf);
        &*std::ptr::from_ref(slf.cast_unchecked::<PySemLock>().get())
    }
}

/// Returns a new reference to `True` or `None`.
///
/// # Safety
/// The thread is attached.
unsafe fn owned(singleton: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller promises that the thread is attached. Singletons are never freed.
    unsafe { ffi::Py_NewRef(singleton) }
}

/// Calls the generated method, with any arguments.
///
/// # Safety
/// As [`lock`]; `args` are `count` arguments and after them the values for the names in `names`, which may be null.
unsafe fn generated(slf: *mut PyObject, args: Args, count: Py_ssize_t, names: *mut PyObject) -> *mut PyObject {
    answer(|py| {
        // SAFETY: the interpreter's call holds the objects that are borrowed.
        let (slf, names) = unsafe { (Borrowed::from_ptr(py, slf), Borrowed::from_ptr_or_opt(py, names)) };
        // SAFETY: the caller promises that `args` has `count` elements and one for each name.
        let arg = |at: usize| unsafe { Borrowed::from_ptr(py, *args.add(at)) };
        let kwargs = made::dict(py)?;
        if let Some(names) = names {
            for (at, name) in names.cast::<PyTuple>()?.iter().enumerate() {
                kwargs.set_item(name, arg(count as usize + at))?;
            }
        }
        let args = made::tuple(py, (0..count as usize).map(|at| arg(at).to_owned()))?;
        Ok(slf.call_method(name!(py, "_acquire")?, args, Some(&kwargs))?.into_ptr())
    })
}

/// Returns the result of `work`, or null with its exception.
fn answer(work: impl FnOnce(Python<'_>) -> PyResult<*mut PyObject>) -> *mut PyObject {
    Python::attach(|py| {
        work(py).unwrap_or_else(|error| {
            error.restore(py);
            std::ptr::null_mut()
        })
    })
}

/// Acquires the lock. Waits without a limit.
///
/// # Safety
/// As [`lock`].
#[cold]
unsafe fn wait(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller makes the promise of `lock`.
    unsafe {
        let lock = lock(slf);
        answer(|py| lock.take(py, Until::Ever).map(|_| owned(ffi::Py_True())))
    }
}

/// Whether a value is a time limit without any doubt.
///
/// # Safety
/// The thread is attached, and `value` is an object.
unsafe fn is_time(value: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if ffi::PyFloat_CheckExact(value) != 0 {
            return (0.0..1e9).contains(&ffi::PyFloat_AsDouble(value));
        }
        if ffi::PyLong_CheckExact(value) != 0 {
            let mut overflow = 0;
            let number = ffi::PyLong_AsLongAndOverflow(value, &raw mut overflow);
            return overflow == 0 && (0..1_000_000_000).contains(&number);
        }
        value == ffi::Py_None()
    }
}

/// Whether the arguments of `acquire` are a bool and a time limit, each of which may be missing. A free lock is acquired
/// for any of them.
///
/// # Safety
/// As [`generated`].
unsafe fn are_usual(args: Args, count: Py_ssize_t, names: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let is_bool = |value: *mut PyObject| value == ffi::Py_True() || value == ffi::Py_False();
        if count > 2 || count > 0 && !is_bool(*args) || count > 1 && !is_time(*args.add(1)) {
            return false;
        }
        if names.is_null() {
            return true;
        }
        let py = Python::assume_attached();
        let (Ok(block), Ok(timeout)) = (name!(py, "block"), name!(py, "timeout")) else { return false };
        let (block, timeout) = (block.as_ptr(), timeout.as_ptr());
        (0..ffi::PyTuple_Size(names)).all(|at| {
            let (name, value) = (ffi::PyTuple_GetItem(names, at), *args.add((count + at) as usize));
            name == block && count == 0 && is_bool(value) || name == timeout && count < 2 && is_time(value)
        })
    }
}

unsafe extern "C" fn acquire(slf: *mut PyObject, args: Args, count: Py_ssize_t, names: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter, as a method of `SemLock`, with arguments as described.
    unsafe {
        if count == 0 && names.is_null() {
            return if lock(slf).take_at_once() { owned(ffi::Py_True()) } else { wait(slf) };
        }
        if are_usual(args, count, names) && lock(slf).take_at_once() {
            return owned(ffi::Py_True());
        }
        generated(slf, args, count, names)
    }
}

unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter, as a method of `SemLock`.
    unsafe { if lock(slf).take_at_once() { owned(ffi::Py_True()) } else { wait(slf) } }
}

unsafe extern "C" fn release(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter, as a method of `SemLock`.
    unsafe {
        let lock = lock(slf);
        if lock.give_back_at_once() {
            owned(ffi::Py_None())
        } else {
            answer(|_| lock.give().map(|()| owned(ffi::Py_None())))
        }
    }
}

unsafe extern "C" fn exit(slf: *mut PyObject, _: Args, _: Py_ssize_t, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by the interpreter, as a method of `SemLock`.
    unsafe { release(slf, std::ptr::null_mut()) }
}

const fn fast(name: &'static CStr, call: PyCFunctionFastWithKeywords, doc: &'static CStr) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunctionFastWithKeywords: call },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }
}

const fn bare(name: &'static CStr, call: ffi::PyCFunction, doc: &'static CStr) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunction: call },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: doc.as_ptr(),
    }
}

struct Methods([PyMethodDef; 4]);
// SAFETY: no code writes to the table, and its pointers refer to statics.
unsafe impl Sync for Methods {}

// The signatures are those of the standard package's methods, which are written in Python: `self` may be passed by
// name.
static METHODS: Methods = Methods([
    fast(
        c"acquire",
        acquire,
        c"acquire($self, /, block=True, timeout=None)\n--\n\n\
          Acquire the lock, or decrement the semaphore.\n\n\
          Args:\n\
          \x20   block: whether to wait until that is possible.\n\
          \x20   timeout: the time limit in seconds; None means no limit. A negative number counts as zero.\n\n\
          Returns:\n\
          \x20   True if the lock is acquired, False if it is not.\n",
    ),
    bare(
        c"release",
        release,
        c"release($self, /)\n--\n\n\
             Release the lock, or increment the semaphore; a process that waits for it continues.\n\n\
             Raises:\n\
             \x20   ValueError: the lock is not held, or the count would exceed its maximum.\n\
             \x20   AssertionError: the lock is an RLock, and the calling thread does not hold it.\n",
    ),
    bare(c"__enter__", enter, c"__enter__(self)\n--\n\nAcquire the lock, or decrement the semaphore."),
    fast(c"__exit__", exit, c"__exit__(self, *args)\n--\n\nRelease the lock, or increment the semaphore."),
]);

/// Adds these methods to the class `SemLock`.
pub fn install(class: &Bound<'_, PyType>) -> PyResult<()> {
    for method in &METHODS.0 {
        // SAFETY: the definition is static and only read. The result is a new reference, or null with an exception set.
        let descriptor = unsafe {
            let made = ffi::PyDescr_NewMethod(class.as_type_ptr(), std::ptr::from_ref(method).cast_mut());
            made::owned(class.py(), made)?
        };
        // SAFETY: the name is a static C string.
        let name = unsafe { CStr::from_ptr(method.ml_name) };
        class.setattr(name.to_string_lossy(), descriptor)?;
    }
    Ok(())
}
