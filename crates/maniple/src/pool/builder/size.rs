//! The options that say how many workers and how many waiting calls a pool has.

use super::PoolBuilder;
use crate::error::{Error, ProcessError, Result};
use crate::pool::BacklogFull;
use maniple_engine::pool::{self as engine, policy};
use std::time::Duration;

/// The options of a pool's size, as they were given.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    least: Option<usize>,
    idle: Option<Duration>,
    spares: Option<usize>,
}

impl Size {
    /// The least number of workers, the time without work, and the number of spare workers.
    pub(super) fn given(&self) -> (Option<usize>, Option<Duration>, Option<usize>) {
        (self.least, self.idle, self.spares)
    }

    /// Returns the engine's form. `has_affinity`: each worker has processors of its own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`].
    pub(super) fn resolve(self, has_time_limit: bool, has_affinity: bool) -> Result<engine::Size> {
        match self {
            Size { idle: Some(Duration::ZERO), .. } => Err(Error::InvalidArgument(
                "an idle_timeout of 0; use a longer time, or leave the option out for 10 seconds",
            )),
            Size { least: None, idle: Some(_), .. } => Err(Error::InvalidArgument(
                "an idle_timeout without min_processes, the number of workers that stay; set both, or none",
            )),
            Size { spares: Some(1..), .. } if has_affinity => Err(Error::InvalidArgument(
                "spare_workers with an affinity: a spare worker starts before it is known which worker it replaces; set one of both",
            )),
            Size { least: least @ Some(_), idle, .. } => {
                Ok(engine::Size { least, idle: idle.unwrap_or(policy::IDLE_WORKER), spares: 0 })
            }
            Size { least: None, spares, .. } => {
                let spares = spares.unwrap_or((has_time_limit && !has_affinity).into());
                Ok(engine::Size { least: None, idle: Duration::ZERO, spares })
            }
        }
    }
}

/// Checks the number of a pool's workers. `before`: how many it has.
///
/// # Errors
/// [`Error::InvalidArgument`]; [`ProcessError::Start`] for more workers than a limit of the system allows.
pub(in crate::pool) fn check_size(processes: usize, size: engine::Size, before: Option<usize>) -> Result<()> {
    if processes == 0 {
        return Err(Error::InvalidArgument("a pool of 0 workers; use 1 or more, or leave the option out"));
    }
    if size.least.is_some_and(|least| least > processes) {
        return Err(Error::InvalidArgument(
            "more min_processes than processes; make min_processes smaller, or processes greater",
        ));
    }
    let all = processes.saturating_add(size.spares);
    match before {
        None => engine::check_size(all, policy::DESCRIPTORS),
        Some(before) if processes > before => engine::check_growth(all, policy::DESCRIPTORS),
        Some(_) => Ok(()),
    }
    .map_err(|impossible| Error::Process(ProcessError::Start(impossible.to_string())))
}

impl PoolBuilder {
    /// Sets the number of workers that stay without work. The pool begins with so many workers. It starts another when an
    /// item waits that no worker is free for, up to [`processes`](PoolBuilder::processes), and ends a worker that has had no
    /// work for the [`idle_timeout`](PoolBuilder::idle_timeout). 0 is a pool without workers until the first call. By
    /// default all workers stay.
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] for more than `processes`.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(4).min_processes(0).build()?;
    /// assert_eq!(pool.pids().len(), 0);
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn min_processes(mut self, processes: usize) -> PoolBuilder {
        self.size.least = Some(processes);
        self
    }

    /// Sets after how long without work a worker ends, in a pool with more workers than
    /// [`min_processes`](PoolBuilder::min_processes). The default is 10 seconds.
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] for a time of 0, and if there is no
    /// `min_processes`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder()
    ///     .processes(2)
    ///     .min_processes(0)
    ///     .idle_timeout(Duration::from_millis(50))
    ///     .build()?;
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// while !pool.pids().is_empty() {
    ///     std::thread::sleep(Duration::from_millis(5));
    /// }
    /// assert_eq!(pool.apply(i32::abs, -2)?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn idle_timeout(mut self, time: Duration) -> PoolBuilder {
        self.size.idle = Some(time);
        self
    }

    /// Sets the number of spare workers. They are started in addition to [`processes`](PoolBuilder::processes), get no
    /// items, and take the places of workers that end, so that no call waits for the start of a worker. The default is 1
    /// if the pool has a [`task_timeout`](PoolBuilder::task_timeout) and no [`affinity`](PoolBuilder::affinity), and 0
    /// otherwise. A pool with [`min_processes`](PoolBuilder::min_processes) has none. [`build`](PoolBuilder::build) returns
    /// [`Error::InvalidArgument`] for spare workers with an affinity.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).spare_workers(1).build()?;
    /// assert_eq!(pool.pids().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn spare_workers(mut self, workers: usize) -> PoolBuilder {
        self.size.spares = Some(workers);
        self
    }

    /// Sets how many calls of one item may wait for a worker, for all calls that do not set
    /// [`CallOptions::max_backlog`](crate::CallOptions::max_backlog). A further call blocks until there is room, so the
    /// memory that waiting calls need has a limit. By default there is no limit.
    ///
    /// Calls of one item are [`Pool::apply`](crate::Pool::apply), [`apply_async`](crate::Pool::apply_async),
    /// [`submit_async`](crate::Pool::submit_async) and [`apply_named`](crate::Pool::apply_named). A call that a worker has
    /// does not wait; a worker has short calls in advance, for at most a millisecond of work. Room is given in the order of
    /// the calls that wait for it. The end of the pool ends the wait, with
    /// [`CallError::NotRunning`](crate::CallError::NotRunning). A subscriber of `tracing` events runs on the pool's own
    /// thread, which cannot wait: there the call returns [`CallError::BacklogFull`](crate::CallError::BacklogFull).
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] for 0 calls.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(2).max_backlog(100).build()?;
    /// // At most 100 of the calls wait at any moment, and 2 or a few more are with the workers.
    /// let calls = (0..1000u32).map(|n| pool.apply_async(u32::count_ones, n)).collect::<maniple::Result<Vec<_>>>()?;
    /// assert_eq!(calls.into_iter().last().unwrap().get()?, 999u32.count_ones());
    /// # Ok(())
    /// # }
    /// ```
    pub fn max_backlog(mut self, calls: usize) -> PoolBuilder {
        self.calls = self.calls.max_backlog(calls);
        self
    }

    /// Sets what a call does while [`max_backlog`](PoolBuilder::max_backlog) calls wait, for all calls that do not set
    /// [`CallOptions::backlog_full`](crate::CallOptions::backlog_full). The default is [`BacklogFull::Block`]. The option
    /// has no effect without `max_backlog`.
    ///
    /// ```
    /// use maniple::{BacklogFull, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = Pool::builder().processes(1).max_backlog(1).backlog_full(BacklogFull::Fail).build()?;
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backlog_full(mut self, full: BacklogFull) -> PoolBuilder {
        self.calls = self.calls.backlog_full(full);
        self
    }
}
