//! Python values to messages and back: a pickle, and its large buffers apart if the transport allows it.

use crate::args::Calls as _;
use crate::arrays::{self, Content};
use crate::error::{Saying as _, note};
use crate::flat::{Flat, bytes_of, flat};
use crate::lazy::Lazy;
use crate::made::{self, Attributes as _, import, name};
use crate::memory::PyMemory;
use crate::pickle;
use crate::signals::{interrupts, look_for_signals};
use crate::unended;
use maniple_engine::Error;
use maniple_engine::channel::frame::Interrupted;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::ops::Deref;

/// A pickled value.
pub enum Pickled {
    Whole(Bytes),
    /// A pickle without its large buffers, and the buffers.
    Apart(Bytes, Vec<Bytes>),
}

/// Bytes that stay in place.
pub enum Bytes {
    Own(Vec<u8>),
    Python(Flat),
    Array(Content),
}

impl Bytes {
    /// Returns the object to keep alive while the bytes are read without the interpreter lock.
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

/// Returns the function of this name in `maniple.reduction`.
pub fn reduction<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let found = cell.get_or_make(py, || PyResult::Ok(import(py, "maniple.reduction")?.attr(name)?.unbind()))?;
    Ok(found.bind(py))
}

/// The pickler for a module's objects: the class in its variable `_ForkingPickler`. A program may assign another class,
/// or change the functions of the class. Then that class is called for every object, and this crate pickles nothing
/// itself.
pub struct Picklers {
    module: &'static str,
    watched: PyOnceLock<Watched>,
}

struct Watched {
    /// The module's variables, and the class of this package among them.
    names: Py<PyDict>,
    class: Py<PyAny>,
    variable: Py<PyString>,
    /// The attributes of the class itself, and the two functions of this package in them.
    own: Py<PyDict>,
    dumps: (Py<PyString>, Py<PyAny>),
    loads: (Py<PyString>, Py<PyAny>),
}

pub static OF_CONNECTIONS: Picklers = Picklers::of("maniple.connection");
pub static OF_QUEUES: Picklers = Picklers::of("maniple.queues");

/// Returns the value of a dict under a name, borrowed; null if there is none.
#[allow(unsafe_code)]
fn found(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>) -> *mut ffi::PyObject {
    // SAFETY: a dict and a string, with the interpreter lock held. A string's look-up raises no error; if it did, the
    // error would be cleared as if nothing was found.
    let found = unsafe { ffi::PyDict_GetItemWithError(dict.as_ptr(), name.as_ptr()) };
    if found.is_null() {
        drop(PyErr::take(py));
    }
    found
}

fn has(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>) -> bool {
    !found(py, dict, name).is_null()
}

/// Returns whether a dict has this object under a name.
fn holds(py: Python<'_>, dict: &Py<PyDict>, name: &Py<PyString>, value: &Py<PyAny>) -> bool {
    // This runs twice for every message, so it takes no reference to the value.
    found(py, dict, name) == value.as_ptr()
}

impl Picklers {
    const fn of(module: &'static str) -> Self {
        Picklers { module, watched: PyOnceLock::new() }
    }

    fn watched(&self, py: Python<'_>) -> PyResult<&Watched> {
        self.watched.get_or_make(py, || {
            let names = import(py, self.module)?.dict().unbind();
            let (class, own, dumps, loads) = import(py, "maniple.reduction")?.attr("_as_made")?.extract()?;
            let (dumps, loads) =
                ((name!(py, "dumps")?.clone().unbind(), dumps), (name!(py, "loads")?.clone().unbind(), loads));
            Ok(Watched { names, class, variable: name!(py, "_ForkingPickler")?.clone().unbind(), own, dumps, loads })
        })
    }

