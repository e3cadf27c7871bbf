//! What kind of world a seed makes: how large, how fast, how unlucky.

use super::random::Rng;
use maniple_engine::pool::scheduler::{Chunk, Config, JobShape, Retries, Supply, Terms};
use std::sync::Arc;

/// One microsecond, in the simulation's nanoseconds.
pub const MICRO: u64 = 1_000;
/// One millisecond.
pub const MILLI: u64 = 1_000_000;
/// No delay of the simulated outside is longer, so that the time to drain can be bounded.
pub const LONGEST_DELAY: u64 = 8 * MILLI;

/// What stays the same throughout a run. Chances are in a thousand.
#[derive(Debug)]
pub struct Traits {
    pub config: Config,
    pub jobs: usize,
    pub span: u64,
    pub start_fails: u64,
    pub dies_idle: u64,
    pub task_kills: u64,
    pub unsendable: u64,
    pub settled: u64,
    pub refuses: u64,
    pub link: usize,
    pub boot: u64,
    pub look: u64,
    pub notice: u64,
    pub long_tasks: u64,
    pub terms: u64,
    pub cancels: usize,
    pub pokes: usize,
    pub kills: usize,
    pub stops: usize,
    pub resizes: usize,
    /// From when to when descriptors, memory or processes are short.
    pub shortages: Vec<(u64, u64)>,
    pub terminate: bool,
    pub close: bool,
}

impl Traits {
    pub fn new(rng: &mut Rng) -> Traits {
        let large = rng.per_mille(60);
        let shortages = rng.pick(&[0, 0, 0, 1, 2]);
        let shortage = |rng: &mut Rng| {
            let from = rng.between(0, 30 * MILLI);
            (from, from + rng.pick(&[MILLI, 10 * MILLI, 200 * MILLI, 14_000 * MILLI]))
        };
        let processes = rng.count(1, 5);
        let least = if rng.per_mille(800) { None } else { Some(rng.count(0, processes)) };
        Traits {
            config: Config {
                processes,
                least,
                idle: rng.pick(&[0, MILLI, 20 * MILLI]),
                spares: if least.is_none() { rng.pick(&[0, 0, 0, 1, 2]) } else { 0 },
                max_tasks: if rng.per_mille(300) { Some(rng.skewed(4)) } else { None },
                start_limit: rng.pick(&[None, None, None, Some(MILLI), Some(10 * MILLI)]),
                is_uncounted: false,
            },
            terms: rng.pick(&[0, 0, 300, 900]),
            jobs: if large { rng.count(8, 30) } else { rng.count(1, 6) },
            span: rng.pick(&[50 * MICRO, MILLI, 20 * MILLI]),
            start_fails: rng.pick(&[0, 0, 0, 0, 50, 300, 600, 1000]),
            dies_idle: rng.pick(&[0, 0, 0, 20, 100]),
            task_kills: rng.pick(&[0, 0, 5, 50, 200]),
            unsendable: rng.pick(&[0, 0, 0, 20]),
            settled: rng.pick(&[0, 0, 0, 50]),
            refuses: rng.pick(&[0, 0, 0, 20, 300]),
            link: rng.pick(&[1, 2, 4, 16, 4000, 4000, 4000]),
            boot: rng.pick(&[MICRO, 100 * MICRO, 2 * MILLI]),
            look: rng.pick(&[0, MICRO, 50 * MICRO, 2 * MILLI]),
            notice: rng.pick(&[MICRO, 100 * MICRO, 2 * MILLI]),
            long_tasks: rng.pick(&[0, 20, 20, 300]),
            cancels: rng.pick(&[0, 0, 1, 4]),
            pokes: rng.pick(&[0, 2, 10]),
            kills: rng.pick(&[0, 0, 1, 4]),
            stops: rng.pick(&[0, 0, 0, 1, 4]),
            resizes: rng.pick(&[0, 0, 0, 1, 4]),
            shortages: (0..shortages).map(|_| shortage(rng)).collect(),
            terminate: rng.per_mille(250),
            close: rng.per_mille(850),
        }
    }

    /// Whether a shortage lasts.
    pub fn short(&self, now: u64) -> bool {
        self.shortages.iter().any(|&(from, until)| (from..until).contains(&now))
    }

    /// Up to about `most`, mostly far less, never more than [`LONGEST_DELAY`].
    pub fn delay(rng: &mut Rng, most: u64) -> u64 {
        let most = if rng.per_mille(20) { most * 4 } else { most };
        rng.between(0, most.min(LONGEST_DELAY))
    }

    /// How long a task takes.
    pub fn work(&self, rng: &mut Rng) -> u64 {
        if rng.per_mille(self.long_tasks) { rng.between(MILLI, 60 * MILLI) } else { rng.skewed(17) }
    }

    fn terms(rng: &mut Rng) -> Terms {
        let limits = [None, Some(50 * MICRO), Some(2 * MILLI), Some(20 * MILLI)];
        let (first, factor) = (rng.pick(&[0, MICRO, 3 * MILLI]), rng.pick(&[1.0, 2.0, 1e300]));
        let retries = Retries {
            most: rng.pick(&[0, 1, 3]),
            first,
            factor,
            longest: rng.pick(&[MILLI, 30 * MILLI]),
            of_lost: rng.per_mille(800),
            of_overdue: rng.per_mille(800),
        };
        Terms { limit: rng.pick(&limits), soft_limit: rng.pick(&limits), retries, priority: rng.pick(&[0, 0, -1, 5]) }
    }

    /// A job to be, and how many items its source will really give.
    pub fn job(&self, rng: &mut Rng) -> (JobShape, usize) {
        let items = match rng.between(0, 9) {
            0 => 0,
            1..=2 => 1,
            3..=7 => rng.count(2, 60),
            _ => rng.count(60, 400),
        };
        let on_demand = rng.per_mille(650);
        let known = match rng.between(0, 3) {
            0 => None,
            // The source ends early, or supplies more than it said.
            1 if rng.per_mille(300) => Some(rng.count(0, 500)),
            _ => Some(items),
        };
        let shape = JobShape {
            func: rng.between(1, 4) as u32,
            supply: if on_demand { Supply::OnDemand } else { Supply::Complete },
            chunk: if rng.per_mille(500) { Chunk::Adaptive } else { Chunk::Fixed(rng.pick(&[0, 1, 1, 1, 3, 7, 40])) },
            items: known,
            window: if on_demand && rng.per_mille(600) { Some(rng.skewed(6) as usize) } else { None },
            terms: rng.per_mille(self.terms).then(|| Arc::new(Traits::terms(rng))),
        };
        (shape, items)
    }
}
