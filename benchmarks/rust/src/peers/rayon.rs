//! rayon, for orientation: threads in one process, so nothing is sent and nothing survives a crash.

use crate::case::{Measured, Peer, WORKERS, time_calls, time_maps, time_starts, triple};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

pub struct Rayon;

impl Peer for Rayon {
    fn call(&self, repeats: usize) -> Measured {
        let pool = ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
        time_calls(repeats, |number| Ok(pool.install(|| triple(number))))
    }

    fn map(&self, count: usize, repeats: usize) -> Measured {
        let pool = ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
        time_maps(count, repeats, |items| Ok(pool.install(|| items.into_par_iter().map(triple).collect())))
    }

    fn start(&self, repeats: usize) -> Measured {
        time_starts(repeats, || {
            let pool = ThreadPoolBuilder::new().num_threads(WORKERS).build()?;
            Ok(pool.install(|| triple(5)))
        })
    }
}
