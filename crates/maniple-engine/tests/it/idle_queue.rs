//! What a queue keeps for later while it is used a little: alone in a process, as in `idle.rs`.

use crate::support::{LIMIT, alone};
use maniple_engine::channel::log::Log;
use std::time::{Duration, Instant};

#[test]
fn a_queue_that_is_used_for_less_than_before_gives_memory_back() {
    alone(|| {
        let log = Log::create().unwrap();
        let mut first = Vec::new();
        let mut pass = |bytes: &[u8]| {
            assert!(log.put(&[b"", bytes], false, Some(&mut || false)).unwrap());
            let taken = log.take(&mut first, Some(&mut || false)).unwrap().unwrap();
            assert!(taken.rest[0].bytes() == bytes);
        };
        let large = vec![7; 40 << 20];
        (0..3).for_each(|_| pass(&large));
        let pages = || maniple_sys::testing::taken(log.handles().0);
        assert!(pages() >= 40 << 20);
        let since = Instant::now();
        while pages() > 10 << 20 {
            assert!(since.elapsed() < LIMIT, "{} bytes are kept", pages());
            pass(b"a little");
            std::thread::sleep(Duration::from_millis(100));
        }
        // And it carries large ones again.
        (0..3).for_each(|_| pass(&large));
    });
}
