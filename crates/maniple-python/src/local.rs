//! Listeners and clients of this machine under a name that is not in the file system.

use crate::deadline::deadline;
use crate::error::os;
use crate::message::waiting;
use maniple_engine::Error;
use maniple_sys::socket::{self, Dial, Place};
use maniple_sys::{OwnedHandle, RawHandle};
use pyo3::prelude::*;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn place(name: &str) -> PathBuf {
    PathBuf::from(format!("\0{name}"))
}

/// local_listener(name, backlog)
///
/// Return the handle of a new listener, for `Reception`. The name is free again when the handle is closed.
#[pyfunction]
pub fn local_listener(name: &str, backlog: u32) -> PyResult<RawHandle> {
    let made = socket::listen(Place::Local(&place(name)), backlog);
    made.map(OwnedHandle::into_raw).map_err(|e| os("make a listener", e))
}

/// local_client(name, timeout)
///
/// Connect to the listener of this name, and return a handle on the connection. None means no time limit.
#[pyfunction]
#[pyo3(signature = (name, timeout))]
pub fn local_client(py: Python<'_>, name: &str, timeout: Option<f64>) -> PyResult<RawHandle> {
    /// How long the system waits for room in the listener's queue before signal handlers run.
    const SLICE: Duration = Duration::from_millis(200);
    let path = place(name);
    let limit = deadline(timeout);
    let failed = |source| Error::Os { doing: "connect to a listener", source };
    waiting(py, |interrupted| {
        let dial = Dial::new(Place::Local(&path)).map_err(failed)?;
        loop {
            let left = limit.map_or(SLICE, |limit| limit.saturating_duration_since(Instant::now()));
            match dial.connect(Some(left.min(SLICE))) {
                Ok(()) => return Ok(dial.into_handle().into_raw()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !left.is_zero() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
            if interrupted() {
                return Err(Error::Interrupted);
            }
        }
    })
}
