//! Python values to messages and back: a pickle, and its large buffers apart where the way allows it.

use crate::arrays::{self, Content};
use crate::lazy::Lazy;
use crate::made;
use crate::memory::PyMemory;
use crate::pickle;
use crate::signals::{interrupts, look_for_signals};
use crate::unended;
use maniple_engine::Error;
use maniple_engine::channel::frame::Interrupted;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::ops::Deref;

/// A value, pickled.
pub enum Pickled {
    Whole(Bytes),
    /// Without its large buffers, which follow.
    Apart(Bytes, Vec<Bytes>),
}

/// Bytes that stay where they are.
pub enum Bytes {
    Own(Vec<u8>),
    Python(Flat),
    Array(Content),
}

/// A buffer whose bytes do not move, also while the interpreter lock is released.
pub struct Flat {
    buffer: PyBuffer<u8>,
    _pin: Option<Py<PyAny>>,
}

impl Flat {
    /// A view of an object's bytes.
    pub fn get(object: &Bound<'_, PyAny>) -> PyResult<Flat> {
        PyBuffer::get(object).map(|buffer| Flat::of(object.py(), buffer))
    }

    /// The buffer of a pickle, which has no other user.
    fn of_pickle(pickle: &Bound<'_, PyAny>) -> PyResult<Flat> {
        Ok(Flat { buffer: PyBuffer::get(pickle)?, _pin: None })
    }

    pub fn of(py: Python<'_>, buffer: PyBuffer<u8>) -> Flat {
        // Not the object that was asked: it may be a view of the one that has the bytes.
        let pin = buffer.obj(py).and_then(arrays::pin);
        Flat { buffer, _pin: pin }
    }
}

impl Deref for Flat {
    type Target = PyBuffer<u8>;

    fn deref(&self) -> &PyBuffer<u8> {
        &self.buffer
    }
}

impl Bytes {
    /// What is to live while they are read without the interpreter lock.
    pub fn pin(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        if let Bytes::Array(content) = self { content.pin(py) } else { None }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::Python(buffer) => bytes_of(buffer),
            Bytes::Array(content) => content.bytes(),
        }
    }
}

/// The function of this name in `maniple.reduction`.
pub fn reduction<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found = cell.get_or_make(py, || PyResult::Ok(py.import("maniple.reduction")?.getattr(name)?.unbind()))?;
    Ok(found.bind(py))
}

/// Which pickler a module's objects go by: the class in its variable `_ForkingPickler`. A program may put another one there, or change
/// the functions of the class itself; then its class is asked, and nothing is done in its place.
pub struct Picklers {
    module: &'static str,
    watched: PyOnceLock<Watched>,
}

struct Watched {
    /// The module's variables, and our class among them.
    names: Py<PyDict>,
    class: Py<PyAny>,
    variable: Py<PyString>,
    /// What the class itself defines, and our two functions there.
    own: Py<PyDict>,
    dumps: (Py<PyString>, Py<PyAny>),
    loads: (Py<PyString>, Py<PyAny>),
}

pub static OF_CONNECTIONS: Picklers = Picklers::of("maniple.connection");
pub static OF_QUEUES: Picklers = Picklers::of("maniple.queues");

/// What a dict has under a name, borrowed, or null.
#[allow(unsafe_code)]
fn found(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>) -> *mut ffi::PyObject {
    // SAFETY: a dict and a string, with the interpreter lock held. An error, which cannot be, is as if nothing was found, and is cleared.
    let found = unsafe { ffi::PyDict_GetItemWithError(dict.as_ptr(), name.as_ptr()) };
    if found.is_null() {
        drop(PyErr::take(py));
    }
    found
}

fn has(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>) -> bool {
    !found(py, dict, name).is_null()
}

/// Whether this is what a dict has under this name.
fn holds(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>, value: &Py<PyAny>) -> bool {
    // Twice in every message: without taking hold of what is found.
    found(py, dict, name) == value.as_ptr()
}

impl Picklers {
    const fn of(module: &'static str) -> Self {
        Picklers { module, watched: PyOnceLock::new() }
    }

