//! Processes with the interface of threads.
//!
//! A [`Pool`] runs functions of this very program in worker processes: for work that must be spread over processes,
//! crash-isolated, or killed, which threads cannot give. Its methods are those of Python's `multiprocessing.Pool`, typed.
//!
//! ```
//! use maniple::Pool;
//!
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! # fn main() -> maniple::Result<()> {
//! let pool = Pool::new(2)?;
//! assert_eq!(pool.map(square, [1, 2, 3])?, [1, 4, 9]);
//!
//! // Whatever happens to a worker, its caller gets to know.
//! let lost = pool.apply(|code| std::process::exit(code), 3).map(|()| "never").unwrap_err();
//! assert!(lost.to_string().contains("exited with code 3"));
//! # Ok(())
//! # }
//! ```
//!
//! # How a program becomes its own worker
//! A worker is the program started once more, caught before `main`: nothing has to be written there, and plain `cargo test`
//! works. (Without the feature `auto-init`, `main` begins with [`init`].) Functions are recognised by their place in the
//! program, so they are `fn` pointers: functions, and closures that capture nothing. Values travel by serde; large lists of
//! plain numbers by shared memory, if they are a [`Bulk`].
//!
//! # What a worker shares with its pool's process
//! The program, its arguments and environment, the working directory, standard input and output. Its standard error passes
//! through the pool's process, so that [`WorkerLost`] can quote it. It does not share memory: statics are as in a
//! fresh program, and are filled by [`Builder::initializer`]. It dies when the pool's process does, at once and however busy.
#![deny(unsafe_code)]

mod baggage;
pub mod bulk;
mod call;
mod codec;
mod error;
mod exchange;
mod frame;
pub mod handle;
mod identity;
mod panic;
mod pool;
mod process;
mod results;
mod sharing;
mod startup;
mod sync;
mod worker;

pub use bulk::{Bulk, Bytes};
pub use bytemuck::Pod;
pub use call::{Payload, StarFn};
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, Postcard};
pub use error::{Error, Panicked, Result, WorkerLost};
pub use exchange::{Address, Authkey, Client, ClientBuilder, Incoming, Listener, ListenerBuilder};
pub use exchange::{Connection, JoinableQueue, Queue, Receiver, Sender, SimpleQueue, channel, pipe, wait};
pub use handle::Handle;
pub use maniple_engine::process::Exit;
pub use pool::{Builder, Calls, Imap, Pool, Ticket};
pub use process::{
    Current, Ending, Parent, Process, ProcessBuilder, Stdio, active_children, cpu_count, current_process,
    parent_process,
};
pub use sharing::{Array, RawArray, RawValue, ShareableItem, ShareableList, SharedMemory, Value};
pub use startup::{StartMethod, init};
pub use sync::{
    Barrier, BarrierWaitResult, BoundedSemaphore, BrokenBarrier, Condition, Event, Guard, Lock, LockGuard, LockResult,
    Mutex, MutexGuard, Permit, Poison, PoisonError, RLock, RLockGuard, Semaphore, TryLockError, TryLockResult,
    WaitTimeoutResult,
};
