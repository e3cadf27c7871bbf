//! The pool: typed calls on top of the engine's jobs.
//!
//! ```text
//!   Pool ── Calls (chunksize, buffersize) ── job ──▶ hub        results ──▶ JobHandle, Imap
//!     │                                                │
//!     └── keeper thread: starts and reaps workers ◀────┘
//! ```

mod builder;
mod calls;
mod imap;
mod job_handle;
mod keeper;
mod source;

pub use builder::PoolBuilder;
pub use calls::Calls;
pub use imap::Imap;
pub use job_handle::JobHandle;

use crate::call::{Payload, StarFn};
use crate::error::Result;
use crate::startup::StartMethod;
use keeper::Crew;
use maniple_engine::pool::{Func, Hub};
use maniple_sys::OwnedHandle;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What the pool, its jobs and its keeper share.
#[derive(Debug)]
pub(crate) struct Shared {
    hub: Hub,
    method: StartMethod,
    setup: Initializer,
    // Another program than this one, whose functions are known by their names.
    program: Option<PathBuf>,
    crew: Mutex<Crew>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    // Functions called lately, by what defines them: workers know them already.
    functions: Mutex<Vec<(Vec<u8>, Func)>>,
}

/// What each worker calls first, encoded; no bytes: nothing.
#[derive(Debug, Default)]
struct Initializer {
    bytes: Vec<u8>,
    handles: Vec<OwnedHandle>,
}

impl Shared {
    fn new(hub: Hub, method: StartMethod, setup: Initializer, program: Option<PathBuf>) -> Shared {
        Shared {
            hub,
            method,
            setup,
            program,
            crew: Mutex::default(),
            keeper: Mutex::default(),
            functions: Mutex::default(),
        }
    }

    fn crew(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no worker could be started, if that is so.
    pub(crate) fn start_error(&self) -> Option<String> {
        self.crew().start_error.clone()
    }
}

/// A pool of worker processes that run functions of this program.
///
/// The methods are those of Python's `multiprocessing.Pool`. What goes to a worker and comes back is copied, so arguments and
/// results are [`Payload`]s; functions are `fn` pointers, to which functions and closures that capture nothing convert
/// by themselves. What a closure would capture is passed as the state of [`Pool::map_with`].
///
/// Whatever happens to a worker, every call returns: with results, or with an [`Error`](crate::Error) that says what
/// happened. Only the task that a worker was running is lost with it; the others go to other workers, a new worker takes its
/// place, and the pool goes on.
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
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// A pool of so many workers.
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
    /// [`Error::Start`](crate::Error::Start) when they cannot be started.
    pub fn new(processes: usize) -> Result<Pool> {
        Pool::builder().processes(processes).build()
    }

    /// A pool with more to say about it.
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

