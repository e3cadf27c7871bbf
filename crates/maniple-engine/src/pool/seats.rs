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
//! | step away | the driver, before it runs code of the program, which may take any time | it comes back, or is relieved |
//! | relieve | a thread that finds the driver away for long | it drives instead |
//! | come back | the driver, after that | it learns whether it was relieved: then it drives no more |
//!
//! A thread has the seat for one *turn*, by whose number it knows whether it was relieved.
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
    turn: u64,
    /// Since when the driver has been away.
    away: Option<u64>,
    parked: Vec<(u64, C)>,
    last: u64,
}

/// The time from the taking of the seat to its leaving, or to the driver's relief.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a seat that is not left is not free for others"]
pub struct Turn(u64);

/// A parked thread's place. It must be passed to [`Seats::unpark`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is not given back is called in vain"]
pub struct Place(u64);

impl<C> Default for Seats<C> {
    fn default() -> Self {
        Seats { taken: false, turn: 0, away: None, parked: Vec::new(), last: 0 }
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

    /// Takes the seat. `None`: another thread has it.
    pub fn take(&mut self) -> Option<Turn> {
        if self.taken { None } else { Some(self.begin()) }
    }

    fn begin(&mut self) -> Turn {
        (self.taken, self.away) = (true, None);
        self.turn += 1;
        Turn(self.turn)
    }

    /// Whether the thread of this turn drives.
    pub fn holds(&self, turn: Turn) -> bool {
        self.taken && self.turn == turn.0
    }

    /// The driver is about to do something that may take any time.
    pub fn step_away(&mut self, turn: Turn, now: u64) {
        if self.holds(turn) {
            self.away = Some(now);
        }
    }

    /// Since when the driver has been away, if it is.
    pub fn away_since(&self) -> Option<u64> {
        self.away
    }

    /// Takes the seat from a driver that has been away since `before`, or longer.
    pub fn relieve(&mut self, before: u64) -> Option<Turn> {
        self.away.filter(|&since| since <= before).map(|_| self.begin())
    }

    /// The thread of this turn is back. Returns false if it was relieved: it does not drive any more.
    pub fn come_back(&mut self, turn: Turn) -> bool {
        let holds = self.holds(turn);
        if holds {
            self.away = None;
        }
        holds
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
    /// `wants` returns true. `None`: no thread waits, or another thread has relieved this one.
    pub fn leave(&mut self, turn: Turn, wants: impl Fn(&C) -> bool) -> Option<C> {
        if !self.holds(turn) {
            return None;
        }
        (self.taken, self.away) = (false, None);
        let at = self.parked.iter().rposition(|(_, call)| wants(call))?;
        Some(self.parked.remove(at).1)
    }
}
