//! The native module of the `maniple` package: conversions between Python and the engine, and nothing else.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `walk` | values of the commonest types, written without asking pickle; what is in them twice |
//! | `payload_format`, `encode`, `decode` | the form of a pool's payloads; Python values to payloads and back |
//! | `pickle` | the pickles of plain values, written and read |
//! | `message` | values to messages and back |
//! | `memory` | bytes that arrived, as a Python buffer |
//! | `shelf`, `handler_free` | messages that a signal's handler kept from their caller; decoding where no handler runs |
//! | `once` | which pickles can be unpickled once only |
//! | `connection`, `queue` | `Channel` and `Log`: what connections and queues do often |
//! | `region` | a large buffer in shared memory, as a Python buffer |
//! | `signals` | signals that come while a thread waits |
//! | `source` | the items of a call, made into tasks when there is room for them |
//! | `function` | which functions mean the same in every call, and what they are called |
//! | `hub` | `Hub`: the parent's side |
//! | `outcome`, `ticket`, `stream` | what has come of a task; `Ticket` and `Stream`: decoded in the thread that wants it |
//! | `results` | `Results`: the step that takes a result of `imap` |
//! | `named` | `shm_open`, `shm_unlink`: shared memory under a name |
//! | `sync`, `sync_fast`, `sync_wait` | `SemLock`; `ConditionCore`, `EventFlag` and `BarrierCore`, to wait for one another |
//! | `assured` | `assured`: the first step of a new thread, which reports its failure without memory, too |
//! | `hold` | `Hold`: a lock that no exception of a signal handler leaves locked |
//! | `guarded` | the base of `Value` and `Array`: an object and its lock |
//! | `worker` | `serve`: the loop of a worker process |
//! | `reception` | authentication: of a listener's clients side by side, of a client, and its single messages |
//! | `truth` | arguments that need only be true or not |
//! | `maker` | `end_after`: a process that does not outlive its creator |
//! | `lazy` | objects that are made at their first use |
//! | `line` | `Line`: a proxy's connection to its manager's server |
//! | `made` | bytes, text, numbers, tuples and lists for Python, or a `MemoryError` |
//!
//! The interpreter lock is given up around everything that may wait. The engine's own lock is never held while Python code
//! runs, so the two cannot deadlock.
#![deny(unsafe_code)]

mod arrays;
mod assured;
mod connection;
mod decode;
mod encode;
mod error;
mod function;
mod guarded;
mod handler_free;
mod handles;
mod hold;
mod hub;
mod lazy;
mod line;
mod made;
mod maker;
mod memory;
mod message;
mod named;
mod once;
mod outcome;
mod payload_format;
mod pickle;
mod queue;
mod reception;
mod region;
mod results;
mod shelf;
mod signals;
mod source;
mod stream;
mod sync;
mod sync_fast;
mod sync_wait;
mod ticket;
mod truth;
mod unended;
mod walk;
mod worker;

use maniple_engine::reserve::Reserve;
use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: Reserve = Reserve;

#[pymodule(gil_used = false)]
mod _maniple {
    #[pymodule_export]
    use crate::assured::assured;
    #[pymodule_export]
    use crate::connection::PyChannel;
    #[pymodule_export]
    use crate::guarded::{PyGuarded, PyLockedField};
    #[pymodule_export]
    use crate::handles::{exit_told, file_at, socket_pair, write_own};
    #[pymodule_export]
    use crate::hold::PyHold;
    #[pymodule_export]
    use crate::hub::PyHub;
    #[pymodule_export]
    use crate::line::PyLine;
    #[pymodule_export]
    use crate::maker::{end_after, end_with};
    #[pymodule_export]
    use crate::memory::{PyMemory, nameless_memory};
    #[pymodule_export]
    use crate::named::{shm_open, shm_unlink};
    #[pymodule_export]
    use crate::queue::PyLog;
    #[pymodule_export]
    use crate::reception::{
        PyGreeting, PyReception, auth_accept, auth_answer, auth_challenge, auth_judge, auth_name_and_payload,
        auth_respond, auth_verify, auth_words, get_in,
    };
    #[pymodule_export]
    use crate::region::PyRegion;
    #[pymodule_export]
    use crate::results::PyResults;
    #[pymodule_export]
    use crate::shelf::{kept_event_of, something_is_kept};
    #[pymodule_export]
    use crate::signals::py_interrupts;
    #[pymodule_export]
    use crate::stream::PyStream;
    #[pymodule_export]
    use crate::sync::{PyArena, PySemLock, sem_unlink};
    #[pymodule_export]
    use crate::sync_wait::{PyBarrier, PyCondition, PyEvent};
    #[pymodule_export]
    use crate::ticket::PyTicket;
    #[pymodule_export]
    use crate::worker::{pool_is_terminated, serve};

    use super::*;

    /// How many processors this process may use: its affinity and its control group's share count.
    #[pyfunction]
    fn usable_cores() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// A payload's value: for the fuzzer, and the test of what it has found.
    #[pyfunction]
    fn decode_payload<'py>(py: Python<'py>, bytes: &[u8], sequence: bool) -> PyResult<Bound<'py, PyAny>> {
        let mut decoder = crate::decode::Decoder::new(bytes, &[]);
        if !sequence {
            return decoder.value(py);
        }
        let items = pyo3::types::PyList::empty(py);
        decoder.sequence(py, |item| items.append(item))?;
        Ok(items.into_any())
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        maniple_engine::watch_forks()?;
        crate::lazy::make_classes(module.py());
        crate::sync_fast::install(&module.py().get_type::<crate::sync::PySemLock>())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
