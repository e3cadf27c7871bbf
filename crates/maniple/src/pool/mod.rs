//! The pool: typed calls on top of the engine's jobs.
//!
//! ```text
//!   Pool (with CallOptions) ────────────────── job ──▶ hub        results ──▶ JobHandle, Imap
//!     │                                                │
//!     └── keeper thread: starts and reaps workers ◀────┘
//! ```

mod affinity;
mod backlog;
mod builder;
mod calls;
mod imap;
mod job_handle;
mod keeper;
mod options;
mod results;
mod retries;
mod source;
#[cfg(feature = "async")]
mod stream;
mod submit;

pub use affinity::Affinity;
pub use backlog::BacklogFull;
pub use builder::PoolBuilder;
pub use imap::{Imap, Indexed};
pub use job_handle::JobHandle;
pub use options::{CallOptions, WithOptions};
pub use retries::Retries;
#[cfg(feature = "async")]
pub use stream::{ImapStream, IndexedStream};

use crate::error::{CallError, Error, InTime, Result};
use crate::startup::StartMethod;
use crate::surroundings::Surroundings;
use crate::worker_setup::OwnCall;
use keeper::{Crew, ForkServer, Keeper};
use maniple_engine::pool::policy::FAREWELL;
use maniple_engine::pool::{self as engine, Func, Hub};
pub use maniple_engine::pool::{Latency, PoolStats, SlowTask, WorkerState, WorkerStats};
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The data that the pool, its jobs and its keeper share.
#[derive(Debug)]
pub(crate) struct Shared {
    hub: Hub,
    method: StartMethod,
    workers: Workers,
    // Another program than this one, whose functions are known by their names.
    program: Option<PathBuf>,
    crew: Mutex<Crew>,
    fork_server: ForkServer,
    keeper: Mutex<Option<Keeper>>,
    // Recent functions, by the data that defines them: workers know them already.
    functions: Mutex<VecDeque<(Vec<u8>, Func)>>,
}

/// What the workers have of their own.
#[derive(Debug)]
struct Workers {
    initializer: OwnCall,
    finalizer: OwnCall,
    around: Surroundings,
    affinity: Option<engine::Affinity>,
    size: engine::Size,
}

