//! Shared memory under a name: POSIX's two calls as Python functions.

use crate::args::{Calls as _, Out};
use crate::error::Saying as _;
use crate::made::{Attributes as _, import};
use maniple_sys::{OwnedHandle, RawHandle, named};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::io;

/// shm_open(path, flags, mode=511)
///
/// Open the shared memory called `path`; return a descriptor, which programs started from here do not inherit.
#[pyfunction]
#[pyo3(signature = (path, flags, mode = 0o777))]
pub fn shm_open(py: Python<'_>, path: &str, flags: i32, mode: u32) -> PyResult<RawHandle> {
    until_done(py, path, || named::open(path, flags, mode).map(OwnedHandle::into_raw))
}

/// named_section(name, size=None)
///
/// Create (with a size) or find shared memory under a name of the system's, on systems where such a name lasts as long as
/// the memory is used; return a handle and the memory's size in bytes.
#[pyfunction]
#[pyo3(signature = (name, size = None))]
pub fn named_section(py: Python<'_>, name: &str, size: Option<usize>) -> PyResult<Out<(RawHandle, usize)>> {
    until_done(py, name, || named::section(name, size).map(|(handle, size)| Out((handle.into_raw(), size))))
}

/// shm_unlink(path)
///
/// Remove the name of shared memory. The system frees the memory after its last user has ended.
#[pyfunction]
pub fn shm_unlink(py: Python<'_>, path: &str) -> PyResult<()> {
    until_done(py, path, || named::unlink(path))
}

/// Makes the call. Repeats it if a signal interrupted it whose handler raises nothing.
fn until_done<T: Send>(py: Python<'_>, path: &str, call: impl Fn() -> io::Result<T> + Sync) -> PyResult<T> {
    if path.contains('\0') {
        return Err(PyValueError::saying("embedded null character"));
    }
    loop {
        match py.detach(&call) {
            Ok(done) => return Ok(done),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
            Err(error) => return Err(refused(py, &error, path)),
        }
    }
}

/// Returns an OSError that names the path; the error number decides its subclass.
fn refused(py: Python<'_>, error: &io::Error, path: &str) -> PyErr {
    let number = maniple_sys::error_number(error).unwrap_or_default();
    let text = import(py, "os").and_then(|os| os.attr("strerror")?.with((number,))?.extract::<String>());
    PyOSError::new_err((number, text.unwrap_or_else(|_| error.to_string()), path.to_owned()))
}
