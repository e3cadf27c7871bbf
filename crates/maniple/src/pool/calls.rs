//! The calls that a pool offers.

use super::imap::Imap;
use super::job_handle::{self, JobHandle};
use super::{BacklogFull, CallOptions, Pool};
use crate::call::{Call, Plain, Star, StarFn, With};
use crate::callee::Callee;
use crate::chunk::Output;
use crate::error::{CallError, Error, Result};
use crate::payload::Payload;
use crate::registered;
use maniple_engine::pool::Collect;

impl Pool {
    /// Runs `function(item)` in a worker, and waits for its result.
    ///
    /// A function that returns a `Result` keeps its own error: the outer `Result` reports panics and lost workers.
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
    /// Any [`Error`].
    pub fn apply<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<R> {
        self.apply_async(function, item)?.get()
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
    /// If the call cannot be sent. The handle reports the outcome.
    pub fn apply_async<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<JobHandle<R>> {
        let func = self.known(&Plain(function))?;
        self.one(func, Plain(function).callee(), item)
    }

    /// As [`Pool::apply_async`], but returns an error instead of blocking if [`max_backlog`](crate::PoolBuilder::max_backlog)
    /// calls wait for a worker.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).max_backlog(10).build()?;
    /// assert_eq!(pool.try_apply_async(u32::count_ones, 7)?.get()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`CallError::BacklogFull`]; also as [`Pool::apply_async`].
    pub fn try_apply_async<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<JobHandle<R>> {
        self.with(CallOptions::new().backlog_full(BacklogFull::Fail)).apply_async(function, item)
    }

    /// As [`Pool::apply_async`], but awaits room while [`max_backlog`](crate::PoolBuilder::max_backlog) calls wait for a
    /// worker, instead of blocking the thread. It works with any executor. The [`JobHandle`] is a future of the result.
    ///
    /// The future may be dropped at any time before it is ready: the call is not made then, and its place goes to the next
    /// call that waits.
    ///
    /// ```
    #[doc = include_str!("../block_on.txt")]
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::builder().processes(1).max_backlog(10).build()?;
    /// let sum = block_on(async {
    ///     let mut calls = Vec::new();
    ///     for n in 0..100u32 {
    ///         calls.push(pool.submit_async(u32::count_ones, n).await?);
    ///     }
    ///     let mut sum = 0;
    ///     for call in calls {
    ///         sum += call.await?;
    ///     }
    ///     Ok::<_, maniple::Error>(sum)
    /// })?;
    /// assert_eq!(sum, 316);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub async fn submit_async<A: Payload, R: Payload>(&self, function: fn(A) -> R, item: A) -> Result<JobHandle<R>> {
        let call = self.prepared(self.known(&Plain(function))?, Plain(function).callee(), item)?;
        let room = self.room_async(call.backlog).await?;
        self.submit(call, room)
    }

    /// Runs `function` on every item and returns the results in the items' order.
    ///
    /// Items and results own their data: a `String`, not a `&str`, for which the compiler says that the implementation of
    /// `Deserialize` is not general enough.
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
    /// The error of the first item that failed. The pool runs all items nevertheless.
    pub fn map<A: Payload, R: Payload>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.map_async(function, items)?.get()
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
        let func = self.known(&Plain(function))?;
        self.all(func, "map", Plain(function).callee(), items, job_handle::all)
    }

    /// As [`Pool::map`], but returns the outcome of each item: if an item fails, the results of the others are not
    /// lost.
    ///
    /// ```
    /// use maniple::{Error, Pool};
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let outcomes = Pool::new(2)?.try_map(|x: u32| 6 / x, [1, 0, 2])?;
    /// assert!(matches!(outcomes[..], [Ok(6), Err(Error::Panicked(_)), Ok(3)]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The inner errors are those of the items: [`CallError::Cancelled`] or [`CallError::Terminated`] for items that did not
    /// run to their end, because the call was cancelled or the pool was terminated. The outer error reports a call that cannot be sent.
    pub fn try_map<A: Payload, R: Payload>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<Result<R>>> {
        self.try_map_async(function, items)?.get()
    }

    /// As [`Pool::try_map`], without waiting.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let job = pool.try_map_async(|x: u32| 6 / x, [0, 3])?;
    /// let [Err(_), Ok(2)] = job.get()?[..] else { panic!("6 / 0 has a value") };
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Pool::apply_async`].
    pub fn try_map_async<A: Payload, R: Payload>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<Result<R>>>> {
        let func = self.known(&Plain(function))?;
        self.all(func, "try_map", Plain(function).callee(), items, job_handle::each)
    }

    /// As [`Pool::map`], with a state that all calls read. The state is sent once to each worker.
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
        self.map_with_async(state, function, items)?.get()
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
        if self.shared.program.is_some() {
            return Err(Error::Call(CallError::Function(
                "a state cannot be sent to another program; make it part of the items",
            )));
        }
        let mut output = Output::new(self.shared.hub.packer());
        With::send_borrowed(function, state, &mut output)?;
        let callee = With::<S, A, R>::callee_of(function);
        let func = self.shared.hub.define_as(output.pack()?, Some(callee.shown()));
        self.all(func, "map_with", With::<S, A, R>::callee_of(function), items, job_handle::all)
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
    /// As [`Pool::map`]; and [`CallError::Function`] for a closure, which the compiler cannot refuse, see [`StarFn`].
    /// Pass a closure to [`Pool::map`], as `|(a, b)| a * b`.
    pub fn starmap<T: Payload, R: Payload, F: StarFn<T, R>>(
        &self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<R>> {
        self.starmap_async(function, items)?.get()
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
        let function = Star::new(function)?;
        let func = self.known(&function)?;
        self.all(func, "starmap", function.callee(), items, job_handle::all)
    }

    /// Runs `function` on every item, and returns an iterator over the results in the items' order. It returns each
    /// result as soon as that result and all before it are ready. The pool takes items from the input when there is
    /// room, so the input may be endless. Each item has its own `Result`: an item that fails does not end the others.
    ///
    /// Dropping the iterator cancels the calls that have not begun.
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
        self.lazy(function, "imap", Collect::Ordered, items.into_iter())
    }

    /// As [`Pool::imap`], but the iterator returns results as they are ready, in any order.
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
        self.lazy(function, "imap_unordered", Collect::Unordered, items.into_iter())
    }

    /// As [`Pool::apply`], for a function that the workers' program has registered by name, as a
    /// [task](macro@crate::task).
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
    /// Any [`Error`]; [`CallError::Task`] if the program has no such function.
    pub fn apply_named<A: Payload, R: Payload>(&self, name: &str, item: A) -> Result<R> {
        let callee = Callee::Named(name.to_owned().into());
        let func = self.known_as(callee.clone(), |output| registered::send::<A, R>(name, output))?;
        self.one(func, callee, item)?.get()
    }

    /// As [`Pool::map`], for a function that the workers' program has registered by name.
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
        let callee = Callee::Named(name.to_owned().into());
        let func = self.known_as(callee.clone(), |output| registered::send::<A, R>(name, output))?;
        self.all(func, "map_named", callee, items, job_handle::all)?.get()
    }
}
