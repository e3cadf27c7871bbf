//! `Child`: a process that runs a program, on systems where a process is known by a handle and not by signals.

use crate::args::Out;
use crate::deadline::deadline;
use crate::error::{Saying as _, os};
use crate::handles::borrow;
use crate::message::waiting;
use maniple_engine::channel::readiness;
use maniple_engine::process::Exit;
use maniple_engine::wait::Until;
use maniple_sys::process::{self, Start, Stdio};
use maniple_sys::ready::Interest;
use maniple_sys::{AsHandle, OwnedHandle, RawHandle};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A started program.
///
/// Args:
///     program: the path of the program's file.
///     arguments: its arguments, its name first.
///     environment: its whole environment.
///     handles: the handles that it inherits, under the same numbers.
///     stderr: the handle that becomes its standard error; None means this process's.
///     tied: whether the system ends it when this process ends, also if this process is killed.
#[pyclass(name = "Child", module = "maniple._maniple", frozen)]
pub struct PyChild {
    pid: u32,
    number: RawHandle,
    /// `None` after `close`. A thread that waits keeps the handle open.
    handle: Mutex<Option<Arc<OwnedHandle>>>,
}

impl PyChild {
    fn handle(&self) -> PyResult<Arc<OwnedHandle>> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        handle.ok_or_else(|| PyValueError::saying("the process object is closed"))
    }
}

fn copy(number: RawHandle) -> PyResult<OwnedHandle> {
    borrow(&number)?.try_clone_to_owned().map_err(|e| os("duplicate a handle for a child", e))
}

#[pymethods]
impl PyChild {
    #[new]
    #[pyo3(signature = (program, arguments, environment, handles, stderr, tied))]
    fn new(
        py: Python<'_>,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        handles: Vec<RawHandle>,
        stderr: Option<RawHandle>,
        tied: bool,
    ) -> PyResult<Self> {
        let stderr = stderr.map(copy).transpose()?.map_or(Stdio::Inherit, Stdio::Handle);
        // The child has them under the numbers of these handles, which the caller keeps open.
        let lent: Vec<OwnedHandle> = crate::handles::adopt(handles);
        let start = Start {
            program: Some(program),
            arguments,
            environment,
            folder: None,
            stdio: [Stdio::Inherit, Stdio::Inherit, stderr],
            handles: lent,
        };
        let started: io::Result<(u32, OwnedHandle)> =
            py.detach(|| if tied { process::start(&start, None) } else { process::start_free(&start, None) });
        start.handles.into_iter().map(OwnedHandle::into_raw).for_each(|_lent| {});
        let (pid, handle) = started.map_err(|e| os("start a program", e))?;
        Ok(PyChild { pid, number: handle.as_raw(), handle: Mutex::new(Some(Arc::new(handle))) })
    }

    /// The process's number.
    #[getter]
    fn pid(&self) -> u32 {
        self.pid
    }

    /// The number of a handle that becomes ready when the process ends; this object owns it.
    #[getter]
    fn sentinel(&self) -> Out<RawHandle> {
        Out(self.number)
    }

    /// Return the exit code in the form of `Process.exitcode`; None while the process runs.
    fn poll(&self) -> PyResult<Option<i32>> {
        let exit = process::reap(self.handle()?.as_handle(), self.pid).map_err(|e| os("look at a process", e))?;
        Ok(exit.and_then(Exit::number))
    }

    /// Wait until the process ends, at most `timeout` seconds (None: no limit); return whether it has ended.
    #[pyo3(signature = (timeout))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let handle = self.handle()?;
        let until = match timeout {
            Some(seconds) if seconds <= 0.0 => Until::Now,
            limit => deadline(limit).map_or(Until::Ever, Until::Then),
        };
        waiting(py, |interrupted| {
            let mut interest = [Interest::new((*handle).as_handle())];
            readiness::any(&mut interest, until, "wait for a process", interrupted)
        })
    }

    /// Request the process's end; where the system has no requests, end it.
    fn terminate(&self) -> PyResult<()> {
        process::terminate(self.handle()?.as_handle(), self.pid).map_err(|e| os("end a process", e))
    }

    /// End the process at once.
    fn kill(&self) -> PyResult<()> {
        process::kill(self.handle()?.as_handle(), self.pid).map_err(|e| os("end a process", e))
    }

    /// Release the handle. The process continues.
    fn close(&self) {
        drop(self.handle.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
