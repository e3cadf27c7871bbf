//! `assured`: the first step of a new thread, whose failure is reported even if there is no memory for a single frame of Python code.
//!
//! A thread of Python begins with Python code. If the interpreter has no memory for its first frame, the thread ends with a
//! `MemoryError` that only standard error shows, and a caller that waits for a sign of the thread waits forever. So the first step is
//! native, and so is its report: it consists of changes to entries that exist, and of methods of locks. Objects that it
//! needs are made by the thread that starts the other one.
//!
//! The C library ends the process if a thread finds no memory for this library's thread-local data. So the first step uses none, neither
//! itself nor by PyO3's wrappers, until it has seen that there is memory; then it makes that data.
#![allow(unsafe_code)]

use crate::args::Args as _;
use crate::made::{self, Attributes as _, name};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::Cell;
use std::ptr::null_mut;

/// Indices of the parts of the first step: `call`, `note`, "error", and the objects that show whether the called code
/// has begun.
const CALL: isize = 0;
const NOTE: isize = 1;
const ERROR: isize = 2;
/// Of a pair of locks: `acquire`, `(False,)`, `release`.
const ACQUIRE: isize = 3;
const AT_ONCE: isize = 4;
const RELEASE: isize = 5;
/// Of an event: `acquire`, `()`, `release` of its condition, then its fields, "_flag", the waiters, their `popleft` and "release".
const FIELDS: isize = 6;
const FLAG: isize = 7;
const WAITERS: isize = 8;
const NEXT: isize = 9;
const WAKE: isize = 10;

/// `assured(call, note, begun)` returns a function without parameters, for a new thread, which calls `call()`. If that raises before
/// the called code has begun, `note["error"]` becomes the exception, and `begun` decides whether it has:
///
/// - a pair of locks: it has begun if the first one is taken; the second one, which a caller waits for, is released;
/// - a `threading.Event`: it has begun if the event is set; the event is set.
#[pyfunction]
pub fn assured<'py>(
    call: Bound<'py, PyAny>,
    note: Bound<'py, PyDict>,
    begun: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = call.py();
    let error = name!(py, "error")?;
    // The entry must exist before the memory runs out.
    if !note.contains(error)? {
        note.set_item(error, py.None())?;
    }
    let mut parts = vec![call, note.into_any(), error.clone().into_any()];
    if let Ok((taken, running)) = begun.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>() {
        let at_once = (false,).tuple(py)?.into_any();
        parts.extend([taken.attr("acquire")?, at_once, running.attr("release")?]);
    } else {
        let condition = begun.attr("_cond")?;
        let waiters = condition.attr("_waiters")?;
        let next = waiters.attr("popleft")?;
        let at_once = ().tuple(py)?.into_any();
        parts.extend([condition.attr("acquire")?, at_once, condition.attr("release")?]);
        parts.extend([begun.attr("__dict__")?, name!(py, "_flag")?.clone().into_any(), waiters, next]);
        parts.push(name!(py, "release")?.clone().into_any());
    }
    let parts = made::tuple(py, parts)?;
    struct Definition(ffi::PyMethodDef);
    // SAFETY: no code changes the definition, and its pointers are to static data.
    unsafe impl Sync for Definition {}
    static DEFINITION: Definition = Definition(ffi::PyMethodDef {
        ml_name: c"assured".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            // SAFETY: both ABIs pass arguments in the same way.
            PyCFunction: unsafe { std::mem::transmute::<Begin, ffi::PyCFunction>(begin) },
        },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: std::ptr::null(),
    });
    // SAFETY: the definition is static, and the interpreter does not change it. The function holds a reference to
    // `parts` as its `self`.
    unsafe {
        let function = ffi::PyCFunction_NewEx((&raw const DEFINITION.0).cast_mut(), parts.as_ptr(), null_mut());
        made::owned(py, function)
    }
}

type Begin = unsafe extern "C-unwind" fn(*mut ffi::PyObject, *mut ffi::PyObject) -> *mut ffi::PyObject;

unsafe extern "C-unwind" {
    /// `PyObject_CallObject`, out of which the end of the interpreter may unwind.
    #[link_name = "PyObject_CallObject"]
    fn call_object(call: *mut ffi::PyObject, arguments: *mut ffi::PyObject) -> *mut ffi::PyObject;
}

