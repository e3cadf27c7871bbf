//! `Guarded`: an object and the lock that guards it, the base of `Value` and `Array`. `LockedField`: an attribute of
//! the object that is read and written with the lock held.

use crate::born::Born;
use crate::error::Saying as _;
use crate::made::name;
use crate::sync::PySemLock;
use crate::unended;
use maniple_engine::wait::Until;
use pyo3::PyTraverseError;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::sync::OnceLock;

struct Parts {
    obj: Py<PyAny>,
    lock: Py<PyAny>,
    /// The same lock, if its class belongs to this package.
    native: Option<Py<PySemLock>>,
}

/// An object of shared memory and its lock. The lock may be any object that has `acquire` and `release`.
#[pyclass(name = "Guarded", module = "maniple._maniple", subclass, frozen, weakref)]
pub struct PyGuarded(Born<OnceLock<Parts>>);

impl PyGuarded {
    fn parts(&self) -> PyResult<&Parts> {
        self.0.get().ok_or_else(|| PyRuntimeError::saying("this object was made without calling its __init__"))
    }
}

impl Parts {
    /// Calls `work` with the lock held.
    fn holding<'py, T>(&self, py: Python<'py>, work: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>) -> PyResult<T> {
        let obj = self.obj.bind(py);
        if let Some(native) = &self.native {
            let lock = native.get();
            lock.take(py, Until::Ever)?;
            let done = work(obj);
            lock.give().and(done)
        } else {
            let lock = self.lock.bind(py);
            unended::call(&lock.getattr(name!(py, "acquire")?)?, (), None)?;
            let done = work(obj);
            lock.call_method0(name!(py, "release")?).and(done)
        }
    }
}

#[pymethods]
impl PyGuarded {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyGuarded {
        PyGuarded(Born::default())
    }

    fn __init__(&self, obj: Py<PyAny>, lock: Bound<'_, PyAny>) -> PyResult<()> {
        let native = lock.cast::<PySemLock>().ok().map(|native| native.clone().unbind());
        let parts = Parts { obj, lock: lock.unbind(), native };
        self.0.set(parts).map_err(|_| PyRuntimeError::saying("this object has already been initialised"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(parts) = self.0.get() {
            visit.call(&parts.obj)?;
            visit.call(&parts.lock)?;
            visit.call(&parts.native)?;
        }
        Ok(())
    }

    #[getter]
    fn _obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.parts()?.obj.clone_ref(py))
    }

    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.parts()?.lock.clone_ref(py))
    }

    /// Return the ctypes object itself; an access to it does not hold the lock.
    #[pyo3(text_signature = "(self)")]
    fn get_obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._obj(py)
    }

    /// Return the lock.
    #[pyo3(text_signature = "(self)")]
    fn get_lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._lock(py)
    }

    #[pyo3(text_signature = "(self)")]
    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = self.parts()?;
        parts.lock.call_method0(py, name!(py, "acquire")?)
    }

    #[pyo3(signature = (*_args), text_signature = "(self, *args)")]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        let parts = self.parts()?;
        parts.lock.call_method0(py, name!(py, "release")?)
    }

    /// Return an item, or a list of the items of a slice, with the lock held.
    #[pyo3(text_signature = "(self, i)")]
    fn _get_item(&self, py: Python<'_>, i: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.parts()?.holding(py, |obj| Ok(obj.get_item(i)?.unbind()))
    }

    /// Set an item, or the items of a slice, with the lock held.
    #[pyo3(text_signature = "(self, i, value)")]
    fn _set_item(&self, py: Python<'_>, i: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.parts()?.holding(py, |obj| obj.set_item(i, value))
    }
}

/// A descriptor for a class that inherits from `Guarded`.
#[pyclass(name = "LockedField", module = "maniple._maniple", frozen)]
pub struct PyLockedField(Py<PyString>);

#[pymethods]
impl PyLockedField {
    #[new]
    fn new(name: &Bound<'_, PyString>) -> PyResult<PyLockedField> {
        Ok(PyLockedField(name.clone().unbind()))
    }

    fn __get__<'py>(
        slf: Bound<'py, Self>,
        instance: Option<&Bound<'py, PyAny>>,
        _owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(instance) = instance else { return Ok(slf.into_any()) };
        let parts = instance.cast::<PyGuarded>()?.get().parts()?;
        let name = &slf.get().0;
        parts.holding(slf.py(), |obj| obj.getattr(name))
    }

    fn __set__(&self, py: Python<'_>, instance: &Bound<'_, PyGuarded>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        instance.get().parts()?.holding(py, |obj| obj.setattr(&self.0, value))
    }

    fn __delete__(&self, _instance: &Bound<'_, PyAny>) -> PyResult<()> {
        Err(PyAttributeError::saying("an attribute of an object in shared memory cannot be deleted"))
    }
}
