//! Signals that come while a thread waits without the interpreter lock.

use maniple_engine::sys;
use pyo3::prelude::*;

/// What a signal's handler raised, if one is due. Python runs handlers in its first thread only; any other must not ask for the
/// interpreter here, since it may still wait while the interpreter ends.
pub fn look_for_signals() -> Option<PyErr> {
    sys::is_first_thread().then(|| Python::attach(|py| py.check_signals().err())).flatten()
}
