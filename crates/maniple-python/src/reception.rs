//! Authentication: of a listener's clients side by side (`Reception`), of one client in a server's own loop (`Greeting`), of this
//! process as a client (`get_in`), and the single messages.
#![allow(unsafe_code)]

use crate::connection::deadline;
use crate::lazy::Lazy;
use crate::signals::look_for_signals;
use maniple_engine::channel::auth::{self, Refusal};
use maniple_engine::channel::listener::Cause;
use maniple_engine::channel::reception::{self, Greeting, Reception, Refused, Unwelcome};
use maniple_sys::{BorrowedHandle, OwnedHandle, RawHandle, socket};
use pyo3::exceptions::{PyEOFError, PyOSError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::io;
use std::sync::{Mutex, PoisonError};

fn borrowed(number: RawHandle) -> PyResult<BorrowedHandle<'static>> {
    if number < 0 {
        return Err(PyOSError::new_err("handle is closed"));
    }
    // SAFETY: it is open unless it is closed while in use, which is the caller's mistake and only makes calls fail.
    Ok(unsafe { BorrowedHandle::borrow_raw(number) })
}

fn authentication_error(text: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Python::attach(|py| {
        let class = CLASS
            .get_or_make(py, || PyResult::Ok(py.import("maniple.context")?.getattr("AuthenticationError")?.unbind()));
        match class.and_then(|class| class.bind(py).call1((text,))) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    })
}

fn refused(why: Refusal) -> PyErr {
    authentication_error(why.to_string())
}

fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

fn caused(cause: Cause) -> PyErr {
    match cause {
        Cause::Refusal(why) => refused(why),
        Cause::Gone => PyEOFError::new_err("the other end closed the connection in the middle of the authentication"),
        Cause::Os(error) => os_error(error),
        Cause::Mute(limit) => authentication_error(format!(
            "the listener accepted the connection and sent nothing for {limit:?}: it seems to have no authkey. Use \
                the same authkey at both ends, or none"
        )),
        Cause::Late(_) | Cause::Crowded => authentication_error("the client took too long".into()),
        _ => authentication_error("the authentication failed".into()),
    }
}

/// A listening socket's clients until they have shown that they know the key.
#[pyclass(name = "Reception", module = "maniple._maniple", frozen)]
pub struct PyReception(Reception);

#[pymethods]
impl PyReception {
    #[new]
    fn new() -> PyResult<Self> {
        Reception::new().map(PyReception).map_err(os_error)
    }

    /// Waits for the next client of the listening socket `fd`, with the `key` if it is not None. Returns the descriptor of the
    /// connection; None when `timeout` seconds have passed. OSError after `close`.
    ///
    /// Clients that stay silent are closed. For a client with another key, or with an invalid message: AuthenticationError; for a client that
    /// disconnects: EOFError.
    #[pyo3(signature = (fd, key=None, timeout=None))]
    fn admit(
        &self,
        py: Python<'_>,
        fd: RawHandle,
        key: Option<&[u8]>,
        timeout: Option<f64>,
    ) -> PyResult<Option<RawHandle>> {
        let listening = borrowed(fd)?;
        let deadline = deadline(timeout);
        loop {
            let mut raised = None;
            let admitted = py.detach(|| {
                self.0.admit(listening, key, deadline, &mut || {
                    raised = look_for_signals();
                    raised.is_some()
                })
            });
            return match admitted {
                Ok(client) => Ok(client.map(OwnedHandle::into_raw)),
                // Unauthenticated clients that sent nothing: the program is not notified.
                Err(Refused::Client(_, Cause::Late(_) | Cause::Crowded)) => continue,
                Err(Refused::Client(_, cause)) => Err(caused(cause)),
                Err(Refused::Closed) => Err(PyOSError::new_err("listener is closed")),
                Err(Refused::Os(error)) => Err(os_error(error)),
                Err(Refused::Interrupted) => Err(raised.unwrap_or_else(|| PyOSError::new_err("interrupted"))),
            };
        }
    }

    /// Closes the clients that are not through, and ends the calls of `admit`.
    fn close(&self) {
        self.0.close();
    }
}

/// One client's authentication, without waiting.
#[pyclass(name = "Greeting", module = "maniple._maniple", frozen)]
pub struct PyGreeting(Mutex<Greeting>);

#[pymethods]
impl PyGreeting {
    /// Over the connected socket `fd`, which stays the caller's.
    #[new]
    fn new(fd: RawHandle, key: &[u8]) -> PyResult<Self> {
        Ok(PyGreeting(Mutex::new(Greeting::new(borrowed(fd)?, key).map_err(caused)?)))
    }