/// The first step of the thread. `this` is the tuple that [`assured`] has made.
///
/// When the interpreter ends, it ends daemonic threads by `pthread_exit`, which unwinds their stacks, and so this
/// frame. So no value in this function has a destructor, and the ABI allows unwinding.
unsafe extern "C-unwind" fn begin(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this function with its lock held. The function object keeps the tuple alive, and
    // the tuple its items.
    unsafe {
        let done = if there_is_memory() { call_object(part(this, CALL), null_mut()) } else { ffi::PyErr_NoMemory() };
        if !done.is_null() {
            return done;
        }
        let (mut kind, mut value, mut trace) = (null_mut(), null_mut(), null_mut());
        #[allow(deprecated)]
        {
            ffi::PyErr_Fetch(&mut kind, &mut value, &mut trace);
            ffi::PyErr_NormalizeException(&mut kind, &mut value, &mut trace);
        }
        if report(this, value) {
            ffi::Py_XDECREF(kind);
            ffi::Py_XDECREF(value);
            ffi::Py_XDECREF(trace);
            let none = ffi::Py_None();
            ffi::Py_INCREF(none);
            return none;
        }
        #[allow(deprecated)]
        ffi::PyErr_Restore(kind, value, trace);
        null_mut()
    }
}

/// Returns whether the thread's thread-local data exists. Makes it if there is memory for it.
fn there_is_memory() -> bool {
    thread_local! {
        static MADE: Cell<bool> = const { Cell::new(false) };
    }
    // The size of the data and of the allocator's own. The allocator keeps freed memory for this thread.
    const ENOUGH: usize = 8192;
    // SAFETY: the memory is freed at once, and not used.
    unsafe {
        let memory = ffi::PyMem_Malloc(ENOUGH);
        if memory.is_null() {
            return false;
        }
        ffi::PyMem_Free(memory);
    }
    MADE.set(true);
    true
}

/// # Safety
/// `parts` is the tuple of [`assured`], and `index` is below its length.
unsafe fn part(parts: *mut ffi::PyObject, index: isize) -> *mut ffi::PyObject {
    // SAFETY: the caller passes the tuple and an index within it. The reference is borrowed from the tuple.
    unsafe { ffi::PyTuple_GetItem(parts, index) }
}

/// Reports the error, unless the called code has begun. Returns whether it was reported. In both cases the thread that
/// waits for the beginning is woken: the called code may have set the flag, and then have had no memory to wake it.
///
/// # Safety
/// As [`begin`]; `error` is an exception.
unsafe fn report(parts: *mut ffi::PyObject, error: *mut ffi::PyObject) -> bool {
    // SAFETY: `assured` has put these items into the tuple, which keeps them alive. Each result is released here, or is
    // borrowed from an item.
    unsafe {
        let call = |index: isize, arguments: *mut ffi::PyObject| {
            let result = ffi::PyObject_CallObject(part(parts, index), arguments);
            let is_true = !result.is_null() && ffi::PyObject_IsTrue(result) == 1;
            ffi::Py_XDECREF(result);
            ffi::PyErr_Clear();
            is_true
        };
        let is_event = ffi::PyTuple_Size(parts) > FIELDS;
        let mut has_begun = false;
        if is_event {
            let flag = ffi::PyDict_GetItemWithError(part(parts, FIELDS), part(parts, FLAG));
            if flag.is_null() {
                return false;
            }
            has_begun = ffi::PyObject_IsTrue(flag) != 0;
            if has_begun && ffi::PySequence_Size(part(parts, WAITERS)) == 0 {
                return false;
            }
        }
        // Of an event this is the lock of its condition, which threads hold for moments only.
        if !call(ACQUIRE, part(parts, AT_ONCE)) {
            return false;
        }
        if !has_begun {
            ffi::PyDict_SetItem(part(parts, NOTE), part(parts, ERROR), error);
        }
        if is_event {
            ffi::PyDict_SetItem(part(parts, FIELDS), part(parts, FLAG), ffi::Py_True());
            while ffi::PySequence_Size(part(parts, WAITERS)) > 0 {
                let waiter = ffi::PyObject_CallObject(part(parts, NEXT), null_mut());
                if waiter.is_null() {
                    break;
                }
                let woken = ffi::PyObject_CallMethodObjArgs(waiter, part(parts, WAKE), null_mut::<ffi::PyObject>());
                ffi::Py_XDECREF(woken);
                ffi::Py_DECREF(waiter);
            }
        }
        call(RELEASE, null_mut());
        ffi::PyErr_Clear();
        !has_begun
    }
}
