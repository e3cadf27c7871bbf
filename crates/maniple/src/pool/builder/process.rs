//! The options of the workers' processes.

use super::{OwnCall, PoolBuilder};
use crate::error::{Error, Result, SystemError};
use crate::payload::Payload;
use crate::pool::Affinity;
use crate::surroundings::Surroundings;
use maniple_engine::pool as engine;
use maniple_engine::pool::policy::THREAD_VARIABLES;
use maniple_sys as sys;
use std::ffi::OsString;
use std::path::PathBuf;

impl PoolBuilder {
    /// Sets an environment variable of the workers, which otherwise have those of this process. They have it before any
    /// of their code runs. The last call for a name counts, as with [`std::process::Command::env`].
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] for a name that is empty or contains `=`, and for a
    /// NUL in the name or the value.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).env("LEVEL", "3").build()?;
    /// assert_eq!(pool.apply(|()| std::env::var("LEVEL").ok(), ())?, Some("3".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> PoolBuilder {
        self.around.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Sets environment variables of the workers, as [`env`](PoolBuilder::env) sets one.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).envs([("LEVEL", "3"), ("STEP", "2")]).build()?;
    /// assert_eq!(pool.apply(|()| std::env::var("STEP").ok(), ())?, Some("2".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn envs<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> PoolBuilder {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), Some(value.into())));
        self.around.environment.extend(variables);
        self
    }

    /// Removes an environment variable of the workers, which otherwise have those of this process.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).env_remove("PATH").build()?;
    /// assert!(!pool.apply(|()| std::env::var_os("PATH").is_some(), ())?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn env_remove(mut self, name: impl Into<OsString>) -> PoolBuilder {
        self.around.environment.push((name.into(), None));
        self
    }

    /// Sets the working directory of the workers. The default is that of this process when a worker starts. A relative
    /// path starts at the directory in which this process is when [`build`](PoolBuilder::build) is called.
    ///
    /// `build` returns [`Error::System`] if there is no such directory.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).current_dir("/").build()?;
    /// assert_eq!(pool.apply(|()| std::env::current_dir().ok(), ())?, Some("/".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> PoolBuilder {
        self.around.folder = Some(folder.into());
        self
    }

    /// Sets the number of threads that numerical libraries start in a worker. Many workers with a thread for each
    /// processor would disturb each other. By default the libraries decide.
    ///
    /// It sets `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`, `BLIS_NUM_THREADS`,
    /// `VECLIB_MAXIMUM_THREADS`, `NUMEXPR_NUM_THREADS`, `NUMBA_NUM_THREADS` and `RAYON_NUM_THREADS`.
    /// [`env`](PoolBuilder::env) and [`env_remove`](PoolBuilder::env_remove) take precedence.
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] for 0 threads.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(2).threads_per_worker(1).build()?;
    /// assert_eq!(pool.apply(|()| std::env::var("OMP_NUM_THREADS").ok(), ())?, Some("1".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn threads_per_worker(mut self, threads: usize) -> PoolBuilder {
        self.threads = Some(threads);
        self
    }

    /// Sets the processors of each worker. By default the workers have those of this process.
    ///
    /// A worker that replaces another has its processors. Threads and processes that a worker starts have them as well.
    ///
    /// [`build`](PoolBuilder::build) returns [`Error::InvalidArgument`] if there is no set, if a set is empty, or if this
    /// process may not run on one of the processors, and [`Error::System`] on a system that does not let a process choose its
    /// processors.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(2).affinity(maniple::Affinity::Spread).build()?;
    /// assert!(pool.apply(|()| maniple::cpu_count(), ())? <= maniple::cpu_count());
    /// # Ok(())
    /// # }
    /// ```
    pub fn affinity(mut self, affinity: impl Into<Affinity>) -> PoolBuilder {
        self.affinity = Some(affinity.into());
        self
    }

    /// Sets a function that each worker calls when it ends normally, after its last item: when the pool was closed, when
    /// another worker replaces it ([`max_tasks_per_child`](PoolBuilder::max_tasks_per_child),
    /// [`max_rss_per_worker`](PoolBuilder::max_rss_per_worker)), and when the pool has more workers than it needs
    /// ([`Pool::resize`](crate::Pool::resize), [`idle_timeout`](PoolBuilder::idle_timeout)). By default there is none.
    ///
    /// A worker that dies does not call it, nor one that the pool ends: after [`Pool::terminate`](crate::Pool::terminate),
    /// after the drop of the pool, after a limit. So [`close`](crate::Pool::close) and [`join`](crate::Pool::join) a pool
    /// whose finalizer matters. A panic is reported on the standard error. Descriptors in the argument stay open in this
    /// process, for later workers, as long as the pool exists.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let file = std::env::temp_dir().join(format!("finalized-{}", std::process::id()));
    /// let pool = maniple::Pool::builder()
    ///     .processes(1)
    ///     .finalizer(|path: std::path::PathBuf| std::fs::write(path, "done").unwrap(), file.clone())
    ///     .build()?;
    /// assert_eq!(pool.apply(i32::abs, -1)?, 1);
    /// pool.join();
    /// assert_eq!(std::fs::read_to_string(&file)?, "done");
    /// # std::fs::remove_file(file)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn finalizer<A: Payload>(mut self, function: fn(A), arguments: A) -> PoolBuilder {
        self.finalizer = OwnCall::new(function, arguments);
        self
    }

    /// Returns the processors of the workers.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::System`].
    pub(super) fn processors(&mut self) -> Result<Option<engine::Affinity>> {
        let Some(affinity) = self.affinity.take() else { return Ok(None) };
        let allowed = sys::allowed_cores().map_err(|error| {
            Error::System(SystemError::doing("read the processors of this process, for an affinity", error))
        })?;
        match affinity {
            Affinity::Spread => Ok(Some(engine::Affinity::Spread(allowed))),
            Affinity::Sets(sets) if sets.is_empty() => Err(Error::InvalidArgument(
                "an affinity without a set of processors; name a set, or leave the option out",
            )),
            Affinity::Sets(sets) if sets.iter().any(Vec::is_empty) => {
                Err(Error::InvalidArgument("an affinity with an empty set; a worker needs at least one processor"))
            }
            Affinity::Sets(sets) if sets.iter().flatten().any(|processor| !allowed.contains(processor)) => {
                Err(Error::InvalidArgument(
                    "an affinity with a processor on which this process may not run; name processors of this process's affinity",
                ))
            }
            Affinity::Sets(sets) => Ok(Some(engine::Affinity::Sets(sets))),
        }
    }

    /// Returns what the workers have of their own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], [`Error::System`].
    pub(super) fn surroundings(&mut self) -> Result<Surroundings> {
        let mut around = std::mem::take(&mut self.around);
        if let Some(threads) = self.threads {
            if threads == 0 {
                return Err(Error::InvalidArgument(
                    "a threads_per_worker of 0; use 1 or more, or leave the option out",
                ));
            }
            let limits = THREAD_VARIABLES.map(|name| (name.into(), Some(threads.to_string().into())));
            around.environment.splice(0..0, limits);
        }
        let around = around.checked()?;
        // A relative path of a program must not start at the workers' directory.
        if let Some(program) = self.program.as_mut().filter(|_| around.folder.is_some())
            && let Ok(whole) = std::path::absolute(&*program)
            && whole.exists()
        {
            *program = whole;
        }
        Ok(around)
    }
}
