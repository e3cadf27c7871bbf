//! The parent's side of a pool, for `maniple.pool`.

use crate::args::{Arg as _, Args as _, Out};
use crate::encode::{Encoder, Pickler};
use crate::error::python;
use crate::feed::feed;
use crate::function::kept;
use crate::handles::borrow;
use crate::known::Remembered;
use crate::made;
use crate::payload_format::tag;
use crate::seed::Head;
use crate::signals::detached;
use crate::sizes::{max_tasks, room};
use crate::source::Items;
use crate::statistics;
use crate::stream::PyStream;
use crate::terms::{Given, PyTerms, given};
use crate::ticket::{PyTicket, Shape};
use crate::unended;
use maniple_engine::pool::policy::{self, LINGER, WINDOW};
use maniple_engine::pool::{
    Chore, Chunk, Collect, End, EndTerms, Func, Hub, HubConfig, JobSpec, Packet, Room, Size, SourceKind, Terms, Ticket,
    WorkerId, WorkerLimits,
};
use maniple_engine::process::Exit;
use maniple_sys::{AsHandle as _, RawHandle};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};
use slotmap::{Key, KeyData};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The parent's side of a pool: distributes tasks and receives results.
#[pyclass(name = "Hub", module = "maniple._maniple", frozen)]
pub struct PyHub {
    pub(super) hub: Hub,
    // Plain functions by their addresses. The entry holds the object, so no other object gets the address.
    pub(super) known: Mutex<Remembered>,
    // A `WorkerMain`: which parts of the program's main module the workers have.
    pub(super) main: Py<PyAny>,
    // The number of calls that are being pickled, or are pickled and not submitted yet.
    making: AtomicUsize,
    // A chore that could not be reported to the keeper, for lack of memory.
    unreported: Mutex<Option<Chore>>,
}

/// A pickled call.
struct One {
    spec: JobSpec,
    packet: Packet,
    name: Py<PyAny>,
    returns: bool,
}

/// A call that is being made.
pub struct Making<'h>(&'h AtomicUsize);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn key(worker: u64) -> WorkerId {
    KeyData::from_ffi(worker).into()
}

impl PyHub {
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Pickles a call of `func(*args, **kwds)`. Returns it with the function and its name.
    pub fn pack_call(
        &self,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        header: &[u8],
    ) -> PyResult<(Func, Py<PyAny>, Packet)> {
        let py = func.py();
        let (func, name) = self.func(func)?;
        let mut encoder = Encoder::new(py, self.hub.packer());
        encoder.header(header);
        if kwds.is_empty() {
            encoder.mark(tag::APPLY);
            let args = match args.cast_exact::<PyTuple>() {
                Ok(args) => args.clone(),
                Err(_) => made::tuple(py, args.try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
            };
            encoder.tuple(&args, Pickler::For(&self.main))?;
        } else {
            encoder.mark(tag::KEYWORDS);
            encoder.value((args, kwds).tuple(py)?.as_any(), Pickler::For(&self.main))?;
        }
        Ok((func, name, encoder.packet()?))
    }

    /// Pickles one call of `func(*items)` for each of a list of tuples.
    pub fn pack_chunk(
        &self,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyList>,
        header: &[u8],
    ) -> PyResult<(Func, Py<PyAny>, Packet)> {
        let (func, name) = self.func(func)?;
        let mut encoder = Encoder::new(items.py(), self.hub.packer());
        encoder.header(header);
        encoder.mark(tag::STARMAP);
        encoder.list(items, Pickler::For(&self.main))?;
        Ok((func, name, encoder.packet()?))
    }

    /// Submits one task of so many items, whose end is reported.
    pub fn submit_task(&self, func: Func, items: usize, packet: Packet, terms: Option<Arc<Terms>>) -> PyResult<Ticket> {
        let (collect, chunk) = (Collect::All, Chunk::Fixed(items.max(1)));
        let spec = JobSpec { func, collect, chunk, items: Some(items), window: None, notify: true, terms };
        self.submit(spec, SourceKind::Ready(vec![(items, packet)]))
    }

    pub fn make(&self) -> Making<'_> {
        self.making.fetch_add(1, Ordering::Relaxed);
        Making(&self.making)
    }

