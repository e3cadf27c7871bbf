//! The calls that a pool offers, with their options.

use super::Shared;
use super::imap::Imap;
use super::job_handle::{self, JobHandle};
use super::source::{Feeder, Items, single};
use crate::call::{self, Call, Payload, Plain, Star, StarFn, With};
use crate::error::{Error, Result};
use crate::frame::Output;
use crate::results::{About, Callee, Reader};
use crate::task;
use maniple_engine::pool::{Chunk, Collect, Func, JobSpec, SourceKind};
use std::sync::{Arc, PoisonError};

/// Items of an `imap` that are under way at most, where the caller did not say; and their bytes.
const WINDOW: (usize, usize) = (1000, 64 << 20);
/// Functions that are kept known to the workers.
const FUNCTIONS: usize = 32;

/// A pool's calls with options: see [`Pool::chunksize`](crate::Pool::chunksize) and [`Pool::buffersize`](crate::Pool::buffersize).
/// The methods are the pool's.
///
/// ```
/// # fn main() -> maniple::Result<()> {
/// let pool = maniple::Pool::new(2)?;
/// for size in pool.chunksize(4).buffersize(16).imap(|name: String| name.len(), ["ab".to_string()])? {
///     assert_eq!(size?, 2);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Calls<'a> {
    pool: &'a Arc<Shared>,
    chunk: Chunk,
    window: (usize, usize),
}

impl<'a> Calls<'a> {
    pub(super) fn new(pool: &'a Arc<Shared>) -> Calls<'a> {
        Calls { pool, chunk: Chunk::Adaptive, window: WINDOW }
    }

    /// Items in each task; at least 1.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// // Each task is one item, so a lost worker takes one with it.
    /// assert_eq!(pool.buffersize(16).chunksize(1).map(u32::count_ones, [1, 3])?, [1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn chunksize(self, items: usize) -> Calls<'a> {
        Calls { chunk: Chunk::Fixed(items.max(1)), ..self }
    }

