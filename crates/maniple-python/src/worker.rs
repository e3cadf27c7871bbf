//! The loop of a worker process.

use crate::args::Calls as _;
use crate::decode::Payload;
use crate::encode::{Encoder, Pickler};
use crate::error::{Saying as _, helper, python};
use crate::handles::adopt;
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import};
use crate::payload_format::tag;
use crate::seed::TaskSeed;
use crate::signals::{interrupts, leaves};
use crate::soft_limit;
use maniple_engine::pool::{Answer, Message, Packet, PoolEnd, Task, WorkerLink};
use maniple_sys::RawHandle;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The number of tasks in a row without a check for signals and other threads.
const STINT: u32 = 128;

/// A function: its pickle, the decoded function, or the error. The first task that calls it decodes it, so a failure is
/// that task's failure, and that of each later task.
enum Function {
    Raw(Payload),
    Ready(Py<PyAny>),
    Broken(PyErr),
}

/// Runs tasks until the hub says that there are no more. This call owns `handles`, the descriptors that
/// `Hub.create_link` returned. It calls `prepare` first, and reports its exception as the reason why this worker is
/// unfit.
///
/// Returns how the loop ended: `"closed"`, `"terminated"` (with the pool), `"unfit"`, or `"lacking"` (a resource was
/// missing before the worker was ready; standard error says which).
#[pyfunction]
pub fn serve(py: Python<'_>, handles: Vec<RawHandle>, prepare: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    maniple_sys::process::crash_at_once();
    let mut link = match WorkerLink::open(adopt(handles)) {
        Err(error) if error.is_shortage() => {
            eprintln!("maniple: a worker cannot open its link: {error}");
            return Ok("lacking");
        }
        link => link.map_err(python)?,
    };
    *POOL.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.pool_end());
    if let Err(error) = prepare.call0() {
        let packet = report(py, &link, &error, None, (RUNNING, None))?;
        link.unfit(packet).map_err(python)?;
        return Ok("unfit");
    }
    link.hello().map_err(python)?;
    let mut functions = HashMap::new();
    let mut stint = 0;
    loop {
        stint += 1;
        if stint == STINT {
            stint = 0;
            py.detach(|| {});
            look_for_signals(py)?;
        }
        let message = if link.has_news() { link.next() } else { py.detach(|| link.next()) };
        match message.map_err(python)? {
            Message::Define(number, content) => {
                functions
                    .insert(number, content.map_or_else(|e| Function::Broken(python(e)), |c| Function::Raw(c.into())));
            }
            Message::Forget(number) => {
                functions.remove(&number);
            }
            Message::Task(task) => run(py, &mut link, &mut functions, task)?,
            Message::Interrupted => look_for_signals(py)?,
            Message::Stop => return Ok(if link.terminated() { "terminated" } else { "closed" }),
        }
    }
}

/// The pool of this worker process.
static POOL: Mutex<Option<PoolEnd>> = Mutex::new(None);

/// Returns whether this process is a worker of a pool that was terminated.
#[pyfunction]
pub fn pool_is_terminated() -> bool {
    POOL.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(PoolEnd::is_terminated)
}

/// Between tasks a Ctrl-C is ignored, because the parent handles it. Any other exception of a handler ends the worker.
fn look_for_signals(py: Python<'_>) -> PyResult<()> {
    match py.check_signals() {
        Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Ok(()),
        other => other,
    }
}

fn run(py: Python<'_>, link: &mut WorkerLink, functions: &mut HashMap<u32, Function>, task: Task) -> PyResult<()> {
    let number = task.number;
    let mut again = Vec::new();
    let attempted = attempt(py, link, functions, task, &mut again);
    soft_limit::disarm();
    let (answer, packet) = match attempted {
        Ok(packet) => (Answer::Done, packet),
        // A handler has requested the end of this process, and so of the task.
        Err(Failed { error, .. }) if leaves(py, &error) => return Err(error),
        Err(Failed { error, value, stage, place }) => {
            let answer = if is_among(py, &error, &again) { Answer::FailedAgain } else { Answer::Failed };
            (answer, report(py, link, &error, value, (stage, place))?)
        }
    };
    match reply(py, link, number, answer, packet) {
        Err(error) if error.is_local() => {
            // The answer needs a resource that is missing. The worker sends that error instead, which is short.
            let packet = report(py, link, &python(error), None, (RUNNING, None))?;
            reply(py, link, number, Answer::Failed, packet).map_err(python)
        }
        sent => sent.map_err(python),
    }
}