    fn inline(&self, items: &Bound<'_, PyAny>, head: Head) -> PyResult<(SourceKind, usize)> {
        let count = items.len()?;
        let iterator = unended::iterate(items)?.unbind();
        let source = Items::new(iterator, count, head, self.main.clone_ref(items.py()));
        if count == 0 {
            return Ok((SourceKind::Ready(Vec::new()), 0));
        }
        Ok((SourceKind::Inline(Box::new(source)), count))
    }

    /// Pickles one call, for its submission.
    fn one(
        &self,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        notify: bool,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<One> {
        let Given { terms, header, returns, .. } = given(terms);
        let (func, name, packet) = self.pack_call(func, args, kwds, &header)?;
        let (collect, chunk) = (Collect::All, Chunk::Fixed(1));
        let spec = JobSpec { func, collect, chunk, items: Some(1), window: None, notify, terms };
        Ok(One { spec, packet, name, returns })
    }

    fn submit_one(&self, room: Option<Room>, One { spec, packet, name, returns }: One) -> PyResult<PyTicket> {
        let ticket = self.hub.submit_in(room, spec, SourceKind::Ready(vec![(1, packet)])).map_err(python)?;
        Ok(PyTicket::new(ticket, Shape::One { returns }, name))
    }

    fn submit(&self, spec: JobSpec, source: SourceKind) -> PyResult<Ticket> {
        self.hub.submit(spec, source).map_err(python)
    }
}

#[pymethods]
impl PyHub {
    /// The number of items of an `imap` that may be under way or wait to be taken, unless the caller passes another.
    #[classattr]
    const WINDOW: usize = WINDOW.0;

    /// The number of seconds that a worker has for its end before it is killed.
    #[classattr]
    const GRACE: f64 = policy::GRACE.as_secs() as f64;

    /// The same number for a worker that does not react to the signal.
    #[classattr]
    const NOTICE: f64 = policy::NOTICE.as_millis() as f64 / 1000.0;

    /// The number of seconds before a start is retried after a shortage: at first, and at most.
    #[classattr]
    const START_PAUSES: (f64, f64) =
        (policy::START_PAUSES.0.as_millis() as f64 / 1000.0, policy::START_PAUSES.1.as_millis() as f64 / 1000.0);

    /// The number of seconds before another failed step is retried.
    #[classattr]
    const AGAIN: f64 = policy::AGAIN.as_millis() as f64 / 1000.0;

    /// How many starts may fail in a row, in a pool of so many workers without a living worker, before the pool fails.
    #[staticmethod]
    fn failures_at_most(processes: usize) -> usize {
        policy::failures_at_most(processes)
    }

    #[new]
    #[pyo3(signature = (processes, maxtasksperchild, main, tap_stderr=true, start_limit=None, memory_limit=None, recycle_limit=None, least=None, idle=0.0, spares=0))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        processes: usize,
        maxtasksperchild: Option<u64>,
        main: Py<PyAny>,
        tap_stderr: bool,
        start_limit: Option<f64>,
        memory_limit: Option<u64>,
        recycle_limit: Option<u64>,
        least: Option<usize>,
        idle: f64,
        spares: usize,
    ) -> PyResult<Self> {
        let max = max_tasks(maxtasksperchild)?;
        let start = start_limit.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        let size = Size { least, idle: Duration::try_from_secs_f64(idle).unwrap_or(Duration::MAX), spares };
        let limits = WorkerLimits { start, memory: memory_limit, recycle: recycle_limit };
        let hub =
            Hub::new(HubConfig { processes, max_tasks_per_child: max, tap_stderr, limits, size }).map_err(python)?;
        Ok(PyHub { hub, known: Mutex::default(), main, making: AtomicUsize::new(0), unreported: Mutex::default() })
    }

