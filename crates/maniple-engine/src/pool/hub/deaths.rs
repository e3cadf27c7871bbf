//! What is left of a worker: its last words, and the news of how it ended.

use super::Hub;
use super::slots::WorkerSlot;
use crate::pool::job::{Loss, LossCause};
use crate::pool::scheduler::WorkerId;
use crate::process::Exit;
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, tap};
use std::sync::Arc;

impl WorkerSlot {
    /// Takes what the worker wrote to its standard error, to be passed on with [`tap::forward`] once the hub's lock is free: the reader
    /// there may be waiting for something that a holder of the lock has. False: the worker has closed it.
    pub fn take_stderr(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(handle) = self.stderr.clone() else { return false };
        let mut buffer = [0; 4096];
        // A worker that never stops writing must not keep the hub from everything else.
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

/// The exit code of a worker that lacked something before it was ready: memory, a thread, a descriptor (`EX_TEMPFAIL`). Another is started
/// after a pause.
pub const LACKING: i32 = 75;

impl Hub {
    /// Passes on what a worker has written to its standard error. The keeper does so all the time; this is for a thread that waits for a
    /// worker which may itself wait for room there.
    pub fn pass_on_stderr(&self, worker: WorkerId) {
        let mut wrote = Vec::new();
        if let Some(slot) = self.lock().slots.get_mut(worker) {
            slot.take_stderr(&mut wrote);
        }
        tap::forward(&wrote);
    }

    /// The last lines of the standard error of a worker that has ended before it was ready. `None`: it was ready.
    pub fn last_words(&self, worker: WorkerId) -> Option<String> {
        if self.check().is_err() {
            return None;
        }
        let mut wrote = Vec::new();
        let mut st = self.lock();
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
        tap::forward(&wrote);
        words
    }

    /// A worker's process was reaped. Its running task, if there was one, ends; the others go to other workers.
    ///
    /// Returns the pipe that was its standard error where something still has the other end, such as a program that a task has started.
    /// The front has to read whatever that writes: it would be killed for writing to a pipe that is closed.
    pub fn exited(&self, worker: WorkerId, exit: Option<Exit>) -> Option<OwnedHandle> {
        self.check().ok()?;
        let inner = self.shared();
        let mut st = self.lock();
        // What it had published before it died counts.
        inner.hear_out(&mut st, worker);
        let mut slot = st.slots.remove(worker)?;
        let mut wrote = Vec::new();
        let still_open = slot.take_stderr(&mut wrote);
        let was_up = st.sched.is_up(worker);
        let lacking = exit == Some(Exit::Code(LACKING)) && !was_up && !st.terminated;
        let cause = match slot.unfit.take() {
            None if was_up => LossCause::Died,
            said => LossCause::Unfit(said),
        };
        let loss = Arc::new(Loss { pid: slot.pid, exit, stderr: slot.tail.lines(), cause });
        if !was_up && !lacking {
            st.broken = Some(loss.clone());
        }
        st.loss = Some(loss.clone());
        if lacking {
            inner.worker_lacked(&mut st, worker, &loss.stderr);
        } else {
            st.sched.worker_gone(worker, |packet| slot.link.claimed(packet.position));
        }
        inner.advance(&mut st);
        inner.stir(&mut st);
        st.loss = None;
        drop(st);
        let late = slot.stderr.take().filter(|_| still_open);
        drop(slot);
        self.kick();
        tap::forward(&wrote);
        Arc::into_inner(late?)?.into_handle().ok()
    }
}
