//! The options of a call, besides its function and its items.

use super::Pool;
use super::backlog::{Backlog, BacklogFull};
use super::retries::{ENDLESS, Retries, nanos};
use crate::error::{Error, Result};
use maniple_engine::pool::policy::WINDOW;
use maniple_engine::pool::{self as engine, Chunk, Terms};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Options of a pool's calls, for [`Pool::with`].
///
/// A size or a time limit of 0 has no meaning: each call with it returns [`Error::InvalidArgument`]. An option that is
/// not set has the value that the pool's builder was given.
///
/// ```
/// use maniple::{CallOptions, Error, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(2)?;
/// let options = CallOptions::new().chunksize(4).buffersize(16);
/// for size in pool.with(options).imap(|name: String| name.len(), ["ab".to_string()])? {
///     assert_eq!(size?, 2);
/// }
/// let none = pool.with(options.chunksize(0)).map(u32::count_ones, [1]);
/// assert!(matches!(none, Err(Error::InvalidArgument(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use = "options have no effect until `Pool::with` is called with them"]
pub struct CallOptions {
    chunksize: Option<usize>,
    buffersize: Option<usize>,
    task_timeout: Option<Duration>,
    retries: Option<Retries>,
    priority: Option<i32>,
    max_backlog: Option<usize>,
    backlog_full: Option<BacklogFull>,
}

/// What the engine has to know of the options of a call.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The number of items in a task.
    pub chunk: Chunk,
    /// The greatest number of items, and of bytes, under way.
    pub window: (usize, usize),
    /// Limits, retries and priority.
    pub terms: Option<Arc<Terms>>,
    /// The limit of a single call's backlog.
    pub backlog: Option<Backlog>,
}

impl CallOptions {
    /// Creates the default options: chunks whose items take a few milliseconds, in `imap` at most 1,000 items under
    /// way, fewer if they are large, no time limit, no retries, the priority 0, and any number of waiting calls.
    ///
    /// ```
    /// assert_eq!(maniple::CallOptions::new(), maniple::CallOptions::default());
    /// ```
    pub const fn new() -> CallOptions {
        CallOptions {
            chunksize: None,
            buffersize: None,
            task_timeout: None,
            retries: None,
            priority: None,
            max_backlog: None,
            backlog_full: None,
        }
    }

