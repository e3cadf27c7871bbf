//! The processors of a pool's workers.

/// The processors on which the workers of a pool run, for [`PoolBuilder::affinity`](crate::PoolBuilder::affinity).
///
/// ```
/// use maniple::{Affinity, Pool};
///
/// # fn main() -> maniple::Result<()> {
/// let shared_out = Pool::builder().processes(2).affinity(Affinity::Spread).build()?;
/// # let first = shared_out.apply(|()| maniple::cpu_count(), ())?;
/// # assert!(first > 0);
/// // Each worker has one of the sets in turn.
/// # let pool = Pool::builder().processes(2);
/// let sets = pool.affinity([[0, 1], [2, 3]]);
/// # drop(sets);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Affinity {
    /// The processors of the pool's process are shared out among the workers. If there are more workers than processors,
    /// each worker has one processor, which it shares.
    Spread,
    /// Each worker has one of these sets of processors in turn, by its [number](crate::worker_id()).
    Sets(Vec<Vec<usize>>),
}

impl<S: IntoIterator<Item = usize>> FromIterator<S> for Affinity {
    fn from_iter<I: IntoIterator<Item = S>>(sets: I) -> Affinity {
        Affinity::Sets(sets.into_iter().map(|set| set.into_iter().collect()).collect())
    }
}

impl<S: IntoIterator<Item = usize>> From<Vec<S>> for Affinity {
    fn from(sets: Vec<S>) -> Affinity {
        sets.into_iter().collect()
    }
}

impl<S: IntoIterator<Item = usize>, const N: usize> From<[S; N]> for Affinity {
    fn from(sets: [S; N]) -> Affinity {
        sets.into_iter().collect()
    }
}
