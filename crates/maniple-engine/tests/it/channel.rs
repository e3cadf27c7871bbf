//! Messages over descriptors, parcels, and the queue's log, with peers that die.

use crate::support::LIMIT;
use maniple_engine::Error;
use maniple_engine::channel::frame::{self, Until};
use maniple_engine::channel::log::Log;
use maniple_engine::channel::packet;
use maniple_engine::channel::parcel::{self, Outbox};
use maniple_engine::channel::room::Receivers;
use maniple_sys::testing::{self, UnixStream};
use maniple_sys::{AsHandle, OwnedHandle};
use maniple_sys::{memory, stream};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn never() -> impl FnMut() -> bool {
    || false
}

fn receive(end: &UnixStream) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let len = frame::receive_length(end.as_handle(), None, None, &mut never())?;
    frame::receive(end.as_handle(), &mut body, len, &mut never())?;
    Ok(body)
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    let (a, b) = UnixStream::pair().unwrap();
    let sizes = [0, 1, 507, 508, 509, 16_383, 16_384, 16_385, 1 << 20, (1 << 24) + 1];
    let sender = thread::spawn(move || {
        for size in sizes {
            frame::send(a.as_handle(), &vec![size as u8; size], &[], &mut never()).unwrap();
        }
    });
    for size in sizes {
        let body = receive(&b).unwrap();
        assert!(body.len() == size && body.iter().all(|&byte| byte == size as u8), "{size}");
    }
    sender.join().unwrap();
    assert!(matches!(receive(&b), Err(Error::EndOfStream)));
}

#[test]
fn a_stream_that_ends_in_a_message_is_told_from_one_that_ends_between_two() {
    for cut in [&[0u8][..], &[0, 0, 0, 9], &[0, 0, 0, 9, 1, 2], &[0xff, 0xff, 0xff, 0xff, 0]] {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(cut).unwrap();
        drop(a);
        assert!(matches!(receive(&b), Err(Error::CutOff)), "{cut:?}");
    }
}

#[test]
fn a_length_that_is_none_is_refused() {
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&(-2i32).to_be_bytes()).unwrap();
    assert!(matches!(receive(&b), Err(Error::BadLength)));
}

#[test]
fn a_claimed_length_costs_no_memory_before_bytes_come() {
    let (mut a, b) = UnixStream::pair().unwrap();
    a.write_all(&(-1i32).to_be_bytes()).unwrap();
    a.write_all(&(1u64 << 60).to_be_bytes()).unwrap();
    drop(a);
    assert!(matches!(receive(&b), Err(Error::CutOff)));
}

/// Sends buffers through a socket and opens them.
fn pass(outbox: &mut Outbox, buffers: &[&[u8]]) -> Vec<parcel::Arrived> {
    let (a, b) = stream::pair().unwrap();
    let packed = outbox.pack(b"stream", buffers).unwrap();
    frame::send(a.as_handle(), packed.content(), &packed.handles(), &mut never()).unwrap();
    outbox.sent(packed);
    let (mut handles, mut content) = (Vec::new(), Vec::new());
    let len = frame::receive_length(b.as_handle(), None, Some(&mut handles), &mut never()).unwrap();
    frame::receive(b.as_handle(), &mut content, len, &mut never()).unwrap();
    let (arrived, at) = parcel::open(&content, handles).unwrap();
    assert_eq!(&content[at..], b"stream");
    arrived
}

#[test]
fn a_parcels_block_that_could_be_made_shorter_is_copied() {
    let content = vec![5; 300_000];
    let packed = Outbox::new().unwrap().pack(b"stream", &[&content]).unwrap();
    let sealed = packed.handles()[0].try_clone_to_owned().unwrap();
    assert!(memory::is_fixed(&sealed));
    // As the sender's, but for the seals.
    let loose = testing::unsealed_memory(memory::len(&sealed).unwrap() as u64);
    let copy = loose.try_clone().unwrap();
    memory::write_at(loose.as_handle(), &content, 0).unwrap();
    let (buffers, _) = parcel::open(packed.content(), vec![loose]).unwrap();
    testing::set_len(&copy, 0);
    assert!(buffers[0].as_slice() == content);
}

#[test]
fn a_parcels_buffers_arrive_and_keep_their_content_while_they_are_held() {
    let mut outbox = Outbox::new().unwrap();
    let mut held = Vec::new();
    for round in 0..40u8 {
        let buffers = [vec![round; 70_000], vec![!round; 5000]];
        let arrived = pass(&mut outbox, &[&buffers[0], &buffers[1]]);
        assert_eq!(arrived[0].as_slice(), buffers[0]);
        assert_eq!(arrived[1].as_slice(), buffers[1]);
        if round % 3 == 0 {
            held.push((round, arrived));
        }
    }
    for (round, arrived) in held {
        assert!(arrived[0].as_slice().iter().all(|&b| b == round));
    }
}