fn reply(
    py: Python<'_>,
    link: &mut WorkerLink,
    number: u64,
    answer: Answer,
    packet: Packet,
) -> Result<(), maniple_engine::Error> {
    // A large packet may have to wait for room; a small one rarely does.
    if packet.size() > 4096 {
        py.detach(|| link.reply(number, answer, packet))
    } else {
        link.reply(number, answer, packet)
    }
}

/// Describes how a task failed. `value`: it had a result, which could not be pickled. `place`: the place, among the task's
/// items, of the item whose call failed.
struct Failed {
    error: PyErr,
    value: Option<Py<PyAny>>,
    stage: &'static str,
    place: Option<usize>,
}

/// The stages of a task, for the text of an error: its items are unpickled, its calls run, its result or the list of its
/// results is pickled.
const READING: &str = "reading";
const RUNNING: &str = "running";
const WRITING_ONE: &str = "writing one";
const WRITING_MANY: &str = "writing many";

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Failed { error, value: None, stage: RUNNING, place: None }
    }
}

impl From<(PyErr, usize)> for Failed {
    fn from((error, place): (PyErr, usize)) -> Self {
        Failed { place: Some(place), ..Failed::from(error) }
    }
}

fn unread(error: PyErr) -> Failed {
    Failed { error, value: None, stage: READING, place: None }
}

fn attempt(
    py: Python<'_>,
    link: &WorkerLink,
    functions: &mut HashMap<u32, Function>,
    task: Task,
    again: &mut Vec<u8>,
) -> Result<Packet, Failed> {
    let func = function(py, functions, task.func)?;
    let content = Payload::from(task.content.map_err(python)?);
    let mut decoder = content.decoder();
    let mut mode = decoder.mark()?;
    let mut seed = None;
    if mode == tag::SEED {
        let (key, first) = decoder.seed()?;
        seed = Some(TaskSeed { key, first });
        mode = decoder.mark()?;
    }
    let plant = || seed.as_ref().map_or(Ok(()), |seed| seed.plant(py, 0));
    if mode == tag::TERMS {
        let (limit, classes) = decoder.terms()?;
        again.extend_from_slice(classes);
        soft_limit::arm(py, link, limit)?;
        mode = decoder.mark()?;
    }
    let results = match mode {
        tag::APPLY => {
            let mut args = Vec::new();
            let read = decoder.sequence(py, |item| {
                args.push(item);
                Ok(())
            });
            read.map_err(unread)?;
            plant()?;
            Results::One(func.call1(made::tuple(py, args)?)?)
        }
        tag::KEYWORDS => {
            let (args, kwds): (Bound<'_, PyAny>, Bound<'_, PyDict>) = decoder.value(py).map_err(unread)?.extract()?;
            let args = made::tuple(py, args.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
            plant()?;
            Results::One(func.call(args, Some(&kwds))?)
        }
        mode @ (tag::MAP | tag::STARMAP) => {
            // All items are decoded before the first call, so a chunk with an item that cannot be decoded fails before
            // it has done anything.
            let mut items = Vec::new();
            let read = decoder.sequence(py, |item| {
                items.push(item);
                Ok(())
            });
            read.map_err(unread)?;
            match items.pop() {
                Some(item) if items.is_empty() && mode == tag::MAP => {
                    plant()?;
                    Results::One(made::call(&func, &item).map_err(|error| (error, 0))?)
                }
                Some(item) => {
                    items.push(item);
                    Results::Many(match &seed {
                        Some(seed) => seed.call_each(py, mode == tag::STARMAP, &func, items)?,
                        None => call_each(py, mode, &func, items)?,
                    })
                }
                None => Results::Many(made::list::<PyAny>(py, [])?),
            }
        }
        _ => return Err(PyRuntimeError::saying("a task of an unknown kind").into()),
    };
    drop(content);
    let mut encoder = Encoder::new(py, link.packer());
    let encoded = match &results {
        Results::One(result) => encoder.one(result, Pickler::Result),
        Results::Many(results) => encoder.list(results, Pickler::Result),
    };
    let encoded = encoded.and_then(|()| encoder.packet());
    // The packet is there: neither its making nor the end of the results is interrupted any more.
    soft_limit::disarm();
    encoded.map_err(|error| {
        if interrupts(py, &error) {
            return Failed::from(error);
        }
        let (value, stage) = match results {
            Results::One(value) => (value, WRITING_ONE),
            Results::Many(values) if values.len() == 1 => {
                (values.get_item(0).unwrap_or(values.into_any()), WRITING_ONE)
            }
            Results::Many(values) => (values.into_any(), WRITING_MANY),
        };
        Failed { error, value: Some(value.unbind()), stage, place: None }
    })
}

/// The results of a task's calls.
enum Results<'py> {
    One(Bound<'py, PyAny>),
    Many(Bound<'py, PyList>),
}

/// Calls a function for each item through the interpreter's own `map`, which makes no tuple for each call.
fn call_each<'py>(
    py: Python<'py>,
    mode: u8,
    func: &Bound<'py, PyAny>,
    items: Vec<Bound<'py, PyAny>>,
) -> Result<Bound<'py, PyList>, Failed> {
    static STARMAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static MAP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (cell, module, name) =
        if mode == tag::STARMAP { (&STARMAP, "itertools", "starmap") } else { (&MAP, "builtins", "map") };
    let each = cell.get_or_make(py, || PyResult::Ok(import(py, module)?.attr(name)?.unbind()))?;
    let len = items.len();
    let results = each.bind(py).with((func, made::list(py, items)?))?;
    Ok(made::list_of_steps(&results, len)?)
}

