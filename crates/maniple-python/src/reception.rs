//! Authentication: of a listener's clients side by side (`Reception`), of a client in a server's own loop (`Greeting`),
//! of this process as a client (`get_in`), and the single messages.
#![allow(unsafe_code)]

use crate::args::{Calls as _, Out};
use crate::deadline::deadline;
use crate::descriptor::Descriptor;
use crate::error::{Saying as _, numbered};
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import};
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
        return Err(PyOSError::saying("handle is closed"));
    }
    // SAFETY: the number is only passed to the kernel. If the program closes the descriptor during a call, the kernel
    // refuses the number or uses another file of the program.
    Ok(unsafe { BorrowedHandle::borrow_raw(number) })
}

fn authentication_error(text: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    Python::attach(|py| {
        let class = CLASS
            .get_or_make(py, || PyResult::Ok(import(py, "maniple.context")?.attr("AuthenticationError")?.unbind()));
        match class.and_then(|class| class.bind(py).with((text,))) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        }
    })
}

fn refused(why: Refusal) -> PyErr {
    authentication_error(why.to_string())
}

fn os_error(error: io::Error) -> PyErr {
    match maniple_sys::error_number(&error) {
        Some(number) => numbered::<PyOSError>(number, error.to_string()),
        None => PyOSError::saying(error.to_string()),
    }
}

fn caused(cause: Cause) -> PyErr {
    match cause {
        Cause::Refusal(why) => refused(why),
        Cause::Gone => PyEOFError::saying("the other end closed the connection in the middle of the authentication"),
        Cause::Os(error) => os_error(error),
        Cause::Mute(limit) => authentication_error(format!(
            "the listener accepted the connection and sent nothing for {limit:?}: it seems to have no authkey. Use \
                the same authkey at both ends, or none"
        )),
        Cause::Late(_) | Cause::Crowded => authentication_error("the client took too long".into()),
        _ => authentication_error("the authentication failed".into()),
    }
}

/// The clients of a listening socket, until they have proved that they know the key.
#[pyclass(name = "Reception", module = "maniple._maniple", frozen)]
pub struct PyReception(Reception);

#[pymethods]
impl PyReception {
    #[new]
    fn new() -> PyResult<Self> {
        Reception::new()
            .map(PyReception)
            .map_err(|error| crate::error::os("watch a listener's clients (eventfd2)", error))
    }

    /// `reception[fd, key, timeout]` waits for the next client of the listening socket `fd`, with the `key` if it is not
    /// None. Returns it; None when `timeout` seconds have passed. Raises OSError after `close`.
    ///
    /// It is a subscription because the interpreter runs signal handlers after a call: see `taking.rs`.
    ///
    /// Closes clients that stay silent. Raises AuthenticationError for a client with another key or with an invalid
    /// message, and EOFError for a client that disconnects.
    fn __getitem__(
        &self,
        py: Python<'_>,
        terms: (RawHandle, Option<Vec<u8>>, Option<f64>),
    ) -> PyResult<Option<PyGuest>> {
        let (fd, key, timeout) = (terms.0, terms.1.as_deref(), terms.2);
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
                Ok(client) => Ok(client.map(PyGuest::new)),
                // Unauthenticated clients that sent nothing are not reported to the program.
                Err(Refused::Client(_, Cause::Late(_) | Cause::Crowded)) => continue,
                Err(Refused::Client(_, cause)) => Err(caused(cause)),
                Err(Refused::Closed) => Err(PyOSError::saying("listener is closed")),
                Err(Refused::Os(error)) => Err(os_error(error)),
                Err(Refused::Interrupted) => Err(raised.unwrap_or_else(|| PyOSError::saying("interrupted"))),
            };
        }
    }

    /// Closes the clients that have not completed their authentication, and ends the calls of `admit`.
    fn close(&self) {
        self.0.close();
    }
}

/// A connected socket, which is closed with this object unless it was detached.
#[pyclass(name = "Guest", module = "maniple._maniple", frozen)]
pub struct PyGuest(Descriptor);

impl PyGuest {
    fn new(socket: OwnedHandle) -> PyGuest {
        let descriptor = Descriptor::default();
        descriptor.set(Some(socket.into_raw()));
        PyGuest(descriptor)
    }
}

#[pymethods]
impl PyGuest {
    fn fileno(&self) -> Option<RawHandle> {
        self.0.number()
    }

    /// Returns the descriptor, which the caller owns from now on.
    fn detach(&self) -> Option<RawHandle> {
        let number = self.0.number();
        self.0.set(None);
        number
    }
}

