//! The parent's side of a pool, for `maniple.pool`.

use crate::encode::{Encoder, Pickler, tag};
use crate::error::{helper, python};
use crate::function::{is_plain, name_of};
use crate::handles::borrow;
use crate::made;
use crate::signals::detached;
use crate::source::{self, Filled, Items};
use crate::ticket::{PyStream, PyTicket, Shape};
use crate::unended;
use maniple_engine::pool::{
    Chore, Chunk, Collect, Filling, Func, Hub, HubConfig, JobId, JobSpec, SourceKind, Ticket, WorkerId,
};
use maniple_engine::process::Exit;
use maniple_sys::{OwnedHandle, RawHandle};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyIterator, PyTuple};
use rustc_hash::FxHashMap;
use slotmap::{Key, KeyData};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Functions that are remembered across calls.
const REMEMBERED: usize = 64;
/// Payload bytes of a lazy job that may be under way or waiting to be taken.
const WINDOW_BYTES: usize = 64 << 20;

/// The parent's side of a pool: hands out tasks, takes in results.
#[pyclass(name = "Hub", module = "maniple._maniple", frozen)]
pub struct PyHub {
    hub: Hub,
    // Plain functions by their address; the object is held, so the address stays its own.
    known: Mutex<FxHashMap<usize, Known>>,
    // What the workers have of the program's main module: a `WorkerMain`.
    main: Py<PyAny>,
    // How many calls are being pickled, or have been and are not submitted yet.
    making: AtomicUsize,
    // The chore that could not be reported to the keeper, for lack of memory.
    unsaid: Mutex<Option<Chore>>,
}

/// One call that is being made.
struct Making<'h>(&'h AtomicUsize);

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Known {
    _object: Py<PyAny>,
    func: Func,
    name: Py<PyAny>,
    // Says whether what was sent by value still is what a call needs.
    fresh: Option<Py<PyAny>>,
}

fn key(worker: u64) -> WorkerId {
    KeyData::from_ffi(worker).into()
}

/// A function that refers to other objects: it is held until its call is over.
fn kept(func: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    Ok(if is_plain(func)? { None } else { Some(func.clone().unbind()) })
}

fn max_tasks(tasks: Option<u64>) -> PyResult<Option<NonZeroU64>> {
    let positive =
        |n| NonZeroU64::new(n).ok_or_else(|| PyValueError::new_err("maxtasksperchild must be a positive int or None"));
    tasks.map(positive).transpose()
}

impl PyHub {
    /// The function, known to the hub, and its name; a plain one is pickled once in the pool's life.
    fn func(&self, func: &Bound<'_, PyAny>) -> PyResult<(Func, Py<PyAny>)> {
        let py = func.py();
        let address = func.as_ptr() as usize;
        let plain = is_plain(func)?;
        if plain && let Some(found) = self.recall(py, address)? {
            return Ok(found);
        }
        let mut encoder = Encoder::new(py, self.hub.packer());
        encoder.value(func, Pickler::For(&self.main))?;
        let defined = self.hub.define(encoder.packet()?);
        let name = name_of(func)?.unbind();
        if plain {
            static FRESHNESS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let freshness = helper(py, &FRESHNESS, "freshness")?;
            let fresh = unended::call(freshness, (func, &self.main), None)?;
            let fresh = (!fresh.is_none()).then(|| fresh.unbind());
            let entry =
                Known { _object: func.clone().unbind(), func: defined.clone(), name: name.clone_ref(py), fresh };
            let mut known = self.known();
            let forgotten = if known.len() >= REMEMBERED { std::mem::take(&mut *known) } else { FxHashMap::default() };
            known.insert(address, entry);
            drop(known);
            // Dropping the removed entries may run code of the program.
            drop(forgotten);
        }
        Ok((defined, name))
    }

    /// A function that was sent before, unless something that it needs has been defined anew since.
    fn recall(&self, py: Python<'_>, address: usize) -> PyResult<Option<(Func, Py<PyAny>)>> {
        let known = self.known();
        let Some(entry) = known.get(&address) else { return Ok(None) };
        let found = (entry.func.clone(), entry.name.clone_ref(py));
        let Some(fresh) = &entry.fresh else { return Ok(Some(found)) };
        let fresh = fresh.clone_ref(py);
        drop(known); // the question runs Python code
        Ok(unended::call(fresh.bind(py), (), None)?.is_truthy()?.then_some(found))
    }

