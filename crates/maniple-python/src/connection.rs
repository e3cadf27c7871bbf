//! `Channel`: the frequent operations of a `Connection`.
#![allow(unsafe_code)]

mod receive;

use crate::args::Out;
use crate::born::Born;
use crate::deadline::deadline;
use crate::descriptor::{Descriptor, Use};
use crate::error::{Saying as _, os};
use crate::flat::{bytes_of, flat};
use crate::lazy::Lazy;
use crate::made::{self, name};
use crate::memory::PyMemory;
use crate::message::{Bytes, OF_CONNECTIONS, Pickled, dump, exception, lost, waiting};
use crate::shelf::{Shelf, kept_event};
use crate::unended;
use maniple_engine::Error;
use maniple_engine::channel::frame::{Interrupted, Message, Until};
use maniple_engine::channel::parcel::{self, Parcel};
use maniple_engine::channel::readiness;
use maniple_engine::channel::stream_end::{Sent, StreamEnd};
use maniple_engine::wait::{Held, Taken, Turn};
use maniple_sys::own::not_there;
use maniple_sys::ready::Interest;
use maniple_sys::{AsHandle, BorrowedHandle, RawHandle, stream};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of bytes from which on an array or a buffer of a message travels in a block. A block costs a descriptor, a
/// page of its own and a Python object at the reader. Below this number a copy through the socket takes no longer:
/// measured, both take 25 us for a round trip of 48 KiB. (In Rust the limit is lower: `APART_FROM` in
/// `crates/maniple/src/sideband.rs`.)
const PARCEL_FROM: usize = 64 * 1024;

/// Messages over a descriptor, which this object owns. `_handle` is None when it is closed. `_parcels` is true for the
/// ends that `Pipe` makes: large buffers may travel beside the messages.
#[pyclass(name = "Channel", module = "maniple._maniple", subclass, frozen)]
pub struct PyChannel {
    descriptor: Born<Descriptor>,
    readable: AtomicBool,
    writable: AtomicBool,
    end: Born<StreamEnd>,
    shelf: Born<Shelf>,
}

/// The function that receives the number of each connection that is closed.
static TOLD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Calls `call` with the number of each connection that is closed from now on.
#[pyfunction]
pub fn tell_of_closed(py: Python<'_>, call: Py<PyAny>) -> PyResult<()> {
    TOLD.get_or_make(py, || Ok(call)).map(drop)
}

fn closed() -> PyErr {
    PyOSError::saying("handle is closed")
}

