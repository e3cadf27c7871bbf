//! The options of a call, besides its function and its items.

use super::Pool;
use crate::error::{Error, Result};
use maniple_engine::pool::Chunk;
use maniple_engine::pool::policy::WINDOW;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

/// Options of a pool's calls, for [`Pool::with`].
///
/// A size of 0 has no meaning: each call with it returns [`Error::InvalidArgument`].
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[must_use = "options have no effect until `Pool::with` is called with them"]
pub struct CallOptions {
    chunksize: Option<usize>,
    buffersize: Option<usize>,
}

impl CallOptions {
    /// Creates the default options: chunks whose items take a few milliseconds, and in `imap` at most 1,000 items under
    /// way, fewer if they are large.
    ///
    /// ```
    /// assert_eq!(maniple::CallOptions::new(), maniple::CallOptions::default());
    /// ```
    pub const fn new() -> CallOptions {
        CallOptions { chunksize: None, buffersize: None }
    }

    /// Sets the number of items in each task.
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

    /// The number of items in a task; and the greatest number of items, and of bytes, under way.
    pub(super) fn resolve(self) -> Result<(Chunk, (usize, usize))> {
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
        Ok((chunk, window))
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
