//! An argument of which Python asks only whether it is true: `get(0)` and `get(1)` are as old as `get(False)`.

use pyo3::prelude::*;

/// Whether the argument is true.
#[derive(Clone, Copy)]
pub struct Truth(pub bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Truth> {
        object.is_truthy().map(Truth)
    }
}
