//! The native module of the `maniple` package: conversions between Python and the engine, and nothing else.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `walk` | plain values: walks over them without pickle |
//! | `payload_format`, `encode`, `decode` | the form of a pool's payloads; Python values to payloads and back |
//! | `pickle` | the pickles of plain values: writes and reads them |
//! | `message` | values to messages and back |
//! | `flat` | buffers of adjacent bytes that stay in place |
//! | `memory` | received bytes as a Python buffer |
//! | `shelf`, `handler_free` | messages that no caller received because a signal handler raised; decoding where no handler runs |
//! | `once` | which pickles can be unpickled once only |
//! | `connection`, `queue` | `Channel` and `Log`: the frequent operations of connections and queues |
//! | `region` | a large buffer in shared memory, as a Python buffer |
//! | `signals` | signals that come while a thread waits |
//! | `source` | the items of a call, made into tasks when there is room for them |
//! | `function` | functions that mean the same in every call, and the names of functions in errors |
//! | `hub` | `Hub`: the parent's side |
//! | `futures` | `Futures`: the futures of an executor's tasks |
//! | `outcome`, `ticket`, `stream` | the outcome of a task; `Ticket` and `Stream`: the thread that requests it decodes it |
//! | `results` | `Results`: the step that takes a result of `imap` |
//! | `named` | `shm_open`, `shm_unlink`: shared memory under a name |
//! | `sync`, `sync_fast`, `sync_wait` | `SemLock`; `ConditionCore`, `EventFlag` and `BarrierCore` |
//! | `assured` | `assured`: the first step of a new thread, which reports its failure without memory, too |
//! | `hold` | `Hold`: a lock that is released although a signal handler raises |
//! | `guarded` | the base of `Value` and `Array`: an object and its lock |
//! | `worker` | `serve`: the loop of a worker process |
//! | `reception` | authentication of a listener's clients, of a client, and its single messages |
//! | `truth`, `deadline` | arguments that are only true or false; time limits |
//! | `child` | `Child`: a started program, where a process is known by a handle |
//! | `children` | children without a process object; the limits of a child |
//! | `maker` | `end_after`: a process that does not outlive its creator |
//! | `lazy` | objects that are made at their first use |
//! | `line` | `Line`: a proxy's connection to its manager's server |
//! | `local` | listeners of this machine under a name |
//! | `made` | bytes, text, numbers, tuples and lists for Python, or a `MemoryError` |
//!
//! Every wait releases the interpreter lock. No thread holds the engine's own lock while it runs Python code, so the
//! two locks cannot deadlock.
#![deny(unsafe_code)]

mod args;
mod arrays;
mod assured;
mod born;
mod child;
mod children;
mod connection;
mod deadline;
mod decode;
mod descriptor;
mod encode;
mod error;
mod feed;
mod flat;
mod function;
mod futures;
mod greenlets;
mod guarded;
mod handler_free;
mod handles;
mod hold;
mod hub;
mod known;
mod lazy;
mod line;
mod local;
mod made;
mod mailbox;
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
mod seed;
mod shelf;
mod signals;
mod sizes;
mod soft_limit;
mod source;
mod statistics;
mod stream;
mod sync;
mod sync_fast;
mod sync_wait;
mod taking;
mod terms;
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
    use crate::child::PyChild;
    #[pymodule_export]
    use crate::children::{
        PySoftLimits, allowed_cores, discard_children, forward_until_closed, keep_to_cores, terminate_itself,
    };
    #[pymodule_export]
    use crate::connection::{PyChannel, tell_of_closed};
    #[pymodule_export]
    use crate::futures::PyFutures;
    #[pymodule_export]
    use crate::greenlets::greenlets_sleep_by;
    #[pymodule_export]
    use crate::guarded::{PyGuarded, PyLockedField};
    #[pymodule_export]
    use crate::handles::{
        claim_handle, close_handle, companion, duplicate_handle, exit_told, file_at, own_process, recognize_handle,
        stdio_is_open, wait_for_handles, write_own,
    };
    #[pymodule_export]
    use crate::hold::PyHold;
    #[pymodule_export]
    use crate::hub::PyHub;
    #[pymodule_export]
    use crate::line::PyLine;
    #[pymodule_export]
    use crate::local::{local_client, local_listener};
    #[pymodule_export]
    use crate::mailbox::PyMailbox;
    #[pymodule_export]
    use crate::maker::{end_after, end_with};
    #[pymodule_export]
    use crate::memory::{PyMapped, PyMemory, content_of_memory, filled_memory, nameless_memory};
    #[pymodule_export]
    use crate::named::{named_section, shm_open, shm_unlink};
    #[pymodule_export]
    use crate::queue::PyLog;
    #[pymodule_export]
    use crate::reception::{
        PyGreeting, PyGuest, PyReception, auth_accept, auth_answer, auth_challenge, auth_judge, auth_name_and_payload,
        auth_respond, auth_verify, auth_words, get_in,
    };
    #[pymodule_export]
    use crate::region::PyRegion;
    #[pymodule_export]
    use crate::results::PyResults;
    #[pymodule_export]
    use crate::seed::Seeds;
    #[pymodule_export]
    use crate::shelf::{kept_event_of, something_is_kept};
    #[pymodule_export]
    use crate::signals::{py_interrupts, py_interrupts_decoding};
    #[pymodule_export]
    use crate::sizes::{impossible_size, memory_of_control_group, processors_of, thread_variables};
    #[pymodule_export]
    use crate::soft_limit::exceeded_soft_limit;
    #[pymodule_export]
    use crate::stream::PyStream;
    #[pymodule_export]
    use crate::sync::{PyArena, PySemLock, sem_unlink};
    #[pymodule_export]
    use crate::sync_wait::{PyBarrier, PyCondition, PyEvent};
    #[pymodule_export]
    use crate::taking::PyTaking;
    #[pymodule_export]
    use crate::terms::{PyTerms, memory_of};
    #[pymodule_export]
    use crate::ticket::PyTicket;
    #[pymodule_export]
    use crate::worker::{pool_is_terminated, serve};

    use super::*;

    /// Returns the number of processors that this process may use, by its affinity and the share of its control group.
    #[pyfunction]
    fn usable_cores() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    /// Returns the value of a payload: for the fuzzer, and for the tests of its findings.
    #[pyfunction]
    fn decode_payload<'py>(py: Python<'py>, bytes: &[u8], sequence: bool) -> PyResult<Bound<'py, PyAny>> {
        let mut decoder = crate::decode::Decoder::new(bytes, &[]);
        if !sequence {
            return decoder.value(py);
        }
        let items = made::empty_list(py)?;
        decoder.sequence(py, |item| items.append(item))?;
        Ok(items.into_any())
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        maniple_engine::watch_forks().map_err(|e| crate::error::os("watch for forks", e))?;
        crate::lazy::make_classes(module.py());
        crate::sync_fast::install(&module.py().get_type::<crate::sync::PySemLock>())?;
        crate::taking::add(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
