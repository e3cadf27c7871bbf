//! Rust values as Python objects: arguments of Python functions, and results of this module's functions. PyO3's own
//! conversions panic if there is no memory.

#![allow(unsafe_code)]

use crate::made;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A value that a Python function can be called with.
pub trait Arg<'py> {
    /// # Errors
    /// No memory.
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;
}

impl<'py, T> Arg<'py> for Bound<'py, T> {
    fn object(self, _: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.into_any())
    }
}

impl<'py, T> Arg<'py> for &Bound<'py, T> {
    fn object(self, _: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.clone().into_any())
    }
}

impl<'py, T> Arg<'py> for Borrowed<'_, 'py, T> {
    fn object(self, _: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.to_owned().into_any())
    }
}

impl<'py, T> Arg<'py> for Py<T> {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.into_bound(py).into_any())
    }
}

impl<'py, T> Arg<'py> for &Py<T> {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.bind(py).clone().into_any())
    }
}

impl<'py, T: Arg<'py>> Arg<'py> for Option<T> {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.map_or_else(|| Ok(py.None().into_bound(py)), |some| some.object(py))
    }
}

impl<'py, A: Arg<'py>> Arg<'py> for Vec<A> {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let objects = self.into_iter().map(|one| one.object(py)).collect::<PyResult<Vec<_>>>()?;
        made::list(py, objects).map(Bound::into_any)
    }
}

impl<'py> Arg<'py> for &[u8] {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        made::bytes(py, self).map(Bound::into_any)
    }
}

impl<'py> Arg<'py> for bool {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(pyo3::types::PyBool::new(py, self).to_owned().into_any())
    }
}

impl<'py> Arg<'py> for f64 {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        made::float(py, self)
    }
}

impl<'py> Arg<'py> for &str {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        made::text(py, self).map(Bound::into_any)
    }
}

impl<'py> Arg<'py> for &String {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_str().object(py)
    }
}

impl<'py> Arg<'py> for String {
    fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.as_str().object(py)
    }
}

macro_rules! numbers {
    ($($number:ty => $made:ident),*) => {$(
        impl<'py> Arg<'py> for $number {
            fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                made::$made(py, self as _)
            }
        }
    )*};
}
numbers!(i32 => integer, isize => integer, i64 => integer, u32 => unsigned, u64 => unsigned, usize => unsigned);

/// The arguments of a call: a tuple of values.
pub trait Args<'py> {
    /// # Errors
    /// No memory.
    fn tuple(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>>;
}

impl<'py> Args<'py> for Bound<'py, PyTuple> {
    fn tuple(self, _: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        Ok(self)
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {$(
        impl<'py, $($name: Arg<'py>),*> Arg<'py> for ($($name,)*) {
            fn object(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
                self.tuple(py).map(Bound::into_any)
            }
        }

        impl<'py, $($name: Arg<'py>),*> Args<'py> for ($($name,)*) {
            #[allow(non_snake_case)]
            fn tuple(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
                let ($($name,)*) = self;
                made::tuple(py, [$($name.object(py)?),*] as [Bound<'py, PyAny>; _])
            }
        }
    )*};
}
tuples!(() (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H) (A B C D E F G H I));

/// Calls with Rust values.
pub trait Calls<'py> {
    /// Returns the result of `self(*args)`.
    ///
    /// # Errors
    /// No memory, or what the function raises.
    fn with(&self, args: impl Args<'py>) -> PyResult<Bound<'py, PyAny>>;
}

impl<'py> Calls<'py> for Bound<'py, PyAny> {
    fn with(&self, args: impl Args<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (py, args) = (self.py(), args.tuple(self.py())?);
        // SAFETY: live objects. The call returns a new reference, or null with an exception set.
        unsafe { made::owned(py, ffi::PyObject_Call(self.as_ptr(), args.as_ptr(), std::ptr::null_mut())) }
    }
}

/// A result of a function of this module.
pub struct Out<T>(pub T);

impl<'py, T: Arg<'py>> IntoPyObject<'py> for Out<T> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.object(py)
    }
}
