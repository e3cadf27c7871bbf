//! Messages over descriptors, parcels, and the queue's log, with peers that die.

use crate::support::LIMIT;
use maniple_engine::Error;
use maniple_engine::channel::frame::{self, AdaptiveSpin, Partial, Until, Way};
use maniple_engine::channel::framed_stream::FramedStream;
use maniple_engine::channel::log::Log;
use maniple_engine::channel::packet_socket;
use maniple_engine::channel::parcel::{self, Load, Parcel};
use maniple_engine::channel::room::Receivers;
use maniple_engine::shm::region::Region;
use maniple_sys::stream;
use maniple_sys::testing::Stream;
use maniple_sys::{AsHandle, IntoHandle, OwnedHandle};
#[cfg(not(windows))]
use maniple_sys::{memory, testing};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn never() -> impl FnMut() -> bool {
    || false
}

/// A way to wait without a limit.
const EVER: Way<'_> = Way { adaptive: None, brings: false, is_socket: false, until: Until::Ever };

fn message(end: impl AsHandle, way: Way<'_>) -> Result<frame::Message, Error> {
    let mut partial = Partial::default();
    assert!(partial.begin(end.as_handle(), way, &mut never())?);
    partial.finish(end.as_handle(), &mut never())?;
    Ok(partial.into())
}

fn receive(end: &Stream) -> Result<Vec<u8>, Error> {
    message(end, EVER).map(|message| message.content)
}

#[test]
fn messages_of_all_sizes_arrive_whole_and_in_order() {
    let (a, b) = Stream::pair().unwrap();
    let sizes = [0, 1, 507, 508, 509, 16_383, 16_384, 16_385, 1 << 20, (1 << 24) + 1];
    let sender = thread::spawn(move || {
        for size in sizes {
            frame::send(a.as_handle(), false, &vec![size as u8; size], &[], &mut Vec::new(), &mut never()).unwrap();
        }
    });
    for size in sizes {
        let body = receive(&b).unwrap();
        assert!(body.len() == size && body.iter().all(|&byte| byte == size as u8), "{size}");
    }
    sender.join().unwrap();
    assert!(matches!(receive(&b), Err(Error::EndOfStream)));
}

/// What each reader of frames says of a stream that ends after these bytes.
fn verdicts(bytes: &[u8]) -> Vec<Error> {
    let opened = || {
        let (mut a, b) = Stream::pair().unwrap();
        a.write_all(bytes).unwrap();
        // Closing it is not enough: a child that another test forks has a copy for a moment.
        stream::hang_up(a.as_handle());
        b
    };
    let adaptive = AdaptiveSpin::default();
    let until = |until, socket: bool| {
        message(opened(), Way { adaptive: socket.then_some(&adaptive), brings: false, is_socket: socket, until })
            .map(drop)
    };
    let a_minute = Until::after(Duration::from_secs(60));
    let all = [
        receive(&opened()).map(drop),
        until(Until::Ever, true),
        until(Until::Now, true),
        until(a_minute, true),
        until(a_minute, false),
        FramedStream::new(opened().into_handle()).receive(&mut never()).map(drop),
    ];
    all.into_iter().map(|result| result.unwrap_err()).collect()
}

#[test]
fn the_same_end_of_a_stream_is_the_same_error_to_each_reader() {
    assert!(verdicts(b"").iter().all(|why| matches!(why, Error::EndOfStream)));
    for cut in [&[0u8][..], &[0, 0, 0, 9], &[0, 0, 0, 9, 1, 2], &[0xff, 0xff, 0xff, 0xff, 0]] {
        let why = verdicts(cut);
        assert!(why.iter().all(|why| matches!(why, Error::CutOff)), "{cut:?}: {why:?}");
    }
}

#[test]
fn a_length_that_no_message_has_is_the_same_error_to_each_reader() {
    let long = [&[0xff; 4][..], &(1u64 << 63).to_be_bytes()].concat();
    for length in [&(-2i32).to_be_bytes()[..], &i32::MIN.to_be_bytes(), &[0xff; 12], &long] {
        let why = verdicts(length);
        assert!(why.iter().all(|why| matches!(why, Error::BadLength)), "{length:?}: {why:?}");
    }
}