impl PyChannel {
    fn open(&self) -> PyResult<Use<'_>> {
        let begun = self.descriptor.begin().ok_or_else(closed)?;
        // The system's calls for sockets refuse other files. Those of a pipe do not.
        if !self.end.is_socket() && !begun.is_pipe_or_there() {
            return Err(os("use a connection, whose descriptor the program has closed", not_there()));
        }
        Ok(begun)
    }

    /// Raises the error of a closed connection. Pickling may have run any code, and so may other threads during a wait.
    fn still_open(&self) -> PyResult<()> {
        self.descriptor.number().map(drop).ok_or_else(closed)
    }

    fn reading(&self) -> PyResult<Use<'_>> {
        let end = self.open()?;
        if self.readable.load(Ordering::Relaxed) { Ok(end) } else { Err(PyOSError::saying("connection is write-only")) }
    }

    fn writing(&self) -> PyResult<Use<'_>> {
        let end = self.open()?;
        if self.writable.load(Ordering::Relaxed) { Ok(end) } else { Err(PyOSError::saying("connection is read-only")) }
    }

    /// As [`waiting`]. If another thread or a signal handler closes the connection, the wait ends with that error when it
    /// next looks for signals.
    fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(Interrupted<'_, '_>) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let done = waiting(py, |interrupted| {
            let mut is_shut = false;
            let done = act(&mut || {
                let has_raised = interrupted();
                is_shut = !has_raised && self.descriptor.number().is_none();
                has_raised || is_shut
            });
            if is_shut && matches!(done, Err(Error::Interrupted)) { Ok(None) } else { done.map(Some) }
        })?;
        done.ok_or_else(closed)
    }

    /// Waits until no other thread uses this direction of the connection.
    fn turn<'a>(&self, py: Python<'_>, turn: &'a Turn) -> PyResult<Held<'a>> {
        if let Some(held) = turn.take_now() {
            return Ok(held);
        }
        let held = self.waiting(py, |interrupted| match turn.take(Until::Ever, &mut || !interrupted()) {
            Taken::Ours(held) => Ok(held),
            Taken::TimedOut | Taken::Interrupted => Err(Error::Interrupted),
        })?;
        self.still_open()?;
        Ok(held)
    }

    fn turn_to_receive(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        self.turn(py, self.end.receiving())
    }

    /// Packs a pickle and its large buffers into a parcel. Returns None if the buffers have to travel within the
    /// message.
    fn pack(py: Python<'_>, stream: &[u8], buffers: &[Bytes]) -> Option<Parcel> {
        let _pins: Vec<_> = buffers.iter().filter_map(|bytes| bytes.pin(py)).collect();
        let buffers = buffers.iter().map(|buffer| &**buffer).collect::<Vec<_>>();
        py.detach(|| Parcel::of_buffers(stream, &buffers))
    }

    /// Sends a parcel. Returns false if the system refuses the blocks at present; then nothing was sent.
    fn send_parcel(&self, py: Python<'_>, handle: BorrowedHandle<'static>, parcel: Parcel) -> PyResult<bool> {
        let _turn = self.turn(py, self.end.sending())?;
        self.waiting(py, |interrupted| Ok(self.end.send_parcel(handle, parcel, interrupted)? == Sent::Whole))
    }

    /// Unpickles a message.
    fn load<'py>(&self, py: Python<'py>, mut message: Message) -> PyResult<Bound<'py, PyAny>> {
        if message.came.is_empty() {
            return self.shelf.load(py, &OF_CONNECTIONS, message.content, Vec::new());
        }
        let opened = parcel::open(&message.content, message.came);
        let (buffers, at) = opened.map_err(|error| lost(py, exception(error)))?;
        let buffers = buffers.into_iter().map(PyMemory::from).collect();
        message.content.drain(..at);
        self.shelf.load(py, &OF_CONNECTIONS, message.content, buffers)
    }

    fn send_plain(&self, py: Python<'_>, handle: BorrowedHandle<'static>, content: &[u8]) -> PyResult<()> {
        let _turn = self.turn(py, self.end.sending())?;
        self.waiting(py, |interrupted| self.end.send(handle, content, interrupted))
    }

    /// Waits for an object, and returns it.
    pub fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let end = self.reading()?;
        let _turn = self.turn_to_receive(py)?;
        let handle = end.handle();
        self.end.takes_parcels(handle);
        if let Some(kept) = self.shelf.next(py) {
            return kept;
        }
        let message = self.receive_whole(py, handle)?;
        self.load(py, message)
    }

    /// As `recv`, if a message has begun to arrive; otherwise, or if another thread receives, returns `None`.
    pub fn recv_now<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let end = self.reading()?;
        let Some(_turn) = self.end.receiving().take_now() else { return Ok(None) };
        let handle = end.handle();
        self.end.takes_parcels(handle);
        if let Some(kept) = self.shelf.next(py) {
            return kept.map(Some);
        }
        let message = self.waiting(py, |interrupted| self.end.receive_now(handle, interrupted))?;
        message.map(|message| self.load(py, message)).transpose()
    }

    /// Waits for a message, and returns its bytes.
    pub fn recv_bytes<'py>(&self, py: Python<'py>, maxlength: Option<i64>) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.next_bytes(py, maxlength)?;
        self.shelf.settle_bytes(py, &OF_CONNECTIONS, bytes.as_bytes())?;
        Ok(bytes.into_any())
    }

    /// Waits for a message, writes it into a buffer, and returns its length in bytes.
    pub fn recv_bytes_into(&self, py: Python<'_>, buf: &Bound<'_, PyAny>, offset: isize) -> PyResult<usize> {
        let end = self.reading()?;
        let _turn = self.turn_to_receive(py)?;
        let handle = end.handle();
        let buffer = flat(buf)?;
        if buffer.readonly() {
            return Err(pyo3::exceptions::PyTypeError::saying("the buffer is read-only"));
        }
        let from = usize::try_from(offset).map_err(|_| PyValueError::saying("negative offset"))?;
        let room = buffer.len_bytes().checked_sub(from).ok_or_else(|| PyValueError::saying("offset too large"))?;
        let length = self.next_into(py, handle, &buffer, from, room)?;
        self.shelf.settle_bytes(py, &OF_CONNECTIONS, &bytes_of(&buffer)[from..from + length])?;
        Ok(length)
    }
}

