//! `Stream`: the results of `imap`. The thread that requests a result decodes it.

use crate::args::Out;
use crate::deadline::deadline;
use crate::handler_free::Attempts;
use crate::made::Attributes as _;
use crate::mailbox::{Awaited, PyMailbox};
use crate::outcome::{Interrupt, Kept, Kind, Piece, Regions, failure, miscounted, results, timed_out, wait};
use crate::results::not_an_end;
use crate::signals::{detached, interrupts};
use maniple_engine::pool::Ticket;
use maniple_engine::pool::policy::{report_after, take_at_once};
use maniple_engine::shm::region::Region;
use maniple_sys as sys;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use slotmap::Key;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// A result, or an exception in place of so many results.
type Given = Result<Py<PyAny>, (PyErr, usize)>;

fn items_of(given: &Given) -> usize {
    given.as_ref().map_or_else(|(_, items)| *items, |_| 1)
}

struct Taken {
    // Outcomes; each has its large buffers once a thread has begun to decode it.
    settled: VecDeque<(Piece, Regions)>,
    values: VecDeque<Given>,
    unreported: usize,
    // The number of items that were reported while `values` still contains their results.
    ahead: usize,
    given: usize,
    over: bool,
}

/// The results of `imap` and `imap_unordered`: an iterator.
#[pyclass(name = "Stream", module = "maniple._maniple", frozen)]
pub struct PyStream {
    ticket: Ticket,
    // The number of items that may be under way.
    window: usize,
    chunksize: usize,
    name: Py<PyAny>,
    // Whether the exceptions of failed items are returned among the results.
    returns: bool,
    taken: Mutex<Taken>,
    // The attempts to decode the first outcome in `taken`.
    attempts: Attempts,
    kept: Kept,
    awaited: Awaited,
}

impl PyStream {
    pub fn new(ticket: Ticket, window: usize, chunksize: usize, name: Py<PyAny>, returns: bool) -> Self {
        let taken =
            Taken { settled: VecDeque::new(), values: VecDeque::new(), unreported: 0, ahead: 0, given: 0, over: false };
        PyStream {
            ticket,
            window,
            chunksize,
            name,
            returns,
            taken: Mutex::new(taken),
            attempts: Attempts::default(),
            kept: Kept::default(),
            awaited: Awaited::default(),
        }
    }