    fn watched(&self, py: Python<'_>) -> PyResult<&Watched> {
        self.watched.get_or_make(py, || {
            let names = py.import(self.module)?.dict().unbind();
            let (class, own, dumps, loads) = py.import("maniple.reduction")?.getattr("_as_made")?.extract()?;
            let name = |text| PyString::intern(py, text).unbind();
            let (dumps, loads) = ((name("dumps"), dumps), (name("loads"), loads));
            Ok(Watched { names, class, variable: name("_ForkingPickler"), own, dumps, loads })
        })
    }

    /// The program's class, where there is one whose function is to be asked.
    fn replaced<'py>(
        &self,
        py: Python<'py>,
        function: impl FnOnce(&Watched) -> &(Py<PyString>, Py<PyAny>),
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let watched = self.watched(py)?;
        let (name, made) = function(watched);
        if holds(py, &watched.names, &watched.variable, &watched.class) && holds(py, &watched.own, name, made) {
            return Ok(None);
        }
        watched.names.bind(py).get_item(&watched.variable)
    }

    fn for_dumps<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.replaced(py, |watched| &watched.dumps)
    }

    fn for_loads<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.replaced(py, |watched| &watched.loads)
    }
}

struct Modules {
    loaded: Py<PyDict>,
    queues: Py<PyString>,
    reduction: Py<PyDict>,
    pickler: Py<PyString>,
    standard: Py<PyAny>,
}

static MODULES: PyOnceLock<Modules> = PyOnceLock::new();

/// Whether a class of the program pickles what a pool sends: a class that the program has put where the standard pool's queues look for theirs.
/// The first call may import something.
pub fn has_pool_pickler(py: Python<'_>) -> PyResult<bool> {
    let modules = MODULES.get_or_make(py, || {
        let reduction = py.import("maniple.reduction")?;
        PyResult::Ok(Modules {
            loaded: py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.unbind(),
            queues: PyString::intern(py, OF_QUEUES.module).unbind(),
            standard: reduction.getattr("_standard")?.unbind(),
            pickler: PyString::intern(py, "ForkingPickler").unbind(),
            reduction: reduction.dict().unbind(),
        })
    })?;
    if !modules.loaded.bind(py).contains(&modules.queues)? {
        return Ok(!holds(py, &modules.reduction, &modules.pickler, &modules.standard));
    }
    Ok(OF_QUEUES.for_dumps(py)?.is_some() || OF_QUEUES.for_loads(py)?.is_some())
}

/// Whether it is known, without running Python code, that a pool's pickler is ours.
pub fn is_pool_pickler_ours(py: Python<'_>) -> bool {
    let Some(modules) = MODULES.get(py) else { return false };
    if !has(py, &modules.loaded, &modules.queues) {
        return holds(py, &modules.reduction, &modules.pickler, &modules.standard);
    }
    OF_QUEUES.watched.get(py).is_some_and(|queues| {
        holds(py, &queues.names, &queues.variable, &queues.class)
            && [&queues.dumps, &queues.loads].into_iter().all(|(name, made)| holds(py, &queues.own, name, made))
    })
}

struct Reducers {
    copyreg: Py<PyDict>,
    /// What our pickler's class itself defines, and where its own reducers are in it.
    own: Py<PyDict>,
    extra: Py<PyString>,
}

static REDUCERS: PyOnceLock<Reducers> = PyOnceLock::new();

/// Finds where reducers are registered; before that, [`has_reducer`] answers yes.
pub fn find_reducers(py: Python<'_>) -> PyResult<()> {
    REDUCERS.get_or_make(py, || {
        let reduction = py.import("maniple.reduction")?;
        PyResult::Ok(Reducers {
            copyreg: reduction.getattr("_copyreg_table")?.extract()?,
            own: reduction.getattr("_as_made")?.get_item(1)?.extract()?,
            extra: PyString::intern(py, "_extra_reducers").unbind(),
        })
    })?;
    Ok(())
}

/// Whether the program has registered a reducer for a class whose hash is its address. Runs no Python code.
#[allow(unsafe_code)]
pub fn has_reducer(py: Python<'_>, class: *mut ffi::PyObject) -> bool {
    let Some(reducers) = REDUCERS.get(py) else { return true };
    let extra = found(py, &reducers.own, &reducers.extra);
    [reducers.copyreg.as_ptr(), extra].into_iter().any(|table| {
        // SAFETY: live objects, and the interpreter lock is held; what is no dict is not looked into.
        unsafe {
            table.is_null()
                || ffi::PyDict_Check(table) == 0
                || !ffi::PyDict_GetItemWithError(table, class).is_null()
                || !ffi::PyErr_Occurred().is_null()
        }
    })
}

