//! The caller's handle on a job.
//!
//! A thread that waits for a ticket drives the hub meanwhile, unless another thread does: it receives results from the
//! links, sends tasks to workers, and requests tasks from sources. So a call's answer goes directly from the worker to
//! the thread that waits for it, without another thread between. Other waiting threads sleep on their job's cell; a
//! driver that leaves passes the seat to one of them, or to the keeper.

use super::Hub;
use crate::error::{Error, Result};
use crate::pool::job::{Cell, Settled};
use crate::pool::scheduler::JobId;
use crate::pool::seats::Place;
use crate::wait::word::Woken;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A job's outcome, to be waited for and taken.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) hub: Hub,
    pub(crate) job: JobId,
    pub(crate) cell: Arc<Cell>,
    // All outcomes were taken: the hub keeps nothing for it any more.
    over: AtomicBool,
    // An outcome was taken of a job whose results are taken one by one, or its user says so.
    begun: AtomicBool,
}

/// A wait checks for signals at least so often: a signal that arrives just before the wait begins does not end it.
const LOOK_UP: Duration = Duration::from_millis(200);

impl Ticket {
    pub(crate) fn new(hub: Hub, job: JobId, cell: Arc<Cell>) -> Ticket {
        Ticket { hub, job, cell, over: AtomicBool::new(false), begun: AtomicBool::new(false) }
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Whether an outcome can be taken (for a whole job: whether it is complete). Receives the workers' messages first.
    pub fn is_ready(&self) -> bool {
        if !self.cell.is_ready() {
            self.hub.poll();
        }
        self.cell.is_ready()
    }

    /// Returns how many items have an outcome, and whether the job is complete. Receives the workers' messages first.
    pub fn progress(&self) -> (usize, bool) {
        if !self.cell.has_ended() {
            self.hub.poll();
        }
        (self.cell.done(), self.cell.has_ended())
    }

    /// Waits until an outcome can be taken. It calls `interrupted` when a signal handler may have run; if that returns
    /// false, the wait ends.
    ///
    /// # Errors
    /// [`Error::Interrupted`], or [`Error::Foreign`] in a forked child.
    pub fn wait(&self, deadline: Option<Instant>, interrupted: &mut dyn FnMut() -> bool) -> Result<bool> {
        self.hub.check()?;
        wait_on(&self.hub, &self.cell, deadline, interrupted)
    }

    /// Returns the job, whose outcome no user of the ticket takes: its end is gathered
    /// ([`Hub::gather_ends`](super::Hub::gather_ends)).
    #[must_use]
    pub fn into_job(mut self) -> JobId {
        *self.over.get_mut() = true;
        self.job
    }

    /// Checks that this process has the pool.
    ///
    /// # Errors
    /// [`Error::Foreign`] in a forked child.
    pub fn check(&self) -> Result<()> {
        self.hub.check()
    }

    /// As [`Ticket::wait`], for an executor: stores the task's waker instead of blocking. The keeper drives the hub.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.cell.set_waker(context.waker());
        self.hub.attend();
        if self.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes the available outcomes, of at most `most` tasks. The flag says that there will be no more.
    pub fn take(&self, most: usize) -> (Vec<Settled>, bool) {
        let (taken, over) = self.hub.take_outcomes(self.job, most);
        if over {
            self.over.store(true, Ordering::Relaxed);
        }
        (taken, over)
    }

    /// Declares that the user takes results one by one: if the ticket is dropped before the last, tasks that have not
    /// begun do not begin.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// For a job with a window: the user has taken so many items, so as many more may be started.
    pub fn consumed(&self, items: usize) {
        self.begin();
        self.hub.consumed(self.job, items);
    }

    /// Whether tasks that have not begun are dropped if the ticket is dropped before the last result is taken.
    pub fn leave_undone(&self, is_left: bool) {
        self.begun.store(is_left, Ordering::Relaxed);
    }

    /// Cancels the job: tasks that have not begun do not begin. `end_running`: the workers that run its tasks are ended,
    /// and with each of them only this task. Returns whether any task was cancelled.
    pub fn cancel(&self, end_running: bool) -> bool {
        self.hub.cancel(self.job, end_running) > 0 || self.cell.has_cancelled()
    }

    /// Whether a task of the job was cancelled. Of a running task that is true once its worker has ended.
    pub fn has_cancelled(&self) -> bool {
        self.cell.has_cancelled()
    }

    /// Whether a worker runs a task of the job, as far as is known.
    pub fn is_running(&self) -> bool {
        !self.cell.has_ended() && self.hub.is_running_job(self.job)
    }
}

/// Waits until the cell is ready, and drives the hub meanwhile. Returns false if the deadline has passed.
pub(super) fn wait_on(
    hub: &Hub,
    cell: &Arc<Cell>,
    deadline: Option<Instant>,
    interrupted: &mut dyn FnMut() -> bool,
) -> Result<bool> {
    let mut looked = Instant::now();
    let mut parked = Parked { hub, place: None };
    loop {
        if cell.is_ready() {
            return Ok(true);
        }
        let now = Instant::now();
        if deadline.is_some_and(|d| now >= d) {
            hub.poll();
            return Ok(cell.is_ready());
        }
        let until = deadline.map_or(now + LOOK_UP, |d| d.min(now + LOOK_UP));
        let woken = match hub.take_seat(cell, parked.place.take()) {
            Ok(seat) => seat.drive(cell, until),
            Err((place, ticks)) => {
                parked.place = Some(place);
                cell.sleep(ticks, Some(until.saturating_duration_since(Instant::now())))
            }
        };
        if woken == Woken::Signal || looked.elapsed() >= LOOK_UP {
            // A handler may take its time.
            parked.give_back();
            looked = Instant::now();
            if !interrupted() {
                return Err(Error::Interrupted);
            }
        }
    }
}

/// A waiting thread's place among those that want to drive; see [`seats`](crate::pool::seats).
struct Parked<'h> {
    hub: &'h Hub,
    place: Option<Place>,
}

impl Parked<'_> {
    fn give_back(&mut self) {
        if let Some(place) = self.place.take() {
            self.hub.unpark(&place);
        }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !*self.over.get_mut() {
            self.hub.orphan(self.job, *self.begun.get_mut());
        }
    }
}
