//! The driver's seat: which thread drives the hub, and which threads wait to drive it.
//!
//! The thread that has the seat acts on the workers' messages. A thread that finds the seat taken *parks*: it leaves a *call*, by
//! which the thread that leaves the seat can wake it, and sleeps. The protocol, all of whose steps happen under the hub's lock:
//!
//! | step | by | what follows |
//! | --- | --- | --- |
//! | take | a thread that wants to drive | it drives, or it parks |
//! | leave | the driver | one parked thread is *called*, or, if none waits, the keeper's bell is armed |
//! | unpark | a parked thread that wakes, for any reason | it learns whether it was called |
//!
//! A thread that was called must take the seat. If it no longer needs the seat (its time limit expired, a signal
//! handler has to run, its outcome has arrived), it leaves as a driver does, and so calls the next thread or arms the
//! bell. So at any time some thread drives, some thread was called and has not woken yet, or the bell is armed.
//! `tests/loom/seats.rs` checks that.
//!
//! A thread whose outcome has arrived is skipped: it has already been woken for that.

/// The thread that drives, and the threads that wait for the seat. `C` is the means to wake a thread.
#[derive(Debug)]
pub struct Seats<C> {
    taken: bool,
    parked: Vec<(u64, C)>,
    last: u64,
}

/// A parked thread's place. It must be passed to [`Seats::unpark`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is called in vain"]
pub struct Place(u64);

impl<C> Default for Seats<C> {
    fn default() -> Self {
        Seats { taken: false, parked: Vec::new(), last: 0 }
    }
}

impl<C> Seats<C> {
    /// Whether a thread drives.
    pub fn is_taken(&self) -> bool {
        self.taken
    }

    /// How many threads wait.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Takes the seat. Returns false if another thread has it.
    pub fn take(&mut self) -> bool {
        !std::mem::replace(&mut self.taken, true)
    }

    /// Waits for the seat: `call` wakes this thread.
    pub fn park(&mut self, call: C) -> Place {
        self.last += 1;
        self.parked.push((self.last, call));
        Place(self.last)
    }

    /// Ends the wait. Returns true if this thread was called and no thread drives: it then has to take the seat or to
    /// leave it.
    pub fn unpark(&mut self, place: &Place) -> bool {
        match self.parked.iter().position(|(number, _)| *number == place.0) {
            Some(at) => {
                self.parked.remove(at);
                false
            }
            None => !self.taken,
        }
    }

    /// Leaves the seat. Returns the call of the thread that drives next: the last that parked, of those for which
    /// `wants` returns true. `None`: no thread waits.
    pub fn leave(&mut self, wants: impl Fn(&C) -> bool) -> Option<C> {
        self.taken = false;
        let at = self.parked.iter().rposition(|(_, call)| wants(call))?;
        Some(self.parked.remove(at).1)
    }
}