impl Shared {
    fn new(hub: Hub, method: StartMethod, workers: Workers, program: Option<PathBuf>) -> Shared {
        Shared {
            hub,
            method,
            workers,
            program,
            crew: Mutex::default(),
            fork_server: ForkServer::default(),
            keeper: Mutex::default(),
            functions: Mutex::default(),
        }
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program of the workers, if it is another one.
    fn program(&self) -> Option<&Path> {
        self.program.as_deref()
    }

    /// The reason why no worker could be started, if that happened.
    pub(crate) fn start_error(&self) -> Option<String> {
        self.crew().start_error.clone()
    }
}

/// A pool of worker processes that run functions of this program.
///
/// The methods are those of Python's `multiprocessing.Pool`. Arguments and results are copied between the processes, so
/// they are [`Payload`](crate::Payload)s. Functions are `fn` pointers; functions and closures that capture nothing
/// convert to them automatically. Pass what a closure would capture as the state of [`Pool::map_with`].
///
/// Every call returns, also when a worker fails: with results, or with an [`Error`] that says what
/// happened. Only the task that the worker was running is lost. Other workers run its other tasks, a new worker
/// replaces it, and the pool continues.
///
/// Dropping a pool ends its workers at once ([`Pool::terminate`]) and leaves nothing behind.
///
/// ```
/// use maniple::Pool;
///
/// fn square(x: u64) -> u64 {
///     x * x
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.map(square, [1, 2, 3])?, [1, 4, 9]);
/// # Ok(())
/// # }
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    options: CallOptions,
    /// False for the result of [`Pool::with`], whose drop does not end the pool.
    owner: bool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { method, .. } = &*self.shared;
        f.debug_struct("Pool").field("start_method", method).field("pids", &self.pids()).finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts a pool of `processes` workers.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(3)?;
    /// assert_eq!(pool.pids().len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 workers,
    /// [`ProcessError::Start`](crate::ProcessError::Start) if the workers cannot be started.
    pub fn new(processes: usize) -> Result<Pool> {
        Pool::builder().processes(processes).build()
    }

    /// Returns a builder for a pool with further options.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder()
    ///     .processes(2)
    ///     .max_tasks_per_child(100)
    ///     .start_method(maniple::StartMethod::ForkServer)
    ///     .build()?;
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }

    /// Returns a view of this pool whose calls have other options. Options that are not set are those of this pool.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(2)?;
    /// let single = CallOptions::new().chunksize(1);
    /// assert_eq!(pool.with(&single).map(i64::wrapping_abs, [-3, 4])?, [3, 4]);
    /// assert_eq!(pool.with(single.priority(1)).apply(i64::wrapping_abs, -3)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with(&self, options: impl Borrow<CallOptions>) -> WithOptions<'_> {
        let options = options.borrow().or(self.options);
        WithOptions::new(Pool { shared: self.shared.clone(), options, owner: false })
    }

    /// Returns the workers' process numbers.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.pids(), [pool.apply(|()| std::process::id(), ())?]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.shared.hub.pids()
    }

    /// Returns what the pool has counted so far: tasks, workers, how long tasks wait and run, memory. `Display` prints a
    /// table. The counters are always on. A pool that has ended returns its last numbers.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// pool.map(i64::wrapping_abs, -50..50)?;
    /// let stats = pool.stats()?;
    /// assert_eq!((stats.items_done, stats.tasks_failed, stats.workers.len()), (100, 0, 2));
    /// println!("{stats}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// In a forked child, whose parent has the pool.
    pub fn stats(&self) -> Result<PoolStats> {
        Ok(self.shared.hub.stats()?)
    }

    /// Describes the state of the pool in words: workers, calls, waiting callers. Use it to find out why the pool makes
    /// no progress. The format may change.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// println!("{}", pool.describe());
    /// # assert!(!pool.describe().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn describe(&self) -> String {
        self.shared.hub.describe()
    }

    /// Sets the number of workers; of a pool with [`min_processes`](PoolBuilder::min_processes) the greatest number. The
    /// pool's own thread starts new workers at once. Surplus workers end after their tasks; no task is lost.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// pool.resize(3)?;
    /// while pool.pids().len() < 3 {
    ///     std::thread::sleep(std::time::Duration::from_millis(5));
    /// }
    /// pool.resize(1)?;
    /// while pool.pids().len() > 1 {
    ///     std::thread::sleep(std::time::Duration::from_millis(5));
    /// }
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0 workers, and for fewer than `min_processes`;
    /// [`ProcessError::Start`](crate::ProcessError::Start) for more workers than a limit of the system allows;
    /// [`CallError::NotRunning`]. The pool then keeps its size. A worker that cannot be started
    /// now is started later.
    pub fn resize(&self, processes: usize) -> Result<()> {
        self.shared.hub.check()?;
        builder::check_size(processes, self.shared.workers.size, Some(self.shared.hub.processes()))?;
        if self.shared.hub.is_closed() {
            return Err(Error::Call(CallError::NotRunning));
        }
        self.shared.hub.resize(processes, true);
        Ok(())
    }

    /// Closes the pool for new calls. Earlier calls run to their end; then the workers end.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let called = pool.apply_async(i32::abs, -1)?;
    /// pool.close();
    /// assert!(matches!(pool.apply(i32::abs, -2), Err(maniple::Error::Call(maniple::CallError::NotRunning))));
    /// assert_eq!(called.get()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.shared.hub.close();
    }

    /// Ends all workers at once, also busy workers. Calls that wait for them end with
    /// [`CallError::Terminated`].
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// pool.terminate();
    /// assert!(matches!(endless.get(), Err(maniple::Error::Call(maniple::CallError::Terminated))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) {
        self.shared.terminate();
    }

    /// Cancels the items of all calls that no worker has begun, as [`JobHandle::cancel`] does for one call. The pool
    /// continues.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// let next = pool.apply_async(u32::count_ones, 7)?;
    /// pool.cancel_all();
    /// assert!(matches!(next.get(), Err(maniple::Error::Call(maniple::CallError::Cancelled))));
    /// # endless.abort();
    /// # Ok(())
    /// # }
    /// ```
    pub fn cancel_all(&self) {
        self.shared.hub.cancel_all(false);
    }

    /// Cancels all calls and ends the workers that run their tasks, as [`JobHandle::abort`] does for one call. New
    /// workers take their places, and the pool continues.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// pool.abort_all();
    /// assert!(matches!(endless.get(), Err(maniple::Error::Call(maniple::CallError::Cancelled))));
    /// assert_eq!(pool.apply(u32::count_ones, 7)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn abort_all(&self) {
        self.shared.hub.cancel_all(true);
    }

    /// Closes the pool if it is open, and waits until the workers have ended.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let job = pool.map_async(i32::signum, [-7, 7])?;
    /// pool.join();
    /// assert_eq!(job.get()?, [-1, 1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn join(&self) {
        self.shared.hub.close();
        self.shared.join(None);
    }

    /// As [`Pool::join`], for at most `timeout`. The pool can be joined again.
    ///
    /// ```
    /// use maniple::{Error, Pool};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// assert!(matches!(pool.join_timeout(Duration::from_millis(10)), Err(Error::Timeout(_))));
    /// endless.abort();
    /// pool.join_timeout(Duration::from_secs(60))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<()> {
        self.shared.hub.close();
        self.shared.join(Some(timeout)).in_time("the workers of the pool to end", timeout)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.owner {
            return;
        }
        if self.shared.hub.check().is_err() {
            // In a forked child, workers, threads and links belong to the parent.
            std::mem::forget(self.shared.clone());
            return;
        }
        self.shared.terminate();
        // Workers that were killed end at once, unless the system delays them.
        self.shared.join(Some(FAREWELL));
        self.shared.abandon(FAREWELL);
    }
}
