//! `Futures`: the futures of an executor's tasks, and their completion in batches.
//!
//! A future without a `_condition` is *plain*: no thread sleeps on it and it has no callbacks, because each of these
//! needs the condition, which a future makes at its first use. Any thread completes a plain future by two assignments,
//! which run no Python code. All other futures are completed by the pool's keeper, which calls the helper `settle`.
//!
//! ```text
//! submit ─▶ open ──(the task has ended)──▶ ready ──(decoded)──▶ plain future
//!                                                        └────▶ slow ─(keeper)─▶ `settle`
//! ```
//! The thread that waits for a future is the *collector*: it drives the hub, and completes the futures whose tasks have
//! ended, until its own is complete. So no other thread, and no second wake-up, is between a worker and this thread. The
//! keeper completes futures while no thread collects.
//!
//! No lock of this module is held while Python code runs.

use crate::args::Out;
use crate::deadline::deadline;
use crate::error::Saying as _;
use crate::greenlets;
use crate::hub::PyHub;
use crate::made::name;
use crate::outcome::{Interrupt, Kind, Piece, Regions, failure, miscounted, results};
use crate::signals::{detached, interrupts, leaves};
use crate::terms::{self, Given, PyTerms};
use crate::unended;
use maniple_engine::pool::policy::{AGAIN, START_PATIENCE};
use maniple_engine::pool::{Collector, Func, JobId, Packet, Settled, Terms};
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use rustc_hash::FxHashMap;
use slotmap::{Key, KeyData};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const LOST: &str = "there was no memory to unpickle the result for ten seconds, and the result is lost: \
    raise the limit (ulimit -v), or return less";

/// A task that has not ended.
struct Open {
    future: Py<PyAny>,
    name: Py<PyAny>,
    // The number of results, of a chunk of calls; `None`: one call.
    count: Option<usize>,
    // The number of the submission.
    turn: u64,
    // Since when there is no memory to decode its outcome.
    lacks_since: Option<Instant>,
}

/// An outcome to be decoded, and its large buffers once a thread has begun that.
type Ended = (Open, Piece, Regions);

/// A pickled call: the function, its name, the content, and the number of items.
type Packed = (Func, Py<PyAny>, Packet, usize);

/// What completes a future.
enum Answer {
    Value(Py<PyAny>),
    Error(Py<PyAny>),
    /// It is cancelled.
    Nothing,
}

#[derive(Default)]
struct Tasks {
    open: FxHashMap<JobId, Open>,
    // Outcomes that came before their tasks were entered above.
    early: FxHashMap<JobId, Settled>,
    // Outcomes to be decoded. Of these, `is_for_keeper` are decoded where no signal handler runs.
    ready: VecDeque<Ended>,
    is_for_keeper: VecDeque<Ended>,
    // Those for which there was no memory, and when the keeper tries again.
    lacking: VecDeque<Ended>,
    try_at: Option<Instant>,
    slow: VecDeque<(Py<PyAny>, Answer)>,
    submitted: u64,
    /// The keeper has ended: any thread does its work.
    over: bool,
}

/// The futures of the tasks of one hub.
#[pyclass(name = "Futures", module = "maniple._maniple", frozen)]
pub struct PyFutures {
    hub: Py<PyHub>,
    // The helper that completes a future that is not plain: `settle(future, is_result, value)`.
    settle: Py<PyAny>,
    tasks: Mutex<Tasks>,
}

fn job_of(number: u64) -> JobId {
    KeyData::from_ffi(number).into()
}

impl PyFutures {
    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the outcomes from the hub.
    fn receive(&self) {
        let ended = self.hub.get().hub().take_ends();
        if ended.is_empty() {
            return;
        }
        let mut tasks = self.lock();
        for (job, settled) in ended {
            match tasks.open.remove(&job) {
                Some(open) => tasks.ready.push_back((open, settled.into(), Regions::new())),
                None => drop(tasks.early.insert(job, settled)),
            }
        }
    }

