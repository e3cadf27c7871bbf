//! Processes with the interface of threads.
//!
//! A [`Pool`] runs functions of this program in worker processes. It is for work that must be spread over processes,
//! crash-isolated, or killed; threads offer none of these. Its methods are those of Python's `multiprocessing.Pool`,
//! with types.
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
//! // The caller learns of every failure of a worker.
//! let lost = pool.apply(|code| std::process::exit(code), 3).map(|()| "never").unwrap_err();
//! assert!(lost.to_string().contains("exited with code 3"));
//! # Ok(())
//! # }
//! ```
//!
//! | for | use |
//! | --- | --- |
//! | work spread over processes | [`Pool`], its [`JobHandle`]s and [`Imap`] |
//! | one function in a separate process | [`spawn`], [`JoinHandle`]; [`Process`], [`current_process`], [`active_children`] |
//! | messages between two processes | [`pipe`], [`channel`], [`Connection`], [`wait()`] |
//! | messages between many processes | [`Queue`], [`JoinableQueue`], [`SimpleQueue`] |
//! | messages to other programs, Python's among them | [`Listener`], [`Client`], [`Authkey`], [`Codec`] |
//! | mutual exclusion and signalling | [`Lock`], [`RLock`], [`RwLock`], [`Semaphore`], [`BoundedSemaphore`], [`Condition`], [`Event`], [`Barrier`] |
//! | shared memory | [`Mutex`], [`Value`], [`Array`], [`RawValue`], [`RawArray`], [`SharedMemory`], [`ShareableList`] |
//! | objects in a server process | [`Manager`], [`Proxy`], [`managers`] |
//! | large lists of plain numbers; files and sockets | [`Bulk`], [`mod@bulk`]; [`Handle`], [`mod@handle`] |
//! | functions that other programs call by name | [`mod@task`] |
//!
//! If a process dies, every waiting call returns: with a result, or an error that says what happened. A killed process
//! leaves no process, descriptor or memory behind (except a named [`SharedMemory`] whose creator was killed).
//!
//! # How a program becomes its own worker
//! A worker is the same program, started once more. It becomes a worker before `main`, so `main` needs no extra line,
//! and plain `cargo test` works. (Without the feature `auto-init`, `main` begins with [`init()`].) Functions are
//! identified by their place in the program, so they are `fn` pointers: functions, and closures that capture nothing.
//! ([`Pool::starmap`] takes named functions and `fn` pointers; a closure goes to [`Pool::map`], as `|(a, b)| a * b`.)
//! serde encodes arguments and results, which own their data: `String`, not `&str`; `Vec<T>`, not `&[T]`. Large lists of plain numbers travel by shared memory if they are a [`Bulk`].
//!
//! # What a worker shares with its pool's process
//! A worker shares the program, its arguments and environment, the working directory, standard input and output. Its
//! standard error passes through the pool's process, so that [`WorkerLost`] can quote it. A worker does not share
//! memory: its statics are as in a fresh program; [`PoolBuilder::initializer`] sets them. [`PoolBuilder::env`],
//! [`current_dir`](PoolBuilder::current_dir) and [`affinity`](PoolBuilder::affinity) give workers variables, a directory and
//! processors of their own; [`worker_id`] is a worker's number. When the pool's process dies,
//! the worker dies at once, even if it is busy.
//!
//! # What a drop does
//! Every drop has a time limit. In a forked child, dropping an object that its parent made does nothing.
//!
//! | type | what a drop does | how long it waits |
//! | --- | --- | --- |
//! | [`Pool`] | ends the workers at once; calls end with [`CallError::Terminated`] | for the workers' end, 10 seconds at most |
//! | [`WithOptions`] | nothing | |
//! | [`JobHandle`] | nothing: the call continues, and its results are discarded; with [`JobHandle::abort_on_drop`] it aborts the call | |
//! | [`Imap`], [`Indexed`] | cancels the calls that have not begun | |
//! | [`Process`], the last handle | ends a daemon; another process continues | for its end, 5 seconds at most |
//! | [`JoinHandle`] | ends the process; its result is lost | for its end, 5 seconds at most |
//! | [`Manager`], if it started the server | asks the server to end, and kills it after 5 seconds | for its end, 15 seconds at most |
//! | [`Proxy`], a manager's objects | notifies the server, which drops an object with its last proxy | |
//! | [`managers::LockGuard`], [`managers::ConditionGuard`], [`managers::SemaphorePermit`] | releases the lock or permit | for the server, 5 seconds at most |
//! | [`LockGuard`], [`RLockGuard`], [`MutexGuard`], [`RwLockWriteGuard`] | releases the lock; in a panic, also poisons it | |
//! | [`RwLockReadGuard`], [`SemaphorePermit`] | releases the lock or the unit | |
//! | [`Connection`], [`Sender`], [`Receiver`], [`Queue`] | closes this end; what was sent can still be received | |
//! | [`Listener`] | closes the socket, and removes its path | |
//! | [`SharedMemory`], [`ShareableList`] | unmaps it; the last handle of the process that made it removes its name | |
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `auto-init` | on | A worker starts before `main`. Without the feature `main` begins with [`init()`]. |
//! | `macros` | on | [`#[maniple::task]`](macro@task): functions that other programs call by their names, see [`task`](mod@task). |
//! | `async` | off | Streams, and futures of further waits: `put_async`, `accept_async`, `lock_async`, `wait_async` and so on. |
//! | `bytes` | off | `bytes::Bytes` to and from [`Bytes`], without a copy. |
//! | `json` | off | `Json`, a codec for connections to programs in other languages. |
//! | `tracing` | off | `tracing` events of workers and processes reach the subscriber of the process that started them. |
//!
//! # With `tracing`
//! A worker or a [`Process`] that is started while there is a subscriber sends its events to it, at the levels that
//! were enabled at that moment. An event arrives with its level, target, module, file, line and fields. Two fields are
//! added: `pid`, and within spans `spans`, their names. The event goes to the subscriber that was current where the
//! pool was built or the process was started. A pool delivers events on its own thread, so a subscriber must not wait
//! for the pool there. The events of a dead worker arrive before the error that reports its death. The events of a
//! process are delivered by calls to its handle, such as [`Process::join`]; no thread is started for them.
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[cfg(feature = "async")]
mod background;
pub mod bulk;
mod call;
mod callee;
mod chunk;
mod codec;
mod error;
mod events;
mod failure;
pub mod handle;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
mod identity;
mod init;
pub mod managers;
mod panic;
mod payload;
mod pool;
mod process;
mod registered;
mod sharing;
mod sideband;
mod startup;
mod surroundings;
mod sync;
pub mod task;
mod transport;
#[cfg(unix)]
mod unix;
mod worker;
mod worker_setup;

