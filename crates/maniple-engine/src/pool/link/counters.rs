//! The counters of a worker, in the shared memory of its link: one line of memory, and the moments at which its last tasks began.
//!
//! The worker writes them, by stores of single words, which a death never leaves torn. The hub only shows what it reads there: it
//! checks nothing, and no value of a faulty worker leads it anywhere.
//!
//! `work` has state and time in one word, so that a reader never sees one without the other:
//!
//! ```text
//! lowest bit   the other bits
//! 0            the time (ns) that the worker has spent in tasks
//! 1            the same, less the moment at which its present task began: the reader adds its own moment
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

/// For so many tasks of a worker the moments of their beginnings are kept: as many as a worker is given in advance.
pub(crate) const BEGINS: usize = 1024;

/// The words of the line.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// The number of the task that the worker last began, and when.
    number: AtomicU64,
    began: AtomicU64,
    /// Not 0: the worker handles the signal that interrupts its task.
    pub interruptible: AtomicU64,
    /// Tasks that have ended with a result, and with an error.
    completed: AtomicU64,
    failed: AtomicU64,
    work: AtomicU64,
    /// When the worker opened the link, and when it was ready.
    opened: AtomicU64,
    ready: AtomicU64,
}

/// What a worker has counted, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// When the present task began; `None`: the worker runs none.
    pub busy_since: Option<u64>,
    pub completed: u64,
    pub failed: u64,
    /// The time (ns) in tasks.
    pub working: u64,
    /// When the worker opened the link, and when it was ready; 0: it has not yet.
    pub opened: u64,
    pub ready: u64,
}

impl Counted {
    /// The time (ns) since the worker was ready in which it ran no task.
    pub fn waiting(&self, now: u64) -> u64 {
        if self.ready == 0 { 0 } else { now.saturating_sub(self.ready).saturating_sub(self.working) }
    }
}

/// What a worker counts. It alone writes the line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    completed: u64,
    failed: u64,
    working: u64,
}

impl Line {
    /// For the hub: the number of the task that the worker last began, and when. If the worker begins a task at the same time, the time
    /// may be that of the later task.
    pub fn running(&self) -> (u64, u64) {
        // Partner: `begin`.
        let number = self.number.load(Ordering::Acquire);
        (number, self.began.load(Ordering::Relaxed))
    }

    /// For the worker: it begins a task.
    pub fn begin(&self, number: u64, now: u64, tally: Option<&Tally>) {
        self.began.store(now, Ordering::Relaxed);
        self.number.store(number, Ordering::Release);
        if let Some(tally) = tally {
            self.work.store((tally.working.wrapping_sub(now) << 1) | 1, Ordering::Relaxed);
        }
    }

    /// For the worker: its task has ended after so many nanoseconds. Returns what it has counted now.
    pub fn end(&self, before: &Tally, is_fine: bool, nanos: u64) -> Tally {
        let mut tally = *before;
        tally.working = tally.working.wrapping_add(nanos);
        if is_fine {
            tally.completed += 1;
            self.completed.store(tally.completed, Ordering::Relaxed);
        } else {
            tally.failed += 1;
            self.failed.store(tally.failed, Ordering::Relaxed);
        }
        self.work.store(tally.working << 1, Ordering::Relaxed);
        tally
    }

    /// For the worker: the end of a task did not count after all; it still runs.
    pub fn take_back(&self, tally: &Tally, began: u64) {
        self.completed.store(tally.completed, Ordering::Relaxed);
        self.failed.store(tally.failed, Ordering::Relaxed);
        self.work.store((tally.working.wrapping_sub(began) << 1) | 1, Ordering::Relaxed);
    }

    /// For the worker: it has opened the link.
    pub fn open(&self, now: u64) {
        self.opened.store(now, Ordering::Relaxed);
    }

    /// For the worker: it is ready.
    pub fn ready(&self, now: u64) {
        self.ready.store(now, Ordering::Relaxed);
    }

    /// For the hub: everything.
    pub fn read(&self, now: u64) -> Counted {
        let word = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let work = word(&self.work);
        let is_busy = work & 1 == 1;
        // The shift keeps the sign.
        let time = ((work as i64) >> 1) as u64;
        Counted {
            busy_since: is_busy.then(|| word(&self.began).min(now)),
            completed: word(&self.completed),
            failed: word(&self.failed),
            working: if is_busy { time.wrapping_add(now) } else { time },
            opened: word(&self.opened),
            ready: word(&self.ready),
        }
    }
}

/// Bits of a duration's exponent in a frame.
const EXPONENT: u32 = 5;
const MANTISSA: u32 = u32::BITS - EXPONENT;

/// A duration (ns) as the number of a frame: exact up to 134 ms, with 27 bits beyond.
pub(crate) fn pack(nanos: u64) -> u32 {
    let exponent = (u64::BITS - nanos.leading_zeros()).saturating_sub(MANTISSA);
    if exponent >= 1 << EXPONENT {
        return u32::MAX;
    }
    (exponent << MANTISSA) | (nanos >> exponent) as u32
}

/// The duration (ns) of such a number.
pub(crate) fn unpack(number: u32) -> u64 {
    u64::from(number & ((1 << MANTISSA) - 1)) << (number >> MANTISSA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_27_bits() {
        for shift in 0..58 {
            for nanos in [1u64 << shift, (1 << shift) + 1, (1 << shift) - 1, 3 << shift >> 1] {
                let back = unpack(pack(nanos));
                assert!(back <= nanos && nanos - back <= nanos >> 26, "{nanos} became {back}");
            }
        }
        assert_eq!(unpack(pack((1 << 27) - 1)), (1 << 27) - 1);
        assert!(unpack(pack(u64::MAX)) > 1 << 57);
        assert_eq!((unpack(1000), pack(0)), (1000, 0));
    }

    #[test]
    fn a_reader_finds_state_and_time_together() {
        let (line, mut tally) = (Line::default(), Tally::default());
        line.open(5);
        line.ready(10);
        assert_eq!(line.read(30).waiting(30), 20);
        line.begin(1, 40, Some(&tally));
        let counted = line.read(45);
        assert_eq!((counted.busy_since, counted.working, counted.waiting(45)), (Some(40), 5, 30));
        tally = line.end(&tally, true, 8);
        line.begin(2, 50, Some(&tally));
        let before = tally;
        line.end(&tally, false, 3);
        line.take_back(&before, 50);
        let counted = line.read(57);
        assert_eq!((counted.busy_since, counted.working, counted.completed, counted.failed), (Some(50), 15, 1, 0));
        line.end(&before, false, 10);
        let counted = line.read(1000);
        assert_eq!((counted.busy_since, counted.working, counted.failed), (None, 18, 1));
        assert_eq!((counted.waiting(1000), line.running()), (972, (2, 50)));
    }

    #[test]
    fn any_bytes_can_be_read() {
        let line = Line::default();
        for word in [0, 1, 2, u64::MAX, u64::MAX - 1, 1 << 63] {
            line.work.store(word, Ordering::Relaxed);
            line.ready.store(word, Ordering::Relaxed);
            line.began.store(word, Ordering::Relaxed);
            let counted = line.read(1 << 40);
            assert!(counted.busy_since <= Some(1 << 40));
            counted.waiting(1 << 40);
        }
    }
}
