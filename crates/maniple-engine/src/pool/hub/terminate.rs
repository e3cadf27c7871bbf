//! The end of a pool that does not wait for its work.

use super::{Hub, State};
use crate::pool::ending::{End, EndTerms, Ending};
use crate::pool::scheduler::WorkerId;
use maniple_sys::clock;

impl Hub {
    /// Drops all jobs that have not ended, and tells the workers to stop. A worker that waits for tasks stops by
    /// itself. The front ends the others as [`Hub::next_end`] says. Another call asks the remaining workers once more.
    pub fn terminate(&self, terms: EndTerms) {
        if self.is_foreign() {
            return;
        }
        let now = clock::now();
        let mut st = self.lock();
        if !st.terminated {
            st.terminated = true;
            st.starts.call_off();
            st.unsettled = self.inner.take_back_all(&mut st);
            for slot in st.slots.values_mut() {
                slot.stop_due = true;
                slot.dirty = true;
                slot.link.note_termination();
            }
        }
        st.sched.terminate();
        self.inner.advance(&mut st);
        self.inner.stir(&mut st);
        let State { unsettled, slots, ending, .. } = &mut *st;
        unsettled.retain(|(worker, _)| slots.contains_key(*worker));
        match ending {
            Some(ending) => ending.ask_again(unsettled, now),
            None => *ending = Some(Ending::new(terms, unsettled, now)),
        }
        drop(st);
        self.inner.kick.kick();
    }

    /// Returns what the front has to do now to a worker of a terminated pool. The keeper calls it when it gets
    /// [`Chore::End`](super::Chore::End); any other thread may call it.
    pub fn next_end(&self) -> Option<(WorkerId, End)> {
        if self.is_foreign() {
            return None;
        }
        let mut st = self.lock();
        let State { ending, slots, .. } = &mut *st;
        ending.as_mut()?.next(slots.iter().filter(|(_, slot)| slot.is_living()).map(|(worker, _)| worker), clock::now())
    }
}

impl State {
    /// How many nanoseconds until a worker of a terminated pool has to be ended; `None`: no worker has to be ended.
    pub(super) fn wait_for_end(&self, now: u64) -> Option<u64> {
        let ending = self.ending.as_ref()?;
        let living = self.slots.iter().filter(|(_, slot)| slot.is_living()).map(|(worker, _)| worker);
        let starts = self.slots.values().any(|slot| slot.pid == 0).then(|| ending.wait_for_starts(now));
        ending.wait(living, now).into_iter().chain(starts).min()
    }
}
