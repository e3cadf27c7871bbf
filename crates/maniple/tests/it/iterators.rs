//! Results with their places, each item's own outcome, and what is received or taken one by one.

use crate::support;
use maniple::{CallOptions, Error, JoinableQueue, Pool, Process, Queue, Sender, channel};
use std::collections::BTreeMap;
use std::time::Duration;

fn nap(ms: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(ms));
    ms
}

fn third_panics(x: u64) -> u64 {
    assert!(!x.is_multiple_of(3), "{x} is refused");
    x
}

#[test]
fn results_in_any_order_have_the_index_of_their_item() {
    let _alive = support::watchdog();
    let pool = Pool::new(3).unwrap();
    for options in [CallOptions::new(), CallOptions::new().chunksize(1), CallOptions::new().chunksize(7).buffersize(20)]
    {
        let found: BTreeMap<usize, u64> = pool
            .with(options)
            .imap_unordered(nap, (0..60).map(|i| (i * 7) % 5))
            .unwrap()
            .indexed()
            .map(|(index, result)| (index, result.unwrap()))
            .collect();
        assert!(found.iter().map(|(&i, &ms)| (i as u64, ms)).eq((0..60).map(|i| (i, (i * 7) % 5))), "{options:?}");
    }
    let slow_first: Vec<usize> = pool
        .with(CallOptions::new().chunksize(1))
        .imap_unordered(nap, [500, 1, 1])
        .unwrap()
        .indexed()
        .map(|(index, _)| index)
        .collect();
    assert_eq!(slow_first.last(), Some(&0));
}

#[test]
fn failed_and_lost_items_have_their_index_too() {
    let _alive = support::watchdog();
    let pool = Pool::new(2).unwrap();
    for (index, result) in pool.imap_unordered(third_panics, 0..100).unwrap().indexed() {
        match result {
            Ok(x) => assert_eq!(x, index as u64),
            Err(Error::Panicked(panicked)) => assert_eq!(panicked.message, format!("{index} is refused")),
            Err(other) => panic!("{other}"),
        }
    }
    let dies = |x: u64| if x == 5 { std::process::abort() } else { x };
    for (index, result) in pool.with(CallOptions::new().chunksize(1)).imap_unordered(dies, 0..20).unwrap().indexed() {
        match result {
            Ok(x) => assert_eq!(x, index as u64),
            Err(Error::WorkerLost(lost)) => {
                assert_eq!(index, 5);
                assert!(lost.task.starts_with("item 5 of imap_unordered"), "{}", lost.task);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn try_map_has_the_outcome_of_each_item() {
    let _alive = support::watchdog();
    let pool = Pool::new(2).unwrap();
    let outcomes = pool.try_map(third_panics, 0..10).unwrap();
    for (x, outcome) in (0..).zip(&outcomes) {
        match outcome {
            Ok(value) => assert!(*value == x && x % 3 != 0),
            Err(Error::Panicked(_)) => assert_eq!(x % 3, 0),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(outcomes.len(), 10);
    let dies = |x: u64| if x == 1 { std::process::abort() } else { x };
    let outcomes = pool.with(CallOptions::new().chunksize(1)).try_map(dies, 0..3).unwrap();
    assert!(matches!(outcomes[..], [Ok(0), Err(Error::WorkerLost(_)), Ok(2)]));
    assert!(pool.try_map(third_panics, []).unwrap().is_empty());
}

#[test]
fn a_receiver_is_iterated_over_until_the_last_clone_of_its_sender_is_gone() {
    let _alive = support::watchdog();
    let (sender, receiver) = channel::<u64>().unwrap();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let sender = sender.clone();
            std::thread::spawn(move || sender.send(&n))
        })
        .collect();
    let far = Process::new(|sender: Sender<u64>| sender.send(&100), sender.clone()).unwrap();
    far.start().unwrap();
    drop(sender);
    let mut got: Vec<u64> = (&receiver).into_iter().collect::<maniple::Result<_>>().unwrap();
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3, 100]);
    threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    assert_eq!(receiver.into_iter().count(), 0);
}

#[test]
fn queues_are_iterated_over_until_they_are_closed_and_empty() {
    let _alive = support::watchdog();
    let queue = Queue::new().unwrap();
    let ours = queue.clone();
    let thread = std::thread::spawn(move || {
        (0..100).try_for_each(|n: u64| ours.put(&n))?;
        ours.close()
    });
    let mut sum = 0;
    for value in &queue {
        sum += value.unwrap();
    }
    assert_eq!(sum, 4950);
    thread.join().unwrap().unwrap();
    let jobs = JoinableQueue::new().unwrap();
    jobs.put(&1).unwrap();
    jobs.close().unwrap();
    assert_eq!(jobs.iter().count(), 1);
}