/// Pickles a value; `apart`: from how many bytes on an array's are best apart from the pickle, asked only where it matters; `usize::MAX`: no
/// buffer may be.
pub fn dump(value: &Bound<'_, PyAny>, picklers: &Picklers, apart: impl Fn() -> usize) -> PyResult<Pickled> {
    let py = value.py();
    if let Some(class) = picklers.for_dumps(py)? {
        let pickle = unended::call(&class.getattr(intern!(py, "dumps"))?, (value,), None)?;
        return Ok(Pickled::Whole(Bytes::Python(crate::connection::flat(&pickle)?)));
    }
    static WHOLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static APART: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if let Some((stream, large)) = pickle::dump(value, &apart) {
        let stream = Bytes::Own(stream);
        return Ok(if large.is_empty() {
            Pickled::Whole(stream)
        } else {
            Pickled::Apart(stream, large.into_iter().map(Bytes::Array).collect())
        });
    }
    if apart() < usize::MAX {
        let dump = reduction(py, &APART, "_dump_apart")?;
        let made = unended::call(dump, (value,), None)?;
        let made = made.cast_into::<PyTuple>()?;
        let stream = Bytes::Python(Flat::of_pickle(&made.get_item(0)?)?);
        let buffers = made.get_item(1)?.cast_into::<PyList>()?;
        if !buffers.is_empty() {
            let views = buffers.iter().map(|b| Flat::get(&b).map(Bytes::Python)).collect::<PyResult<_>>()?;
            return Ok(Pickled::Apart(stream, views));
        }
        return Ok(Pickled::Whole(stream));
    }
    let dump = reduction(py, &WHOLE, "_quick_dumps")?;
    let whole = unended::call(dump, (value,), None)?;
    Ok(Pickled::Whole(Bytes::Python(Flat::of_pickle(&whole)?)))
}

/// A contiguous buffer's bytes.
#[allow(unsafe_code)]
pub fn bytes_of(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    // SAFETY: pickle's streams and raw buffers are contiguous, and the view keeps the bytes alive and in place. Another thread may
    // write to them meanwhile; then what arrives is a mixture, as with any buffer that is changed while it is being sent.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) }
}

/// The error of something that was received and cannot be returned: if memory is short, it says that the object is lost.
pub fn lost(py: Python<'_>, error: PyErr) -> PyErr {
    short_of_memory(py, error, "there was no memory to unpickle the received message, which is lost")
}

/// The error of a message that cannot be unpickled after a signal handler has interrupted a first attempt, which may be
/// the reason.
pub fn lost_again(py: Python<'_>, error: PyErr) -> PyErr {
    const WHAT: &str = "a signal handler interrupted the first attempt to unpickle this message, and the second \
        attempt failed: the message is lost. Receive objects that can be unpickled only once in another thread than \
        the main thread, in which no handler runs";
    if !error.is_instance_of::<PyEOFError>(py) {
        // Also where it would have failed the first time.
        let _ = error.value(py).call_method1(intern!(py, "add_note"), (WHAT,));
        return error;
    }
    // Not what says that the other end is closed.
    let made = py.import("_pickle").and_then(|pickle| pickle.getattr("UnpicklingError")?.call1((WHAT,)));
    made.map_or_else(
        |error| error,
        |made| {
            let made = PyErr::from_value(made);
            made.set_cause(py, Some(error));
            made
        },
    )
}

/// A `MemoryError` that says what it is about; other errors are left as they are.
pub fn short_of_memory(py: Python<'_>, error: PyErr, what: &str) -> PyErr {
    if !error.is_instance_of::<PyMemoryError>(py) || interrupts(py, &error) {
        return error;
    }
    let value = error.value(py);
    let said = value.str().ok().and_then(|text| text.extract::<String>().ok()).unwrap_or_default();
    let text = if said.is_empty() { what.to_owned() } else { format!("{said} ({what})") };
    if value.setattr("args", (text,)).is_err() {
        // Where there is no memory for that either, it says what it says.
        let _ = value.call_method1("add_note", (what,));
    }
    error
}