pub use bulk::{Bulk, Bytes};
/// Plain old data: a type that shared memory can hold, and that [`Bulk`] sends as a whole. Any bytes of its size are a
/// value of it, and it has no padding: numbers, arrays of them, and structs that derive it with the crate `bytemuck`.
///
/// ```
/// use bytemuck::Zeroable;
/// use maniple::{Mutex, Pod};
///
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// // SAFETY: any bytes are two numbers, and there is no padding. `#[derive(bytemuck::Pod, bytemuck::Zeroable)]` checks this.
/// unsafe impl Zeroable for Point {}
/// unsafe impl Pod for Point {}
///
/// # fn main() -> maniple::Result<()> {
/// let position = Mutex::new(Point { x: 1.0, y: 2.0 })?;
/// position.lock()?.x = 3.0;
/// let Point { x, y } = *position.lock()?;
/// assert_eq!((x, y), (3.0, 2.0));
/// # Ok(())
/// # }
/// ```
///
/// What follows is the documentation of the crate `bytemuck`.
///
/// ---
pub use bytemuck::Pod;
pub use call::StarFn;
#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, Postcard};
pub use error::{
    BrokenBarrier, CallError, ChannelError, Error, ManagerLost, MemoryLimit, Panicked, Poison, ProcessError, Result,
    SyncError, SystemError, TaskTimeout, TimeoutError, WorkerLost,
};
pub use handle::Handle;
pub use init::init;
pub use managers::{Manager, ManagerBuilder, Proxy};
pub use maniple_engine::process::{Cause, Exit};
/// ```
/// #[maniple::task]
/// fn shout(text: String) -> String {
///     text.to_uppercase()
/// }
///
/// # fn main() -> maniple::Result<()> {
/// // An ordinary function still, and known by its name besides.
/// assert_eq!(shout("a".into()), "A");
/// assert_eq!(maniple::Pool::new(1)?.apply(shout, "b".into())?, "B");
/// assert!(maniple::task::names().any(|name| name.ends_with("::shout")));
/// # Ok(())
/// # }
/// ```
///
/// A value from another process cannot be borrowed:
///
/// ```compile_fail
/// #[maniple::task]
/// fn shout(text: &str) -> String {
///     text.to_uppercase()
/// }
/// ```
#[cfg(feature = "macros")]
pub use maniple_macros::task;
pub use payload::Payload;
pub use pool::{Affinity, BacklogFull, CallOptions, Imap, Indexed, JobHandle, Pool, PoolBuilder, Retries, WithOptions};
#[cfg(feature = "async")]
pub use pool::{ImapStream, IndexedStream};
pub use pool::{Latency, PoolStats, SlowTask, WorkerState, WorkerStats};
pub use process::{
    CurrentProcess, IntoExitCode, JoinHandle, ParentProcess, Process, ProcessBuilder, Stdio, active_children,
    cpu_count, current_process, parent_process, spawn,
};
pub use sharing::{Array, RawArray, RawValue, ShareableItem, ShareableList, SharedMemory, Value};
pub use startup::StartMethod;
pub use sync::{
    Barrier, BarrierWaitResult, BoundedSemaphore, Condition, Event, Guard, Lock, LockGuard, LockResult, Mutex,
    MutexGuard, PoisonError, RLock, RLockGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit,
    TryLockError, TryLockResult, WaitTimeoutResult,
};
#[doc(hidden)]
pub use task::macro_support as support;
pub use transport::{Address, Authkey, Client, ClientBuilder, Incoming, Listener, ListenerBuilder};
pub use transport::{
    Connection, JoinableQueue, Queue, QueueIter, Receiver, ReceiverIntoIter, ReceiverIter, Sender, SimpleQueue,
    channel, pipe, wait, wait_timeout,
};
#[cfg(feature = "async")]
pub use transport::{IncomingStream, QueueStream, ReceiverStream, wait_async};
pub use worker_setup::{worker_count, worker_id};