#[test]
fn what_is_no_parcel_is_refused() {
    let memory = || maniple_sys::memory::create("test", 8192).unwrap();
    assert!(parcel::open(b"", vec![memory()]).is_err());
    let mut content = b"maniple parcel 1\x01\0\0\0\0\0\0\0".to_vec();
    for (len, room) in [(0u64, 4096u64), (5000, 4096), (10, 8192), (10, 100), (10, u64::MAX - 4095)] {
        content.truncate(24);
        content.extend_from_slice(&len.to_le_bytes());
        content.extend_from_slice(&room.to_le_bytes());
        assert!(parcel::open(&content, vec![memory()]).is_err(), "{len} {room}");
        assert!(parcel::open(&content, Vec::<OwnedHandle>::new()).is_err());
    }
}

fn take(log: &Log) -> Option<Vec<Vec<u8>>> {
    let mut first = Vec::new();
    let taken = log.take(&mut first, Some(&mut never())).unwrap()?;
    Some(std::iter::once(first).chain(taken.rest.iter().map(|part| part.bytes().to_vec())).collect())
}

fn put(log: &Log, parts: &[&[u8]]) {
    assert!(log.put(parts, false, Some(&mut never())).unwrap());
}

#[test]
fn a_log_gives_back_what_was_put_whatever_its_size() {
    let log = Log::create().unwrap();
    let sizes = [0, 1, 7, 8, 100, 65_536, 65_537, 3 << 20, (16 << 20) + 5, 9 << 20, 12];
    for round in 0..3u8 {
        for size in sizes {
            put(&log, &[&vec![round; size], &[], &vec![!round; size / 2]]);
        }
        assert_eq!(log.len(), sizes.len() as u64);
        for size in sizes {
            let parts = take(&log).unwrap();
            assert_eq!(parts, [vec![round; size], vec![], vec![!round; size / 2]]);
        }
        assert!(log.is_empty() && take(&log).is_none());
    }
}

#[test]
fn a_log_keeps_the_pages_that_it_starts_over_on() {
    let log = Log::create().unwrap();
    let bytes = || testing::taken(log.handles().0);
    let item = vec![1; 1 << 20];
    for _ in 0..3 {
        (0..7).for_each(|_| put(&log, &[&item]));
        for _ in 0..7 {
            take(&log).unwrap();
            assert!(bytes() >= 7 << 20);
        }
    }
    assert!(bytes() < 8 << 20);
}

/// Puts `count` messages of 16 KiB while a reader takes one every few milliseconds; how many have been taken then.
fn taken_meanwhile(pause: Duration, count: usize) -> usize {
    let log = Arc::new(Log::create().unwrap());
    let taken = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (log, taken, done) = (log.clone(), taken.clone(), done.clone());
        move || {
            while !done.load(Ordering::Acquire) {
                if take(&log).is_some() {
                    taken.fetch_add(1, Ordering::Release);
                }
                thread::sleep(pause);
            }
        }
    });
    let message = vec![7; 16 * 1024];
    for _ in 0..count {
        put(&log, &[&message]);
    }
    let taken = taken.load(Ordering::Acquire);
    done.store(true, Ordering::Release);
    reader.join().unwrap();
    while take(&log).is_some() {}
    taken
}

#[test]
fn a_writer_does_not_wait_for_long_for_a_slow_reader() {
    // 32 MiB, for which the reader needs ten seconds.
    assert!(taken_meanwhile(Duration::from_millis(5), 2048) < 400);
}

#[test]
fn a_process_that_takes_messages_does_not_wait_for_readers() {
    let log = Log::create().unwrap();
    let message = vec![7; 16 * 1024];
    // More than a lap, of which no reader takes anything: the writer notices that soon.
    (0..1024).for_each(|_| put(&log, &[&message]));
    let elsewhere = log.again();
    assert!(take(&elsewhere).is_some());
    assert!(!log.put(&[&message], false, None).unwrap(), "a reader is at work, for which it would wait");
    assert!(take(&log).is_some());
    assert!(log.put(&[&message], false, None).unwrap());
}

#[test]
fn a_log_that_never_runs_empty_gives_memory_back() {
    let log = Log::create().unwrap();
    let item = vec![1; 1 << 20];
    put(&log, &[&item]);
    for _ in 0..100 {
        put(&log, &[&item]);
        take(&log).unwrap();
    }
    assert!(testing::taken(log.handles().0) < 16 << 20);
}