/// The authentication of one client, without waiting.
#[pyclass(name = "Greeting", module = "maniple._maniple", frozen)]
pub struct PyGreeting(Mutex<Greeting>);

#[pymethods]
impl PyGreeting {
    /// Begins an authentication over the connected socket `fd`, which the caller keeps.
    #[new]
    fn new(fd: RawHandle, key: &[u8]) -> PyResult<Self> {
        Ok(PyGreeting(Mutex::new(Greeting::new(borrowed(fd)?, key).map_err(caused)?)))
    }

    /// Processes the received data. Returns True if the client has the key. After AuthenticationError, EOFError or
    /// OSError the caller closes the connection.
    fn hear(&self) -> PyResult<bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hear().map_err(caused)
    }
}

/// Performs the client's part of the authentication over the connected socket `fd`. Raises AuthenticationError if the
/// keys differ or the listener has none; EOFError if the listener closed the connection; TimeoutError if `timeout`
/// seconds have passed.
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
        Err(Unwelcome::Because(Cause::Gone)) => Err(PyEOFError::saying(
            "the listener closed the connection in the middle of the authentication: its process may have ended, or have \
                no descriptor, thread or memory for a client (ulimit -n, -u, -v)",
        )),
        Err(Unwelcome::Because(cause)) => Err(caused(cause)),
        Err(Unwelcome::Late) => Err(PyTimeoutError::saying("timed out")),
        Err(Unwelcome::Interrupted) => Err(raised.unwrap_or_else(|| PyOSError::saying("interrupted"))),
    }
}

/// Returns a message with a challenge for the named digest. Raises AuthenticationError if the digest is not used here.
#[pyfunction]
pub fn auth_challenge<'py>(py: Python<'py>, digest: &str) -> PyResult<Bound<'py, PyBytes>> {
    let mut random = [0; auth::RANDOM];
    socket::random(&mut random).map_err(os_error)?;
    auth::challenge(digest.as_bytes(), random).map_err(refused).and_then(|message| made::bytes(py, &message))
}

/// Returns the message that follows the response to `message`, and an AuthenticationError if the response is wrong.
#[pyfunction]
pub fn auth_judge<'py>(
    py: Python<'py>,
    key: &[u8],
    message: &[u8],
    response: &[u8],
) -> PyResult<(Bound<'py, PyBytes>, Option<Bound<'py, PyAny>>)> {
    let (verdict, judged) = auth::judge(key, message, response);
    Ok((made::bytes(py, verdict)?, judged.err().map(|why| refused(why).into_value(py).into_bound(py).into_any())))
}

/// Returns the response to a message with a challenge. Raises AuthenticationError if the message is not such a message,
/// or the challenge has no known form.
#[pyfunction]
pub fn auth_answer<'py>(py: Python<'py>, key: &[u8], message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    auth::answer(key, message).map_err(refused).and_then(|response| made::bytes(py, &response))
}

/// Raises AuthenticationError unless `message` says that the response is accepted.
#[pyfunction]
pub fn auth_accept(message: &[u8]) -> PyResult<()> {
    auth::accept(message).map_err(refused)
}

type Words = Vec<&'static [u8]>;

/// Returns the beginning of a challenge's message, the two messages that accept or refuse a response, and the names of
/// the digests.
#[pyfunction]
pub fn auth_words() -> Out<(Words, Words)> {
    Out((vec![auth::CHALLENGE, auth::WELCOME, auth::FAILURE], auth::digests().collect()))
}

/// Returns the response to `challenge`, in the challenge's own form. Raises AuthenticationError if the form is unknown.
#[pyfunction]
pub fn auth_respond<'py>(py: Python<'py>, key: &[u8], challenge: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    auth::respond(key, challenge).map_err(refused).and_then(|response| made::bytes(py, &response))
}

/// Raises AuthenticationError unless `response` is a valid response to `challenge`.
#[pyfunction]
pub fn auth_verify(key: &[u8], challenge: &[u8], response: &[u8]) -> PyResult<()> {
    auth::verify(key, challenge, response).map_err(refused)
}

/// Returns the name of the digest in a challenge or response ('' for the MD5 form), and the rest. Raises
/// AuthenticationError if the form is unknown.
#[pyfunction]
pub fn auth_name_and_payload<'py>(py: Python<'py>, message: &[u8]) -> PyResult<(String, Bound<'py, PyBytes>)> {
    let (name, payload) = auth::name_and_payload(message).map_err(refused)?;
    let name = name.map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    Ok((name, made::bytes(py, payload)?))
}