    fn make(&self) -> Making<'_> {
        self.making.fetch_add(1, Ordering::Relaxed);
        Making(&self.making)
    }

    fn known(&self) -> MutexGuard<'_, FxHashMap<usize, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inline(&self, items: &Bound<'_, PyAny>, star: bool) -> PyResult<(SourceKind, usize)> {
        let count = items.len()?;
        let mode = if star { tag::STARMAP } else { tag::MAP };
        let iterator = unended::iterate(items)?.unbind();
        let source = Items::new(iterator, count, mode, self.main.clone_ref(items.py()));
        if count == 0 {
            return Ok((SourceKind::Ready(Vec::new()), 0));
        }
        Ok((SourceKind::Inline(Box::new(source)), count))
    }

    fn submit(&self, spec: JobSpec, source: SourceKind) -> PyResult<Ticket> {
        self.hub.submit(spec, source).map_err(python)
    }
}

#[pymethods]
impl PyHub {
    #[new]
    #[pyo3(signature = (processes, maxtasksperchild, main, tap_stderr=true))]
    fn new(processes: usize, maxtasksperchild: Option<u64>, main: Py<PyAny>, tap_stderr: bool) -> PyResult<Self> {
        let max = max_tasks(maxtasksperchild)?;
        let hub = Hub::new(HubConfig { processes, max_tasks_per_child: max, tap_stderr }).map_err(python)?;
        Ok(PyHub { hub, known: Mutex::default(), main, making: AtomicUsize::new(0), unsaid: Mutex::default() })
    }

    // ---- workers ----

    /// A new worker's key, and the descriptors that its process must be given. The caller owns them. `counted`: an error counts as a start
    /// that has failed; otherwise the caller tries again.
    fn create_link(&self, counted: bool) -> PyResult<(u64, Vec<RawHandle>)> {
        let link = if counted { self.hub.create_link() } else { self.hub.try_create_link() };
        let (worker, handles) = link.map_err(python)?;
        Ok((worker.data().as_ffi(), handles.into_iter().map(OwnedHandle::into_raw).collect()))
    }

    /// The worker's process runs; its `sentinel` is readable from its end on, and stays open until `exited` was called.
    fn adopt(&self, worker: u64, pid: u32, sentinel: RawHandle) -> PyResult<()> {
        self.hub.adopt_by(key(worker), pid, borrow(&sentinel)?);
        Ok(())
    }

    /// The worker's process could not be started, which `why` explains.
    fn disown(&self, worker: u64, why: String) {
        self.hub.disown(key(worker), why);
    }

    /// The same if the caller retries later: the hub continues to wait for a worker.
    fn postpone(&self, worker: u64) {
        self.hub.postpone(key(worker));
    }

    /// No worker is ready and none can be started, which `why` explains: open jobs fail with it. The pool continues.
    fn give_up_jobs(&self, py: Python<'_>, why: String) {
        py.detach(|| self.hub.give_up_jobs(why));
    }

    /// Whether the pool takes calls, or has some that have not ended: a worker that is due is needed.
    fn needs_workers(&self, py: Python<'_>) -> bool {
        py.detach(|| self.hub.is_running() || !self.hub.open_jobs().is_empty())
    }

