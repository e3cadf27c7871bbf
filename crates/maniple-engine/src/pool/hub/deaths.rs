//! The end of a worker: its last words, and how it ended.

use super::Hub;
use super::slots::WorkerSlot;
use crate::pool::job::{Loss, LossCause};
use crate::pool::packet::Packet;
use crate::pool::scheduler::{Death, WorkerId};
use crate::process::Exit;
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, clock, tap};
use std::sync::Arc;

impl WorkerSlot {
    /// Reads what the worker wrote to its standard error. The caller passes it on by the hub's outlet once the hub's
    /// lock is free, because the reader of the standard error may wait for a resource of the lock's holder. Returns
    /// false if the worker has closed it.
    pub fn take_stderr(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(handle) = self.stderr.clone() else { return false };
        let mut buffer = [0; 4096];
        // A worker that never stops writing must not block the hub.
        for _ in 0..64 {
            match tap::drain(handle.as_handle(), &mut buffer) {
                Ok(Some(0)) => return true,
                Ok(Some(n)) => {
                    out.extend_from_slice(&buffer[..n]);
                    self.tail.add(&buffer[..n]);
                }
                Ok(None) | Err(_) => {
                    self.stderr = None;
                    return false;
                }
            }
        }
        true
    }
}

/// The exit code of a worker that lacked memory, a thread or a descriptor before it was ready (`EX_TEMPFAIL`). Another
/// worker is started after a pause.
pub const LACKING: i32 = 75;

impl Hub {
    /// Passes on what a worker has written to its standard error. The keeper does so continuously; this is for a thread
    /// that waits for a worker that may itself wait for room in its standard error.
    pub fn pass_on_stderr(&self, worker: WorkerId) {
        let mut wrote = Vec::new();
        if let Some(slot) = self.lock().slots.get_mut(worker) {
            slot.take_stderr(&mut wrote);
        }
        self.shared().outlet.forward(&wrote);
    }

    /// The last lines of the standard error of a worker that has ended before it was ready. `None`: it was ready.
    pub fn last_words(&self, worker: WorkerId) -> Option<String> {
        if self.check().is_err() {
            return None;
        }
        let mut wrote = Vec::new();
        let mut st = self.lock();
        st.end_wait_for_process(worker);
        self.shared().hear_out(&mut st, worker);
        let words = if st.sched.is_up(worker) {
            None
        } else {
            st.slots.get_mut(worker).map(|slot| {
                slot.take_stderr(&mut wrote);
                slot.tail.lines()
            })
        };
        drop(st);
        self.shared().outlet.forward(&wrote);
        words
    }

    /// Reports that a worker's process was reaped. Its running task, if there was one, ends; its other tasks go to
    /// other workers.
    ///
    /// Returns the pipe of its standard error if another process still has the other end, such as a program that a task
    /// has started. The front has to read the output of such a program: writing to a closed pipe would kill it.
    pub fn exited(&self, worker: WorkerId, exit: Option<Exit>) -> Option<OwnedHandle> {
        self.check().ok()?;
        let inner = self.shared();
        let mut st = self.lock();
        // Messages that it had published before it died count.
        st.end_wait_for_process(worker);
        inner.hear_out(&mut st, worker);
        st.end_row(worker);
        let mut slot = st.slots.remove(worker)?;
        slot.note_kill(inner.limits.memory, exit);
        let mut wrote = Vec::new();
        let still_open = slot.take_stderr(&mut wrote);
        let was_up = st.sched.is_up(worker);
        let lacking = exit == Some(Exit::Code(LACKING)) && !was_up && !st.terminated;
        let cause = match (slot.doom, slot.unfit.take()) {
            (Some(doom), _) => doom.cause(),
            (None, None) if was_up => LossCause::Died,
            (None, said) => LossCause::Unfit(said),
        };
        let out_of_memory = slot.doom.is_none() && inner.out_of_memory(exit);
        let loss = Arc::new(Loss { pid: slot.pid, exit, stderr: slot.tail.lines(), cause, out_of_memory });
        if !was_up && !lacking {
            st.broken = Some(loss.clone());
        }
        st.loss = Some(loss.clone());
        if lacking {
            inner.worker_lacked(&mut st, worker, &loss.stderr);
        } else {
            let death = slot.doom.map_or(Death::Unasked, |doom| doom.death());
            let number = st.sched.number_of(worker);
            let before = st.sched.tally().ended_with_worker;
            st.sched.worker_gone(
                worker,
                death,
                clock::now(),
                |packet| slot.link.claimed(packet.position),
                Packet::is_whole,
            );
            st.count_losses(number, before, death);
        }
        inner.advance(&mut st);
        inner.stir(&mut st);
        st.loss = None;
        drop(st);
        let late = slot.stderr.take().filter(|_| still_open);
        drop(slot);
        self.kick();
        self.shared().outlet.forward(&wrote);
        Arc::into_inner(late?)?.into_handle().ok()
    }
}