    /// Holds this function until all results were taken.
    pub fn keeping(self, function: Option<Py<PyAny>>) -> Self {
        PyStream { kept: Kept::new(function), ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next value, if there is one. No Python code runs while the lock is held.
    fn at_hand(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        loop {
            this.report(py);
            // This check comes last, so that no value is lost if a handler raises for a signal that arrived in the
            // meantime.
            py.check_signals()?;
            let mut taken = this.lock();
            let items = taken.values.front().map(items_of);
            if items.is_some_and(|items| items <= taken.ahead)
                && let (Some(items), Some(value)) = (items, taken.values.pop_front())
            {
                taken.ahead -= items;
                taken.given += items;
                return value.map(Some).map_err(|(error, _)| not_an_end(py, error));
            }
            drop(taken);
            if items.is_some() {
                // Another thread has taken the value that was reported.
                continue;
            }
            let decoded = if this.attempts.need_another_thread() {
                this.attempts.elsewhere(py, || slf.attr("_decode"))?.extract()?
            } else {
                this.attempt(py)?
            };
            if !decoded {
                return Ok(None);
            }
        }
    }

    /// Returns the next result if it is there. Raises StopIteration if there are no more.
    pub fn next_now(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let (this, py) = (slf.get(), slf.py());
        loop {
            if let Some(value) = Self::at_hand(slf)? {
                return Ok(Some(value));
            }
            if this.lock().over {
                return Err(PyStopIteration::new_err(()));
            }
            if !detached(py, || this.ticket.is_ready())? {
                return Ok(None);
            }
        }
    }

    fn decode(
        &self,
        py: Python<'_>,
        piece: &Piece,
        regions: &[Arc<Region>],
    ) -> Result<PyResult<VecDeque<Given>>, Interrupt> {
        let first = piece.index as usize * self.chunksize;
        let Kind::Done(content) = &piece.kind else {
            return Ok(Err(failure(py, piece, regions, &self.name, Some(first))?));
        };
        let mut values = VecDeque::with_capacity(piece.items);
        let read = results(py, content, regions, Some((first, piece.items)), |value| {
            values.push_back(Ok(value.unbind()));
            Ok(())
        })?;
        let whole = |values: VecDeque<_>| if values.len() == piece.items { Ok(values) } else { Err(miscounted(py)) };
        Ok(read.and_then(|()| whole(values)))
    }

    /// Reports the items of the next value as consumed. That takes time, in which signals may arrive.
    fn report(&self, py: Python<'_>) {
        let mut taken = self.lock();
        let Some(items) = taken.values.front().map(items_of).filter(|items| *items > taken.ahead) else { return };
        let items = items - taken.ahead;
        taken.ahead += items;
        taken.unreported += items;
        let is_last = taken.settled.is_empty() && taken.values.len() == 1;
        let consumed = if taken.unreported < report_after(self.window) && !is_last {
            0
        } else {
            std::mem::take(&mut taken.unreported)
        };
        let over = taken.over;
        drop(taken);
        self.ticket.begin();
        if consumed > 0 && !over {
            py.detach(|| self.ticket.consumed(consumed));
        }
    }
}

#[pymethods]
impl PyStream {
    /// Decodes the results of the next task in this thread. Returns false if there is none.
    #[pyo3(name = "_decode")]
    fn attempt(&self, py: Python<'_>) -> PyResult<bool> {
        let mut taken = self.lock();
        if taken.settled.is_empty() {
            let (settled, over) = self.ticket.take(take_at_once(self.window));
            taken.settled.extend(settled.into_iter().map(|settled| (settled.into(), Vec::new())));
            taken.over = over;
        }
        let Some((mut piece, mut regions)) = taken.settled.pop_front() else {
            let over = taken.over;
            drop(taken);
            if over {
                self.kept.forget();
            }
            return Ok(false);
        };
        if !self.attempts.need_another_thread() && piece.takes_once() {
            self.attempts.begin_elsewhere();
            if self.attempts.need_another_thread() {
                // The outcome stays the next, for another thread.
                taken.settled.push_front((piece, regions));
                return Ok(true);
            }
        }
        drop(taken);
        regions.append(&mut piece.share());
        match self.decode(py, &piece, &regions) {
            Ok(decoded) => {
                self.attempts.begin_anew();
                // The end of the pool, by `terminate` or because it has failed, is not the item's failure. It may be the
                // end of any number of items. The end of the input by an exception is that of none.
                let returned = self.returns && !piece.kind.is_end();
                let decoded = decoded.unwrap_or_else(|error| match returned {
                    true => VecDeque::from([Ok(error.into_value(py).into_any())]),
                    false => VecDeque::from([Err((error, piece.items))]),
                });
                self.lock().values.extend(decoded);
            }
            // A loop that continues after every exception must still end. In another thread than the first one no handler
            // runs, so the content has raised the error, even if it requests the end of the program.
            Err(Interrupt(error))
                if self.attempts.need_another_thread() && (!interrupts(py, &error) || !sys::is_first_thread()) =>
            {
                self.attempts.begin_anew();
                self.lock().values.push_back(Err((error, piece.items)));
            }
            Err(Interrupt(error)) => {
                self.attempts.broken_off();
                // The outcome stays the next.
                self.lock().settled.push_front((piece, regions));
                return Err(error);
            }
        }
        Ok(true)
    }

    /// The number of the job, for `Hub.feed`.
    #[getter]
    fn job(&self) -> Out<u64> {
        Out(self.ticket.job().data().as_ffi())
    }

    /// Records that a thread feeds the stream. Before that, no further task begins after the stream is dropped, for
    /// example because a signal interrupted the call.
    fn fed(&self) {
        self.ticket.leave_undone(false);
    }

    /// Cancels the job: tasks that have not begun do not begin. `end_running`: the workers that run its tasks are ended.
    /// Returns whether any task was cancelled.
    #[pyo3(signature = (end_running=false))]
    fn cancel(&self, py: Python<'_>, end_running: bool) -> bool {
        py.detach(|| self.ticket.cancel(end_running))
    }

    /// Posts `number` in the mailbox when a result can be taken, or when there are no more. Returns true, and posts
    /// nothing, if that is so already.
    fn tell(&self, py: Python<'_>, mailbox: &PyMailbox, number: u64) -> PyResult<bool> {
        self.awaited.tell(py, &self.ticket, mailbox, number)
    }

    /// Ends such a wait. Returns the number of those that are left.
    fn forget(&self, mailbox: &PyMailbox, number: u64) -> usize {
        self.awaited.forget(mailbox, number)
    }

    /// Returns the number of items that have an outcome, the number of those that were taken, and whether no further
    /// item will have one.
    fn progress(&self, py: Python<'_>) -> PyResult<Out<(usize, usize, bool)>> {
        let (done, ended) = detached(py, || self.ticket.progress())?;
        Ok(Out((done, self.lock().given, ended)))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Self::next(slf, None)
    }

    /// Returns the next result. Raises `TimeoutError` if there is none within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    pub fn next(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let (this, py) = (slf.get(), slf.py());
        let until = deadline(timeout);
        loop {
            if let Some(value) = Self::at_hand(slf)? {
                return Ok(value);
            }
            if this.lock().over {
                return Err(PyStopIteration::new_err(()));
            }
            if !wait(py, &this.ticket, until)? {
                return Err(timed_out(py));
            }
        }
    }
}