#[pymethods]
impl PyChannel {
    #[new]
    #[pyo3(signature = (*_args, **_kwds))]
    fn new(_args: &Bound<'_, PyTuple>, _kwds: Option<&Bound<'_, PyDict>>) -> Self {
        PyChannel {
            descriptor: Born::default(),
            readable: AtomicBool::new(true),
            writable: AtomicBool::new(true),
            end: Born::default(),
            shelf: Born::default(),
        }
    }

    /// Makes this object and `other` the two ends of a new pipe: of a pair of sockets if it is `duplex`; otherwise this
    /// object receives, and `other` sends. No signal handler runs before both ends own their descriptors.
    fn _join(&self, other: &PyChannel, duplex: bool) -> PyResult<()> {
        let made = if duplex { stream::pair() } else { stream::pipe() };
        let (one, two) = made.map_err(|e| os("make a pipe", e))?;
        self.set_handle(Some(one.into_raw()));
        other.set_handle(Some(two.into_raw()));
        for end in [self, other] {
            end.set_parcels(duplex);
        }
        self.set_writable(duplex);
        other.set_readable(duplex);
        Ok(())
    }

    /// Takes over the descriptor of a Python socket, which is detached. No signal handler runs in between.
    fn _take(&self, socket: &Bound<'_, PyAny>) -> PyResult<()> {
        let number: RawHandle = socket.call_method0(name!(socket.py(), "detach")?)?.extract()?;
        self.set_handle(Some(number));
        self.end.set_socket();
        Ok(())
    }

    #[getter(_handle)]
    fn handle(&self) -> Out<Option<RawHandle>> {
        Out(self.descriptor.number())
    }

    #[setter(_handle)]
    fn set_handle(&self, number: Option<RawHandle>) {
        if let Some(number) = number {
            stream::recognize(number);
        }
        self.descriptor.set(number);
        self.end.replaced();
    }

    #[getter(_readable)]
    fn is_readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    #[setter(_readable)]
    fn set_readable(&self, can: bool) {
        self.readable.store(can, Ordering::Relaxed);
    }

    #[getter(_writable)]
    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    #[setter(_writable)]
    fn set_writable(&self, can: bool) {
        self.writable.store(can, Ordering::Relaxed);
    }

    #[getter(_parcels)]
    fn takes_parcels(&self) -> bool {
        self.end.is_local()
    }

    #[setter(_parcels)]
    fn set_parcels(&self, may: bool) {
        self.end.set_local(may);
    }

