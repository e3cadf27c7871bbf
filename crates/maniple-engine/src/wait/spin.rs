//! A short spin before sleeping, given up where it does not pay.
//!
//! Sleeping and being woken costs several microseconds on each side; news that comes within that time is cheaper to wait for
//! awake. But a spinner on a busy machine keeps off the processor the very process that it waits for. So: no spin when there
//! are more runnable sides than cores (the caller knows), a break of growing length after spins in vain, and a long one after a spin
//! during which this thread was taken off its processor, the surest sign that others want it.

use maniple_sys::{self as sys, clock};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How long a spin lasts at most, in nanoseconds.
const LIMIT: u64 = 40_000;
/// A gap of so many nanoseconds between two looks at the clock: another thread ran here.
const GAP: u64 = 15_000;
/// Looks for news between two looks at the clock.
const LOOKS: u32 = 64;
/// The longest break, in waits.
const LONGEST_BREAK: u32 = 256;

/// One side's experience with spinning.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    pause: u32,
    failures: u32,
}

impl Spin {
    /// Looks for news for a while, if that has paid lately. Returns whether there were any.
    pub fn until(&mut self, allowed: bool, mut news: impl FnMut() -> bool) -> bool {
        news() || self.due(allowed) && self.look(LOOKS, news)
    }

    /// The same where every look is a system call: long beside a look at the clock, and not worth taking if one is to sleep anyway.
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
                // Spins in vain now and then are the price of noticing that the times have changed.
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

/// The threads that spun are not in a forked child: the one that forks does not spin.
extern "C" fn nobody_spins() {
    SPINNING.store(0, Ordering::Relaxed);
}

impl Turn {
    fn take() -> Option<Turn> {
        static MOST: OnceLock<usize> = OnceLock::new();
        let most = *MOST.get_or_init(|| match sys::process::at_fork(nothing, nothing, nobody_spins) {
            Ok(()) => sys::cores() / 2,
            Err(_) => 0,
        });
        // A mere count: nothing is read that another thread wrote before it changed it.
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
