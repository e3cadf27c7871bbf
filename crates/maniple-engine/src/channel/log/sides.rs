//! The two windows of a log in this process, and how its memory returns to the system when the log is idle.

use super::super::window::Window;
use super::{LAP, Shared, hold, hold_writers};
use crate::idle::{Kept, Watched};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug)]
pub struct Sides {
    shared: Arc<Shared>,
    pub writing: Mutex<Window>,
    pub reading: Mutex<Window>,
    watched: Watched,
    // The tail, when it was last looked at.
    seen: AtomicU64,
}

impl Sides {
    pub fn of(shared: Arc<Shared>) -> Sides {
        Sides {
            shared,
            writing: Mutex::default(),
            reading: Mutex::default(),
            watched: Watched::default(),
            seen: AtomicU64::new(u64::MAX),
        }
    }

    /// Returns the memory to the system when the log has been idle for a while.
    pub fn watch(this: &Arc<Sides>) {
        if !this.watched.is_on() {
            this.seen.store(u64::MAX, Ordering::Relaxed);
            this.watched.begin(this);
        }
    }
}

impl Sides {
    /// Returns to the system the memory that an empty log has beyond so many bytes, and the windows. Does nothing while another thread or
    /// process uses the log.
    fn give_back(&self, keep: u64) {
        let header = self.shared.header();
        let (Ok(Some(readers)), Ok(Some(writers))) = (hold(&header.readers, None), hold_writers(header, None)) else {
            return;
        };
        let tail = header.writers.at.load(Ordering::Relaxed);
        if header.readers.at.load(Ordering::Relaxed) == tail {
            self.shared.start_over(self.shared.ring(), tail, keep);
            header.freed.store(0, Ordering::Relaxed);
            header.freed_base.store(tail, Ordering::Relaxed);
        }
        for window in [&self.writing, &self.reading] {
            if let Ok(mut window) = window.try_lock() {
                window.shut();
            }
        }
        drop((readers, writers));
    }
}

impl Kept for Sides {
    fn trim(&self, unused: Duration) -> bool {
        let header = self.shared.header();
        let tail = header.writers.at.load(Ordering::Acquire);
        let recent = header.recent.swap(0, Ordering::Relaxed);
        if self.seen.swap(tail, Ordering::Relaxed) != tail && !unused.is_zero() {
            // It is in use, but perhaps for less than before.
            if header.used.load(Ordering::Relaxed) / 2 > recent.max(LAP) {
                self.give_back(recent.max(LAP));
            }
            return true;
        }
        // The next user of the log has it watched again.
        self.watched.end();
        self.give_back(0);
        false
    }
}
