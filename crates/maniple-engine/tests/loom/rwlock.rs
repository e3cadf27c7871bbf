//! Readers and writers, as `src/sync/rwlock.rs` has them: a gate, shares, and news for a writer that waits.

use super::model;
use super::sync::{Bed, Locked, process};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use maniple_engine::sync::word::lock::Holder;
use maniple_engine::sync::word::{NewsWord, UnitWord};

struct ReadWrite<const SHARES: usize> {
    gate: Locked,
    news: NewsWord,
    shares: [UnitWord; SHARES],
    bed: Bed,
    value: UnsafeCell<u32>,
}

// The checker itself finds out whether a thread writes while another reads or writes.
unsafe impl<const SHARES: usize> Sync for ReadWrite<SHARES> {}
unsafe impl<const SHARES: usize> Send for ReadWrite<SHARES> {}

impl<const SHARES: usize> ReadWrite<SHARES> {
    fn new() -> Arc<Self> {
        let shares = std::array::from_fn(|_| UnitWord::default());
        let (gate, news, bed) = (Locked::default(), NewsWord::default(), Bed::default());
        Arc::new(ReadWrite { gate, news, shares, bed, value: UnsafeCell::new(0) })
    }

    fn read(&self, me: Holder) -> u32 {
        self.gate.acquire(me);
        let share = self.shares.iter().find(|share| share.take(me)).expect("there is a share for each reader");
        self.gate.release();
        let value = self.value.with(|value| unsafe { *value });
        self.leave(share, me);
        value
    }

    fn leave(&self, share: &UnitWord, me: Holder) {
        assert!(share.give(me));
        if self.news.tell() {
            self.bed.wake(true);
        }
    }

    fn write(&self, me: Holder) {
        self.gate.acquire(me);
        while !self.is_clear() {
            let seen = self.news.ask();
            if self.is_clear() {
                break;
            }
            self.bed.sleep(self.news.raw(), seen);
        }
        self.value.with_mut(|value| unsafe { *value += 1 });
        self.gate.release();
    }

    fn is_clear(&self) -> bool {
        self.shares.iter().all(UnitWord::is_free)
    }
}

#[test]
fn a_writer_waits_for_readers_and_keeps_them_out() {
    model(|| {
        let lock = ReadWrite::<1>::new();
        let reader = {
            let lock = lock.clone();
            thread::spawn(move || lock.read(process(2)))
        };
        lock.write(process(1));
        assert!(reader.join().unwrap() <= 1);
    });
}

#[test]
fn two_writers_and_a_reader_take_turns() {
    model(|| {
        let lock = ReadWrite::<1>::new();
        let writer = {
            let lock = lock.clone();
            thread::spawn(move || lock.write(process(2)))
        };
        lock.write(process(1));
        lock.read(process(1));
        writer.join().unwrap();
        assert_eq!(lock.value.with(|value| unsafe { *value }), 2);
    });
}

#[test]
fn a_writer_that_sleeps_is_told_of_the_last_reader() {
    model(|| {
        let lock = ReadWrite::<2>::new();
        assert!(lock.shares.iter().all(|share| share.take(process(9))));
        let readers: Vec<_> = [0, 1]
            .map(|number| {
                let lock = lock.clone();
                thread::spawn(move || lock.leave(&lock.shares[number], process(9)))
            })
            .into();
        lock.write(process(1));
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
