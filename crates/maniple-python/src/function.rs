//! Functions: which of them mean the same in every call, and how errors name them.
#![allow(unsafe_code)]

use crate::lazy::Lazy;
use crate::made::{Attributes as _, import, name};
use pyo3::exceptions::PyAttributeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyString, PyType};

/// Returns whether the object is a function or class at the top of its module that the module has under the object's
/// own name. Then its pickle is that name, and means the same in every call.
pub fn is_plain(func: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = func.py();
    let kind = func.get_type();
    if !(kind.is(function_type(py)?) || kind.is(py.get_type::<PyCFunction>()) || kind.is(py.get_type::<PyType>())) {
        return Ok(false);
    }
    let Some(module) = attribute(func, name!(py, "__module__")?)? else { return Ok(false) };
    let Ok(module) = module.cast_into::<PyString>() else { return Ok(false) };
    let Some(loaded) = loaded(&module)? else { return Ok(false) };
    let Ok(name) = func.getattr(name!(py, "__qualname__")?)?.cast_into::<PyString>() else { return Ok(false) };
    Ok(attribute(&loaded, &name)?.is_some_and(|found| found.is(func)))
}

/// Returns a module that `sys.modules` has. `PyImport_GetModule` also asks whether another thread is still importing the
/// module, for ten times as long as the rest of `is_plain` takes.
fn loaded<'py>(module: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = module.py();
    // SAFETY: the interpreter lock is held, and the name is a string. The dict and its value are borrowed references; null
    // is a missing value, or an exception, which is then set. `PyImport_GetModule` returns a new reference.
    let found = unsafe {
        let modules = ffi::PyImport_GetModuleDict();
        if !modules.is_null() && ffi::PyDict_CheckExact(modules) != 0 {
            let found = ffi::PyDict_GetItemWithError(modules, module.as_ptr());
            Bound::from_borrowed_ptr_or_opt(py, found)
        } else {
            Bound::from_owned_ptr_or_opt(py, ffi::PyImport_GetModule(module.as_ptr()))
        }
    };
    match found {
        None => PyErr::take(py).map_or(Ok(None), Err),
        found => Ok(found),
    }
}

/// The type of functions that are written in Python. PyO3's own cell of it lets other threads wait for an import.
fn function_type(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static FOUND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    FOUND.get_or_make(py, || Ok(import(py, "types")?.attr("FunctionType")?.unbind()))
}

/// Returns the name of a function for errors: its qualified name, or that of the function that a `partial` wraps, or
/// that of its type. Its `repr` is not used: it may be as large as the data that the object carries.
pub fn name_of<'py>(func: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = func.py();
    for holder in [Some(func.clone()), attribute(func, name!(py, "func")?)?].into_iter().flatten() {
        if let Some(name) = attribute(&holder, name!(py, "__qualname__")?)? {
            return Ok(name);
        }
    }
    Ok(func.get_type().qualname()?.into_any())
}

fn attribute<'py>(of: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
    match of.getattr(name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_instance_of::<PyAttributeError>(of.py()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A function that refers to other objects. It is held until its call has ended.
pub fn kept(func: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    Ok(if is_plain(func)? { None } else { Some(func.clone().unbind()) })
}
