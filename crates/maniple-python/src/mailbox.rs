//! `Mailbox`: how an event loop learns which of its waits are over.
//!
//! A loop has one mailbox, and watches its descriptor. Each wait of the loop has a number. The thread that ends a job
//! *posts* the numbers of the waits for it: it adds them to the mailbox, and makes the descriptor readable if the mailbox
//! was empty. That takes no interpreter lock. The loop takes all numbers at once, so many ends cost one wake-up.

use crate::args::{Arg as _, Out};
use maniple_engine::pool::Ticket;
use maniple_sys::ready::Kick;
use maniple_sys::{AsHandle, RawHandle};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Wake, Waker};

struct Mailbox {
    event: Kick,
    numbers: Mutex<Vec<u64>>,
}

impl Mailbox {
    fn numbers(&self) -> MutexGuard<'_, Vec<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, number: u64) {
        let mut numbers = self.numbers();
        numbers.push(number);
        let is_first = numbers.len() == 1;
        drop(numbers);
        if is_first {
            self.event.kick();
        }
    }
}

/// The numbers of the waits of one event loop that are over. Any thread posts, the loop's thread takes.
#[pyclass(name = "Mailbox", module = "maniple._maniple", frozen)]
pub struct PyMailbox {
    mailbox: Arc<Mailbox>,
}

#[pymethods]
impl PyMailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let event = Kick::new().map_err(|error| crate::error::os("make an event", error))?;
        Ok(PyMailbox { mailbox: Arc::new(Mailbox { event, numbers: Mutex::default() }) })
    }

    /// Returns a descriptor that is readable while there are numbers to take.
    fn fileno(&self) -> Out<RawHandle> {
        Out(self.mailbox.event.as_handle().as_raw())
    }

    /// Adds the number of a wait.
    fn post(&self, number: u64) {
        self.mailbox.post(number);
    }

    /// Takes all numbers.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // In this order: a number that is posted in between makes the descriptor readable again, or is taken here.
        self.mailbox.event.clear();
        let numbers = std::mem::take(&mut *self.mailbox.numbers());
        numbers.clone().object(py).inspect_err(|_| {
            // The next call takes them.
            numbers.iter().for_each(|number| self.mailbox.post(*number));
        })
    }
}

/// The waits of event loops for one job: the waker of its cell.
#[derive(Default)]
struct Waits(Mutex<Vec<(Arc<Mailbox>, u64)>>);

impl Waits {
    fn waits(&self) -> MutexGuard<'_, Vec<(Arc<Mailbox>, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        let waits = std::mem::take(&mut *self.waits());
        for (mailbox, number) in waits {
            mailbox.post(number);
        }
    }
}

/// The waits of event loops for one ticket; empty until the first.
#[derive(Default)]
pub struct Awaited(OnceLock<Arc<Waits>>);

impl Awaited {
    /// Posts `number` when an outcome can be taken. Returns true, and posts nothing, if one can be taken already.
    pub fn tell(&self, py: Python<'_>, ticket: &Ticket, mailbox: &PyMailbox, number: u64) -> PyResult<bool> {
        ticket.check().map_err(crate::error::python)?;
        let waits = self.0.get_or_init(Arc::default);
        waits.waits().push((mailbox.mailbox.clone(), number));
        let waker = Waker::from(waits.clone());
        let is_ready = py.detach(|| ticket.poll_ready(&mut Context::from_waker(&waker)).is_ready());
        if is_ready {
            self.forget(mailbox, number);
        }
        // A handler may have raised while tasks were made.
        crate::signals::held().map_or(Ok(is_ready), Err)
    }

    /// Ends a wait. Returns the number of waits that are left.
    pub fn forget(&self, mailbox: &PyMailbox, number: u64) -> usize {
        let Some(waits) = self.0.get() else { return 0 };
        let mut waits = waits.waits();
        waits.retain(|(other, its)| !(*its == number && Arc::ptr_eq(other, &mailbox.mailbox)));
        waits.len()
    }
}
