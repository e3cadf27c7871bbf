//! A short spin before sleeping, given up where it does not pay.
//!
//! Sleeping and being woken costs several microseconds on each side; news that comes within that time is cheaper to wait for
//! awake. But a spinner on a busy machine keeps off the processor the very process that it waits for. So: no spin when there
//! are more runnable sides than cores (the caller knows), a break of growing length after spins in vain, and a long one after a spin
//! during which this thread was taken off its processor, the surest sign that others want it.

use crate::sys::clock;

/// How long a spin lasts at most, in nanoseconds.
const LIMIT: u64 = 40_000;
/// A gap of so many nanoseconds between two looks at the clock: somebody else ran here.
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
    /// Looks for news for a while, if that has paid lately. Gives whether there were any.
    pub fn until(&mut self, allowed: bool, mut news: impl FnMut() -> bool) -> bool {
        news() || self.due(allowed) && self.look(LOOKS, news)
    }

    /// The same where every look is a system call: long beside a look at the clock, and not worth taking if one is to sleep anyway.
    pub fn until_asked(&mut self, allowed: bool, news: impl FnMut() -> bool) -> bool {
        self.due(allowed) && self.look(1, news)
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