    /// Items under way at most in `imap` and `imap_unordered`; at least 1.
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let ones = pool.chunksize(2).buffersize(8).imap(u32::count_ones, 0..)?;
    /// assert_eq!(ones.take(4).collect::<maniple::Result<Vec<_>>>()?, [0, 1, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn buffersize(self, items: usize) -> Calls<'a> {
        Calls { window: (items.max(1), usize::MAX), ..self }
    }

    /// See [`Pool::apply`](crate::Pool::apply).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.chunksize(1).apply(u32::count_ones, 7)?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn apply<A: Payload, R: Payload>(self, function: fn(A) -> R, item: A) -> Result<R> {
        self.apply_async(function, item)?.get()
    }

    /// See [`Pool::apply_async`](crate::Pool::apply_async).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.chunksize(1).apply_async(u32::count_ones, 7)?.get()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn apply_async<A: Payload, R: Payload>(self, function: fn(A) -> R, item: A) -> Result<JobHandle<R>> {
        let func = self.known(&Plain(function))?;
        self.one(func, Plain(function).callee(), item)
    }

    fn one<A: Payload, R: Payload>(self, func: Func, function: Callee, item: A) -> Result<JobHandle<R>> {
        let packet = single(&item, self.pool.hub.packer())?;
        let about = About { method: "apply", function, in_order: true };
        let spec = self.spec(func, Collect::All, Some(1));
        let job = self.pool.hub.submit(spec, SourceKind::Ready(vec![(1, packet)]))?;
        Ok(JobHandle::new(self.pool.clone(), job, Reader::new(about, Some(1)), job_handle::one))
    }

    /// See [`Pool::map`](crate::Pool::map).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(2).map(u32::count_ones, 0..4)?, [0, 1, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error of the first item that has one.
    pub fn map<A: Payload, R: Payload>(
        self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.map_async(function, items)?.get()
    }

    /// See [`Pool::map_async`](crate::Pool::map_async).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(2).map_async(u32::count_ones, 0..4)?.get()?, [0, 1, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn map_async<A: Payload, R: Payload>(
        self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<R>>> {
        let func = self.known(&Plain(function))?;
        self.all(func, "map", Plain(function).callee(), items)
    }

    /// See [`Pool::map_with`](crate::Pool::map_with).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).map_with(&10, |by, x| by * x, [1, 2, 3])?, [10, 20, 30]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Calls::map`].
    pub fn map_with<S: Payload, A: Payload, R: Payload>(
        self,
        state: &S,
        function: fn(&S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>> {
        self.map_with_async(state, function, items)?.get()
    }

    /// See [`Pool::map_with_async`](crate::Pool::map_with_async).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).map_with_async(&10, |by, x| by * x, [1, 2, 3])?.get()?, [10, 20, 30]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn map_with_async<S: Payload, A: Payload, R: Payload>(
        self,
        state: &S,
        function: fn(&S, A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<R>>> {
        if self.pool.program.is_some() {
            return Err(Error::Function("another program cannot be given a state; make it part of the items"));
        }
        let mut output = Output::new(self.pool.hub.packer());
        With::send_borrowed(function, state, &mut output)?;
        let func = self.pool.hub.define(output.pack()?);
        self.all(func, "map_with", With::<S, A, R>::callee_of(function), items)
    }

    /// See [`Pool::starmap`](crate::Pool::starmap).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).starmap(u32::pow, [(2, 3), (3, 2)])?, [8, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Calls::map`].
    pub fn starmap<T: Payload, R: Payload, F: StarFn<T, R>>(
        self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<Vec<R>> {
        self.starmap_async(function, items)?.get()
    }

    /// See [`Pool::starmap_async`](crate::Pool::starmap_async).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).starmap_async(u32::pow, [(2, 3), (3, 2)])?.get()?, [8, 9]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn starmap_async<T: Payload, R: Payload, F: StarFn<T, R>>(
        self,
        function: F,
        items: impl IntoIterator<Item = T>,
    ) -> Result<JobHandle<Vec<R>>> {
        let function = Star::new(function)?;
        let func = self.known(&function)?;
        self.all(func, "starmap", function.callee(), items)
    }

    /// See [`Pool::imap`](crate::Pool::imap).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let ones = pool.chunksize(1).imap(u32::count_ones, [0, 1, 3])?;
    /// assert_eq!(ones.collect::<maniple::Result<Vec<_>>>()?, [0, 1, 2]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn imap<A: Payload, R: Payload, I>(self, function: fn(A) -> R, items: I) -> Result<Imap<R>>
    where
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
    {
        self.lazy(function, "imap", Collect::Ordered, items.into_iter())
    }

    /// See [`Pool::imap_unordered`](crate::Pool::imap_unordered).
    ///
    /// ```
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// let ones = pool.chunksize(1).imap_unordered(u32::count_ones, [0, 1, 3])?;
    /// assert_eq!(ones.sum::<maniple::Result<u32>>()?, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the call cannot be sent.
    pub fn imap_unordered<A: Payload, R: Payload, I>(self, function: fn(A) -> R, items: I) -> Result<Imap<R>>
    where
        I: IntoIterator<Item = A>,
        I::IntoIter: Send + 'static,
    {
        self.lazy(function, "imap_unordered", Collect::Unordered, items.into_iter())
    }

    /// See [`Pool::apply_named`](crate::Pool::apply_named).
    ///
    /// ```
    /// #[maniple::task(name = "half")]
    /// fn half(x: u64) -> u64 {
    ///     x / 2
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(1)?;
    /// assert_eq!(pool.chunksize(1).apply_named::<u64, u64>("half", 8)?, 4);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn apply_named<A: Payload, R: Payload>(self, name: &str, item: A) -> Result<R> {
        let func = self.known_as(|output| task::send::<A, R>(name, output))?;
        self.one(func, Callee::Named(name.to_owned().into()), item)?.get()
    }

    /// See [`Pool::map_named`](crate::Pool::map_named).
    ///
    /// ```
    /// #[maniple::task(name = "third")]
    /// fn third(x: u64) -> u64 {
    ///     x / 3
    /// }
    ///
    /// # fn main() -> maniple::Result<()> {
    /// let pool = maniple::Pool::new(2)?;
    /// assert_eq!(pool.chunksize(1).map_named::<u64, u64>("third", [6, 9])?, [2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn map_named<A: Payload, R: Payload>(self, name: &str, items: impl IntoIterator<Item = A>) -> Result<Vec<R>> {
        let func = self.known_as(|output| task::send::<A, R>(name, output))?;
        self.all(func, "map_named", Callee::Named(name.to_owned().into()), items)?.get()
    }

    /// The call as a function that the workers know, from an earlier call where that is so.
    fn known<C: Call>(&self, call: &C) -> Result<Func> {
        self.known_as(|output| match self.pool.program {
            None => call::send(call, output),
            Some(_) => call.send_name(output),
        })
    }

    fn known_as(&self, write: impl FnOnce(&mut Output) -> Result<()>) -> Result<Func> {
        let mut output = Output::new(self.pool.hub.packer());
        write(&mut output)?;
        let mut functions = self.pool.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = functions.iter().rposition(|(bytes, _)| bytes == output.bytes()) {
            return Ok(functions[at].1.clone());
        }
        let bytes = output.bytes().to_vec();
        let func = self.pool.hub.define(output.pack()?);
        if functions.len() >= FUNCTIONS {
            functions.remove(0);
        }
        functions.push((bytes, func.clone()));
        Ok(func)
    }

    fn spec(&self, func: Func, collect: Collect, items: Option<usize>) -> JobSpec {
        JobSpec { func, collect, chunk: self.chunk, items, window: None, notify: false }
    }

    fn all<A: Payload, R: Payload>(
        self,
        func: Func,
        method: &'static str,
        function: Callee,
        items: impl IntoIterator<Item = A>,
    ) -> Result<JobHandle<Vec<R>>> {
        // All at once, so that how many there are is known, and so that iterators may borrow.
        let items: Vec<A> = items.into_iter().collect();
        let count = items.len();
        let source = Box::new(Items::new(items, self.pool.hub.packer()));
        let job = self.pool.hub.submit(self.spec(func, Collect::All, Some(count)), SourceKind::Inline(source))?;
        let reader = Reader::new(About { method, function, in_order: true }, Some(count));
        Ok(JobHandle::new(self.pool.clone(), job, reader, job_handle::all))
    }

    fn lazy<A: Payload, R: Payload, I>(
        self,
        function: fn(A) -> R,
        method: &'static str,
        collect: Collect,
        items: I,
    ) -> Result<Imap<R>>
    where
        I: Iterator<Item = A> + Send + 'static,
    {
        let func = self.known(&Plain(function))?;
        let known = match items.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        let spec = JobSpec { window: Some(self.window), ..self.spec(func, collect, known) };
        let job = self.pool.hub.submit(spec, SourceKind::External)?;
        // Several chunks fit into the window, so that one can be worked on while another is handed out.
        let share = (self.chunk == Chunk::Adaptive).then_some((self.window.0 / 4).max(1));
        let feeder = Feeder::start(&self.pool.hub, job.job(), share, items)
            // Nobody will feed it, and nobody is to wait for it.
            .inspect_err(|_| job.cancel())
            .map_err(|e| Error::Start(format!("no thread to take items from the input: {e}")))?;
        let about = About { method, function: Plain(function).callee(), in_order: collect == Collect::Ordered };
        Ok(Imap::new(self.pool.clone(), job, Reader::new(about, None), feeder))
    }
}