    /// Calls with a given number of items in each task, instead of as many as take a few milliseconds.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).map(i64::wrapping_abs, [-3, 4])?, [3, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunksize(&self, items: usize) -> Calls<'_> {
        self.calls().chunksize(items)
    }

    /// Calls of [`Pool::imap`] and [`Pool::imap_unordered`] with a given number of items under way at most: taken from the
    /// input, and their results not yet taken by the caller. Without it 1,000, and fewer when they are large.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let squares = pool.buffersize(8).imap(|x: u64| x * x, 0..)?;
    /// assert_eq!(squares.take(3).collect::<maniple::Result<Vec<_>>>()?, [0, 1, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn buffersize(&self, items: usize) -> Calls<'_> {
        self.calls().buffersize(items)
    }

    fn calls(&self) -> Calls<'_> {
        Calls::new(&self.shared)
    }

    /// Runs `function(item)` in a worker and waits for what it returns.
    ///
    /// A function that returns a `Result` keeps its own error: the outer one tells of panics and lost workers.
    ///
    /// ```
    /// fn parse(text: String) -> Result<u16, String> {
    ///     text.parse().map_err(|_| format!("{text} is no number"))
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.apply(parse, "7".into())?, Ok(7));
    /// assert_eq!(pool.apply(parse, "x".into())?, Err("x is no number".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any [`Error`](crate::Error).
    pub fn apply<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<R> {
        self.calls().apply(function, item)
    }

    /// As [`Pool::apply`], without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let sum = pool.apply_async(|v: Vec<u32>| v.iter().sum::<u32>(), vec![1, 2, 3])?;
    /// // something else meanwhile
    /// assert_eq!(sum.get()?, 6);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent. The handle tells what becomes of it.
    pub fn apply_async<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<JobHandle<R>> {
        self.calls().apply_async(function, item)
    }

    /// Runs `function` on every item and gives the results in the items' order.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.map(|word: String| word.len(), ["a".into(), "bcd".into()])?, [1, 3]);
    /// assert!(pool.map(|x: u32| 6 / x, [1, 0, 2]).is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of the first item that has one. All items are run nevertheless.
    pub fn map<A: Payload, R: Payload>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.calls().map(function, items)
    }

    /// As [`Pool::map`], without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let (evens, odds) = (pool.map_async(u32::count_ones, [2, 4])?, pool.map_async(u32::count_ones, [3, 7])?);
    /// assert_eq!((evens.get()?, odds.get()?), (vec![1, 1], vec![2, 3]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn map_async<A: Payload, R: Payload>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<R>>> {
        self.calls().map_async(function, items)
    }

    /// As [`Pool::map`], with something that all calls look at; it travels once to each worker.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let names = vec!["zero".to_string(), "one".into(), "two".into()];
    /// assert_eq!(pool.map_with(&names, |names, i: usize| names[i].len(), [2, 1, 0])?, [3, 3, 4]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::map`].
    pub fn map_with<S: Payload, A: Payload, R: Payload>(
        &self,
        state: &S,
        function: fn(&S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.calls().map_with(state, function, items)
    }

    /// As [`Pool::map_with`], without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let job = pool.map_with_async(&10, |by, x| by * x, [1, 2, 3])?;
    /// assert_eq!(job.get()?, [10, 20, 30]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn map_with_async<S: Payload, A: Payload, R: Payload>(
        &self,
        state: &S,
        function: fn(&S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<R>>> {
        self.calls().map_with_async(state, function, items)
    }

    /// As [`Pool::map`], for a function of 2 to 8 arguments and items that are tuples of them.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.starmap(u32::pow, [(2, 3), (3, 2)])?, [8, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::map`]; and [`Error::Function`](crate::Error::Function) for a closure, see [`StarFn`].
    pub fn starmap<T: Payload, R: Payload, F: StarFn<T, R>>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<R>> {
        self.calls().starmap(function, items)
    }

    /// As [`Pool::starmap`], without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let job = pool.starmap_async(u32::pow, [(2, 3), (3, 2)])?;
    /// assert_eq!(job.get()?, [8, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn starmap_async<T: Payload, R: Payload, F: StarFn<T, R>>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<JobHandle<Vec<R>>> {
        self.calls().starmap_async(function, items)
    }

    /// Runs `function` on every item and hands out the results in the items' order, each as soon as it and all before it
    /// are there. Items are taken from the input as room comes free, so the input may be endless. Each result is a
    /// `Result` of its own: an item that fails does not end the others.
    ///
    /// Dropping the iterator cancels what has not begun.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let squares = pool.imap(|x: u64| x * x, 0..)?;
    /// let first: maniple::Result<Vec<u64>> = squares.take(4).collect();
    /// assert_eq!(first?, [0, 1, 4, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn imap<A: Payload, R: Payload, I>(&self, function: fn(A) -> R, items: I) -> Result<Imap<R>>
    where
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
    {
        self.calls().imap(function, items)
    }

    /// As [`Pool::imap`], but results come as they are ready, in any order.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let mut sum = 0;
    /// for square in pool.imap_unordered(|x: u32| x * x, 1..=3)? {
    ///     sum += square?;
    /// }
    /// assert_eq!(sum, 14);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn imap_unordered<A: Payload, R: Payload, I>(&self, function: fn(A) -> R, items: I) -> Result<Imap<R>>
    where
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
    {
        self.calls().imap_unordered(function, items)
    }

    /// As [`Pool::apply`], for a function of the workers' program that is known by its name, as a [task](macro@crate::task).
    ///
    /// ```
    /// #[maniple::task(name = "square")]
    /// fn square(x: u64) -> u64 {
    ///     x * x
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let other_program = std::env::current_exe()?;
    /// let pool = maniple::Pool::builder().processes(1).program(other_program).build()?;
    /// let squared: u64 = pool.apply_named("square", 7u64)?;
    /// assert_eq!(squared, 49);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any [`Error`](crate::Error); [`Error::Task`](crate::Error::Task) if the program knows no such function.
    pub fn apply_named<A: Payload, R: Payload>(&self, name: &str, item: A) -> Result<R> {
        self.calls().apply_named(name, item)
    }

    /// As [`Pool::map`], for a function that is known by its name.
    ///
    /// ```
    /// #[maniple::task(name = "cube")]
    /// fn cube(x: u64) -> u64 {
    ///     x * x * x
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let cubes: Vec<u64> = pool.map_named("cube", [1u64, 2])?;
    /// assert_eq!(cubes, [1, 8]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_named`].
    pub fn map_named<A: Payload, R: Payload>(&self, name: &str, items: impl IntoIterator<Item = A>) -> Result<Vec<R>> {
        self.calls().map_named(name, items)
    }

    /// The workers' process numbers.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.pids(), [pool.apply(|()| std::process::id(), ())?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pids(&self) -> Vec<u32> {
        self.shared.hub.pids()
    }

    /// How things stand, in words, for someone who wonders why nothing moves: workers, calls, who waits for what. The form
    /// may change.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// println!("{}", pool.describe());
    /// # assert!(!pool.describe().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn describe(&self) -> String {
        self.shared.hub.describe()
    }

    /// Takes no more calls. What was called before runs to its end; then the workers end.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let called = pool.apply_async(i32::abs, -1)?;
    /// pool.close();
    /// assert!(matches!(pool.apply(i32::abs, -2), Err(maniple::Error::NotRunning)));
    /// assert_eq!(called.get()?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn close(&self) {
        self.shared.hub.close();
    }

    /// Ends all workers at once, whatever they do. Calls that wait for them end with
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// let endless = pool.apply_async(|()| -> u8 { loop { std::thread::park() } }, ())?;
    /// pool.terminate();
    /// assert!(matches!(endless.get(), Err(maniple::Error::Cancelled)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn terminate(&self) {
        self.shared.terminate();
    }

    /// Waits until the workers have ended, having closed the pool if that has not been done.
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
        self.shared.join();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.hub.check().is_err() {
            // A forked child: workers, threads and links are the parent's.
            std::mem::forget(self.shared.clone());
            return;
        }
        self.shared.terminate();
        self.shared.join();
        self.shared.abandon();
    }
}