    /// Whether this end of the connection is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.descriptor.number().is_none()
    }

    /// Whether this end can receive.
    #[getter]
    fn readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    /// Whether this end can send.
    #[getter]
    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    // The signatures are those of functions written in Python, for programs that compare them.
    /// Return the file descriptor of the connection.
    ///
    /// Raises:
    ///     OSError: the connection is closed.
    #[pyo3(text_signature = "(self)")]
    fn fileno(&self) -> PyResult<Out<RawHandle>> {
        self.descriptor.number().map(Out).ok_or_else(closed)
    }

    /// Close this end of the connection. A second call has no effect.
    #[pyo3(text_signature = "(self)")]
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let number = self.descriptor.number();
        self.descriptor.close();
        match (number, TOLD.get(py)) {
            (Some(number), Some(told)) => unended::call(told.bind(py), (number,), None).map(drop),
            _ => Ok(()),
        }
    }

    /// Return the run-time value of an annotation such as `Connection[str, int]`.
    #[classmethod]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: two live objects. `Py_GenericAlias` returns an owned reference, or null with an exception set.
        unsafe { made::owned(cls.py(), ffi::Py_GenericAlias(cls.as_ptr(), item.as_ptr())) }
    }

    /// Send an object to the other end; wait while the connection is full.
    ///
    /// Args:
    ///     obj: an object that can be pickled.
    ///
    /// Raises:
    ///     OSError: this end is closed, or can only receive.
    ///     BrokenPipeError, ConnectionResetError: the other end is closed.
    ///     The exception that pickling the object raises.
    #[pyo3(text_signature = "(self, obj)")]
    fn send(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let end = self.writing()?;
        let handle = end.handle();
        let apart = || if self.end.may_send_parcels(handle) { PARCEL_FROM } else { usize::MAX };
        let pickled = dump(obj, &OF_CONNECTIONS, apart)?;
        self.still_open()?;
        match pickled {
            Pickled::Whole(bytes) => self.send_plain(py, handle, &bytes),
            Pickled::Apart(stream, buffers) => {
                let parcel = Self::pack(py, &stream, &buffers);
                // The blocks have copies, so the pins are released before the parcel is sent.
                drop((stream, buffers));
                if let Some(parcel) = parcel
                    && self.send_parcel(py, handle, parcel)?
                {
                    return Ok(());
                }
                let pickled = dump(obj, &OF_CONNECTIONS, || usize::MAX)?;
                self.still_open()?;
                match pickled {
                    Pickled::Whole(bytes) => self.send_plain(py, handle, &bytes),
                    Pickled::Apart(..) => Err(PyOSError::saying("an object is pickled differently each time")),
                }
            }
        }
    }

    /// Send bytes to the other end as one message.
    ///
    /// Args:
    ///     buf: a bytes-like object.
    ///     offset: the position of the first byte.
    ///     size: the number of bytes; None means all that follow.
    ///
    /// Raises:
    ///     ValueError: `offset` or `size` is negative or exceeds `buf`.
    ///     OSError: this end is closed, or can only receive; or the other end is closed.
    #[pyo3(signature = (buf, offset=0, size=None), text_signature = "(self, buf, offset=0, size=None)")]
    fn send_bytes(&self, py: Python<'_>, buf: &Bound<'_, PyAny>, offset: isize, size: Option<isize>) -> PyResult<()> {
        let end = self.writing()?;
        let handle = end.handle();
        if let (Ok(bytes), 0, None) = (buf.cast::<PyBytes>(), offset, size) {
            return self.send_plain(py, handle, bytes.as_bytes());
        }
        let buffer = flat(buf)?;
        let bytes = bytes_of(&buffer);
        let from = usize::try_from(offset).map_err(|_| PyValueError::saying("offset is negative"))?;
        let rest = bytes.get(from..).ok_or_else(|| PyValueError::saying("buffer length < offset"))?;
        let part = match size {
            None => rest,
            Some(size) => {
                let size = usize::try_from(size).map_err(|_| PyValueError::saying("size is negative"))?;
                rest.get(..size).ok_or_else(|| PyValueError::saying("buffer length < offset + size"))?
            }
        };
        self.still_open()?;
        self.send_plain(py, handle, part)
    }

    /// Whether this process has received a message that no caller has got, because a signal handler raised.
    #[getter(_is_kept)]
    fn is_kept(&self) -> bool {
        self.shelf.len() > 0
    }

    /// Return True if something can be received: a message, or the end of the stream.
    ///
    /// Args:
    ///     timeout: how long to wait for it in seconds; None means no limit.
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "(self, timeout=0.0)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let end = self.reading()?;
        let handle = end.handle();
        if self.is_kept() {
            return Ok(true);
        }
        if timeout.is_some_and(|seconds| seconds <= 0.0) {
            // The check is too short to release the interpreter lock for it.
            return readiness::message(handle, Until::Now, &mut || false).map_err(exception);
        }
        let until = deadline(timeout).map_or(Until::Ever, Until::Then);
        let event = kept_event();
        self.waiting(py, |interrupted| {
            let Some(event) = &event else { return readiness::message(handle, until, interrupted) };
            loop {
                // A message that a signal handler keeps in the first thread counts as well.
                if self.is_kept() {
                    return Ok(true);
                }
                let mut interests = [Interest::new(handle), Interest::new(event.as_handle())];
                let found = readiness::any(&mut interests, until, "wait for a message", interrupted)?;
                if !found || interests[0].ready() {
                    return Ok(found);
                }
                event.clear();
            }
        })
    }
}
