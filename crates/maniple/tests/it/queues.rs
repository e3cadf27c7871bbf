//! Queues between processes: order, bounds, closing, what goes into them, and what the death of a user leaves.

use crate::support::{LONG, METHODS, apart, block_on, descriptors, eventually, started, watchdog};
use maniple::{
    Bulk, Bytes, Connection, Error, Exit, Handle, JoinableQueue, Process, Queue, SimpleQueue, pipe, wait, wait_timeout,
};
use maniple_sys::{FromHandle, IntoHandle};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

/// A producer's number, and its value's.
type Item = (u32, u32);

fn put_many((queue, producer, count): (Queue<Item>, u32, u32)) -> Result<(), Error> {
    (0..count).try_for_each(|n| queue.put(&(producer, n)))
}

fn get_all((queue, results): (Queue<Item>, Queue<Vec<Item>>)) {
    let mut got = Vec::new();
    while let Ok(item) = queue.get() {
        got.push(item);
    }
    results.put(&got).unwrap();
}

#[test]
fn many_put_and_many_get_and_each_value_arrives_once_in_its_producers_order() {
    let _dog = watchdog();
    const COUNT: u32 = 2000;
    for bound in [None, Some(3), Some(1)] {
        let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
        let results = Queue::new().unwrap();
        let consumers: Vec<_> = (0..3).map(|_| started(get_all, (queue.clone(), results.clone()))).collect();
        let producers: Vec<_> = (0..3).map(|p| started(put_many, (queue.clone(), p, COUNT))).collect();
        for producer in producers {
            assert_eq!(producer.join().unwrap(), Exit::Code(0));
        }
        queue.close().unwrap();
        let mut all = HashSet::new();
        for _ in 0..3 {
            let mut last = HashMap::new();
            for (producer, n) in results.get().unwrap() {
                assert!(last.insert(producer, n).is_none_or(|before| before < n));
                assert!(all.insert((producer, n)));
            }
        }
        assert_eq!(all.len() as u32, 3 * COUNT, "{bound:?}");
        for consumer in consumers {
            assert_eq!(consumer.join().unwrap(), Exit::Code(0));
        }
    }
}