    /// Sets the number of items in each task. In calls with a time limit or retries each item is a task of its own.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// // Each task is one item, so a lost worker takes one with it.
    /// const SINGLE: CallOptions = CallOptions::new().chunksize(1);
    /// assert_eq!(Pool::new(2)?.with(SINGLE).map(u32::count_ones, [1, 3])?, [1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn chunksize(mut self, items: usize) -> CallOptions {
        self.chunksize = Some(items);
        self
    }

    /// Sets the greatest number of items under way in [`Pool::imap`] and [`Pool::imap_unordered`]: items that were
    /// taken from the input, and whose results the caller has not taken yet.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(2)?;
    /// let squares = pool.with(CallOptions::new().buffersize(8)).imap(|x: u64| x * x, 0..)?;
    /// assert_eq!(squares.take(3).collect::<maniple::Result<Vec<_>>>()?, [0, 1, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn buffersize(mut self, items: usize) -> CallOptions {
        self.buffersize = Some(items);
        self
    }

    /// Sets how long a task may run, for each item by itself. A task that runs for longer is ended with its worker and
    /// with the processes that the task has started, also if it blocks, ignores signals or is stopped. It fails with
    /// [`Error::TaskTimeout`], and a new worker takes the place of the worker.
    ///
    /// The limit counts from when the task begins to run. [`Duration::MAX`] is no limit, for calls of a pool that has
    /// one. How long the caller waits is another limit: [`JobHandle::get_timeout`](crate::JobHandle::get_timeout).
    ///
    /// ```
    /// use maniple::{CallOptions, Error, Pool};
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(2)?;
    /// let limited = pool.with(CallOptions::new().task_timeout(Duration::from_secs(1)));
    /// let naps = limited.try_map(|ms| std::thread::sleep(Duration::from_millis(ms)), [0, 60_000, 1])?;
    /// assert!(matches!(naps[..], [Ok(()), Err(Error::TaskTimeout(_)), Ok(())]));
    /// # Ok(())
    /// # }
    /// ```
    pub const fn task_timeout(mut self, limit: Duration) -> CallOptions {
        self.task_timeout = Some(limit);
        self
    }

    /// Sets how often, and after which pauses, a task is tried again that was lost with its worker, exceeded its time
    /// limit or exceeded the memory limit: a number, or [`Retries`]. By default no task is run twice. The error of the
    /// last try has the texts of the earlier errors.
    ///
    /// ```
    /// use maniple::{CallOptions, Error, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(1)?;
    /// let Err(Error::WorkerLost(lost)) = pool.with(CallOptions::new().retries(2)).apply(|code| std::process::exit(code), 3)
    ///     .map(|()| "never")
    /// else {
    ///     panic!("it has a value")
    /// };
    /// assert_eq!(lost.earlier.len(), 2);
    /// assert!(lost.earlier[0].contains("exited with code 3"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn retries(mut self, retries: impl Into<Retries>) -> CallOptions {
        self.retries = Some(retries.into());
        self
    }

    /// Sets the priority. Tasks with a lower number go first; the default is 0. Calls of the same priority share the
    /// workers. A task that has begun is not interrupted.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(1)?;
    /// let later = pool.with(CallOptions::new().priority(10)).map_async(u32::count_ones, 0..1000)?;
    /// assert_eq!(pool.with(CallOptions::new().priority(-1)).apply(u32::count_ones, 7)?, 3);
    /// assert_eq!(later.get()?.len(), 1000);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn priority(mut self, priority: i32) -> CallOptions {
        self.priority = Some(priority);
        self
    }

    /// Sets how many calls of one item may wait for a worker when this call is made; see
    /// [`PoolBuilder::max_backlog`](crate::PoolBuilder::max_backlog). [`usize::MAX`] is no limit, for calls of a pool that
    /// has one. Calls of several items have no such limit.
    ///
    /// ```
    /// use maniple::{CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::new(2)?;
    /// let few = pool.with(CallOptions::new().max_backlog(10));
    /// let calls = (0..100u32).map(|n| few.apply_async(u32::count_ones, n)).collect::<maniple::Result<Vec<_>>>()?;
    /// assert_eq!(calls.into_iter().last().unwrap().get()?, 99u32.count_ones());
    /// # Ok(())
    /// # }
    /// ```
    pub const fn max_backlog(mut self, calls: usize) -> CallOptions {
        self.max_backlog = Some(calls);
        self
    }

    /// Sets what the call does while [`max_backlog`](CallOptions::max_backlog) calls wait. The default is
    /// [`BacklogFull::Block`].
    ///
    /// ```
    /// use maniple::{BacklogFull, CallOptions, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let options = CallOptions::new().max_backlog(1).backlog_full(BacklogFull::Fail);
    /// assert_eq!(Pool::new(1)?.with(options).apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn backlog_full(mut self, full: BacklogFull) -> CallOptions {
        self.backlog_full = Some(full);
        self
    }

    /// These options, and `defaults` where they are not set.
    pub(super) fn or(self, defaults: CallOptions) -> CallOptions {
        CallOptions {
            chunksize: self.chunksize.or(defaults.chunksize),
            buffersize: self.buffersize.or(defaults.buffersize),
            task_timeout: self.task_timeout.or(defaults.task_timeout),
            retries: self.retries.or(defaults.retries),
            priority: self.priority.or(defaults.priority),
            max_backlog: self.max_backlog.or(defaults.max_backlog),
            backlog_full: self.backlog_full.or(defaults.backlog_full),
        }
    }

    /// Whether tasks have a time limit.
    pub(super) fn has_time_limit(self) -> bool {
        self.task_timeout.is_some_and(|limit| nanos(limit) < ENDLESS)
    }

    /// Returns the engine's form.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) fn resolve(self) -> Result<Resolved> {
        let chunk = match self.chunksize {
            None => Chunk::Adaptive,
            Some(0) => {
                return Err(Error::InvalidArgument("a chunksize of 0 items; use 1 or more, or leave the option out"));
            }
            Some(items) => Chunk::Fixed(items),
        };
        let window = match self.buffersize {
            None => WINDOW,
            Some(0) => {
                return Err(Error::InvalidArgument("a buffersize of 0 items; use 1 or more, or leave the option out"));
            }
            Some(items) => (items, usize::MAX),
        };
        let limit = match self.task_timeout {
            Some(Duration::ZERO) => {
                return Err(Error::InvalidArgument("a task_timeout of 0; use a longer time, or leave the option out"));
            }
            limit => limit.map(nanos).filter(|&limit| limit < ENDLESS),
        };
        let backlog = match self.max_backlog {
            Some(0) => {
                return Err(Error::InvalidArgument("a max_backlog of 0 calls; use 1 or more, or leave the option out"));
            }
            most => most.map(|most| Backlog { most, full: self.backlog_full.unwrap_or_default() }),
        };
        let retries = self.retries.map_or(Ok(engine::Retries::NONE), Retries::resolve)?;
        let terms = Terms { limit, soft_limit: None, retries, priority: self.priority.unwrap_or(0) };
        // Limits and retries count for each item.
        let chunk = if limit.is_some() || retries.most > 0 { Chunk::Fixed(1) } else { chunk };
        Ok(Resolved { chunk, window, terms: (terms != Terms::default()).then(|| Arc::new(terms)), backlog })
    }
}