    /// Completes the futures whose tasks have ended. An error is the exception of a signal handler; the keeper completes
    /// the rest.
    fn complete(&self, py: Python<'_>, is_keeper: bool) -> PyResult<()> {
        self.receive();
        let is_keeper = is_keeper || self.lock().over;
        loop {
            let Some((mut open, mut piece, mut regions)) = self.lock().ready.pop_front() else { return Ok(()) };
            if !is_keeper && piece.takes_once() {
                self.lock().is_for_keeper.push_back((open, piece, regions));
                self.hub.get().hub().kick();
                continue;
            }
            if regions.is_empty() {
                regions = piece.share();
            }
            let given = match decoded(py, &open, &piece, &regions) {
                Ok(given) => given,
                Err(Interrupt(error)) if is_keeper && error.is_instance_of::<PyMemoryError>(py) => {
                    let mut tasks = self.lock();
                    let now = Instant::now();
                    if !tasks.over && now < *open.lacks_since.get_or_insert(now) + START_PATIENCE {
                        tasks.lacking.push_back((open, piece, regions));
                        tasks.try_at.get_or_insert(now + AGAIN);
                        drop(tasks);
                        self.hub.get().hub().kick();
                        continue;
                    }
                    drop(tasks);
                    Answer::Error(PyMemoryError::saying(LOST).into_value(py).into_any())
                }
                Err(Interrupt(error)) if is_keeper => Answer::Error(error.into_value(py).into_any()),
                Err(Interrupt(error)) => {
                    self.lock().is_for_keeper.push_back((open, piece, regions));
                    self.hub.get().hub().kick();
                    let is_shortage = error.is_instance_of::<PyMemoryError>(py) && !interrupts(py, &error);
                    if !is_shortage && is_of_handler(py, &error) {
                        return Err(error);
                    }
                    // The result itself raises it, for example by `sys.exit`, and may be another caller's. Or there is no
                    // memory for it, and the keeper tries again.
                    continue;
                }
            };
            drop(piece);
            self.give(py, open.future, given, is_keeper)?;
        }
    }

    fn give(&self, py: Python<'_>, future: Py<PyAny>, given: Answer, is_keeper: bool) -> PyResult<()> {
        if let Some(fields) = plain(future.bind(py))? {
            return store(&fields, given);
        }
        if is_keeper || self.lock().over {
            return self.settle(py, &future, given);
        }
        let mut tasks = self.lock();
        tasks.slow.push_back((future, given));
        let is_first = tasks.slow.len() == 1;
        drop(tasks);
        if is_first {
            self.hub.get().hub().kick();
        }
        Ok(())
    }

    fn settle(&self, py: Python<'_>, future: &Py<PyAny>, given: Answer) -> PyResult<()> {
        let (is_result, value) = match given {
            Answer::Value(value) => (Some(true), value),
            Answer::Error(error) => (Some(false), error),
            Answer::Nothing => (None, py.None()),
        };
        unended::call(self.settle.bind(py), (future, is_result, value), None).map(drop)
    }

    fn enter(&self, job: JobId, mut open: Open) {
        let mut tasks = self.lock();
        tasks.submitted += 1;
        open.turn = tasks.submitted;
        match tasks.early.remove(&job) {
            Some(settled) => {
                tasks.ready.push_back((open, settled.into(), Regions::new()));
                drop(tasks);
                self.hub.get().hub().kick();
            }
            None => drop(tasks.open.insert(job, open)),
        }
    }
}

/// Returns the attributes of a future that is plain, or that has ended.
fn plain<'py>(future: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let py = future.py();
    let fields = future.getattr(name!(py, "__dict__")?)?.cast_into::<PyDict>()?;
    Ok(if fields.contains(name!(py, "_condition")?)? { None } else { Some(fields) })
}

/// Whether the future has neither a result nor was cancelled.
fn is_open(fields: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = fields.py();
    let Some(state) = fields.get_item(name!(py, "_state")?)? else { return Ok(false) };
    let state = state.cast_into::<PyString>()?;
    Ok(state.to_cow().is_ok_and(|state| state == "PENDING" || state == "RUNNING"))
}

/// Completes a plain future.
fn store(fields: &Bound<'_, PyDict>, given: Answer) -> PyResult<()> {
    let py = fields.py();
    if !is_open(fields)? {
        return Ok(());
    }
    let state = match given {
        Answer::Value(value) => {
            fields.set_item(name!(py, "_result")?, value)?;
            name!(py, "FINISHED")?
        }
        Answer::Error(error) => {
            fields.set_item(name!(py, "_exception")?, error)?;
            name!(py, "FINISHED")?
        }
        Answer::Nothing => name!(py, "CANCELLED_AND_NOTIFIED")?,
    };
    // A future that has ended keeps no pool.
    fields.set_item(name!(py, "_tasks")?, py.None())?;
    fields.set_item(name!(py, "_state")?, state)
}

/// Whether a signal handler has raised an exception that interrupts.
fn is_of_handler(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyException>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) || leaves(py, error)
}

/// A future whose task a worker has begun cannot be cancelled any more.
fn mark_running(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    let fields = future.getattr(name!(py, "__dict__")?)?.cast_into::<PyDict>()?;
    if is_open(&fields)? { fields.set_item(name!(py, "_state")?, name!(py, "RUNNING")?) } else { Ok(()) }
}

