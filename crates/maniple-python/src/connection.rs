//! `Channel`: the frequent operations of a `Connection`.
#![allow(unsafe_code)]

use crate::deadline::deadline;
use crate::error::os;
use crate::flat::{bytes_of, flat, put_into};
use crate::made;
use crate::memory::PyMemory;
use crate::message::{Bytes, OF_CONNECTIONS, Pickled, dump, exception, lost, rejoin, waiting};
use crate::shelf::{Shelf, kept_event};
use maniple_engine::Error;
use maniple_engine::channel::frame::{Message, Until};
use maniple_engine::channel::parcel::{self, Parcel};
use maniple_engine::channel::readiness;
use maniple_engine::channel::stream_end::{Received, Sent, StreamEnd};
use maniple_sys::own::File;
use maniple_sys::ready::Interest;
use maniple_sys::{AsHandle, AtomicRawHandle, BorrowedHandle, OwnedHandle, RawHandle, stream};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A message of up to this many bytes is received into a buffer of its own before it becomes an object.
const SMALL: usize = 4096;
/// The number of bytes from which on an array or a buffer of a message travels in a block. A block costs a descriptor, a
/// page of its own and a Python object at the reader. Below this number a copy through the socket takes no longer:
/// measured, both take 25 us for a round trip of 48 KiB. (In Rust the limit is lower: `APART_FROM` in
/// `crates/maniple/src/sideband.rs`.)
const PARCEL_FROM: usize = 64 * 1024;

/// Messages over a descriptor, which this object owns. `_handle` is None when it is closed. `_parcels` is true for the
/// ends that `Pipe` makes: large buffers may travel beside the messages.
#[pyclass(name = "Channel", module = "maniple._maniple", subclass, frozen)]
pub struct PyChannel {
    handle: AtomicRawHandle,
    // The file that the descriptor refers to.
    file: Mutex<Option<File>>,
    readable: AtomicBool,
    writable: AtomicBool,
    end: StreamEnd,
    shelf: Shelf,
}