impl Picklers {
    /// The value of a plain pickle, read without Python code. `None`: it is not plain, or the program's own class is to be asked.
    pub fn load_quickly<'py>(
        &self,
        py: Python<'py>,
        stream: &[u8],
        buffers: &[Bound<'py, PyMemory>],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(if self.for_loads(py)?.is_none() { pickle::load(py, stream, buffers) } else { None })
    }
}

/// A pickle whose buffers, if it has any, came apart. It can be read more than once: reading may be interrupted.
pub struct Parts {
    stream: Py<PyAny>,
    buffers: Vec<Py<PyAny>>,
}

impl Parts {
    pub fn new(py: Python<'_>, stream: Vec<u8>, buffers: Vec<Bound<'_, PyMemory>>) -> PyResult<Self> {
        let stream = if stream.len() < 4096 {
            made::bytes(py, &stream)?.into_any()
        } else {
            Bound::new(py, PyMemory::from(stream))?.into_any()
        };
        let buffers = buffers.into_iter().map(|buffer| buffer.into_any().unbind());
        Ok(Parts { stream: stream.unbind(), buffers: buffers.collect() })
    }

    fn buffers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        made::list(py, self.buffers.iter().map(|buffer| buffer.bind(py).clone()).collect::<Vec<_>>())
    }

    /// The value.
    pub fn load<'py>(&self, py: Python<'py>, picklers: &Picklers) -> PyResult<Bound<'py, PyAny>> {
        if let Some(class) = picklers.for_loads(py)? {
            let whole = self.whole(py)?;
            return unended::call(&class.getattr(intern!(py, "loads"))?, (whole,), None);
        }
        static LOAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let load = LOAD.get_or_make(py, || PyResult::Ok(py.import("_pickle")?.getattr("loads")?.unbind()))?.bind(py);
        let value = if self.buffers.is_empty() {
            unended::call(load, (&self.stream,), None)
        } else {
            let kwargs = PyDict::new(py);
            kwargs.set_item("buffers", self.buffers(py)?)?;
            unended::call(load, (&self.stream,), Some(&kwargs))
        };
        // Perhaps it has brought NumPy with it.
        arrays::is_found(py);
        value
    }

    /// The pickle with its buffers put back in: bytes.
    pub fn whole<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stream = PyBuffer::get(self.stream.bind(py))?;
        let stream = made::bytes(py, bytes_of(&stream))?;
        if self.buffers.is_empty() { Ok(stream.into_any()) } else { joined(py, stream, self.buffers(py)?) }
    }
}

/// The pickle with its buffers put back in.
pub fn rejoin<'py>(py: Python<'py>, stream: &[u8], buffers: Vec<PyMemory>) -> PyResult<Bound<'py, PyAny>> {
    let buffers = buffers.into_iter().map(|b| Bound::new(py, b)).collect::<PyResult<Vec<_>>>()?;
    joined(py, made::bytes(py, stream)?, made::list(py, buffers)?)
}

fn joined<'py>(
    py: Python<'py>,
    stream: Bound<'py, PyBytes>,
    buffers: Bound<'py, PyList>,
) -> PyResult<Bound<'py, PyAny>> {
    static REJOIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let rejoin = reduction(py, &REJOIN, "_rejoin")?;
    unended::call(rejoin, (stream, buffers), None)
}

/// Waits without the interpreter lock; signal handlers run.
pub fn waiting<T: Send>(
    py: Python<'_>,
    act: impl FnOnce(Interrupted<'_, '_>) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut raised = None;
    let done = py.detach(|| {
        act(&mut || {
            raised = look_for_signals();
            raised.is_some()
        })
    });
    match (done, raised) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(exception(error)),
        (Ok(value), None) => Ok(value),
    }
}

/// The exception for what went wrong with a channel.
pub fn exception(error: Error) -> PyErr {
    match error {
        Error::EndOfStream => PyEOFError::new_err(error.to_string()),
        // The standard package's words.
        Error::TooLong => PyOSError::new_err(Error::BadLength.to_string()),
        Error::CutOff | Error::BadLength | Error::Damaged(_) => PyOSError::new_err(error.to_string()),
        other => crate::error::python(other),
    }
}