    /// Returns the program's class, if there is one whose function must be called.
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

/// Returns whether a class of the program pickles the values of a pool: a class that the program has assigned where the
/// standard pool's queues look for their pickler. The first call may import a module.
pub fn has_pool_pickler(py: Python<'_>) -> PyResult<bool> {
    let modules = MODULES.get_or_make(py, || {
        let reduction = import(py, "maniple.reduction")?;
        PyResult::Ok(Modules {
            loaded: import(py, "sys")?.attr("modules")?.cast_into::<PyDict>()?.unbind(),
            queues: made::text(py, OF_QUEUES.module)?.unbind(),
            standard: reduction.attr("_standard")?.unbind(),
            pickler: name!(py, "ForkingPickler")?.clone().unbind(),
            reduction: reduction.dict().unbind(),
        })
    })?;
    if !modules.loaded.bind(py).contains(&modules.queues)? {
        return Ok(!holds(py, &modules.reduction, &modules.pickler, &modules.standard));
    }
    Ok(OF_QUEUES.for_dumps(py)?.is_some() || OF_QUEUES.for_loads(py)?.is_some())
}

/// Returns whether it is known, without running Python code, that the pool's pickler is that of this package.
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
    /// The attributes of this package's pickler class, and the name under which they contain its own reducers.
    own: Py<PyDict>,
    extra: Py<PyString>,
}

static REDUCERS: PyOnceLock<Reducers> = PyOnceLock::new();

/// Finds the tables of registered reducers. Before that, [`has_reducer`] returns true.
pub fn find_reducers(py: Python<'_>) -> PyResult<()> {
    REDUCERS.get_or_make(py, || {
        let reduction = import(py, "maniple.reduction")?;
        PyResult::Ok(Reducers {
            copyreg: reduction.attr("_copyreg_table")?.extract()?,
            own: reduction.attr("_as_made")?.get_item(1)?.extract()?,
            extra: name!(py, "_extra_reducers")?.clone().unbind(),
        })
    })?;
    Ok(())
}

/// Returns whether the program has registered a reducer for a class whose hash is its address. Runs no Python code.
#[allow(unsafe_code)]
pub fn has_reducer(py: Python<'_>, class: *mut ffi::PyObject) -> bool {
    let Some(reducers) = REDUCERS.get(py) else { return true };
    let extra = found(py, &reducers.own, &reducers.extra);
    [reducers.copyreg.as_ptr(), extra].into_iter().any(|table| {
        // SAFETY: live objects, and the interpreter lock is held. A value that is not a dict is not read.
        unsafe {
            table.is_null()
                || ffi::PyDict_Check(table) == 0
                || !ffi::PyDict_GetItemWithError(table, class).is_null()
                || !ffi::PyErr_Occurred().is_null()
        }
    })
}