impl PyChannel {
    fn open(&self) -> PyResult<BorrowedHandle<'static>> {
        match self.handle.load(Ordering::Relaxed) {
            ..0 => Err(PyOSError::new_err("handle is closed")),
            // SAFETY: the descriptor is open until `close`. If the program closes it during a call, the kernel refuses
            // the number or uses another file of the program; no memory is affected.
            number => Ok(unsafe { BorrowedHandle::borrow_raw(number) }),
        }
    }

    fn reading(&self) -> PyResult<BorrowedHandle<'static>> {
        let end = self.open()?;
        if self.readable.load(Ordering::Relaxed) {
            Ok(end)
        } else {
            Err(PyOSError::new_err("connection is write-only"))
        }
    }

    fn writing(&self) -> PyResult<BorrowedHandle<'static>> {
        let end = self.open()?;
        if self.writable.load(Ordering::Relaxed) { Ok(end) } else { Err(PyOSError::new_err("connection is read-only")) }
    }

    /// Receives a message: as a whole if it has at most `whole` bytes, otherwise its length.
    fn receive(
        &self,
        py: Python<'_>,
        handle: BorrowedHandle<'static>,
        limit: Option<u64>,
        whole: usize,
    ) -> PyResult<Received> {
        let received = waiting(py, |interrupted| match self.end.receive(handle, limit, whole, interrupted) {
            Err(Error::TooLong) => Ok(None),
            received => received.map(Some),
        });
        received?.ok_or_else(|| self.spoilt())
    }

    /// Receives a whole message.
    fn receive_whole(&self, py: Python<'_>, handle: BorrowedHandle<'static>) -> PyResult<Message> {
        match self.receive(py, handle, None, usize::MAX)? {
            Received::Whole(message) => Ok(message),
            Received::Length(partial) => waiting(py, |interrupted| self.end.finish(handle, partial, interrupted)),
        }
    }

    /// Closes the direction. The rest of the message is still in the stream, so no later message can be received.
    fn spoilt(&self) -> PyErr {
        if self.writable.load(Ordering::Relaxed) {
            self.readable.store(false, Ordering::Relaxed);
        } else {
            self.shut();
        }
        exception(Error::BadLength)
    }

    fn shut(&self) {
        let number = self.handle.swap(-1, Ordering::Relaxed);
        // If the program has closed the descriptor, another file may have its number.
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        if number >= 0 && file.is_some() && File::at(number) == file {
            // SAFETY: `set_handle` has passed the descriptor to this object, which forgets it here. It still refers to
            // the same file.
            drop(unsafe { OwnedHandle::from_raw(number) });
        }
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
        waiting(py, |interrupted| Ok(self.end.send_parcel(handle, parcel, interrupted)? == Sent::Whole))
    }

    fn send_plain(&self, py: Python<'_>, handle: BorrowedHandle<'static>, content: &[u8]) -> PyResult<()> {
        waiting(py, |interrupted| self.end.send(handle, content, interrupted))
    }

    /// Returns the bytes of a message, with the buffers of a parcel inserted.
    fn joined<'py>(py: Python<'py>, message: Message) -> PyResult<Bound<'py, PyAny>> {
        let (buffers, at) = parcel::open(&message.content, message.came).map_err(exception)?;
        rejoin(py, &message.content[at..], buffers.into_iter().map(PyMemory::from).collect())
    }

    /// Returns the bytes of the next message. A signal that arrives in the meantime may not have been handled.
    fn next_bytes<'py>(&self, py: Python<'py>, maxlength: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let handle = self.reading()?;
        let limit =
            maxlength.map(|n| u64::try_from(n).map_err(|_| PyValueError::new_err("negative maxlength"))).transpose()?;
        if let Some(kept) = self.shelf.next_pickle(py) {
            let kept = kept?;
            return if limit.is_some_and(|limit| kept.len().is_ok_and(|len| len as u64 > limit)) {
                Err(self.spoilt())
            } else {
                Ok(kept.cast_into()?)
            };
        }
        let partial = match self.receive(py, handle, limit, SMALL)? {
            Received::Whole(message) if message.came.is_empty() => {
                return made::bytes(py, &message.content).map_err(|error| lost(py, error));
            }
            Received::Whole(message) => {
                return Ok(Self::joined(py, message).map_err(|error| lost(py, error))?.cast_into()?);
            }
            Received::Length(partial) => partial,
        };
        let size = partial.len() as ffi::Py_ssize_t;
        // SAFETY: `PyBytes_FromStringAndSize` returns a fresh object of that size, or null with an exception set. No
        // other code has the object before it is full.
        let bytes = unsafe {
            Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))
                .map(|bytes| bytes.cast_into_unchecked::<PyBytes>())
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                // Receives the rest, so that the next message can be received.
                waiting(py, |interrupted| partial.pass_over(handle, interrupted))?;
                return Err(lost(py, error));
            }
        };
        // SAFETY: as above; the bytes of a `bytes` object do not move.
        let room = unsafe {
            let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
            std::slice::from_raw_parts_mut(start, size as usize)
        };
        waiting(py, |interrupted| self.end.fill(handle, partial, room, interrupted))?;
        Ok(bytes)
    }

    /// Writes the next message into a buffer, and returns its length. A signal that arrives in the meantime may not have been
    /// handled.
    fn next_into(
        &self,
        py: Python<'_>,
        handle: BorrowedHandle<'static>,
        buffer: &PyBuffer<u8>,
        from: usize,
        room: usize,
    ) -> PyResult<usize> {
        if let Some(kept) = self.shelf.next_pickle(py) {
            return put_into(buffer, from, room, kept?);
        }
        let message = match self.receive(py, handle, None, 0)? {
            Received::Length(partial) if partial.len() <= room => {
                let length = partial.len();
                // SAFETY: `from + length` is within the buffer. The view keeps the buffer in place, and the buffer is
                // writable. Other threads of the program may access it in the meantime, as with any buffer that is read
                // into.
                let into = unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast::<u8>().add(from), length) };
                waiting(py, |interrupted| self.end.fill(handle, partial, into, interrupted))?;
                return Ok(length);
            }
            Received::Length(partial) => waiting(py, |interrupted| self.end.finish(handle, partial, interrupted))?,
            Received::Whole(message) => message,
        };
        let whole = if message.came.is_empty() {
            made::bytes(py, &message.content).map(Bound::into_any)
        } else {
            Self::joined(py, message)
        };
        let whole = whole.map_err(|error| lost(py, error))?;
        put_into(buffer, from, room, whole)
    }
}

#[pymethods]
impl PyChannel {
    #[new]
    #[pyo3(signature = (*_args, **_kwds))]
    fn new(_args: &Bound<'_, PyTuple>, _kwds: Option<&Bound<'_, PyDict>>) -> Self {
        PyChannel {
            handle: AtomicRawHandle::new(-1),
            file: Mutex::new(None),
            readable: AtomicBool::new(true),
            writable: AtomicBool::new(true),
            end: StreamEnd::default(),
            shelf: Shelf::default(),
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
        let number: RawHandle = socket.call_method0(intern!(socket.py(), "detach"))?.extract()?;
        self.set_handle(Some(number));
        Ok(())
    }

    #[getter(_handle)]
    fn handle(&self) -> Option<RawHandle> {
        Some(self.handle.load(Ordering::Relaxed)).filter(|&n| n >= 0)
    }

    #[setter(_handle)]
    fn set_handle(&self, number: Option<RawHandle>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = number.and_then(File::at);
        self.handle.store(number.unwrap_or(-1), Ordering::Relaxed);
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
        self.handle.load(Ordering::Relaxed) < 0
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
    fn fileno(&self) -> PyResult<RawHandle> {
        self.open()?;
        Ok(self.handle.load(Ordering::Relaxed))
    }

    /// Close this end of the connection. A second call has no effect.
    #[pyo3(text_signature = "(self)")]
    fn close(&self) {
        self.shut();
    }

    /// Return the run-time value of an annotation such as `Connection[str, int]`.
    #[classmethod]
    fn __class_getitem__<'py>(cls: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: two live objects. `Py_GenericAlias` returns an owned reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(cls.py(), ffi::Py_GenericAlias(cls.as_ptr(), item.as_ptr())) }
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
        let handle = self.writing()?;
        let apart = || if self.end.may_send_parcels(handle) { PARCEL_FROM } else { usize::MAX };
        match dump(obj, &OF_CONNECTIONS, apart)? {
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
                match dump(obj, &OF_CONNECTIONS, || usize::MAX)? {
                    Pickled::Whole(bytes) => self.send_plain(py, handle, &bytes),
                    Pickled::Apart(..) => Err(PyOSError::new_err("an object is pickled differently each time")),
                }
            }
        }
    }

