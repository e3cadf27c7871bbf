//! What is left of a worker: its last words, and the news of how it ended.

use super::Hub;
use super::peers::Peer;
use crate::pool::job::{Loss, LossCause};
use crate::pool::scheduler::WorkerId;
use crate::process::Exit;
use maniple_sys::AsHandle;
use maniple_sys::{OwnedHandle, tap};
use std::sync::Arc;

impl Peer {
    /// Takes what the worker wrote to its standard error, to be passed on with [`tap::forward`] once the hub's lock is free: the reader
    /// there may be waiting for something that a holder of the lock has. False: the worker has closed it.
    pub fn take_stderr(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(handle) = self.link.stderr.clone() else { return false };
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
                    self.link.stderr = None;
                    return false;
                }
            }
        }
        true
    }
}

/// The exit code of a worker that lacked something before it was ready: memory, a thread, a descriptor (`EX_TEMPFAIL`).
pub const LACKING: i32 = 75;

/// What the front has still to do about a worker that was reaped.
#[derive(Debug, Default)]
pub struct Ended {
    /// The pipe that was its standard error where something still has the other end, such as a program that a task has started.
    /// Whatever that writes is to be read: it would be killed for writing to a pipe that is closed.
    pub late: Option<OwnedHandle>,
    /// It ended with [`LACKING`] before it was ready. The hub does not count that as a start that has failed: the front starts another one,
    /// after a pause.
    pub lacking: bool,
}

impl Hub {
    /// Passes on what a worker has written to its standard error. The keeper does so all the time; this is for a thread that waits for a
    /// worker which may itself wait for room there.
    pub fn pass_on_stderr(&self, worker: WorkerId) {
        let mut wrote = Vec::new();
        if let Some(peer) = self.lock().peers.get_mut(worker) {
            peer.take_stderr(&mut wrote);
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
            st.peers.get_mut(worker).map(|peer| {
                peer.take_stderr(&mut wrote);
                peer.tail.lines()
            })
        };
        drop(st);
        tap::forward(&wrote);
        words
    }

    /// A worker's process was reaped. Its running task, if there was one, ends; the others go to other workers.
    pub fn exited(&self, worker: WorkerId, exit: Option<Exit>) -> Ended {
        if self.check().is_err() {
            return Ended::default();
        }
        let inner = self.shared();
        let mut st = self.lock();
        // What it had published before it died counts.
        inner.hear_out(&mut st, worker);
        let Some(mut peer) = st.peers.remove(worker) else { return Ended::default() };
        let mut wrote = Vec::new();
        let still_open = peer.take_stderr(&mut wrote);
        let was_up = st.sched.is_up(worker);
        let lacking = exit == Some(Exit::Code(LACKING)) && !was_up && !st.terminated;
        let cause = match peer.unfit.take() {
            None if was_up => LossCause::Died,
            said => LossCause::Unfit(said),
        };
        let loss = Arc::new(Loss { pid: peer.pid, exit, stderr: peer.tail.lines(), cause });
        if !was_up && !lacking {
            st.broken = Some(loss.clone());
        }
        st.loss = Some(loss);
        if lacking {
            st.sched.worker_postponed(worker);
        } else {
            let sender = peer.link.sender();
            st.sched.worker_gone(worker, |packet| sender.claimed(packet.position));
        }
        inner.advance(&mut st);
        inner.stir(&mut st);
        st.loss = None;
        drop(st);
        let late = peer.link.stderr.take().filter(|_| still_open);
        drop(peer);
        self.kick();
        tap::forward(&wrote);
        Ended { late: late.and_then(|pipe| Arc::into_inner(pipe)?.into_handle().ok()), lacking }
    }
}