    /// How many workers have become ready since the pool began.
    fn greeted(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.hub.greeted())
    }

    /// The worker's process has ended; `exitcode` as in `Process.exitcode`. Returns the pipe that was its standard error if a program
    /// still writes there, which the caller owns, and whether it lacked something before it was ready: then the caller starts another.
    #[pyo3(signature = (worker, exitcode))]
    fn exited(&self, py: Python<'_>, worker: u64, exitcode: Option<i32>) -> (Option<RawHandle>, bool) {
        let exit = exitcode.map(Exit::from_number);
        let ended = py.detach(|| self.hub.exited(key(worker), exit));
        (ended.late.map(OwnedHandle::into_raw), ended.lacking)
    }

    /// Passes on what the worker, which is being started, has written to its standard error.
    fn pass_on(&self, py: Python<'_>, worker: u64) {
        py.detach(|| self.hub.pass_on_stderr(key(worker)));
    }

    /// The last lines of the standard error of a worker that has ended before it was ready. None: it was ready.
    fn last_words(&self, py: Python<'_>, worker: u64) -> Option<String> {
        py.detach(|| self.hub.last_words(key(worker)))
    }

    /// How many workers should be started now. The caller must start them.
    fn missing(&self) -> usize {
        self.hub.take_starts()
    }

    /// Waits for something that only the caller can do: `("start", n)`, `("reap", worker)`, `("completed", job)`, `("done", 0)`,
    /// `("idle", 0)`.
    ///
    /// After a `MemoryError` it is to be asked again, and says what it had to say.
    fn keep<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyTuple>> {
        let unsaid = || self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        let before = unsaid().take();
        let chore = before.unwrap_or_else(|| py.detach(|| self.hub.keep(Duration::from_secs_f64(timeout))));
        let (what, number) = match &chore {
            Chore::Start(n) => ("start", *n as u64),
            Chore::Reap(worker) => ("reap", worker.data().as_ffi()),
            Chore::Completed(job) => ("completed", job.data().as_ffi()),
            Chore::Done => ("done", 0),
            // No handle was given to listen to.
            Chore::Idle | Chore::Heard(_) => ("idle", 0),
        };
        made::text(py, what)
            .and_then(|what| made::tuple(py, [what.into_any(), made::unsigned(py, number)?]))
            .inspect_err(|_| *unsaid() = Some(chore))
    }

    /// Whether this thread was interrupted, by the signal handler that it runs, while it pickled a call's items.
    fn is_making_tasks(&self) -> bool {
        self.hub.is_in_source()
    }

    /// How things stand, for people.
    fn describe(&self) -> String {
        self.hub.describe()
    }

    /// Wakes the keeper.
    fn kick(&self) {
        self.hub.kick();
    }

    /// No more jobs.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.hub.close());
    }

    /// Drops all jobs that have not ended. Returns the workers that do not end by themselves now, since they are busy or still starting (true).
    fn terminate(&self, py: Python<'_>) -> Vec<(u64, bool)> {
        let unsettled = py.detach(|| self.hub.terminate());
        let known = std::mem::take(&mut *self.known());
        drop(known);
        unsettled.into_iter().map(|(worker, starting)| (worker.data().as_ffi(), starting)).collect()
    }

    /// Sets the number of workers from now on. Returns how many should be started now; the caller must start them.
    fn resize(&self, py: Python<'_>, processes: usize) -> usize {
        py.detach(|| self.hub.resize(processes))
    }

    /// After how many tasks a worker is replaced from now on.
    #[pyo3(signature = (maxtasksperchild))]
    fn set_max_tasks(&self, maxtasksperchild: Option<u64>) -> PyResult<()> {
        self.hub.set_max_tasks(max_tasks(maxtasksperchild)?);
        Ok(())
    }

    /// The jobs that have not ended: `{job: items that have an outcome}`.
    fn open_jobs(&self, py: Python<'_>) -> PyResult<BTreeMap<u64, usize>> {
        let open = detached(py, || self.hub.open_jobs())?;
        Ok(open.into_iter().map(|(job, done)| (job.data().as_ffi(), done)).collect())
    }

    /// How many jobs wait that no worker was given a task of, and how many tasks wait behind others at their worker.
    fn waiting(&self, py: Python<'_>) -> PyResult<(usize, usize)> {
        detached(py, || self.hub.waiting())
    }

    // ---- calls ----

    /// One call of `func(*args, **kwds)`.
    #[pyo3(signature = (func, args, kwds, notify))]
    fn call(
        &self,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        notify: bool,
    ) -> PyResult<PyTicket> {
        let py = func.py();
        let _making = self.make();
        let (func, name) = self.func(func)?;
        let mut encoder = Encoder::new(py, self.hub.packer());
        if kwds.is_empty() {
            encoder.mark(tag::APPLY);
            let args = match args.cast_exact::<PyTuple>() {
                Ok(args) => args.clone(),
                Err(_) => made::tuple(py, args.try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
            };
            encoder.tuple(&args, Pickler::For(&self.main))?;
        } else {
            encoder.mark(tag::KEYWORDS);
            encoder.value(PyTuple::new(py, [args, kwds.as_any()])?.as_any(), Pickler::For(&self.main))?;
        }
        let spec =
            JobSpec { func, collect: Collect::All, chunk: Chunk::Fixed(1), items: Some(1), window: None, notify };
        let ticket = self.submit(spec, SourceKind::Ready(vec![(1, encoder.packet()?)]))?;
        Ok(PyTicket::new(ticket, Shape::One, name))
    }

    /// `func` of each item of a list, tuple or range, all results at once.
    #[pyo3(signature = (func, items, star, chunksize, notify))]
    fn map(
        &self,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyAny>,
        star: bool,
        chunksize: Option<usize>,
        notify: bool,
    ) -> PyResult<PyTicket> {
        let kept = kept(func)?;
        let _making = self.make();
        let (func, name) = self.func(func)?;
        let (source, count) = self.inline(items, star)?;
        let chunk = chunksize.map_or(Chunk::Adaptive, Chunk::Fixed);
        let spec = JobSpec { func, collect: Collect::All, chunk, items: Some(count), window: None, notify };
        Ok(PyTicket::new(self.submit(spec, source)?, Shape::Many { count }, name).keeping(kept))
    }

    /// `func` of each item, results one by one. A list, tuple or range is read when there is room; for anything else the caller
    /// must run `feed` in a thread.
    #[pyo3(signature = (func, items, external, star, chunksize, window, ordered))]
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
    ) -> PyResult<PyStream> {
        let kept = kept(func)?;
        let _making = self.make();
        let (func, name) = self.func(func)?;
        let (source, count) = if external {
            (SourceKind::External, None)
        } else {
            let (source, count) = self.inline(items, star)?;
            (source, Some(count))
        };
        let collect = if ordered { Collect::Ordered } else { Collect::Unordered };
        let chunk = Chunk::Fixed(chunksize);
        let spec = JobSpec { func, collect, chunk, items: count, window: Some((window, WINDOW_BYTES)), notify: false };
        let ticket = self.submit(spec, source)?;
        if external {
            ticket.leave_undone(true);
        }
        Ok(PyStream::new(ticket, window, chunksize, name).keeping(kept))
    }

    /// Whether no call is under way, except one that the calling thread is making.
    fn is_idle(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.making.load(Ordering::Relaxed) <= 1 && self.open_jobs(py)?.is_empty())
    }

    /// Feeds a stream from an iterator, until it is exhausted or the job is over. For a thread of its own: the iterator may
    /// block.
    fn feed(&self, py: Python<'_>, job: u64, iterator: &Bound<'_, PyIterator>, star: bool) {
        let job: JobId = KeyData::from_ffi(job).into();
        let mode = if star { tag::STARMAP } else { tag::MAP };
        while let Some((tasks, items)) = py.detach(|| self.hub.wanted(job, Duration::from_secs(3600))) {
            if tasks == 0 {
                continue;
            }
            let mut ended = false;
            for _ in 0..tasks {
                let mut filling = Filling::new(self.hub.packer());
                let mut next = || unended::next(iterator);
                ended = match source::fill_from(&mut next, mode, self.main.bind(py), 1, items, 0, &mut filling) {
                    Filled::Ended => true,
                    Filled::Partly => false,
                    Filled::Broken(batch, error) => {
                        filling.unsent(batch.len(), Box::new(error));
                        batch.len() < items
                    }
                };
                if ended {
                    self.hub.feed(job, filling, true);
                    break;
                }
                self.hub.feed_one(job, filling);
            }
            if !ended {
                self.hub.feed(job, Filling::new(self.hub.packer()), false);
            }
            if ended {
                break;
            }
        }
    }
}
