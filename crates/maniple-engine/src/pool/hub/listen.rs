//! Receives the workers' messages. All of it runs with the hub's lock held.

use super::limits::Doom;
use super::{Inner, State};
use crate::error::{Error, Result};
use crate::pool::job::{Gone, Outcome, Settled};
use crate::pool::link::kind;
use crate::pool::packet::{Packet, ReceivedPacket};
use crate::pool::scheduler::{Answered, JobId, WorkerId};
use maniple_sys::clock;

impl Inner {
    /// Receives the messages of all workers.
    pub(super) fn listen(&self, st: &mut State) -> bool {
        let mut any = false;
        // The list and its memory are kept, because this runs for every few tasks.
        let mut workers = std::mem::take(&mut st.roster);
        workers.clear();
        workers.extend(st.slots.keys());
        for &worker in &workers {
            any |= self.hear_out(st, worker);
        }
        st.roster = workers;
        any
    }

    /// Receives the messages of one worker.
    pub(super) fn hear_out(&self, st: &mut State, worker: WorkerId) -> bool {
        let mut any = false;
        let mut now = None;
        loop {
            let Some(slot) = st.slots.get_mut(worker).filter(|p| p.is_heard()) else { return any };
            // The caller has learned that the task is cancelled, which has ended before its worker did.
            let too_late = matches!(slot.doom, Some(Doom::Cancelled));
            let heard = match slot.link.recv() {
                Ok(None) => return any,
                Ok(Some(said)) => match said.kind {
                    kind::HELLO => slot.account.greet().map(|()| {
                        slot.confine(self.limits.memory);
                        st.sched.worker_up(worker, *now.get_or_insert_with(clock::now));
                    }),
                    kind::UNFIT => slot.account.fail().map(|()| slot.unfit = said.content.ok()),
                    kind::MISSED => slot.account.miss().map(|()| {
                        slot.functions.remove(&said.aux);
                    }),
                    kind::TAKEN => match slot.untaken.iter().position(|&number| number == said.number) {
                        Some(at) => {
                            slot.untaken.swap_remove(at);
                            if let Some(task) = st.sched.task(worker, said.number) {
                                task.payload.handles = Box::default();
                                task.payload.gave_handles = true;
                            }
                            Ok(())
                        }
                        None => Err(Error::Damaged("the worker reports handles that it was not sent")),
                    },
                    kind::FAILED_AGAIN => slot.answer(&said).and_then(|took| {
                        let now = *now.get_or_insert_with(clock::now);
                        let how = if too_late { Answered::Cancelled } else { Answered::Failed };
                        let failed = st.sched.failed(worker, said.number, took, how, now, Packet::is_whole);
                        let outcome = match said.content {
                            _ if too_late => Outcome::Cancelled,
                            Ok(content) => Outcome::Failed(content),
                            Err(why) => Outcome::Unreceived(Box::new(why)),
                        };
                        match failed {
                            Some(((job, index, _), true)) => {
                                if let Some(j) = st.jobs.get_mut(&job) {
                                    j.tried(index, outcome);
                                }
                                Ok(())
                            }
                            Some(((job, index, items), false)) => {
                                let number = said.number;
                                st.settle(job, Settled { index, number, items, outcome });
                                Ok(())
                            }
                            None => st.unexpected_answer(),
                        }
                    }),
                    kind::DONE | kind::DONE_IN_PART | kind::FAILED => slot.answer(&said).and_then(|took| {
                        let now = *now.get_or_insert_with(clock::now);
                        let how = match &said.content {
                            _ if too_late => Answered::Cancelled,
                            Ok(_) if said.kind == kind::DONE => Answered::Completed,
                            _ => Answered::Failed,
                        };
                        match st.sched.finished(worker, said.number, took, how, now) {
                            Some((job, index, items)) => {
                                st.weigh(job, items, said.content.as_ref().map_or(0, ReceivedPacket::size));
                                let outcome = match said.content {
                                    _ if too_late => Outcome::Cancelled,
                                    Ok(content) if said.kind == kind::FAILED => Outcome::Failed(content),
                                    Ok(content) => Outcome::Done(content),
                                    Err(why) => Outcome::Unreceived(Box::new(why)),
                                };
                                st.settle(job, Settled { index, number: said.number, items, outcome });
                                Ok(())
                            }
                            None => st.unexpected_answer(),
                        }
                    }),
                    _ => Err(Error::Damaged("a frame of a kind that does not exist")),
                },
                Err(e) => Err(e),
            };
            any = true;
            if let Err(why) = heard
                && let Some(slot) = st.slots.get_mut(worker)
            {
                slot.condemn(&why);
            }
        }
    }
}

impl State {
    /// The scheduler does not know the task of an answer: after a termination, or when the pool has failed, it no longer
    /// knows the tasks that still run.
    fn unexpected_answer(&self) -> Result<()> {
        if self.terminated || self.sched.is_broken() {
            return Ok(());
        }
        Err(Error::Damaged("an answer to a task that the worker was not given"))
    }

    /// A task has ended.
    pub(super) fn settle(&mut self, job: JobId, settled: Settled) {
        if matches!(settled.outcome, Outcome::Cancelled)
            && let Some(j) = self.jobs.get(&job)
        {
            j.cell.note_cancelled();
        }
        match self.jobs.get_mut(&job).map(|j| (j.settle(settled), &j.cell)) {
            Some((Ok(true), cell)) => {
                self.gone.extend(cell.call().map(Gone::Awaited));
                self.called = true;
            }
            Some((Err(unwanted), _)) => self.gone.push(Gone::One(unwanted)),
            Some((Ok(false), _)) | None => {}
        }
    }

    /// Narrows the window of a job whose payloads are large.
    pub(super) fn weigh(&mut self, job: JobId, items: usize, bytes: usize) {
        if let Some(window) = self.jobs.get_mut(&job).and_then(|j| j.weigh(items, bytes)) {
            self.sched.narrow(job, window);
        }
    }

    /// Forgets a job.
    pub(super) fn discard(&mut self, job: JobId) {
        self.gone.extend(self.jobs.remove(&job).map(|job| Gone::Job(Box::new(job))));
    }
}