fn decoded(py: Python<'_>, open: &Open, piece: &Piece, regions: &Regions) -> Result<Answer, Interrupt> {
    if matches!(piece.kind, Kind::Cancelled) {
        return Ok(Answer::Nothing);
    }
    let Kind::Done(content) = &piece.kind else {
        let error = failure(py, piece, regions, &open.name, None)?;
        return Ok(Answer::Error(error.into_value(py).into_any()));
    };
    let mut values = Vec::with_capacity(open.count.unwrap_or(1));
    let read = results(py, content, regions, None, |value| {
        values.push(value);
        Ok(())
    })?;
    let given = read.and_then(|()| match open.count {
        None => values.pop().filter(|_| values.is_empty()).ok_or_else(|| miscounted(py)),
        Some(count) if values.len() == count => crate::made::list(py, values).map(Bound::into_any),
        Some(_) => Err(miscounted(py)),
    });
    Ok(match given {
        Ok(value) => Answer::Value(value.unbind()),
        Err(error) => Answer::Error(error.into_value(py).into_any()),
    })
}

#[pymethods]
impl PyFutures {
    /// Makes the registry of an executor's futures. `settle` completes a future that is not plain.
    #[new]
    fn new(hub: Py<PyHub>, settle: Py<PyAny>) -> Self {
        hub.get().hub().gather_ends();
        PyFutures { hub, settle, tasks: Mutex::default() }
    }

