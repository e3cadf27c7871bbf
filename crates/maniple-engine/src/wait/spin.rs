//! A short spin before sleep, which stops when it does not pay.
//!
//! Sleeping and being woken costs several microseconds on each side; news that comes within that time is cheaper to wait for
//! awake. But on a busy machine a spinner occupies the processor that the other process needs. So: no spin if there
//! are more runnable sides than cores (the caller passes that), a pause of growing length after spins without success, and a long one after
//! a spin in which this thread lost its processor, the surest sign that others want it.

use maniple_sys::atfork::{Handlers, OnceLock};
use maniple_sys::{self as sys, clock};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How long a spin lasts at most, in nanoseconds.
const LIMIT: u64 = 40_000;
/// A gap of so many nanoseconds between two looks at the clock: another thread ran here.
const GAP: u64 = 15_000;
/// Looks for news between two looks at the clock.
const LOOKS: u32 = 64;
/// The longest pause, in waits.
const LONGEST_BREAK: u32 = 256;

/// One side's measurements of spins.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    pause: u32,
    failures: u32,
}

impl Spin {
    /// Spins for news for a while, if that has paid lately. Returns whether there were any.
    pub fn until(&mut self, allowed: bool, mut news: impl FnMut() -> bool) -> bool {
        news() || self.due(allowed) && self.look(LOOKS, news)
    }

    /// The same if every look is a system call: a look is slow compared to reading the clock, and not worth it before a sleep.
    /// Only some of a process's threads do it at a time.
    pub fn until_asked(&mut self, news: impl FnMut() -> bool) -> bool {
        let turn = Turn::take();
        self.due(turn.is_some()) && self.look(1, news)
    }

    fn due(&mut self, allowed: bool) -> bool {
        if allowed && self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        allowed
    }

    fn look(&mut self, looks: u32, mut news: impl FnMut() -> bool) -> bool {
        let start = clock::now();
        let mut last = start;
        loop {
            for _ in 0..looks {
                if news() {
                    self.failures = 0;
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = clock::now();
            if now - last > GAP {
                self.pause = LONGEST_BREAK / 4;
                return news();
            }
            if now - start > LIMIT {
                self.failures = (self.failures + 1).min(8);
                // Occasional spins without success are the price of noticing a change.
                self.pause = if self.failures < 3 { 0 } else { (1 << self.failures).min(LONGEST_BREAK) };
                return false;
            }
            last = now;
        }
    }
}

/// The permission to spin: at most half of the cores may do so for one process, since the other side needs the others.
struct Turn;

static SPINNING: AtomicUsize = AtomicUsize::new(0);

extern "C" fn nothing() {}

/// A forked child does not have the threads that spun: the thread that forks does not spin.
extern "C" fn nobody_spins() {
    SPINNING.store(0, Ordering::Relaxed);
}

/// Makes forked children forget the threads that spun.
///
/// # Errors
/// If the operating system cannot register the fork handlers (out of memory).
pub(crate) fn watch_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(nothing, nothing, nobody_spins);
    HANDLERS.register()
}

impl Turn {
    fn take() -> Option<Turn> {
        static MOST: OnceLock<usize> = OnceLock::new();
        watch_forks().ok()?;
        let most = *MOST.get_or_init(|| sys::cores() / 2);
        // Only a count: it publishes no other data.
        if SPINNING.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Turn);
        }
        SPINNING.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_in_vain_is_given_up_and_success_brings_it_back() {
        let mut spin = Spin::default();
        for _ in 0..20 {
            assert!(!spin.until(true, || false));
        }
        assert!(spin.pause > 0);
        let mut looks = 0;
        spin.until(true, || {
            looks += 1;
            false
        });
        assert_eq!(looks, 1);
        spin.pause = 0;
        let mut looks = 0;
        assert!(spin.until(true, || {
            looks += 1;
            looks > 3
        }));
        assert_eq!(spin.failures, 0);
    }
}