    /// Wait for an object that the other end has sent, and return it.
    ///
    /// Unpickling can run any code that the sender names, so receive only from trusted processes.
    ///
    /// Raises:
    ///     EOFError: the other end is closed, and nothing is left to receive.
    ///     OSError: this end is closed, or can only send.
    ///     The exception that unpickling the object raises.
    #[pyo3(text_signature = "(self)")]
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = self.reading()?;
        self.end.takes_parcels(handle);
        if let Some(kept) = self.shelf.next(py) {
            return kept;
        }
        let mut message = self.receive_whole(py, handle)?;
        if message.came.is_empty() {
            return self.shelf.load(py, &OF_CONNECTIONS, message.content, Vec::new());
        }
        let opened = parcel::open(&message.content, message.came);
        let (buffers, at) = opened.map_err(|error| lost(py, exception(error)))?;
        let buffers = buffers.into_iter().map(PyMemory::from).collect();
        message.content.drain(..at);
        self.shelf.load(py, &OF_CONNECTIONS, message.content, buffers)
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
        let handle = self.writing()?;
        if let (Ok(bytes), 0, None) = (buf.cast::<PyBytes>(), offset, size) {
            return self.send_plain(py, handle, bytes.as_bytes());
        }
        let buffer = flat(buf)?;
        let bytes = bytes_of(&buffer);
        let from = usize::try_from(offset).map_err(|_| PyValueError::new_err("offset is negative"))?;
        let rest = bytes.get(from..).ok_or_else(|| PyValueError::new_err("buffer length < offset"))?;
        let part = match size {
            None => rest,
            Some(size) => {
                let size = usize::try_from(size).map_err(|_| PyValueError::new_err("size is negative"))?;
                rest.get(..size).ok_or_else(|| PyValueError::new_err("buffer length < offset + size"))?
            }
        };
        self.send_plain(py, handle, part)
    }

    /// Wait for a message, and return its bytes.
    ///
    /// Args:
    ///     maxlength: the largest number of bytes to accept; None means no limit.
    ///
    /// Raises:
    ///     EOFError: the other end is closed, and nothing is left to receive.
    ///     OSError: the message is longer than `maxlength`, and the connection can receive no more; or this end is closed.
    #[pyo3(signature = (maxlength=None), text_signature = "(self, maxlength=None)")]
    fn recv_bytes<'py>(&self, py: Python<'py>, maxlength: Option<i64>) -> PyResult<Bound<'py, PyAny>> {
        let bytes = self.next_bytes(py, maxlength)?;
        self.shelf.settle_bytes(py, &OF_CONNECTIONS, bytes.as_bytes())?;
        Ok(bytes.into_any())
    }

    /// Wait for a message, write it into a buffer, and return its length in bytes.
    ///
    /// Args:
    ///     buf: a writable bytes-like object.
    ///     offset: the position in `buf`, in bytes, of the first byte of the message.
    ///
    /// Raises:
    ///     BufferTooShort: the message does not fit; ``args[0]`` is the message.
    ///     EOFError: the other end is closed, and nothing is left to receive.
    #[pyo3(signature = (buf, offset=0), text_signature = "(self, buf, offset=0)")]
    fn recv_bytes_into(&self, py: Python<'_>, buf: &Bound<'_, PyAny>, offset: isize) -> PyResult<usize> {
        let handle = self.reading()?;
        let buffer = flat(buf)?;
        if buffer.readonly() {
            return Err(pyo3::exceptions::PyTypeError::new_err("the buffer is read-only"));
        }
        let from = usize::try_from(offset).map_err(|_| PyValueError::new_err("negative offset"))?;
        let room = buffer.len_bytes().checked_sub(from).ok_or_else(|| PyValueError::new_err("offset too large"))?;
        let length = self.next_into(py, handle, &buffer, from, room)?;
        self.shelf.settle_bytes(py, &OF_CONNECTIONS, &bytes_of(&buffer)[from..from + length])?;
        Ok(length)
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
        let handle = self.reading()?;
        if self.is_kept() {
            return Ok(true);
        }
        if timeout.is_some_and(|seconds| seconds <= 0.0) {
            // The check is too short to release the interpreter lock for it.
            return readiness::message(handle, Until::Now, &mut || false).map_err(exception);
        }
        let until = deadline(timeout).map_or(Until::Ever, Until::Then);
        let event = kept_event();
        waiting(py, |interrupted| {
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

impl Drop for PyChannel {
    fn drop(&mut self) {
        self.shut();
    }
}
