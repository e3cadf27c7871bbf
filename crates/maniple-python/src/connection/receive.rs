//! Receiving a message from a connection.
#![allow(unsafe_code)]

use super::PyChannel;
use crate::error::Saying as _;
use crate::flat::put_into;
use crate::made;
use crate::memory::PyMemory;
use crate::message::{exception, lost, rejoin};
use maniple_engine::Error;
use maniple_engine::channel::frame::Message;
use maniple_engine::channel::parcel;
use maniple_engine::channel::stream_end::Received;
use maniple_sys::BorrowedHandle;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::atomic::Ordering;

/// A message of up to this many bytes is received into a buffer of its own before it becomes an object.
const SMALL: usize = 4096;

impl PyChannel {
    /// Receives a message: as a whole if it has at most `whole` bytes, otherwise its length.
    pub(super) fn receive(
        &self,
        py: Python<'_>,
        handle: BorrowedHandle<'static>,
        limit: Option<u64>,
        whole: usize,
    ) -> PyResult<Received> {
        let received = self.waiting(py, |interrupted| match self.end.receive(handle, limit, whole, interrupted) {
            Err(Error::TooLong) => Ok(None),
            received => received.map(Some),
        });
        received?.ok_or_else(|| self.spoilt())
    }

    /// Receives a whole message.
    pub(super) fn receive_whole(&self, py: Python<'_>, handle: BorrowedHandle<'static>) -> PyResult<Message> {
        match self.receive(py, handle, None, usize::MAX)? {
            Received::Whole(message) => Ok(message),
            Received::Length(partial) => self.waiting(py, |interrupted| self.end.finish(handle, partial, interrupted)),
        }
    }

    /// Closes the direction. The rest of the message is still in the stream, so no later message can be received.
    fn spoilt(&self) -> PyErr {
        if self.writable.load(Ordering::Relaxed) {
            self.readable.store(false, Ordering::Relaxed);
        } else {
            self.descriptor.close();
        }
        exception(Error::BadLength)
    }

    /// Returns the bytes of a message, with the buffers of a parcel inserted.
    fn joined<'py>(py: Python<'py>, message: Message) -> PyResult<Bound<'py, PyAny>> {
        let (buffers, at) = parcel::open(&message.content, message.came).map_err(exception)?;
        rejoin(py, &message.content[at..], buffers.into_iter().map(PyMemory::from).collect())
    }

    /// Returns the bytes of the next message. A signal that arrives in the meantime may not have been handled.
    pub(super) fn next_bytes<'py>(&self, py: Python<'py>, maxlength: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let end = self.reading()?;
        let _turn = self.turn_to_receive(py)?;
        let handle = end.handle();
        let limit =
            maxlength.map(|n| u64::try_from(n).map_err(|_| PyValueError::saying("negative maxlength"))).transpose()?;
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
            made::owned(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))
                .map(|bytes| bytes.cast_into_unchecked::<PyBytes>())
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                // Receives the rest, so that the next message can be received.
                self.waiting(py, |interrupted| partial.pass_over(handle, interrupted))?;
                return Err(lost(py, error));
            }
        };
        // SAFETY: as above; the bytes of a `bytes` object do not move.
        let room = unsafe {
            let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
            std::slice::from_raw_parts_mut(start, size as usize)
        };
        self.waiting(py, |interrupted| self.end.fill(handle, partial, room, interrupted))?;
        Ok(bytes)
    }

    /// Writes the next message into a buffer, and returns its length. A signal that arrives in the meantime may not have been
    /// handled.
    pub(super) fn next_into(
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
                self.waiting(py, |interrupted| self.end.fill(handle, partial, into, interrupted))?;
                return Ok(length);
            }
            Received::Length(partial) => {
                self.waiting(py, |interrupted| self.end.finish(handle, partial, interrupted))?
            }
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