fn function<'py>(py: Python<'py>, functions: &mut HashMap<u32, Function>, number: u32) -> PyResult<Bound<'py, PyAny>> {
    let place =
        functions.get_mut(&number).ok_or_else(|| PyRuntimeError::saying("a task of a function that was never sent"))?;
    if let Function::Raw(content) = place {
        *place = match content.decoder().value(py) {
            Ok(func) => Function::Ready(func.unbind()),
            // The next task tries again.
            Err(error) if interrupts(py, &error) || is_shortage(py, &error) => return Err(error),
            Err(error) => Function::Broken(error),
        };
    }
    match place {
        Function::Ready(func) => Ok(func.bind(py).clone()),
        Function::Broken(error) => Err(error.clone_ref(py)),
        Function::Raw(_) => Err(PyRuntimeError::saying("a function that was not decoded")),
    }
}

/// Returns whether a resource was missing when the function was imported. It may be available again for the next task.
fn is_shortage(py: Python<'_>, error: &PyErr) -> bool {
    let asked = import(py, "maniple._impl.start.shortage").and_then(|module| module.attr("stood_in_the_way"));
    // If this cannot be determined, memory is short.
    asked.and_then(|ask| ask.with((error.value(py),))?.is_truthy()).unwrap_or(true)
}

/// Returns whether an exception is of one of the pickled classes, after which a task is tried again.
fn is_among(py: Python<'_>, error: &PyErr, classes: &[u8]) -> bool {
    static AMONG: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if classes.is_empty() {
        return false;
    }
    // Classes that cannot be unpickled here are not the class of an exception that was raised here.
    let asked = helper(py, &AMONG, "is_among").and_then(|ask| ask.with((error.value(py), classes))?.is_truthy());
    asked.unwrap_or(false)
}

/// An exception as a payload that always decodes: it contains the exception's own pickle as bytes.
fn report(
    py: Python<'_>,
    link: &WorkerLink,
    error: &PyErr,
    value: Option<Py<PyAny>>,
    (stage, place): (&'static str, Option<usize>),
) -> PyResult<Packet> {
    static REPORT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let unsendable = value.is_some();
    let told = (error.clone_ref(py).into_value(py), unsendable, value, stage, place);
    let report = helper(py, &REPORT, "report")?.with(told)?;
    let mut encoder = Encoder::new(py, link.packer());
    encoder.value(&report, Pickler::Result)?;
    encoder.packet()
}
