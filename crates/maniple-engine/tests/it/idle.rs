//! What is kept for later: alone in a process, which has one sweeper, and other tests fork.

use crate::support::{LIMIT, alone};
use maniple_engine::idle::{Kept, watch};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Thing {
    looks: AtomicUsize,
    asked_for_all: AtomicBool,
}

impl Kept for Thing {
    fn trim(&self, unused: Duration) -> bool {
        self.asked_for_all.fetch_or(unused.is_zero(), Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed) == 0
    }
}

fn until(what: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    while !what() && since.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(20));
    }
    what()
}

/// Whether the sweeper is among this process's threads.
fn is_swept() -> bool {
    maniple_sys::testing::threads().iter().any(|name| name == "maniple-sweeper")
}

#[cfg(not(windows))]
fn fork_and_look(thing: &Thing) {
    use maniple_engine::process::{Forked, fork};

    match // SAFETY: the child ends at once.
        unsafe { fork() }.unwrap() {
        // SAFETY: ends the process, without the test program's exit handlers.
        Forked::Child => maniple_sys::process::leave(0),
        Forked::Parent(child) => {
            // A count of the program's threads after it has forked includes none of ours.
            assert!(!is_swept() && thing.asked_for_all.load(Ordering::Relaxed));
            child.wait().unwrap();
        }
    }
}

#[test]
fn what_is_kept_is_looked_at_until_it_is_gone_and_before_a_fork() {
    alone(|| {
        let thing: Arc<Thing> = Arc::default();
        let weak: Weak<dyn Kept> = Arc::downgrade(&thing) as Weak<dyn Kept>;
        let looks = |count| until(|| thing.looks.load(Ordering::Relaxed) == count);
        assert!(!is_swept() && watch(weak.clone()) && until(is_swept));
        assert!(looks(2) && !thing.asked_for_all.load(Ordering::Relaxed));
        assert!(until(|| !is_swept()));

        thing.looks.store(0, Ordering::Relaxed);
        assert!(watch(weak.clone()) && until(is_swept));
        // Windows has no forks.
        #[cfg(not(windows))]
        fork_and_look(&thing);
        // And again in the parent.
        thing.looks.store(0, Ordering::Relaxed);
        assert!(watch(weak) && looks(2) && until(|| !is_swept()));
    });
}
