//! Submits a call as a job of the hub.

use super::Pool;
use super::backlog::Backlog;
use super::imap::Imap;
use super::job_handle::{self, Finish, JobHandle};
use super::options::Resolved;
use super::results::Reader;
use super::source::{Feeder, Items, single};
use crate::call::{self, Call, Plain};
use crate::callee::{About, Callee};
use crate::chunk::Output;
use crate::error::{Error, ProcessError, Result};
use crate::payload::Payload;
use maniple_engine::pool::policy::FUNCTIONS;
use maniple_engine::pool::{Chunk, Collect, Func, JobSpec, Packet, Room, SourceKind};
use std::sync::PoisonError;

/// A call of one item, encoded.
pub(super) struct Prepared {
    spec: JobSpec,
    packet: Packet,
    about: About,
    pub backlog: Option<Backlog>,
}

impl Pool {
    pub(super) fn one<A: Payload, R: Payload>(&self, func: Func, function: Callee, item: A) -> Result<JobHandle<R>> {
        let call = self.prepared(func, function, item)?;
        // After the encoding, which runs code of the program.
        let room = self.room(call.backlog)?;
        self.submit(call, room)
    }

    /// Encodes a call of one item.
    pub(super) fn prepared<A: Payload>(&self, func: Func, function: Callee, item: A) -> Result<Prepared> {
        let Resolved { chunk, terms, backlog, .. } = self.options.resolve()?;
        let packet = single(&item, self.shared.hub.packer())?;
        let about = About { method: "apply", function };
        let spec = JobSpec { func, collect: Collect::All, chunk, items: Some(1), window: None, notify: false, terms };
        Ok(Prepared { spec, packet, about, backlog })
    }

    /// Submits a call of one item, in the room that was kept for it.
    pub(super) fn submit<R: Payload>(&self, call: Prepared, room: Option<Room>) -> Result<JobHandle<R>> {
        let Prepared { spec, packet, about, .. } = call;
        let job = self.shared.hub.submit_in(room, spec, SourceKind::Ready(vec![(1, packet)]))?;
        Ok(JobHandle::new(self.shared.clone(), job, Reader::new(about, Some(1)), job_handle::one))
    }

    /// Returns the call as a function that the workers know, possibly from an earlier call.
    pub(super) fn known<C: Call>(&self, call: &C) -> Result<Func> {
        self.known_as(call.callee(), |output| match self.shared.program {
            None => call::send(call, output),
            Some(_) => call.send_name(output),
        })
    }

    pub(super) fn known_as(&self, callee: Callee, write: impl FnOnce(&mut Output) -> Result<()>) -> Result<Func> {
        let mut output = Output::new(self.shared.hub.packer());
        write(&mut output)?;
        let mut functions = self.shared.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, func)) = functions.iter().rev().find(|(bytes, _)| bytes == output.bytes()) {
            return Ok(func.clone());
        }
        let bytes = output.bytes().to_vec();
        let func = self.shared.hub.define_as(output.pack()?, Some(callee.shown()));
        if functions.len() >= FUNCTIONS {
            functions.pop_front();
        }
        functions.push_back((bytes, func.clone()));
        Ok(func)
    }

    pub(super) fn all<A: Payload, T>(
        &self,
        func: Func,
        method: &'static str,
        function: Callee,
        items: impl IntoIterator<Item = A>,
        finish: Finish<T>,
    ) -> Result<JobHandle<T>> {
        let Resolved { chunk, terms, .. } = self.options.resolve()?;
        // All items are taken first, so that their number is known, and so that iterators may borrow.
        let items: Vec<A> = items.into_iter().collect();
        let count = items.len();
        let source = Box::new(Items::new(items, self.shared.hub.packer()));
        let spec =
            JobSpec { func, collect: Collect::All, chunk, items: Some(count), window: None, notify: false, terms };
        let job = self.shared.hub.submit(spec, SourceKind::Inline(source))?;
        let reader = Reader::new(About { method, function }, Some(count));
        Ok(JobHandle::new(self.shared.clone(), job, reader, finish))
    }

    pub(super) fn lazy<A: Payload, R: Payload, I>(
        &self,
        function: fn(A) -> R,
        method: &'static str,
        collect: Collect,
        items: I,
    ) -> Result<Imap<R>>
    where
        I: Iterator<Item = A> + Send + 'static,
    {
        let Resolved { chunk, window, terms, .. } = self.options.resolve()?;
        let func = self.known(&Plain(function))?;
        let known = match items.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        let spec = JobSpec { func, collect, chunk, items: known, window: Some(window), notify: false, terms };
        let job = self.shared.hub.submit(spec, SourceKind::External)?;
        // Several chunks fit into the window, so that a worker runs one while another is submitted.
        let share = (chunk == Chunk::Adaptive).then_some((window.0 / 4).max(1));
        let feeder = Feeder::start(&self.shared.hub, job.job(), share, collect == Collect::Unordered, items)
            // No thread will feed it, so no caller may wait for it.
            .inspect_err(|_| {
                job.cancel(false);
            })
            .map_err(|e| {
                Error::Process(ProcessError::Start(format!(
                    "a thread that reads the input (see ulimit -u and -v): {e}"
                )))
            })?;
        let about = About { method, function: Plain(function).callee() };
        Ok(Imap::new(self.shared.clone(), job, window.0, Reader::new(about, None), feeder))
    }
}
