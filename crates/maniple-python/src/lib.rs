//! The native module of the `maniple` package: conversions between Python and the engine, and nothing else.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `encode`, `decode` | Python values to payloads and back |
//! | `pickle` | the pickles of small values of the commonest types |
//! | `message` | values to messages and back |
//! | `memory` | bytes that arrived, as a Python buffer |
//! | `connection`, `queue` | `Channel` and `Log`: what connections and queues do often |
//! | `region` | a large buffer in shared memory, as a Python buffer |
//! | `source` | the items of a call, made into tasks when there is room for them |
//! | `hub` | `Hub`: the parent's side |
//! | `ticket` | `Ticket` and `Stream`: outcomes, decoded in the thread that wants them |
//! | `worker` | `serve`: the loop of a worker process |
//!
//! The interpreter lock is given up around everything that may wait. The engine's own lock is never held while Python code
//! runs, so the two cannot deadlock.
#![deny(unsafe_code)]

mod connection;
mod decode;
mod encode;
mod error;
mod handles;
mod hub;
mod memory;
mod message;
mod pickle;
mod queue;
mod region;
mod source;
mod ticket;
mod worker;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _maniple {
    #[pymodule_export]
    use crate::connection::PyChannel;
    #[pymodule_export]
    use crate::hub::PyHub;
    #[pymodule_export]
    use crate::memory::PyMemory;
    #[pymodule_export]
    use crate::queue::PyLog;
    #[pymodule_export]
    use crate::region::PyRegion;
    #[pymodule_export]
    use crate::ticket::{PyStream, PyTicket};
    #[pymodule_export]
    use crate::worker::serve;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