/// Shows the options that are set.
impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CallOptions");
        let fields: [(&str, Option<&dyn fmt::Debug>); 7] = [
            ("chunksize", self.chunksize.as_ref().map(|set| set as _)),
            ("buffersize", self.buffersize.as_ref().map(|set| set as _)),
            ("task_timeout", self.task_timeout.as_ref().map(|set| set as _)),
            ("retries", self.retries.as_ref().map(|set| set as _)),
            ("priority", self.priority.as_ref().map(|set| set as _)),
            ("max_backlog", self.max_backlog.as_ref().map(|set| set as _)),
            ("backlog_full", self.backlog_full.as_ref().map(|set| set as _)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                shown.field(name, value);
            }
        }
        shown.finish()
    }
}

/// A [`Pool`] whose calls have [`CallOptions`]. [`Pool::with`] returns it.
///
/// It has the pool's methods. Dropping it does not end the pool.
///
/// ```
/// use maniple::{CallOptions, Pool};
///
/// fn bits(pool: &Pool) -> maniple::Result<Vec<u32>> {
///     pool.map(u32::count_ones, 0..4)
/// }
///
/// # fn main() -> maniple::Result<()> {
/// let pool = Pool::new(2)?;
/// assert_eq!(bits(&pool.with(CallOptions::new().chunksize(2)))?, bits(&pool)?);
/// # Ok(())
/// # }
/// ```
#[must_use = "the options are those of the calls that are made through it"]
pub struct WithOptions<'a> {
    pool: Pool,
    owner: PhantomData<&'a Pool>,
}

impl WithOptions<'_> {
    pub(super) fn new(pool: Pool) -> Self {
        WithOptions { pool, owner: PhantomData }
    }
}

impl fmt::Debug for WithOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pool { options, .. } = &self.pool;
        f.debug_struct("WithOptions").field("pool", &self.pool).field("options", options).finish()
    }
}

impl Deref for WithOptions<'_> {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.pool
    }
}