/// Pickles a value. `apart` returns the number of bytes from which on an array travels apart from the pickle; it is
/// called only if the answer matters. `usize::MAX`: no buffer may travel apart.
pub fn dump(value: &Bound<'_, PyAny>, picklers: &Picklers, apart: impl Fn() -> usize) -> PyResult<Pickled> {
    let py = value.py();
    if let Some(class) = picklers.for_dumps(py)? {
        let pickle = unended::call(&class.getattr(name!(py, "dumps")?)?, (value,), None)?;
        return Ok(Pickled::Whole(Bytes::Python(flat(&pickle)?)));
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

/// Returns the error of a received message that cannot be returned. If memory is short, the error says that the object
/// is lost.
pub fn lost(py: Python<'_>, error: PyErr) -> PyErr {
    short_of_memory(py, error, "there was no memory to unpickle the received message, which is lost")
}

/// Returns the error of a message that cannot be unpickled after a signal handler has interrupted a first attempt. The
/// interruption may be the reason.
pub fn lost_again(py: Python<'_>, error: PyErr) -> PyErr {
    const WHAT: &str = "a signal handler interrupted the first attempt to unpickle this message, and the second \
        attempt failed: the message is lost. Receive objects that can be unpickled only once in another thread than \
        the main thread, in which no handler runs";
    if !error.is_instance_of::<PyEOFError>(py) {
        // The note is added even if the first attempt would have failed as well.
        note(py, &error, WHAT);
        return error;
    }
    // An EOFError would say that the other end is closed.
    let made = import(py, "_pickle").and_then(|pickle| pickle.attr("UnpicklingError")?.with((WHAT,)));
    made.map_or_else(
        |error| error,
        |made| {
            let made = PyErr::from_value(made);
            made.set_cause(py, Some(error));
            made
        },
    )
}

/// Adds to a `MemoryError` what it is about. Returns other errors unchanged.
pub fn short_of_memory(py: Python<'_>, error: PyErr, what: &str) -> PyErr {
    if !error.is_instance_of::<PyMemoryError>(py) || interrupts(py, &error) {
        return error;
    }
    let value = error.value(py);
    let said = value.str().ok().and_then(|text| text.extract::<String>().ok()).unwrap_or_default();
    let text = if said.is_empty() { what.to_owned() } else { format!("{said} ({what})") };
    let args = made::text(py, &text).and_then(|text| made::tuple(py, vec![text.into_any()]));
    if made::text(py, "args").and_then(|name| value.setattr(name, args?)).is_err() {
        // If there is no memory for the text either, the error keeps its own text.
        note(py, &error, what);
    }
    error
}

impl Picklers {
    /// Reads the value of a plain pickle without Python code. Returns `None` if it is not plain, or if the program's
    /// own class must read it.
    pub fn load_quickly<'py>(
        &self,
        py: Python<'py>,
        stream: &[u8],
        buffers: &[Bound<'py, PyMemory>],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(if self.for_loads(py)?.is_none() { pickle::load(py, stream, buffers) } else { None })
    }
}

/// A pickle, and the buffers that travelled apart. It can be read more than once, because a signal handler may
/// interrupt the reading.
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

    /// Returns the value.
    pub fn load<'py>(&self, py: Python<'py>, picklers: &Picklers) -> PyResult<Bound<'py, PyAny>> {
        if let Some(class) = picklers.for_loads(py)? {
            let whole = self.whole(py)?;
            return unended::call(&class.getattr(name!(py, "loads")?)?, (whole,), None);
        }
        static LOAD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let load = LOAD.get_or_make(py, || PyResult::Ok(import(py, "_pickle")?.attr("loads")?.unbind()))?.bind(py);
        let value = if self.buffers.is_empty() {
            unended::call(load, (&self.stream,), None).inspect_err(|error| self.explain(py, error))
        } else {
            let kwargs = made::dict(py)?;
            kwargs.set_item(name!(py, "buffers")?, self.buffers(py)?)?;
            unended::call(load, (&self.stream,), Some(&kwargs))
        };
        // The value may have imported NumPy.
        arrays::is_found(py);
        value
    }

    /// Adds a note to the error of a message that is no pickle if the other end has begun to authenticate.
    #[cold]
    fn explain(&self, py: Python<'_>, error: &PyErr) {
        const WHAT: &str = "the other end asks for an authkey: pass the authkey to Client or Listener";
        let begun =
            PyBuffer::get(self.stream.bind(py)).is_ok_and(|stream| bytes_of(&stream).starts_with(b"#CHALLENGE#"));
        if begun {
            note(py, error, WHAT);
        }
    }

    /// Returns the pickle with its buffers inserted, as bytes.
    pub fn whole<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stream = PyBuffer::get(self.stream.bind(py))?;
        let stream = made::bytes(py, bytes_of(&stream))?;
        if self.buffers.is_empty() { Ok(stream.into_any()) } else { joined(py, stream, self.buffers(py)?) }
    }
}

/// Returns the pickle with its buffers inserted.
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
        (Ok(_) | Err(Error::Interrupted), Some(raised)) => Err(raised),
        (Err(error), Some(raised)) => {
            // The exception of the handler goes first, and carries what failed beside it.
            note(py, &raised, &error.to_string());
            Err(raised)
        }
        (Err(error), None) => Err(exception(error)),
        (Ok(value), None) => Ok(value),
    }
}

/// Returns the exception for an error of a channel.
pub fn exception(error: Error) -> PyErr {
    match error {
        Error::EndOfStream => PyEOFError::saying(error.to_string()),
        // The text of the standard package.
        Error::TooLong => PyOSError::saying(Error::BadLength.to_string()),
        Error::CutOff | Error::BadLength | Error::Damaged(_) => PyOSError::saying(error.to_string()),
        other => crate::error::python(other),
    }
}
