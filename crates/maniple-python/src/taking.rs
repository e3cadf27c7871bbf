//! Subscriptions that take something out: a message of a connection, a result of an iterator.
//!
//! The interpreter runs signal handlers after a call of native code, and not after a subscription. If a handler raises
//! there, the caller never gets what the call returned, and no later call can return it again. So `recv` is a function
//! that returns `received[self]`: it has the message when the next handler runs.

use crate::connection::PyChannel;
use crate::made;
use crate::results::PyResults;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// What a subscription takes.
enum What {
    Object,
    ObjectNow,
    Bytes,
    BytesInto,
    Result,
    ResultNow,
}

/// `taking[object, ...]`. The arguments follow the object.
#[pyclass(name = "Taking", module = "maniple._maniple", frozen)]
pub struct PyTaking(What);

#[pymethods]
impl PyTaking {
    fn __getitem__<'py>(&self, py: Python<'py>, from: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let What::Object = self.0 {
            return channel(from)?.recv(py);
        }
        let arguments = from.cast::<PyTuple>()?;
        let from = arguments.get_item(0)?;
        match self.0 {
            // Within a tuple, so that None means that there is nothing.
            What::Object | What::ObjectNow => match channel(&from)?.recv_now(py)? {
                Some(object) => Ok(made::tuple(py, vec![object])?.into_any()),
                None => Ok(py.None().into_bound(py)),
            },
            What::Bytes => channel(&from)?.recv_bytes(py, arguments.get_item(1)?.extract()?),
            What::BytesInto => {
                let (buffer, offset) = (arguments.get_item(1)?, arguments.get_item(2)?);
                Ok(channel(&from)?.recv_bytes_into(py, &buffer, offset.extract()?)?.into_pyobject(py)?.into_any())
            }
            What::ResultNow => PyResults::step_now(from.cast::<PyResults>()?, arguments.get_item(1)?),
            What::Result => {
                let timeout = arguments.get_item(1)?;
                PyResults::step(from.cast::<PyResults>()?, Some(timeout).filter(|timeout| !timeout.is_none()))
            }
        }
    }
}

fn channel<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a PyChannel> {
    Ok(object.cast::<PyChannel>().map_err(|_| PyTypeError::new_err("not a connection"))?.get())
}

/// Adds the subscriptions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, what) in [
        ("received", What::Object),
        ("received_now", What::ObjectNow),
        ("received_bytes", What::Bytes),
        ("received_into", What::BytesInto),
        ("next_result", What::Result),
        ("next_result_now", What::ResultNow),
    ] {
        module.add(name, PyTaking(what))?;
    }
    Ok(())
}