    /// Processes the received data. True: the client has the key. AuthenticationError, EOFError, OSError: it is to be closed.
    fn hear(&self) -> PyResult<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hear().map_err(caused)
    }
}

/// Does a client's part of the authentication over the connected socket `fd`. AuthenticationError: the keys differ, or the
/// listener has none. EOFError: it closed the connection. TimeoutError: `timeout` seconds have passed.
#[pyfunction]
#[pyo3(signature = (fd, key, timeout=None))]
pub fn get_in(py: Python<'_>, fd: RawHandle, key: &[u8], timeout: Option<f64>) -> PyResult<()> {
    let socket = borrowed(fd)?;
    let deadline = deadline(timeout);
    let mut raised = None;
    let done = py.detach(|| {
        reception::get_in(socket, key, deadline, &mut || {
            raised = look_for_signals();
            raised.is_some()
        })
    });
    match done {
        Ok(()) => Ok(()),
        Err(Unwelcome::Because(Cause::Gone)) => Err(PyEOFError::new_err(
            "the listener closed the connection in the middle of the authentication: its process may have ended, or have \
                no free descriptor for a client (ulimit -n)",
        )),
        Err(Unwelcome::Because(cause)) => Err(caused(cause)),
        Err(Unwelcome::Late) => Err(PyTimeoutError::new_err("timed out")),
        Err(Unwelcome::Interrupted) => Err(raised.unwrap_or_else(|| PyOSError::new_err("interrupted"))),
    }
}

/// A message with a challenge for the named digest. AuthenticationError: the digest is not used here.
#[pyfunction]
pub fn auth_challenge<'py>(py: Python<'py>, digest: &str) -> PyResult<Bound<'py, PyBytes>> {
    let mut random = [0; auth::RANDOM];
    socket::random(&mut random).map_err(os_error)?;
    auth::challenge(digest.as_bytes(), random).map(|message| PyBytes::new(py, &message)).map_err(refused)
}

/// The message that follows the response to `message`, and the AuthenticationError if the response is wrong.
#[pyfunction]
pub fn auth_judge<'py>(
    py: Python<'py>,
    key: &[u8],
    message: &[u8],
    response: &[u8],
) -> (Bound<'py, PyBytes>, Option<Bound<'py, PyAny>>) {
    let (verdict, judged) = auth::judge(key, message, response);
    (PyBytes::new(py, verdict), judged.err().map(|why| refused(why).into_value(py).into_bound(py).into_any()))
}

/// What answers a message with a challenge. AuthenticationError: it is no such message, or the challenge has no known form.
#[pyfunction]
pub fn auth_answer<'py>(py: Python<'py>, key: &[u8], message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    auth::answer(key, message).map(|response| PyBytes::new(py, &response)).map_err(refused)
}

/// AuthenticationError unless `message` says that the response is accepted.
#[pyfunction]
pub fn auth_accept(message: &[u8]) -> PyResult<()> {
    auth::accept(message).map_err(refused)
}

/// The beginning of a challenge's message, the two messages that judge a response, and the names of the digests.
#[pyfunction]
pub fn auth_words<'py>(py: Python<'py>) -> (Vec<Bound<'py, PyBytes>>, Vec<Bound<'py, PyBytes>>) {
    let bytes = |word: &[u8]| PyBytes::new(py, word);
    ([auth::CHALLENGE, auth::WELCOME, auth::FAILURE].map(bytes).into(), auth::digests().map(bytes).collect())
}

/// What answers `challenge`, in the form in which it was put. AuthenticationError: it has none that is known.
#[pyfunction]
pub fn auth_respond<'py>(py: Python<'py>, key: &[u8], challenge: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    auth::respond(key, challenge).map(|response| PyBytes::new(py, &response)).map_err(refused)
}

/// AuthenticationError unless `response` answers `challenge`.
#[pyfunction]
pub fn auth_verify(key: &[u8], challenge: &[u8], response: &[u8]) -> PyResult<()> {
    auth::verify(key, challenge, response).map_err(refused)
}

/// The name of the digest in a challenge or response, '' for the MD5 form, and the rest. AuthenticationError: of no known form.
#[pyfunction]
pub fn auth_name_and_payload<'py>(py: Python<'py>, message: &[u8]) -> PyResult<(String, Bound<'py, PyBytes>)> {
    let (name, payload) = auth::name_and_payload(message).map_err(refused)?;
    let name = name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    Ok((name, PyBytes::new(py, payload)))
}