#[test]
fn writers_and_readers_lose_nothing() {
    let log = Arc::new(Log::create().unwrap());
    const WRITERS: u64 = 3;
    const EACH: u64 = 3000;
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let log = log.again();
            thread::spawn(move || {
                let mut got = Vec::new();
                while log.wait(Some(Instant::now() + Duration::from_secs(2)), &mut never()).unwrap() {
                    if let Some(parts) = take(&log) {
                        got.push(u64::from_le_bytes(parts[0][..8].try_into().unwrap()));
                    }
                }
                got
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.again();
            thread::spawn(move || {
                for number in 0..EACH {
                    let mut item = (writer * EACH + number).to_le_bytes().to_vec();
                    item.resize(8 + (number * 97 % 5000) as usize, 0);
                    put(&log, &[&item]);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().unwrap());
    let mut all = Vec::new();
    for reader in readers {
        let got = reader.join().unwrap();
        for writer in 0..WRITERS {
            assert!(got.iter().filter(|&n| n / EACH == writer).is_sorted());
        }
        all.extend(got);
    }
    all.sort_unstable();
    assert_eq!(all, (0..WRITERS * EACH).collect::<Vec<_>>());
}

#[test]
fn the_event_is_ready_exactly_while_there_is_something() {
    use maniple_sys::ready::{Interest, wait};
    let log = Log::create().unwrap();
    let ready = || wait(&mut [Interest::new(log.event())], Some(Duration::ZERO)).unwrap() == 1;
    put(&log, &[b"before"]);
    log.watch(&mut never()).unwrap();
    assert!(ready());
    put(&log, &[b"more"]);
    take(&log).unwrap();
    assert!(ready());
    take(&log).unwrap();
    assert!(!ready());
    for _ in 0..3 {
        put(&log, &[b"x"]);
        assert!(ready());
        take(&log).unwrap();
        assert!(!ready() && take(&log).is_none());
    }
}

#[test]
fn counted_messages_are_waited_for() {
    let log = Arc::new(Log::create().unwrap());
    assert!(!log.done());
    log.put(&[b"x"], true, None).unwrap();
    let other = log.again();
    let joiner = thread::spawn(move || other.join(None, &mut never()).unwrap());
    take(&log).unwrap();
    assert!(log.done());
    joiner.join().unwrap();
    assert!(!log.done());
}

#[test]
fn other_handles_go_with_a_parcel_behind_those_of_its_blocks() {
    let (a, b) = stream::packet_pair().unwrap();
    let mut outbox = Outbox::new().unwrap();
    for round in 0..3u8 {
        let mut load = parcel::Load::default();
        outbox.load(&mut load, &[round; 100_000]).unwrap();
        let dropped = {
            outbox.load(&mut load, &[9; 50_000]).unwrap();
            load.split_off(1)
        };
        outbox.unsent(dropped);
        let (reader, writer) = std::io::pipe().unwrap();
        let mut content = Vec::new();
        load.write_head(1, &mut content);
        content.push(round);
        let mut handles = load.handles();
        handles.push(writer.as_handle());
        assert!(stream::send_packet(a.as_handle(), &content, &handles).unwrap());
        drop(writer);
        outbox.sent(load);
        let (mut bytes, mut came) = ([0; 1000], Vec::new());
        assert_eq!(stream::peek_packet(b.as_handle(), &mut bytes).unwrap(), Some(content.len()));
        let len = stream::read_now(b.as_handle(), &mut bytes, Some(&mut came)).unwrap().unwrap();
        assert!(parcel::open(&bytes[..len], came.iter().map(|h| h.try_clone().unwrap()).collect()).is_err());
        let opened = parcel::open_all(&bytes[..len], came).unwrap();
        assert_eq!(bytes[opened.at], round);
        assert!(opened.buffers[0].as_slice().iter().all(|&byte| byte == round));
        stream::write_all(opened.others[0].as_handle(), b"x").unwrap();
        drop(opened);
        assert_eq!(std::io::Read::bytes(reader).map(Result::unwrap).collect::<Vec<_>>(), b"x");
    }
    assert!(parcel::open_all(b"maniple parcel 1\x01\0\0\0\0\0\0\0", Vec::<OwnedHandle>::new()).is_err());
}

#[test]
fn a_packet_comes_whole_or_not_at_all_and_the_end_after_the_last() {
    let (a, b) = stream::packet_pair().unwrap();
    let lookout = packet::Lookout::default();
    let mut bytes = vec![0; packet::MOST];
    let mut receive = |until| packet::receive(b.as_handle(), &mut bytes, &mut Vec::new(), until, &lookout);
    assert_eq!(receive(Until::Now).unwrap(), None);
    assert_eq!(receive(Until::after(Duration::from_millis(1))).unwrap(), None);
    let mut sent = 0;
    while packet::send(a.as_handle(), &vec![1; packet::MOST], &[], Until::Now, Receivers::Myself).unwrap() {
        sent += 1;
    }
    assert!(sent >= 3, "{sent}");
    for _ in 0..sent {
        assert_eq!(receive(Until::Ever).unwrap(), Some(packet::MOST));
    }
    // An end that closes with something unread resets the line; what it sent comes first all the same.
    packet::send(b.as_handle(), b"unread", &[], Until::Ever, Receivers::Myself).unwrap();
    packet::send(a.as_handle(), b"last", &[], Until::Ever, Receivers::Myself).unwrap();
    drop(a);
    assert_eq!(receive(Until::Ever).unwrap(), Some(4));
    for until in [Until::Now, Until::Ever, Until::after(LIMIT)] {
        assert!(matches!(receive(until), Err(Error::EndOfStream)));
    }
}
