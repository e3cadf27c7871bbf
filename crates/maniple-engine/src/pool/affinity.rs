//! Which processors each worker of a pool may use.

/// The processors of a pool's workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// These processors are shared out.
    Spread(Vec<usize>),
    /// Each worker has one of these sets in turn.
    Sets(Vec<Vec<usize>>),
}

impl Affinity {
    /// Returns the processors of the worker of this number, in a pool of so many workers. If there are more workers than
    /// processors to share out, each worker has one, which it shares.
    pub fn of(&self, number: usize, count: usize) -> &[usize] {
        match self {
            Affinity::Sets(sets) => sets.get(number % sets.len().max(1)).map_or(&[], Vec::as_slice),
            Affinity::Spread(all) => {
                let (size, count) = (all.len(), count.max(1));
                // A worker of a pool that is being made smaller may have a number beyond the others.
                let number = number % count;
                let share = if count < size {
                    number * size / count..(number + 1) * size / count
                } else {
                    let one = number % size.max(1);
                    one..one + 1
                };
                all.get(share).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_a_share_of_the_processors() {
        for (size, count) in [(8, 2), (8, 3), (5, 4), (4, 4), (1, 1)] {
            let all: Vec<usize> = (10..10 + size).collect();
            let affinity = Affinity::Spread(all.clone());
            let shares: Vec<usize> = (0..count).flat_map(|n| affinity.of(n, count).to_vec()).collect();
            assert_eq!(shares, all);
            assert!((0..count).all(|n| !affinity.of(n, count).is_empty()));
            assert_eq!(affinity.of(count, count), affinity.of(0, count));
        }
        let few = Affinity::Spread(vec![4, 6]);
        assert_eq!((0..5).map(|n| few.of(n, 5)).collect::<Vec<_>>(), [&[4][..], &[6], &[4], &[6], &[4]]);
        assert_eq!(few.of(3, 0), [4, 6]);
    }

    #[test]
    fn sets_are_handed_out_in_turn() {
        let sets = Affinity::Sets(vec![vec![0, 1], vec![2]]);
        assert_eq!((0..3).map(|n| sets.of(n, 3)).collect::<Vec<_>>(), [&[0, 1][..], &[2], &[0, 1]]);
        assert!(Affinity::Sets(Vec::new()).of(1, 1).is_empty() && Affinity::Spread(Vec::new()).of(1, 1).is_empty());
    }
}
