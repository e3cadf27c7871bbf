//! Room in the backlog: calls of a single task that wait, before they are submitted, until few others wait for a worker.
//!
//! A [`Room`] is either kept for its caller or waits for its turn. Under the hub's lock:
//! * [`Hub::room`] keeps room if the calls that wait and the rooms that are kept are fewer than the caller's limit.
//!   Otherwise the room waits, behind the rooms that waited before;
//! * [`State::give_room`] runs after each decision of the scheduler, and keeps room for those that have waited longest;
//! * [`Hub::submit_in`] turns a room into a call that waits. The drop of a room passes it to the next.
//!
//! No code of the program runs between the moment at which a room is kept and the submission: such code may make a call
//! itself, which would wait for the room that its own thread has. [`Room::wait`] has no room while it calls back.
//!
//! So the limit holds for any number of threads and futures. The end of the pool ends every wait: the submission that
//! follows reports it. A pool whose workers cannot be started accepts every call, and fails it.

use super::ticket::wait_on;
use super::{Hub, State};
use crate::error::Result;
use crate::pool::job::{Cell, Gone};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The rooms of a hub.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Those that wait, the oldest first.
    waiting: BTreeMap<u64, Waiting>,
    /// Those that are kept.
    kept: FxHashSet<u64>,
    last: u64,
    /// No limit of a room that waits is greater.
    greatest: usize,
}

#[derive(Debug)]
struct Waiting {
    most: usize,
    cell: Arc<Cell>,
}

/// Room for a call in the backlog, or a place among those that wait for room.
#[derive(Debug)]
#[must_use = "the room goes to another call when it is dropped"]
pub struct Room {
    hub: Hub,
    number: u64,
    most: usize,
    // What the caller sleeps on, if there was no room at first.
    cell: Option<Arc<Cell>>,
}

impl State {
    /// Whether the pool takes calls without regard to the backlog: it refuses them, or fails them.
    fn ignores_backlog(&self) -> bool {
        !self.sched.is_running()
    }

    /// How many calls wait, or may be submitted at any moment.
    fn backlog(&self) -> usize {
        self.sched.backlog() + self.rooms.kept.len()
    }

    /// Keeps room for the callers that have waited longest, as far as there is room.
    pub(super) fn give_room(&mut self) {
        while !self.rooms.waiting.is_empty() {
            let (ends, backlog) = (self.ignores_backlog(), self.backlog());
            let rooms = &mut self.rooms;
            if !ends && backlog >= rooms.greatest {
                return;
            }
            let Some(number) = rooms.waiting.iter().find(|(_, w)| ends || backlog < w.most).map(|(&n, _)| n) else {
                return;
            };
            let Some(Waiting { cell, .. }) = rooms.waiting.remove(&number) else { return };
            if !ends {
                rooms.kept.insert(number);
            }
            cell.set_ready(true);
            // The driver may be the caller.
            self.called = true;
            self.gone.extend(cell.call().map(Gone::Awaited));
        }
        self.rooms.greatest = 0;
    }

    /// The caller of this room submits its call now.
    pub(super) fn take_room(&mut self, room: &Room) {
        self.rooms.kept.remove(&room.number);
        self.rooms.waiting.remove(&room.number);
    }
}

impl Hub {
    /// Requests room for a call of a single task, while fewer than `most` wait for a worker. Receives the workers'
    /// messages before it lets the call wait.
    ///
    /// # Errors
    /// [`Error::Foreign`](crate::Error::Foreign).
    pub fn room(&self, most: usize) -> Result<Room> {
        self.check()?;
        let mut st = self.lock();
        let has_room = |st: &State| st.ignores_backlog() || st.backlog() < most;
        if !has_room(&st) {
            drop(st);
            self.poll();
            st = self.lock();
        }
        st.rooms.last += 1;
        let number = st.rooms.last;
        let cell = if has_room(&st) {
            if !st.ignores_backlog() {
                st.rooms.kept.insert(number);
            }
            None
        } else {
            let cell = Arc::new(Cell::default());
            st.rooms.greatest = st.rooms.greatest.max(most);
            st.rooms.waiting.insert(number, Waiting { most, cell: cell.clone() });
            Some(cell)
        };
        drop(st);
        Ok(Room { hub: self.clone(), number, most, cell })
    }
}

impl Room {
    /// Whether the call can be submitted.
    pub fn is_ready(&self) -> bool {
        self.cell.as_ref().is_none_or(|cell| cell.is_ready())
    }

    /// Waits until the call can be submitted. Drives the hub meanwhile, unless another thread does. `interrupted` may make
    /// calls itself: they do not wait for this one, which keeps its turn.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) if `interrupted` returns false; [`Error::Foreign`](crate::Error::Foreign) in a forked child.
    pub fn wait(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<()> {
        self.hub.check()?;
        let Some(cell) = &self.cell else { return Ok(()) };
        wait_on(&self.hub, cell, None, &mut || {
            self.step_aside();
            let goes_on = interrupted();
            self.step_back(cell);
            goes_on
        })?;
        Ok(())
    }

    /// Passes the room to those behind this one.
    fn step_aside(&self) {
        if self.hub.is_foreign() {
            return;
        }
        let mut st = self.hub.lock();
        if st.rooms.waiting.remove(&self.number).is_none() && st.rooms.kept.remove(&self.number) {
            st.give_room();
            self.hub.inner.stir(&mut st);
        }
    }

    /// Waits again, where it was among those that wait.
    fn step_back(&self, cell: &Arc<Cell>) {
        if self.hub.is_foreign() {
            return;
        }
        let mut st = self.hub.lock();
        cell.set_ready(false);
        st.rooms.greatest = st.rooms.greatest.max(self.most);
        st.rooms.waiting.insert(self.number, Waiting { most: self.most, cell: cell.clone() });
        st.give_room();
        self.hub.inner.stir(&mut st);
    }

    /// As [`Room::wait`], for an executor: stores the task's waker instead of blocking. The keeper drives the hub.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(cell) = self.cell.as_ref().filter(|cell| !cell.is_ready()) else { return Poll::Ready(()) };
        cell.set_waker(context.waker());
        self.hub.attend();
        if !cell.is_ready() {
            self.hub.poll();
        }
        if cell.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.step_aside();
    }
}
