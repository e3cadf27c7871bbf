//! An argument that is tested for truth, as Python does: `get(0)` is as old as `get(False)`.

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
