//! The scheduler against a world that is made from a seed: workers that fail to start, die busy or idle, are stopped, fill up and are
//! renewed; shortages that come and go; callers that cancel, close and terminate; sources that stop early; a hub that reads late. Every run is checked at every step
//! (see `simulation/ledger.rs` and `simulation/checks.rs`), and any failure replays from its seed:
//!
//! ```text
//! MANIPLE_SEED=123 cargo test -p maniple-engine --test it simulation::     one seed
//! MANIPLE_SEEDS=2000000 cargo test --release -p maniple-engine --test it simulation::
//! MANIPLE_FIRST=5000 ...                                                   where to begin
//! ```

mod fairness;
mod found;
mod ledger;
mod random;
mod traits;
mod worker;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{Counts, World};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 20_000;
/// The last lines of a failed run's journal that are shown.
const SHOWN: usize = 150;
/// A single seed takes milliseconds; a seed that takes so long hangs.
const PATIENCE: Duration = crate::support::LIMIT;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs a seed. What it met on the way, or what it died of.
fn run(seed: u64) -> Result<Counts, String> {
    // Said once, by the replay, below the story.
    std::panic::set_hook(Box::new(|_| {}));
    let played = catch_unwind(|| {
        let mut world = World::new(seed, None);
        world.run();
        world.counts
    });
    drop(std::panic::take_hook());
    played.map_err(|_| replay(seed))
}

/// Runs a seed that fails once more, this time with its journal.
fn replay(seed: u64) -> String {
    let journal = Rc::new(RefCell::new(Vec::new()));
    let mut world = World::new(seed, Some(journal.clone()));
    let why = Arc::new(Mutex::new(String::new()));
    let said = why.clone();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(mut why) = said.lock() {
            *why = info.to_string();
        }
    }));
    let died = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    drop(std::panic::take_hook());
    let why = why.lock().map(|w| w.clone()).unwrap_or_default();
    let lines = journal.borrow();
    let skipped = lines.len().saturating_sub(SHOWN);
    let first = lines.first().cloned().unwrap_or_default();
    let state = catch_unwind(AssertUnwindSafe(|| world.describe())).unwrap_or_default();
    let twice =
        if died { "" } else { "\nand it did NOT fail when it was run again: the simulation is not deterministic" };
    format!(
        "{first}\n... {skipped} lines\n{}\n{state}\n{why}\nseed {seed} fails{twice}. Replay it with\n  MANIPLE_SEED={seed} cargo test -p maniple-engine --test it simulation::",
        lines[skipped..].join("\n")
    )
}

/// Ends the process, with the seed, if a seed hangs inside the scheduler.
fn watch(current: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut seen = u64::MAX;
        loop {
            std::thread::sleep(PATIENCE);
            let now = current.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now == seen {
                eprintln!("seed {now} hangs: MANIPLE_SEED={now}");
                std::process::abort();
            }
            seen = now;
        }
    });
}

#[test]
fn every_task_and_job_ends_exactly_once_whatever_happens() {
    let only = number("MANIPLE_SEED");
    let first = only.or_else(|| number("MANIPLE_FIRST")).unwrap_or(0);
    let count = if only.is_some() { 1 } else { number("MANIPLE_SEEDS").unwrap_or(SEEDS) };
    let current = Arc::new(AtomicU64::new(first));
    watch(current.clone());
    let mut met = Counts::new();
    for seed in first..first + count {
        current.store(seed, Ordering::Relaxed);
        match run(seed) {
            Ok(counts) => counts.into_iter().for_each(|(what, n)| *met.entry(what).or_default() += n),
            Err(story) => panic!("{story}"),
        }
    }
    current.store(u64::MAX, Ordering::Relaxed);
    println!("{count} seeds: {met:?}");
    if count >= SEEDS {
        // A simulator that never meets trouble proves nothing.
        for what in [
            "start refused",
            "start postponed",
            "lacked something as it started",
            "start awaited",
            "given up after long",
            "start failed",
            "pool broken",
            "died idle",
            "died busy",
            "died between tasks",
            "task lost",
            "killed",
            "retired",
            "refused",
            "unsendable",
            "settled on fill",
            "filled too late",
            "revoked",
            "not all revoked",
            "cancelled",
            "narrowed",
            "stopped",
            "taken from a silent worker",
            "awake again",
            "start in a shortage",
            "not given up while a worker lives",
            "tried again after a loss",
            "tried again after a failure",
            "ended as overdue",
            "answered in time after all",
            "interrupted",
            "not ready in time",
            "cancelled as it ran",
            "resized",
            "resized without an end",
        ] {
            assert!(met.contains_key(what), "none of {count} seeds met: {what}");
        }
    }
}