#[test]
fn what_was_put_stays_when_the_process_ends() {
    let _dog = watchdog();
    for method in METHODS {
        let queue = Queue::new().unwrap();
        let process = Process::builder().start_method(method).build(put_many, (queue.clone(), 7, 500)).unwrap();
        process.start().unwrap();
        assert_eq!(process.join().unwrap(), Exit::Code(0));
        assert_eq!(queue.len(), 500);
        for n in 0..500 {
            assert_eq!(queue.get().unwrap(), (7, n));
        }
        assert!(queue.is_empty() && queue.try_get().unwrap().is_none());
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Photo {
    name: String,
    pixels: Bulk<f32>,
    thumbnail: Bytes,
}

#[test]
fn values_of_all_sizes_come_out_as_they_went_in() {
    let _dog = watchdog();
    let (there, back) = (Queue::<Photo>::new().unwrap(), Queue::<Photo>::new().unwrap());
    let process = started(
        |(there, back): (Queue<Photo>, Queue<Photo>)| {
            while let Ok(mut photo) = there.get() {
                if let Some(pixel) = photo.pixels.first_mut() {
                    *pixel += 1.0;
                }
                back.put(&photo).unwrap();
            }
        },
        (there.clone(), back.clone()),
    );
    for size in [0, 1, 100, 5_000, 100_000, 3_000_000] {
        let mut photo = Photo {
            name: "x".repeat(size % 7000),
            pixels: (0..size).map(|n| n as f32).collect(),
            thumbnail: Bytes::from(vec![3; size / 2]),
        };
        there.put(&photo).unwrap();
        if let Some(pixel) = photo.pixels.first_mut() {
            *pixel += 1.0;
        }
        assert!(back.get().unwrap() == photo, "{size}");
    }
    there.close().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

#[test]
fn a_bound_holds_whoever_puts() {
    let _dog = watchdog();
    assert!(matches!(Queue::<u8>::bounded(0), Err(Error::InvalidArgument(_))));
    let queue = Queue::<u8>::bounded(2).unwrap();
    assert!(queue.try_put(&1).unwrap() && queue.put_timeout(&2, LONG).is_ok());
    assert!(!queue.try_put(&3).unwrap());
    assert!(matches!(queue.put_timeout(&3, Duration::from_millis(5)), Err(Error::Timeout(_))));
    let process = started(|queue: Queue<u8>| i32::from(queue.try_put(&3).unwrap()), queue.clone());
    assert_eq!(process.join().unwrap(), Exit::Code(0));
    std::thread::scope(|s| {
        let putting = s.spawn(|| queue.put(&3).unwrap());
        assert_eq!(queue.get().unwrap(), 1);
        putting.join().unwrap();
    });
    assert_eq!((queue.get().unwrap(), queue.get().unwrap()), (2, 3));
    assert!(queue.try_put(&4).unwrap());
}

#[test]
fn closing_wakes_all_who_wait_and_leaves_what_is_there() {
    let _dog = watchdog();
    let (full, empty) = (Queue::<u8>::bounded(1).unwrap(), Queue::<u8>::new().unwrap());
    full.put(&1).unwrap();
    let waiting: Vec<_> = (0..2)
        .flat_map(|_| {
            let putting = |queue: Queue<u8>| {
                i32::from(!matches!(queue.put(&2), Err(Error::Channel(maniple::ChannelError::QueueClosed))))
            };
            let getting = |queue: Queue<u8>| {
                i32::from(!matches!(queue.get(), Err(Error::Channel(maniple::ChannelError::QueueClosed))))
            };
            [started(putting, full.clone()), started(getting, empty.clone())]
        })
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    full.close().unwrap();
    empty.close().unwrap();
    for process in waiting {
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
    assert!(full.is_closed() && matches!(full.try_put(&3), Err(Error::Channel(maniple::ChannelError::QueueClosed))));
    assert_eq!(full.get().unwrap(), 1);
    assert!(matches!(full.get_timeout(LONG), Err(Error::Channel(maniple::ChannelError::QueueClosed))));
    assert!(matches!(full.try_get(), Err(Error::Channel(maniple::ChannelError::QueueClosed))));
    full.close().unwrap();
}

#[test]
fn one_waits_for_a_queue_together_with_other_things() {
    let _dog = watchdog();
    let (queue, other) = (Queue::<u8>::new().unwrap(), Queue::<u8>::new().unwrap());
    assert!(matches!(wait_timeout(&[&queue, &other], Duration::ZERO), Err(Error::Timeout(_))));
    let process = started(
        |(queue, other): (Queue<u8>, Queue<u8>)| {
            other.put(&1).unwrap();
            queue.get().unwrap();
            other.close().unwrap();
        },
        (queue.clone(), other.clone()),
    );
    assert_eq!(wait(&[&queue, &other]).unwrap(), [1]);
    assert_eq!(other.get().unwrap(), 1);
    assert!(matches!(wait_timeout(&[&queue, &other], Duration::ZERO), Err(Error::Timeout(_))));
    queue.put(&1).unwrap();
    assert_eq!(wait(&[&other]).unwrap(), [0]);
    assert!(matches!(other.get(), Err(Error::Channel(maniple::ChannelError::QueueClosed))));
    process.join().unwrap();
    assert!(matches!(wait_timeout(&[&queue], Duration::ZERO), Err(Error::Timeout(_))));
}

#[test]
fn values_are_waited_for_as_futures() {
    let _dog = watchdog();
    let queue = Queue::new().unwrap();
    let process = started(put_many, (queue.clone(), 1, 300));
    block_on(async {
        for n in 0..300 {
            assert_eq!(queue.get_async().await.unwrap(), (1, n));
        }
    });
    process.join().unwrap();
    std::thread::scope(|s| {
        let waiting = s.spawn(|| block_on(queue.get_async()));
        std::thread::sleep(Duration::from_millis(10));
        queue.close().unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(Error::Channel(maniple::ChannelError::QueueClosed))));
    });
}

#[test]
fn a_joinable_queue_waits_for_what_was_put_to_be_done() {
    let _dog = watchdog();
    let queue = JoinableQueue::<u32>::bounded(5).unwrap();
    queue.join().unwrap();
    let (done, worker) = pipe::<u32>().unwrap();
    let process = started(
        |(queue, line): (JoinableQueue<u32>, Connection<u32>)| {
            let mut sum = 0;
            while let Ok(n) = queue.get() {
                sum += n;
                line.send(&sum).unwrap();
                queue.task_done().unwrap();
            }
        },
        (queue.clone(), worker),
    );
    for n in 1..=20 {
        queue.put(&n).unwrap();
    }
    queue.join().unwrap();
    for _ in 1..20 {
        done.recv().unwrap();
    }
    assert_eq!(done.recv().unwrap(), 210);
    assert!(matches!(queue.task_done(), Err(Error::Channel(maniple::ChannelError::Message(_)))));
    queue.close().unwrap();
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

/// Another `Envelope` than that of the test below, which the codec takes for the same.
mod wrong {
    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Envelope(pub maniple::Queue<u32>);
}

#[test]
fn a_value_of_another_type_is_an_error_and_the_next_one_is_not() {
    let _dog = watchdog();
    #[derive(Serialize, Deserialize)]
    struct Envelope(Queue<(u32, String)>);
    let (a, b) = pipe::<Envelope>().unwrap();
    let queue = Queue::new().unwrap();
    a.send(&Envelope(queue.clone())).unwrap();
    let other = b.cast::<wrong::Envelope, maniple::Postcard>().recv().unwrap().0;
    queue.put(&(1, "more".into())).unwrap();
    assert!(matches!(other.get(), Err(Error::Codec { what: "decoded", .. })));
    other.put(&9).unwrap();
    assert!(matches!(queue.get(), Err(Error::Codec { what: "decoded", .. })));
    queue.put(&(2, "x".into())).unwrap();
    assert_eq!(queue.get().unwrap(), (2, "x".into()));
}

// ---- descriptors ----

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    number: u32,
    answers: Queue<u32>,
    line: Option<Connection<u32>>,
    files: Vec<Handle<File>>,
}

fn run_errands(errands: Queue<Errand>) {
    while let Ok(mut errand) = errands.get() {
        let mut text = String::new();
        for file in &mut errand.files {
            file.read_to_string(&mut text).unwrap();
        }
        errand.answers.put(&(errand.number + text.len() as u32)).unwrap();
        if let Some(line) = errand.line {
            line.send(&errand.number).unwrap();
        }
    }
}

#[test]
fn files_connections_and_queues_go_along_inside_of_values() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        {
            let (errands, answers) = (Queue::new().unwrap(), Queue::new().unwrap());
            let workers: Vec<_> = (0..2).map(|_| started(run_errands, errands.clone())).collect();
            let mut lines = Vec::new();
            for number in 0..400u32 {
                let (ours, theirs) = pipe().unwrap();
                let (reader, mut writer) = std::io::pipe().unwrap();
                write!(writer, "{}", "x".repeat(1000)).unwrap();
                let files = vec![Handle::new(File::from_handle(reader.into_handle()))];
                let line = number.is_multiple_of(2).then_some(theirs);
                errands.put(&Errand { number, answers: answers.clone(), line, files }).unwrap();
                lines.push((number, ours));
                if lines.len() == 50 {
                    for (number, line) in lines.drain(..) {
                        match line.recv() {
                            Ok(got) => assert_eq!(got, number),
                            Err(error) => assert!(
                                number % 2 == 1 && matches!(error, Error::Channel(maniple::ChannelError::Closed)),
                                "{error}"
                            ),
                        }
                    }
                }
            }
            let sum: u32 = (0..400).map(|_| answers.get().unwrap()).sum();
            assert_eq!(sum, (0..400).sum::<u32>() + 400_000);
            errands.close().unwrap();
            for worker in workers {
                assert_eq!(worker.join().unwrap(), Exit::Code(0));
            }
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

#[test]
fn more_descriptors_than_the_lane_holds_are_waited_for() {
    let _dog = watchdog();
    let queue = Queue::<Handle<File>>::new().unwrap();
    let null = || Handle::new(File::from_handle(maniple_sys::process::nothing().unwrap()));
    let mut count = 0;
    while queue.try_put(&null()).unwrap() {
        count += 1;
    }
    assert!(count > 50 && matches!(queue.put_timeout(&null(), Duration::from_millis(20)), Err(Error::Timeout(_))));
    std::thread::scope(|s| {
        let putting = s.spawn(|| queue.put(&null()).unwrap());
        for _ in 0..=count {
            queue.get().unwrap();
        }
        putting.join().unwrap();
    });
    assert!(queue.is_empty());
}

#[test]
fn a_queue_that_lies_in_itself_is_gone_with_its_last_user() {
    let _dog = watchdog();
    #[derive(Serialize, Deserialize)]
    struct Inner(Vec<Queue<Inner>>);
    apart(|()| {
        let before = descriptors();
        {
            let queue = Queue::new().unwrap();
            queue.put(&Inner(vec![queue.clone(), queue.clone()])).unwrap();
            let again = queue.get().unwrap().0.remove(0);
            again.put(&Inner(vec![again.clone()])).unwrap();
            assert_eq!(queue.len(), 1);
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

// ---- deaths ----

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(7, |sum: u32, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    number: u32,
    small: Vec<u8>,
    large: Bytes,
    sum: u32,
    file: Option<Handle<File>>,
}

impl Parcel {
    fn new(number: u32) -> Parcel {
        let small: Vec<u8> = (0..number % 900).map(|n| (n ^ number) as u8).collect();
        let large: Vec<u8> = if number.is_multiple_of(3) { vec![number as u8; 40_000] } else { Vec::new() };
        let sum = checksum(&small).wrapping_add(checksum(&large));
        let file = number.is_multiple_of(2).then(|| {
            let (reader, mut writer) = std::io::pipe().unwrap();
            write!(writer, "{number}").unwrap();
            Handle::new(File::from_handle(reader.into_handle()))
        });
        Parcel { number, small, large: large.into(), sum, file }
    }

    fn check(mut self) -> u32 {
        assert_eq!(self.sum, checksum(&self.small).wrapping_add(checksum(&self.large)));
        assert_eq!(self.file.is_some(), self.number.is_multiple_of(2));
        if let Some(file) = &mut self.file {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, self.number.to_string());
        }
        self.number
    }
}

fn put_for_ever((queue, from): (Queue<Parcel>, u32)) {
    for number in from.. {
        queue.put(&Parcel::new(number)).unwrap();
    }
}

#[test]
fn whenever_a_writer_is_killed_what_it_put_is_whole_and_the_others_go_on() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        for bound in [None, Some(2)] {
            let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
            for round in 0..25 {
                let killed = started(put_for_ever, (queue.clone(), 0));
                assert_eq!(queue.get().unwrap().check(), 0);
                std::thread::sleep(Duration::from_micros(97 * round));
                killed.kill().unwrap();
                killed.join().unwrap();
                let mut next = 1;
                while let Some(parcel) = queue.try_get().unwrap() {
                    assert_eq!(parcel.check(), next);
                    next += 1;
                }
                assert!(queue.is_empty() && queue.is_empty());
                for number in 0..4 {
                    queue.put_timeout(&Parcel::new(number), LONG).unwrap();
                    assert_eq!(queue.get_timeout(LONG).unwrap().unwrap().check(), number);
                }
            }
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

fn get_for_ever((queue, line): (Queue<Parcel>, Connection<u8>)) {
    line.send(&1).unwrap();
    while let Ok(parcel) = queue.get() {
        parcel.check();
    }
}

#[test]
fn whenever_a_reader_is_killed_the_rest_is_whole_and_nobody_hangs() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        for bound in [None, Some(2)] {
            let queue = bound.map_or_else(Queue::new, Queue::bounded).unwrap();
            for round in 0..25 {
                let (ours, theirs) = pipe().unwrap();
                let killed = started(get_for_ever, (queue.clone(), theirs));
                ours.recv().unwrap();
                std::thread::scope(|s| {
                    let putting = s.spawn(|| {
                        for number in 0..60 {
                            queue.put(&Parcel::new(number)).unwrap();
                        }
                        queue.put(&Parcel::new(1_000_000)).unwrap();
                    });
                    std::thread::sleep(Duration::from_micros(61 * round));
                    killed.kill().unwrap();
                    killed.join().unwrap();
                    let mut last = None;
                    while last != Some(1_000_000) {
                        // The one killed may have taken the last as well.
                        if putting.is_finished() && queue.is_empty() {
                            break;
                        }
                        let Some(parcel) = queue.get_timeout(Duration::from_millis(5)).unwrap() else { continue };
                        let number = parcel.check();
                        assert!(last.is_none_or(|last| last < number));
                        last = Some(number);
                    }
                    putting.join().unwrap();
                });
                assert!(queue.is_empty());
            }
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

#[test]
fn readers_that_are_killed_asleep_do_not_take_a_wakeup_along() {
    let _dog = watchdog();
    let queue = SimpleQueue::<u8>::new().unwrap();
    for _ in 0..10 {
        let asleep: Vec<_> = (0..2)
            .map(|_| {
                let reader = |queue: SimpleQueue<u8>| {
                    let _ = queue.get();
                };
                started(reader, queue.clone())
            })
            .collect();
        std::thread::scope(|s| {
            let getting = s.spawn(|| queue.get().unwrap());
            std::thread::sleep(Duration::from_millis(10));
            asleep.iter().for_each(|reader| reader.kill().unwrap());
            asleep.iter().for_each(|reader| drop(reader.join()));
            queue.put(&1).unwrap();
            assert_eq!(getting.join().unwrap(), 1);
        });
    }
}
