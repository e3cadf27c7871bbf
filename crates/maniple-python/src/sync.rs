//! `SemLock`: the base of Python's locks and semaphores. `SyncArena`: the shared memory that contains them.
//!
//! Both are base classes of Python classes. An object is made empty, so that unpickling can fill it, and `__init__`,
//! `_rebuild` or `_fill` fills it. An operation that need not wait keeps the interpreter lock; a wait releases it.

use crate::args::{Calls as _, Out};
use crate::born::Born;
use crate::error::{Saying as _, numbered, python};
use crate::handles::adopt;
use crate::made::Attributes as _;
use crate::signals::look_for_signals;
use crate::truth::Truth;
use maniple_engine::sync::arena::{Arena, CellRef, Place};
use maniple_engine::sync::condition::Guard;
use maniple_engine::sync::holder::this_thread;
use maniple_engine::sync::lock::{Lock, RLock};
use maniple_engine::sync::semaphore::Semaphore;
use maniple_engine::sync::{Outcome, Released};
use maniple_engine::wait::{Interrupt, Until};
use maniple_sys::RawHandle;
use pyo3::exceptions::{
    PyAssertionError, PyFileExistsError, PyFileNotFoundError, PyOSError, PyOverflowError, PyRuntimeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The error number of a bad descriptor.
const EBADF: i32 = 9;
const RECURSIVE_MUTEX: i32 = 0;
const SEMAPHORE: i32 = 1;
const SEM_VALUE_MAX: u32 = i32::MAX as u32;

/// Shared memory that contains locks.
#[pyclass(name = "SyncArena", module = "maniple._maniple", frozen, weakref)]
pub struct PyArena(Arc<Arena>);

#[pymethods]
impl PyArena {
    /// Opens the arena of a descriptor that another process sent. The arena owns the descriptor from now on.
    #[staticmethod]
    fn adopt(fd: RawHandle) -> PyResult<PyArena> {
        let handle = adopt(vec![fd]).pop().ok_or_else(|| PyRuntimeError::saying("no descriptor"))?;
        Arena::open(handle).map(PyArena).map_err(python)
    }

    /// The descriptor, for a sender to duplicate.
    #[getter]
    fn fd(&self) -> PyResult<RawHandle> {
        if !self.0.can_be_sent() {
            let text = "the program has closed the descriptor of the shared memory that this lock lies in, so the lock cannot be sent to a process; \
                        make it after the descriptors were closed, or keep them open";
            return Err(numbered::<PyOSError>(EBADF, text));
        }
        Ok(self.0.handle().as_raw())
    }

    /// The number that identifies the arena.
    #[getter]
    fn id(&self) -> (u64, u64) {
        self.0.id().into()
    }
}

/// Prepares a cell for another process.
pub fn send(place: &Place) -> (PyArena, u32) {
    let ticket = place.send();
    (PyArena(ticket.arena), ticket.number)
}

/// Opens the cell that [`send`] prepared.
pub fn arrived(handle: &(Bound<'_, PyArena>, u32)) -> CellRef {
    CellRef { arena: handle.0.get().0.clone(), number: handle.1 }
}

/// Converts a time-out of Python: seconds, or `None` for no limit.
pub fn limit(timeout: Option<f64>) -> Until {
    match timeout {
        None => Until::Ever,
        Some(t) if t > 0.0 => Duration::try_from_secs_f64(t).map_or(Until::Ever, Until::after),
        Some(_) => Until::Now,
    }
}

/// Runs `wait` without the interpreter lock. Returns the exception of a signal handler that interrupted it.
pub fn waiting<T: Send>(py: Python<'_>, wait: impl FnOnce(Interrupt<'_>) -> T + Send) -> (T, Option<PyErr>) {
    let mut raised = None;
    let outcome = py.detach(|| {
        wait(&mut || {
            if raised.is_none() {
                raised = look_for_signals();
            }
            raised.is_none()
        })
    });
    (outcome, raised)
}

/// The kinds of a `SemLock`.
enum Inner {
    Lock(Lock),
    RLock(RLock),
    Semaphore(Semaphore),
}

/// A lock or semaphore that processes share.
#[pyclass(name = "SemLock", module = "maniple._maniple", subclass, frozen, weakref)]
pub struct PySemLock {
    inner: Born<OnceLock<Inner>>,
    name: Born<OnceLock<String>>,
    // The thread and the process that acquired last through this object, and by how many its acquisitions of a
    // semaphore exceed its releases. These fields serve only the private methods of the standard package, and the check
    // whether this thread holds a condition's plain lock.
    thread: AtomicUsize,
    process: AtomicU64,
    count: AtomicUsize,
    abandoned: AtomicBool,
}

/// The names that are in use in this process. No lock can be opened by its name.
static NAMES: Mutex<Option<HashSet<String>>> = Mutex::new(None);

fn with_names<T>(work: impl FnOnce(&mut HashSet<String>) -> T) -> T {
    work(NAMES.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Removes the name of a `SemLock` that was made with ``unlink=False``.
#[pyfunction]
pub fn sem_unlink(name: &str) -> PyResult<()> {
    if with_names(|names| names.remove(name)) {
        return Ok(());
    }
    let text = "this process has no semaphore of that name";
    Err(PyFileNotFoundError::new_err((2, text, name.to_owned())))
}

fn too_often() -> PyErr {
    PyValueError::saying("semaphore or lock released too many times")
}

impl PySemLock {
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get().ok_or_else(|| PyRuntimeError::saying("this lock was made without calling its __init__"))
    }

    fn fill(&self, inner: Inner, name: Option<String>) -> PyResult<()> {
        if let Some(name) = name {
            let _ = self.name.set(name);
        }
        self.inner.set(inner).map_err(|_| PyRuntimeError::saying("this lock has already been initialised"))
    }

    /// The guard of a condition.
    pub fn guard(&self) -> PyResult<impl Guard + Send + '_> {
        Ok(Held { whole: self, inner: self.inner()? })
    }

    #[inline]
    fn note_taken(&self, inner: &Inner) {
        match inner {
            Inner::RLock(_) => {}
            // The lock's own word says which process holds it.
            Inner::Lock(_) => self.thread.store(this_thread(), Ordering::Relaxed),
            Inner::Semaphore(semaphore) => {
                let before = self.units(semaphore);
                self.process.store(semaphore.place().me().bits(), Ordering::Relaxed);
                self.thread.store(this_thread(), Ordering::Relaxed);
                self.count.store(before + 1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of units of a semaphore that this process has acquired through this object and not released.
    fn units(&self, semaphore: &Semaphore) -> usize {
        let here = self.process.load(Ordering::Relaxed) == semaphore.place().me().bits();
        if here { self.count.load(Ordering::Relaxed) } else { 0 }
    }

    #[inline]
    fn try_at_once(&self, inner: &Inner) -> bool {
        let taken = match inner {
            Inner::Lock(lock) => lock.try_acquire(),
            Inner::RLock(lock) => lock.try_acquire(),
            Inner::Semaphore(semaphore) => semaphore.try_acquire(),
        };
        if taken {
            self.note_taken(inner);
            if self.abandoned.load(Ordering::Relaxed) && self.depth(inner) == 1 {
                self.abandoned.store(false, Ordering::Relaxed);
            }
        }
        taken
    }

    /// Acquires the lock, if that is possible without waiting.
    #[inline]
    pub fn take_at_once(&self) -> bool {
        self.inner.get().is_some_and(|inner| self.try_at_once(inner))
    }

    /// Releases the lock, if it can be released.
    #[inline]
    pub fn give_back_at_once(&self) -> bool {
        self.inner.get().is_some_and(|inner| self.give_back(inner) == Released::Done)
    }

    /// Acquires the lock. Waits if that is not possible at once.
    #[inline]
    pub fn take(&self, py: Python<'_>, limit: Until) -> PyResult<bool> {
        let inner = self.inner()?;
        if self.try_at_once(inner) { Ok(true) } else { self.take_slowly(py, inner, limit) }
    }

    /// Releases the lock.
    #[inline]
    pub fn give(&self) -> PyResult<()> {
        match self.give_back(self.inner()?) {
            Released::Done => Ok(()),
            Released::TooOften => Err(too_often()),
            Released::NotOwner => {
                Err(PyAssertionError::saying("attempt to release recursive lock not owned by thread"))
            }
        }
    }

    #[cold]
    fn take_slowly(&self, py: Python<'_>, inner: &Inner, limit: Until) -> PyResult<bool> {
        let attempt = |interrupt: Interrupt<'_>| match inner {
            Inner::Lock(lock) => lock.acquire(limit, interrupt),
            Inner::RLock(lock) => lock.acquire(limit, interrupt),
            Inner::Semaphore(semaphore) => semaphore.acquire(limit, interrupt),
        };
        let (outcome, raised) = if limit == Until::Now { (attempt(&mut || true), None) } else { waiting(py, attempt) };
        self.note(inner, outcome);
        match raised {
            Some(error) if !outcome.is_ours() => Err(error),
            // The unit was acquired when the signal arrived. It is released, because the caller will not know that it
            // has it.
            Some(error) => {
                self.give_back(inner);
                Err(error)
            }
            None => Ok(outcome.is_ours()),
        }
    }

    fn note(&self, inner: &Inner, outcome: Outcome) {
        if outcome.is_ours() {
            self.abandoned.store(outcome == Outcome::TakenOver, Ordering::Relaxed);
            self.note_taken(inner);
        }
    }

    #[inline]
    fn give_back(&self, inner: &Inner) -> Released {
        match inner {
            Inner::Lock(lock) => lock.release(),
            Inner::RLock(lock) => lock.release(),
            Inner::Semaphore(semaphore) => {
                let released = semaphore.release();
                if released == Released::Done {
                    self.count.store(self.units(semaphore).saturating_sub(1), Ordering::Relaxed);
                }
                released
            }
        }
    }

    fn depth(&self, inner: &Inner) -> usize {
        match inner {
            Inner::Lock(lock) => lock.is_held_here().into(),
            Inner::RLock(lock) => lock.depth() as usize,
            Inner::Semaphore(semaphore) => self.units(semaphore),
        }
    }

    /// Returns whether the calling thread holds the lock, as far as that can be determined.
    pub fn is_mine(&self) -> PyResult<bool> {
        let inner = self.inner()?;
        let here = matches!(inner, Inner::RLock(_)) || self.thread.load(Ordering::Relaxed) == this_thread();
        Ok(here && self.depth(inner) > 0)
    }
}

struct Held<'a> {
    whole: &'a PySemLock,
    inner: &'a Inner,
}

impl Guard for Held<'_> {
    fn let_go(&self) -> Option<u32> {
        match self.inner {
            Inner::RLock(lock) => lock.let_go(),
            inner => (self.whole.give_back(inner) == Released::Done).then_some(1),
        }
    }

    fn take_again(&self, depth: u32, interrupt: Interrupt<'_>) -> Outcome {
        let outcome = match self.inner {
            Inner::Lock(lock) => lock.take_again(depth, interrupt),
            Inner::RLock(lock) => lock.take_again(depth, interrupt),
            Inner::Semaphore(semaphore) => semaphore.acquire(Until::Ever, interrupt),
        };
        self.whole.note(self.inner, outcome);
        outcome
    }
}

#[pymethods]
impl PySemLock {
    /// The highest value that a semaphore may have.
    #[classattr]
    #[pyo3(name = "SEM_VALUE_MAX")]
    const HIGHEST: u32 = SEM_VALUE_MAX;

    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PySemLock {
        PySemLock {
            inner: Born::default(),
            name: Born::default(),
            thread: AtomicUsize::new(0),
            process: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Creates the lock. `holder`: record the holder of a semaphore that is used as a lock, so that a dead process does
    /// not hold it forever.
    #[pyo3(signature = (kind, value, maxvalue, name=None, unlink=true, *, holder=false))]
    fn __init__(
        &self,
        kind: i32,
        value: i64,
        maxvalue: i64,
        name: Option<String>,
        unlink: bool,
        holder: bool,
    ) -> PyResult<()> {
        // An OSError, as in the standard package, whose semaphores belong to the system.
        let out_of_range = || numbered::<PyOSError>(22, "the value of a semaphore is out of range");
        let value = u32::try_from(value).map_err(|_| out_of_range())?;
        let limit = u32::try_from(maxvalue).ok().filter(|&most| most <= SEM_VALUE_MAX);
        let limit = limit.ok_or_else(|| PyOverflowError::saying("maxvalue is out of range"))?;
        if value > limit {
            return Err(out_of_range());
        }
        let name = name.filter(|_| !unlink);
        if let Some(name) = &name
            && !with_names(|names| names.insert(name.clone()))
        {
            return Err(PyFileExistsError::new_err((17, "there is a semaphore of that name", name.clone())));
        }
        let inner = match kind {
            RECURSIVE_MUTEX => RLock::new().map(Inner::RLock),
            SEMAPHORE if holder && value == 1 && limit == 1 => Lock::new().map(Inner::Lock),
            SEMAPHORE => Semaphore::new(value, limit).map(Inner::Semaphore),
            _ => return Err(PyValueError::saying("unrecognized kind")),
        };
        self.fill(inner.map_err(python)?, name)
    }

    /// Opens the lock for which `_send` returned a handle in another process.
    #[classmethod]
    fn _rebuild<'py>(
        cls: &Bound<'py, PyType>,
        handle: (Bound<'py, PyArena>, u32),
        kind: i32,
        maxvalue: i64,
        name: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let new = cls.attr("__new__")?.with((cls,))?;
        new.cast::<PySemLock>()?.get()._fill(handle, kind, maxvalue, name)?;
        Ok(new)
    }

    /// As `_rebuild`, for an object that exists and is empty.
    fn _fill(&self, handle: (Bound<'_, PyArena>, u32), kind: i32, maxvalue: i64, name: Option<String>) -> PyResult<()> {
        let ticket = arrived(&handle);
        let inner = match kind {
            RECURSIVE_MUTEX => RLock::open(ticket).map(Inner::RLock),
            _ if maxvalue == 1 => {
                Lock::open(ticket.clone()).map(Inner::Lock).or_else(|_| Semaphore::open(ticket).map(Inner::Semaphore))
            }
            _ => Semaphore::open(ticket).map(Inner::Semaphore),
        };
        self.fill(inner.map_err(python)?, name)
    }

    /// Returns the arena and the position in it, by which another process can open the lock.
    fn _send(&self) -> PyResult<(PyArena, u32)> {
        Ok(send(self.place()?))
    }

    // `acquire`, `release`, `__enter__` and `__exit__` are in `sync_fast`; this is the `acquire` with arguments.
    #[pyo3(signature = (block=Truth(true), timeout=None))]
    fn _acquire(&self, py: Python<'_>, block: Truth, timeout: Option<f64>) -> PyResult<bool> {
        self.take(py, if block.0 { limit(timeout) } else { Until::Now })
    }

    /// Return True if the lock is held, or the count of the semaphore is zero.
    #[pyo3(text_signature = "(self)")]
    fn locked(&self) -> PyResult<bool> {
        self._is_zero()
    }

    fn _is_zero(&self) -> PyResult<bool> {
        Ok(self._get_value()? == 0)
    }

    fn _get_value(&self) -> PyResult<u32> {
        Ok(match self.inner()? {
            Inner::Lock(lock) => u32::from(!lock.is_held()),
            Inner::RLock(lock) => u32::from(!lock.lock().is_held()),
            Inner::Semaphore(semaphore) => semaphore.value(),
        })
    }

    fn _count(&self) -> PyResult<usize> {
        let inner = self.inner()?;
        match inner {
            // Threads that do not own it may release it as well.
            Inner::RLock(lock) if lock.lock().is_held_here() => Ok((lock.depth() as usize).max(1)),
            _ => Ok(self.depth(inner)),
        }
    }

    fn _is_mine(&self) -> PyResult<bool> {
        self.is_mine()
    }

    /// The end of a block that a condition with this lock guards. If an exception ends the block, the lock may be released
    /// already: a signal handler has raised in `wait`.
    fn _leave(&self, kind: &Bound<'_, PyAny>, _error: &Bound<'_, PyAny>, _trace: &Bound<'_, PyAny>) -> PyResult<()> {
        if kind.is_none() || self.is_mine()? { self.give() } else { Ok(()) }
    }

    /// Does nothing: a forked child detects by itself that it holds nothing.
    fn _after_fork(&self) {}

    /// Whether the last `acquire` here took the lock over from a process that died while it held the lock.
    ///
    /// The data that the lock guards may be half changed then. The standard package does not have this attribute.
    #[getter]
    fn abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// A number that identifies the lock among those of this process.
    #[getter]
    fn handle(&self) -> PyResult<Out<usize>> {
        Ok(Out(std::ptr::from_ref(&self.place()?.word) as usize))
    }

    /// 0 for a lock that its holder may acquire again (`RECURSIVE_MUTEX`), 1 for all others (`SEMAPHORE`).
    #[getter]
    fn kind(&self) -> PyResult<i32> {
        Ok(if matches!(self.inner()?, Inner::RLock(_)) { RECURSIVE_MUTEX } else { SEMAPHORE })
    }

    /// The largest count; 1 for a lock.
    #[getter]
    fn maxvalue(&self) -> PyResult<u32> {
        Ok(if let Inner::Semaphore(semaphore) = self.inner()? { semaphore.limit() } else { 1 })
    }

    /// The name that the object was made with; None if it has none. No other process can open it by the name.
    #[getter]
    fn name(&self) -> Out<Option<&str>> {
        Out(self.name.get().map(String::as_str))
    }
}

impl PySemLock {
    fn place(&self) -> PyResult<&Place> {
        Ok(match self.inner()? {
            Inner::Lock(lock) => lock.place(),
            Inner::RLock(lock) => lock.lock().place(),
            Inner::Semaphore(semaphore) => semaphore.place(),
        })
    }
}