    // ---- workers ----

    /// Returns the number of a worker in its pool, from 0 on. Two workers never have the same number at once.
    fn number_of(&self, worker: u64) -> Out<usize> {
        Out(self.hub.number_of(key(worker)).unwrap_or_default())
    }

    /// Begins a start, if one is due. Returns the worker's key, and the descriptors for its process, which the caller
    /// owns. The caller calls `adopt` or, after any error, `start_failed`.
    fn begin_start<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some((worker, handles)) = self.hub.begin_start().map_err(python)? else { return Ok(None) };
        let numbers: Vec<RawHandle> = handles.iter().map(|handle| handle.as_handle().as_raw()).collect();
        let begun = (worker.data().as_ffi(), numbers).object(py);
        if begun.is_ok() {
            // The caller owns them.
            handles.into_iter().for_each(|handle| _ = handle.into_raw());
        } else {
            py.detach(|| self.hub.start_failed(Some(worker), "there is no memory".to_owned(), true));
        }
        begun.map(Some)
    }

    /// Records that the start has failed, and the reason. `is_short`: the system lacks a resource that may be available
    /// again later.
    fn start_failed(&self, py: Python<'_>, worker: Option<u64>, why: String, is_short: bool) {
        py.detach(|| self.hub.start_failed(worker.map(key), why, is_short));
    }

    /// Records that the worker's process runs. `sentinel` is readable once the process has ended, and stays open until
    /// `exited` is called. Returns False if the pool was terminated before the process started: the caller ends it.
    fn adopt(&self, worker: u64, pid: u32, sentinel: RawHandle) -> PyResult<bool> {
        Ok(self.hub.adopt_by(key(worker), pid, borrow(&sentinel)?))
    }

    /// Records that the worker's process has ended; `exitcode` has the form of `Process.exitcode`. Returns the pipe
    /// that was its standard error if another process still writes to it; the caller owns the pipe.
    #[pyo3(signature = (worker, exitcode))]
    fn exited<'py>(&self, py: Python<'py>, worker: u64, exitcode: Option<i32>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let exit = exitcode.map(Exit::from_number);
        let Some(tap) = py.detach(|| self.hub.exited(key(worker), exit)) else { return Ok(None) };
        // Without memory for its number, the pipe is closed here.
        let number = tap.as_handle().as_raw().object(py)?;
        let _ = tap.into_raw();
        Ok(Some(number))
    }

    /// Passes on the text that a starting worker has written to its standard error.
    fn pass_on(&self, py: Python<'_>, worker: u64) {
        py.detach(|| self.hub.pass_on_stderr(key(worker)));
    }

    /// Returns the last lines of the standard error of a worker that ended before it was ready; None if it was ready.
    fn last_words(&self, py: Python<'_>, worker: u64) -> Out<Option<String>> {
        Out(py.detach(|| self.hub.last_words(key(worker))))
    }

    /// Waits for a chore that only the caller can do: `("start", 0)`, `("end", 0)`, `("reap", worker)`, `("completed",
    /// job)`, `("fill", 0)`, `("done", 0)`, `("idle", 0)`.
    ///
    /// After a `MemoryError` the next call returns the same chore.
    fn keep<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyTuple>> {
        let unreported = || self.unreported.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unreported().take();
        let chore = before.unwrap_or_else(|| py.detach(|| self.hub.keep(Duration::from_secs_f64(timeout))));
        let (what, number) = match &chore {
            Chore::Start => ("start", 0),
            Chore::End => ("end", 0),
            Chore::Reap(worker) => ("reap", worker.data().as_ffi()),
            Chore::Completed(job) => ("completed", job.data().as_ffi()),
            Chore::Fill => ("fill", 0),
            Chore::Done => ("done", 0),
            // There is no handle to watch.
            Chore::Idle | Chore::Heard(_) => ("idle", 0),
        };
        made::text(py, what)
            .and_then(|what| made::tuple(py, [what.into_any(), made::unsigned(py, number)?]))
            .inspect_err(|_| *unreported() = Some(chore))
    }

    /// Pickles the items of calls for which no thread waits: those that are due, and those that become due. Returns when
    /// none has been due for a while, if it `lingers`; otherwise at once.
    fn fill(&self, py: Python<'_>, lingers: bool) {
        py.detach(|| self.hub.fill(if lingers { LINGER } else { Duration::ZERO }));
    }

    /// Waits until workers have to be started, and returns True. Returns False if none had to be started for a while, if it
    /// `lingers`; otherwise at once. A thread that does not call it again after True calls `leave_starts`.
    fn next_starts(&self, py: Python<'_>, lingers: bool) -> bool {
        py.detach(|| self.hub.next_starts(if lingers { LINGER } else { Duration::ZERO }))
    }

    /// Records that the thread that starts workers ends.
    fn leave_starts(&self) {
        self.hub.leave_starts();
    }

    /// Returns whether the calling thread runs a signal handler that has interrupted the pickling of a call's items.
    fn is_making_tasks(&self) -> bool {
        self.hub.is_in_source()
    }

    /// Returns the state of the pool as text, for people.
    fn describe(&self) -> Out<String> {
        Out(self.hub.describe())
    }

    /// Wakes the keeper.
    fn kick(&self) {
        self.hub.kick();
    }

    /// Refuses further jobs.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.hub.close());
    }

    /// Drops all jobs that have not ended. `ignored`: the workers ignore SIGTERM. `late`: a starting worker would run
    /// its parent's handler.
    fn terminate(&self, py: Python<'_>, ignored: bool, late: bool) {
        py.detach(|| self.hub.terminate(EndTerms::asking(ignored, late)));
        let known = std::mem::take(&mut *self.known());
        drop(known);
    }

    /// Returns how the caller has to end a worker of a terminated pool now: `(worker, "terminate")` or `(worker,
    /// "kill")`; None if there is nothing to do.
    fn next_end(&self, py: Python<'_>) -> Out<Option<(u64, &'static str)>> {
        let due = py.detach(|| self.hub.next_end());
        let way = |end| if end == End::Ask { "terminate" } else { "kill" };
        Out(due.map(|(worker, end)| (worker.data().as_ffi(), way(end))))
    }

    /// Sets the number of workers from now on. The caller starts the workers that are due. `shrinks`: surplus workers end.
    #[pyo3(signature = (processes, shrinks=false))]
    fn resize(&self, py: Python<'_>, processes: usize, shrinks: bool) {
        py.detach(|| self.hub.resize(processes, shrinks));
    }

    /// Sets the number of tasks after which a worker is replaced.
    #[pyo3(signature = (maxtasksperchild))]
    fn set_max_tasks(&self, maxtasksperchild: Option<u64>) -> PyResult<()> {
        self.hub.set_max_tasks(max_tasks(maxtasksperchild)?);
        Ok(())
    }

    /// Cancels all jobs: tasks that have not begun do not begin. `end_running`: the workers that run tasks are ended.
    fn cancel_all(&self, py: Python<'_>, end_running: bool) {
        py.detach(|| self.hub.cancel_all(end_running));
    }

    /// Returns the jobs that have not ended: `{job: items that have an outcome}`.
    fn open_jobs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let open = detached(py, || self.hub.open_jobs())?;
        let jobs = made::dict(py)?;
        for (job, done) in open {
            jobs.set_item(job.data().as_ffi().object(py)?, done.object(py)?)?;
        }
        Ok(jobs)
    }

    /// Returns the number of jobs of which no worker has a task, and the number of tasks that wait behind others at
    /// their worker.
    fn waiting(&self, py: Python<'_>) -> PyResult<Out<(usize, usize)>> {
        detached(py, || self.hub.waiting()).map(Out)
    }

    /// Returns what the pool has counted so far.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        statistics::object(py, &detached(py, || self.hub.stats())?.map_err(python)?)
    }

    // ---- calls ----

    /// Makes one call of `func(*args, **kwds)`.
    #[pyo3(signature = (func, args, kwds, notify, terms=None))]
    fn call(
        &self,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        notify: bool,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<PyTicket> {
        let _making = self.make();
        let call = self.one(func, args, kwds, notify, terms)?;
        self.submit_one(None, call)
    }

    /// As `call`, if fewer than `most` calls of a single task wait for a worker. Otherwise it waits for that, or returns None
    /// if `blocks` is false.
    #[allow(clippy::too_many_arguments)]
    fn call_if_room(
        &self,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        notify: bool,
        terms: Option<&Bound<'_, PyTerms>>,
        most: usize,
        blocks: bool,
    ) -> PyResult<Option<PyTicket>> {
        let _making = self.make();
        let call = self.one(func, args, kwds, notify, terms)?;
        let room = room(func.py(), &self.hub, most, blocks)?;
        room.map(|room| self.submit_one(Some(room), call)).transpose()
    }

    /// Calls `func` for each item of a list, tuple or range. All results arrive together.
    #[pyo3(signature = (func, items, star, chunksize, notify, terms=None))]
    #[allow(clippy::too_many_arguments)]
    fn map(
        &self,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        star: bool,
        chunksize: Option<usize>,
        notify: bool,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<PyTicket> {
        let kept = kept(func)?;
        let _making = self.make();
        let (func, name) = self.func(func)?;
        let Given { terms, header, single, returns } = given(terms);
        let (source, count) = self.inline(items, Head::new(&header, star))?;
        let chunk = if single { Chunk::Fixed(1) } else { chunksize.map_or(Chunk::Adaptive, Chunk::Fixed) };
        let spec = JobSpec { func, collect: Collect::All, chunk, items: Some(count), window: None, notify, terms };
        Ok(PyTicket::new(self.submit(spec, source)?, Shape::Many { count, returns }, name).keeping(kept))
    }

    /// Calls `func` for each item. The results arrive separately. A list, tuple or range is read when there is room;
    /// for any other iterable the caller must run `feed` in a thread.
    #[pyo3(signature = (func, items, external, star, chunksize, window, ordered, terms=None))]
    #[allow(clippy::too_many_arguments)]
    fn stream(
        &self,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        external: bool,
        star: bool,
        chunksize: usize,
        window: usize,
        ordered: bool,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<PyStream> {
        let kept = kept(func)?;
        let _making = self.make();
        let (func, name) = self.func(func)?;
        let Given { terms, header, single, returns } = given(terms);
        let chunksize = if single { 1 } else { chunksize };
        let (source, count) = if external {
            (SourceKind::External, None)
        } else {
            let (source, count) = self.inline(items, Head::new(&header, star))?;
            (source, Some(count))
        };
        let collect = if ordered { Collect::Ordered } else { Collect::Unordered };
        let chunk = Chunk::Fixed(chunksize);
        let spec =
            JobSpec { func, collect, chunk, items: count, window: Some((window, WINDOW.1)), notify: false, terms };
        let ticket = self.submit(spec, source)?;
        if external {
            ticket.leave_undone(true);
        }
        Ok(PyStream::new(ticket, window, chunksize, name, returns).keeping(kept))
    }

    /// Returns whether no call is under way, except a call that the calling thread is making.
    fn is_idle(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.making.load(Ordering::Relaxed) <= 1 && self.open_jobs(py)?.is_empty())
    }

    /// Feeds a stream from an iterator until the iterator is exhausted or the job has ended. The caller uses a separate
    /// thread, because the iterator may block.
    #[pyo3(signature = (job, iterator, star, terms=None))]
    fn feed(
        &self,
        py: Python<'_>,
        job: u64,
        iterator: &Bound<'_, PyIterator>,
        star: bool,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<()> {
        feed(
            py,
            &self.hub,
            KeyData::from_ffi(job).into(),
            iterator,
            Head::new(&given(terms).header, star),
            self.main.bind(py),
        )
    }
}
