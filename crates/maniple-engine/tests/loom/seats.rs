//! The driver's seat, as `pool/hub.rs` and `pool/ticket.rs` use it: every message is received by some thread, also if
//! the driver steps away and is relieved.

use super::model;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use maniple_engine::pool::seats::{Place, Seats, Turn};

/// What lies under the hub's lock.
#[derive(Default)]
struct State {
    seats: Seats<usize>,
    /// By thread: its call has come.
    called: [bool; 3],
    /// By thread: its outcome was received.
    ready: [bool; 3],
    /// Outcomes that workers have sent and no thread has received.
    said: Vec<usize>,
    /// The keeper comes when something is said.
    armed: bool,
}

#[derive(Default)]
struct Hub {
    state: Mutex<State>,
    /// In place of the cells on which parked threads sleep, and of the bell on which driver and keeper do.
    change: Condvar,
}

impl Hub {
    fn hear(state: &mut State) {
        for thread in std::mem::take(&mut state.said) {
            state.ready[thread] = true;
        }
    }

    fn leave(&self, state: &mut State, turn: Turn) {
        let ready = state.ready;
        match state.seats.leave(turn, |&thread| !ready[thread]) {
            Some(thread) => state.called[thread] = true,
            None => state.armed |= !state.seats.is_taken(),
        }
        self.change.notify_all();
    }

    fn unpark(&self, state: &mut State, place: Option<Place>) {
        if place.is_some_and(|place| state.seats.unpark(&place))
            && let Some(turn) = state.seats.take()
        {
            self.leave(state, turn);
        }
    }

    /// A caller that waits until its outcome is there, or sleeps at most `naps` times: its time is up then.
    /// `strays`: as a driver it steps away each time, and does not come back before a thread has relieved it or has
    /// received its outcome.
    fn wait(&self, me: usize, naps: usize, strays: bool) {
        let mut state = self.state.lock().unwrap();
        let mut place: Option<Place> = None;
        for nap in 0.. {
            if state.ready[me] || nap == naps {
                break;
            }
            if let Some(place) = place.take() {
                state.seats.unpark(&place);
            }
            if let Some(turn) = state.seats.take().or_else(|| state.seats.relieve(0)) {
                state.armed = false;
                Hub::hear(&mut state);
                if strays && !state.ready[me] {
                    state.seats.step_away(turn, 0);
                    self.change.notify_all();
                    while state.seats.holds(turn) && !state.ready[me] {
                        state = self.change.wait(state).unwrap();
                    }
                    if !state.seats.come_back(turn) {
                        continue;
                    }
                }
                if !state.ready[me] && nap + 1 < naps {
                    state = self.change.wait(state).unwrap();
                    Hub::hear(&mut state);
                }
                self.leave(&mut state, turn);
                continue;
            }
            state.called[me] = false;
            place = Some(state.seats.park(me));
            if nap + 1 < naps {
                while !state.called[me] && !state.ready[me] && state.seats.away_since().is_none() {
                    state = self.change.wait(state).unwrap();
                }
            } else {
                // A sleep that ends by itself, at any time.
                drop(state);
                thread::yield_now();
                state = self.state.lock().unwrap();
            }
        }
        self.unpark(&mut state, place);
    }

    /// The keeper receives what no other thread does: it returns when the outcome of `thread` was received.
    fn keep(&self, thread: usize) {
        let mut state = self.state.lock().unwrap();
        while !state.ready[thread] {
            if state.armed && !state.said.is_empty() {
                Hub::hear(&mut state);
                self.change.notify_all();
                continue;
            }
            state = self.change.wait(state).unwrap();
        }
    }

    fn say(&self, thread: usize) {
        self.state.lock().unwrap().said.push(thread);
        self.change.notify_all();
    }
}

#[test]
fn a_waiter_whose_time_is_up_takes_no_call_with_it() {
    model(|| {
        let hub = Arc::new(Hub::default());
        hub.state.lock().unwrap().armed = true;
        let driver = {
            let hub = hub.clone();
            thread::spawn(move || hub.wait(0, usize::MAX, false))
        };
        let hasty = {
            let hub = hub.clone();
            thread::spawn(move || hub.wait(1, 1, false))
        };
        hub.say(0);
        // The keeper is to receive the outcome of the thread that gave up.
        hub.say(1);
        hub.keep(1);
        driver.join().unwrap();
        hasty.join().unwrap();
        assert_eq!(hub.state.lock().unwrap().seats.parked(), 0);
    });
}

#[test]
fn of_two_that_wait_the_second_hears_after_the_first_has_left() {
    model(|| {
        let hub = Arc::new(Hub::default());
        hub.state.lock().unwrap().armed = true;
        let waiters = [0, 1].map(|me| {
            let hub = hub.clone();
            thread::spawn(move || hub.wait(me, usize::MAX, false))
        });
        hub.say(0);
        hub.say(1);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn a_driver_that_is_away_is_relieved_and_no_outcome_waits_for_it() {
    model(|| {
        let hub = Arc::new(Hub::default());
        hub.state.lock().unwrap().armed = true;
        let waiters = [0, 1].map(|me| {
            let hub = hub.clone();
            thread::spawn(move || hub.wait(me, usize::MAX, me == 0))
        });
        hub.say(0);
        hub.say(1);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let state = hub.state.lock().unwrap();
        assert!(!state.seats.is_taken() && state.seats.parked() == 0);
    });
}
