//! Forks in several threads at once, while things are kept: alone in a process, which has one sweeper.

use crate::support::{LIMIT, alone};
use maniple_engine::idle::{Kept, watch};
use maniple_engine::process::{Forked, fork};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Returning it takes a while.
struct Slow;

impl Kept for Slow {
    fn trim(&self, _: Duration) -> bool {
        std::thread::sleep(Duration::from_millis(1));
        true
    }
}

#[test]
fn a_child_of_one_of_two_forks_at_once_is_not_stuck() {
    alone(|| {
        let things: Vec<Arc<Slow>> = (0..3).map(|_| Arc::new(Slow)).collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = things.iter().all(|thing| watch(Arc::downgrade(thing) as Weak<dyn Kept>));
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            let fork_often = || {
                for _ in 0..300 {
                    match // SAFETY: the child ends at once.
        unsafe { fork() }.unwrap() {
                        // SAFETY: ends the process, without the test program's exit handlers.
                        Forked::Child => maniple_sys::process::leave(0),
                        Forked::Parent(child) => {
                            let ended = child.wait_timeout(LIMIT).unwrap();
                            if ended.is_none() {
                                let _ = child.kill();
                                return false;
                            }
                        }
                    }
                }
                true
            };
            let forks = [scope.spawn(fork_often), scope.spawn(fork_often), scope.spawn(fork_often)];
            let ended = forks.map(|forks| forks.join().unwrap());
            stop.store(true, Ordering::Relaxed);
            assert_eq!(ended, [true; 3], "a child hangs");
        });
    });
}