    /// Submits a call of `func(*args, **kwds)`, whose outcome completes the future. Returns the job's number; 0 if the
    /// call cannot be pickled, which is then the future's exception.
    #[pyo3(signature = (future, func, args, kwds, terms=None))]
    fn submit(
        &self,
        future: &Bound<'_, PyAny>,
        func: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyDict>,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<Out<u64>> {
        let hub = self.hub.get();
        let _making = hub.make();
        let Given { terms, header, .. } = terms::given(terms);
        let packed = hub.pack_call(func, args, kwds, &header).map(|(func, name, packet)| (func, name, packet, 1));
        self.send(future, packed, None, terms).map(Out)
    }

    /// As `submit`, for one call of `func(*items)` for each of a list of tuples. The result is a list.
    #[pyo3(signature = (future, func, items, terms=None))]
    fn submit_chunk(
        &self,
        future: &Bound<'_, PyAny>,
        func: &Bound<'_, PyAny>,
        items: &Bound<'_, PyList>,
        terms: Option<&Bound<'_, PyTerms>>,
    ) -> PyResult<Out<u64>> {
        let hub = self.hub.get();
        let _making = hub.make();
        let count = items.len();
        let Given { terms, header, .. } = terms::given(terms);
        let packed = hub.pack_chunk(func, items, &header).map(|(func, name, packet)| (func, name, packet, count));
        self.send(future, packed, Some(count), terms).map(Out)
    }

    /// Returns the number of tasks that have not ended.
    fn count(&self) -> Out<usize> {
        Out(self.lock().open.len())
    }

    /// Returns the futures of the tasks that have not ended.
    fn open(&self, py: Python<'_>) -> Out<Vec<Py<PyAny>>> {
        Out(self.lock().open.values().map(|open| open.future.clone_ref(py)).collect())
    }

    /// Waits at most `timeout` seconds for the future, and completes futures meanwhile. Returns early if another thread
    /// does that, or if the keeper has to complete this future.
    #[pyo3(signature = (future, timeout=None))]
    fn wait(&self, py: Python<'_>, future: &Bound<'_, PyAny>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = deadline(timeout);
        let is_over = || plain(future)?.map_or(Ok(true), |fields| is_open(&fields).map(|open| !open));
        if is_over()? {
            return Ok(());
        }
        let Some(collector) = self.hub.get().hub().collect() else { return Ok(()) };
        loop {
            self.complete(py, false)?;
            if is_over()? || !wait(py, &collector, deadline)? || !collector.collects() {
                return Ok(());
            }
        }
    }

    /// Withdraws a task that no worker has begun. Returns whether it is withdrawn: then a plain future is cancelled, and
    /// the caller cancels another one. A future that cannot be cancelled counts as running.
    fn withdraw(&self, py: Python<'_>, future: &Bound<'_, PyAny>, job: u64) -> PyResult<bool> {
        let hub = self.hub.get().hub();
        let withdrawn = detached(py, || hub.withdraw(&[job_of(job)]))?;
        let Some(open) = withdrawn.first().and_then(|job| self.lock().open.remove(job)) else {
            mark_running(future)?;
            return Ok(false);
        };
        if let Some(fields) = plain(future)? {
            store(&fields, Answer::Nothing)?;
        }
        drop(open);
        hub.call_collector();
        Ok(true)
    }

    /// Withdraws the tasks that no worker has begun, and cancels their futures. The oldest stay, until `running` tasks are
    /// left with those that run.
    fn withdraw_all(&self, py: Python<'_>, running: usize) -> PyResult<()> {
        let hub = self.hub.get().hub();
        let mut open: Vec<(u64, JobId)> = self.lock().open.iter().map(|(job, open)| (open.turn, *job)).collect();
        open.sort_unstable();
        let jobs: Vec<JobId> = open.into_iter().map(|(_, job)| job).collect();
        for job in detached(py, || hub.withdraw_but(&jobs, running))? {
            let Some(open) = self.lock().open.remove(&job) else { continue };
            self.give(py, open.future, Answer::Nothing, false)?;
        }
        hub.call_collector();
        Ok(())
    }

    /// Ends the worker that runs the task. Returns whether there is one; another one takes its place, and the caller
    /// cancels the future.
    fn end_running(&self, py: Python<'_>, job: u64) -> PyResult<bool> {
        let hub = self.hub.get().hub();
        detached(py, || hub.cancel(job_of(job), true) > 0)
    }

    /// Lets the keeper cancel a future whose task was withdrawn.
    fn leave(&self, future: Py<PyAny>) {
        self.lock().slow.push_back((future, Answer::Nothing));
        self.hub.get().hub().kick();
    }

    /// Returns whether the task has not ended.
    fn is_open(&self, job: u64) -> bool {
        self.lock().open.contains_key(&job_of(job))
    }

    /// Returns whether a worker has begun the task, which has not ended. Its future counts as running from then on.
    fn has_begun(&self, py: Python<'_>, future: &Bound<'_, PyAny>, job: u64) -> PyResult<bool> {
        let hub = self.hub.get().hub();
        let begun = detached(py, || hub.has_begun(job_of(job)))?;
        if begun {
            mark_running(future)?;
        }
        Ok(begun)
    }

    /// Returns whether there are futures that only the keeper can complete.
    fn has_slow(&self) -> bool {
        let tasks = self.lock();
        let is_none_due = tasks.slow.is_empty() && tasks.ready.is_empty() && tasks.is_for_keeper.is_empty();
        !is_none_due || tasks.try_at.is_some_and(|at| at <= Instant::now())
    }

    /// Returns whether there was no memory to decode an outcome. The keeper tries again after a moment.
    fn lacks_memory(&self) -> bool {
        self.lock().try_at.is_some()
    }

    /// Records that the keeper ends: from now on, any thread completes any future.
    fn end(&self) {
        self.lock().over = true;
    }

    /// Completes all futures whose tasks have ended. The keeper calls it.
    fn keep(&self, py: Python<'_>) -> PyResult<()> {
        let mut tasks = self.lock();
        let mut for_keeper = std::mem::take(&mut tasks.is_for_keeper);
        tasks.ready.append(&mut for_keeper);
        if tasks.over || tasks.try_at.is_some_and(|at| at <= Instant::now()) {
            let mut lacking = std::mem::take(&mut tasks.lacking);
            tasks.ready.append(&mut lacking);
            tasks.try_at = None;
        }
        drop(tasks);
        loop {
            self.complete(py, true)?;
            let Some((future, given)) = self.lock().slow.pop_front() else { break };
            self.settle(py, &future, given)?;
        }
        self.hub.get().hub().call_collector();
        Ok(())
    }
}

impl PyFutures {
    fn send(
        &self,
        future: &Bound<'_, PyAny>,
        packed: PyResult<Packed>,
        count: Option<usize>,
        terms: Option<Arc<Terms>>,
    ) -> PyResult<u64> {
        let py = future.py();
        let (func, name, packet, items) = match packed {
            Ok(packed) => packed,
            Err(error) if interrupts(py, &error) => return Err(error),
            Err(error) => {
                let given = Answer::Error(error.into_value(py).into_any());
                self.give(py, future.clone().unbind(), given, false)?;
                return Ok(0);
            }
        };
        let job = self.hub.get().submit_task(func, items, packet, terms)?.into_job();
        self.enter(job, Open { future: future.clone().unbind(), name, count, turn: 0, lacks_since: None });
        Ok(job.data().as_ffi())
    }
}

/// Waits without the interpreter lock. Returns false if the time limit has passed.
fn wait(py: Python<'_>, collector: &Collector<'_>, deadline: Option<Instant>) -> PyResult<bool> {
    greenlets::wait(py, deadline, |until, interrupted| collector.wait(until, interrupted))
}