#[test]
fn a_claimed_length_costs_no_memory_before_bytes_come() {
    let (mut a, b) = Stream::pair().unwrap();
    a.write_all(&(-1i32).to_be_bytes()).unwrap();
    a.write_all(&(isize::MAX as u64 / 8).to_be_bytes()).unwrap();
    drop(a);
    assert!(matches!(receive(&b), Err(Error::CutOff)));
}

fn load(buffers: &[&[u8]]) -> Load {
    let mut load = Load::default();
    buffers.iter().for_each(|buffer| load.add(buffer).unwrap());
    load
}

/// Sends buffers through a socket and opens them.
fn pass(buffers: &[&[u8]]) -> Vec<Region> {
    let (a, b) = stream::pair().unwrap();
    let parcel = Parcel::new(&[], b"stream", load(buffers), Vec::new());
    frame::send(a.as_handle(), false, parcel.content(), &parcel.handles(), &mut Vec::new(), &mut never()).unwrap();
    parcel.sent();
    let message = message(&b, Way { brings: true, ..EVER }).unwrap();
    let (arrived, at) = parcel::open(&message.content, message.came).unwrap();
    assert_eq!(&message.content[at..], b"stream");
    arrived
}

// On Windows no process can change the size of memory.
#[cfg(not(windows))]
#[test]
fn a_parcels_block_that_could_be_made_shorter_is_copied() {
    let content = vec![5; 300_000];
    let packed = Parcel::new(&[], b"stream", load(&[&content]), Vec::new());
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
    let mut held = Vec::new();
    for round in 0..40u8 {
        let buffers = [vec![round; 70_000], vec![!round; 5000]];
        let arrived = pass(&[&buffers[0], &buffers[1]]);
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

// Windows frees whole sections only, and does not tell how much of one is in use.
#[cfg(not(windows))]
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

// As above.
#[cfg(not(windows))]
#[test]
fn a_log_that_never_runs_empty_gives_memory_back() {
    let log = Log::create().unwrap();
    // A limited one keeps what it has, which is not much.
    if log.is_limited() {
        assert!(log.capacity() <= 256 << 20);
        return;
    }
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
    for round in 0..3u8 {
        let mut load = load(&[&[round; 100_000]]);
        load.add(&[9; 50_000]).unwrap();
        load.split_off(1).unsent();
        let (reader, writer) = std::io::pipe().unwrap();
        let parcel = Parcel::new(&[], &[round], load, vec![writer.into_handle()]);
        assert!(stream::send_packet(a.as_handle(), parcel.content(), &parcel.handles()).unwrap());
        let content = parcel.content().to_vec();
        parcel.sent();
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
    let adaptive = packet_socket::AdaptiveSpin::default();
    let mut bytes = vec![0; packet_socket::MOST];
    let mut receive = |until| packet_socket::receive(b.as_handle(), &mut bytes, &mut Vec::new(), until, &adaptive);
    assert_eq!(receive(Until::Now).unwrap(), None);
    assert_eq!(receive(Until::after(Duration::from_millis(1))).unwrap(), None);
    let mut sent = 0;
    while packet_socket::send(a.as_handle(), &vec![1; packet_socket::MOST], &[], Until::Now, Receivers::Myself).unwrap()
    {
        sent += 1;
    }
    assert!(sent >= 3, "{sent}");
    for _ in 0..sent {
        assert_eq!(receive(Until::Ever).unwrap(), Some(packet_socket::MOST));
    }
    // An end that closes with something unread resets the line; what it sent comes first all the same.
    packet_socket::send(b.as_handle(), b"unread", &[], Until::Ever, Receivers::Myself).unwrap();
    packet_socket::send(a.as_handle(), b"last", &[], Until::Ever, Receivers::Myself).unwrap();
    drop(a);
    assert_eq!(receive(Until::Ever).unwrap(), Some(4));
    // Without a limit first: a child that another test forks has a copy of `a` for a moment.
    for until in [Until::Ever, Until::Now, Until::after(LIMIT)] {
        assert!(matches!(receive(until), Err(Error::EndOfStream)));
    }
}
