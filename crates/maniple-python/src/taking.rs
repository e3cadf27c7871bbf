//! Subscriptions that take something out: a message of a connection, a pickle of a queue, a result of an iterator.
//!
//! The interpreter runs signal handlers after a call of native code, and not after a subscription. If a handler raises
//! there, the caller never gets what the call returned, and no later call can return it again. So `recv` is a function
//! that returns `received[self]`: it has the message when the next handler runs.

use crate::connection::PyChannel;
use crate::error::Saying as _;
use crate::made;
use crate::queue::PyLog;
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
    Pickle,
    Result,
    ResultNow,
}

/// `taking[object]`, or `taking[object, ...]` with arguments.
#[pyclass(name = "Taking", module = "maniple._maniple", frozen)]
pub struct PyTaking(What);

#[pymethods]
impl PyTaking {
    fn __getitem__<'py>(&self, py: Python<'py>, from: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let argument = |place| from.cast::<PyTuple>()?.get_item(place);
        match self.0 {
            What::Object => channel(from)?.recv(py),
            // Within a tuple, so that None means that there is nothing.
            What::ObjectNow => match channel(from)?.recv_now(py)? {
                Some(object) => Ok(made::tuple(py, vec![object])?.into_any()),
                None => Ok(py.None().into_bound(py)),
            },
            What::Bytes => channel(&argument(0)?)?.recv_bytes(py, argument(1)?.extract()?),
            What::BytesInto => {
                let length = channel(&argument(0)?)?.recv_bytes_into(py, &argument(1)?, argument(2)?.extract()?)?;
                Ok(length.into_pyobject(py)?.into_any())
            }
            What::Pickle => from.cast::<PyLog>()?.get().get_pickle(py),
            What::Result => {
                let timeout = argument(1)?;
                PyResults::step(argument(0)?.cast::<PyResults>()?, Some(timeout).filter(|timeout| !timeout.is_none()))
            }
            What::ResultNow => PyResults::step_now(argument(0)?.cast::<PyResults>()?, argument(1)?),
        }
    }
}

fn channel<'a>(object: &'a Bound<'_, PyAny>) -> PyResult<&'a PyChannel> {
    Ok(object.cast::<PyChannel>().map_err(|_| PyTypeError::saying("not a connection"))?.get())
}

/// Adds the subscriptions to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, what) in [
        ("received", What::Object),
        ("received_now", What::ObjectNow),
        ("received_bytes", What::Bytes),
        ("received_into", What::BytesInto),
        ("taken_pickle", What::Pickle),
        ("next_result", What::Result),
        ("next_result_now", What::ResultNow),
    ] {
        module.add(name, PyTaking(what))?;
    }
    Ok(())
}
