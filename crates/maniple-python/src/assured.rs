//! `Assured`: a call in a new thread whose end is reported even if there is no memory for a single frame of Python code.
//!
//! A thread of Python begins with Python code. If the interpreter has no memory for its first frame, the thread ends with a
//! `MemoryError` that only standard error shows, and a caller that waits for a sign of the thread waits forever.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyMemoryError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use std::time::Duration;

/// Calls `call()`, then `finish(error)` with what that raised, or `None`. Calls `finish` again while there is no memory for it. Raises the
/// error unless `finish` returns true.
#[pyclass(name = "Assured", module = "maniple._maniple", frozen)]
pub struct PyAssured {
    call: Py<PyAny>,
    finish: Py<PyAny>,
}

#[pymethods]
impl PyAssured {
    #[new]
    fn new(call: Py<PyAny>, finish: Py<PyAny>) -> PyAssured {
        PyAssured { call, finish }
    }

    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        const PAUSE: Duration = Duration::from_millis(5);
        let done = self.call.bind(py).call0();
        let error = done.as_ref().err().map(|error| error.value(py).clone());
        loop {
            match self.finish.bind(py).call1((error.clone(),)) {
                Err(short) if short.is_instance_of::<PyMemoryError>(py) => py.detach(|| std::thread::sleep(PAUSE)),
                // Whether `finish` has passed the error on. If not, it is the thread's own.
                Ok(taken) if taken.is_truthy()? => break Ok(()),
                other => break other.and(done.map(drop)),
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.call)?;
        visit.call(&self.finish)
    }
}
