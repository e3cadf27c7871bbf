//! What `send` does when there is no room: it waits for a receiver, however slow, but not for an end that waits in the same way.

use crate::support::{self, LONG, block_on, watchdog};
use maniple::{Bytes, Connection, Error, Exit, Process, Result, channel, pipe};
use maniple_sys::testing::Stream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than it takes to notice that both ends send.
const SLOW: Duration = Duration::from_secs(6);

fn both_or_gone(result: &Result<()>) -> bool {
    matches!(
        result,
        Err(Error::Channel(maniple::ChannelError::Deadlock)
            | Error::Channel(maniple::ChannelError::Closed)
            | Error::Channel(maniple::ChannelError::UnexpectedEof))
    )
}

/// Sends all, then receives all.
fn send_first((line, size, count): (Connection<Vec<u8>>, usize, usize)) -> Result<()> {
    (0..count).try_for_each(|_| line.send(&vec![1; size]))?;
    (0..count).try_for_each(|_| line.recv().map(|_| ()))
}

#[test]
fn two_processes_that_both_send_first_get_an_error() {
    let _dog = watchdog();
    // A line of Windows has room for a quarter of a megabyte of small messages.
    let small = if cfg!(windows) { 10_000 } else { 1000 };
    // No block waits for room there, and Wine takes a tenth of a second for each under load.
    let blocks = if cfg!(windows) { 40 } else { 400 };
    let waits = [(100, small), (40_000, 50), (60_000, blocks), (1 << 20, blocks)].map(|(size, count)| {
        std::thread::spawn(move || {
            let (ours, theirs) = pipe::<Vec<u8>>().unwrap();
            let process = Process::new(send_first, (theirs, size, count)).unwrap();
            process.start().unwrap();
            let result = send_first((ours, size, count));
            // So many descriptors may not be on their way, where it is not the room that ends first.
            let crowded = matches!(&result, Err(Error::Channel(maniple::ChannelError::Message(why))) if why.contains("under way"));
            // What travels in blocks needs little room, and Windows has no limit for blocks on their way.
            let fits = cfg!(windows) && size > 50_000 && result.is_ok();
            assert!(both_or_gone(&result) || crowded || fits, "{size}: {result:?}");
            process.join().unwrap();
        })
    });
    waits.into_iter().for_each(|wait| wait.join().unwrap());
}

/// Sends until that is an error, and returns it as an exit code.
fn sends_only(line: Connection<Vec<u8>>) -> i32 {
    sends_until_an_error(&line)
}

fn sends_until_an_error(line: &Connection<Vec<u8>>) -> i32 {
    loop {
        match line.send(&vec![1; 1000]) {
            Ok(()) => {}
            Err(Error::Channel(maniple::ChannelError::Deadlock)) => return 7,
            Err(_) => return 8,
        }
    }
}

#[test]
fn both_get_the_error_though_neither_lets_go_of_its_end() {
    let _dog = watchdog();
    let (streamed, other) = Stream::pair().unwrap();
    let ends = (Connection::<Vec<u8>>::from_stream(streamed), Connection::<Vec<u8>>::from_stream(other));
    std::thread::scope(|scope| {
        for (ours, theirs) in [pipe::<Vec<u8>>().unwrap(), ends] {
            scope.spawn(move || {
                let process = Process::new(sends_only, theirs).unwrap();
                process.start().unwrap();
                // 8: the process had the error first, and has ended.
                assert!([7, 8].contains(&sends_until_an_error(&ours)));
                assert_eq!(process.join().unwrap(), Exit::Code(7));
                // What was sent before is still there.
                assert_eq!(ours.recv().unwrap(), [1; 1000]);
            });
        }
    });
}

#[test]
fn what_was_sent_before_is_received_after_it_and_the_rest_can_be_sent_then() {
    let _dog = watchdog();
    let (a, b) = pipe::<usize>().unwrap();
    let over = AtomicBool::new(false);
    let side = &|line: &Connection<usize>| {
        let (mut sent, mut came, mut errors) = (0, 0, 0);
        while !over.load(Ordering::Relaxed) {
            match line.send(&sent) {
                Ok(()) => sent += 1,
                Err(Error::Channel(maniple::ChannelError::Deadlock)) => {
                    while let Some(got) = line.try_recv().unwrap() {
                        assert_eq!(got, came);
                        came += 1;
                    }
                    errors += 1;
                    over.fetch_or(errors == 2, Ordering::Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
        }
        // The other end may wait for this.
        while let Ok(Some(got)) = line.recv_timeout(Duration::from_secs(5)) {
            assert_eq!(got, came);
            came += 1;
        }
        (sent, came)
    };
    let [(by_a, to_a), (by_b, to_b)] = std::thread::scope(|scope| {
        let ends = [&a, &b].map(|line| scope.spawn(move || side(line)));
        ends.map(|end| end.join().unwrap())
    });
    assert!(by_a > 200 && by_b > 200);
    assert_eq!((by_a, by_b), (to_b, to_a));
}

#[test]
fn bytes_and_streams_and_futures_end_too() {
    let _dog = watchdog();
    let mut waits = Vec::new();
    let mut both = |a: Connection<Bytes>, b: Connection<Bytes>, send: fn(&Connection<Bytes>) -> Result<()>| {
        let [a, b] = [a, b].map(|line| std::thread::spawn(move || (0..10_000).try_for_each(|_| send(&line))));
        waits.push(std::thread::spawn(move || {
            let results = [a, b].map(|end| end.join().unwrap());
            assert!(results.iter().all(both_or_gone), "{results:?}");
            assert!(
                results.iter().any(|result| matches!(result, Err(Error::Channel(maniple::ChannelError::Deadlock)))),
                "{results:?}"
            );
        }));
    };
    let stream = || Stream::pair().map(|(a, b)| (Connection::from_stream(a), Connection::from_stream(b))).unwrap();
    let ((a, b), (c, d), (e, f)) = (pipe().unwrap(), stream(), stream());
    both(a, b, |line| line.send_bytes(&[1; 1000]));
    both(c, d, |line| line.send(&vec![1; 1000].into()));
    both(e, f, |line| line.send_bytes(&[1; 1_000_000]));
    let ((a, b), (c, d)) = (pipe().unwrap(), stream());
    both(a, b, |line| block_on(line.send_async(&vec![1; 1000].into())));
    both(c, d, |line| block_on(line.send_async(&vec![1; 1000].into())));
    waits.into_iter().for_each(|wait| wait.join().unwrap());
}

#[test]
fn a_slow_receiver_is_waited_for() {
    let _dog = watchdog();
    let (ours, theirs) = pipe::<usize>().unwrap();
    // Nothing comes from there while this end waits.
    let late = |line: Connection<usize>| -> Result<()> {
        std::thread::sleep(SLOW);
        (0..1000).try_for_each(|n| line.recv().map(|got| assert_eq!(got, n)))
    };
    let process = Process::new(late, theirs).unwrap();
    process.start().unwrap();
    let others = std::thread::spawn(|| {
        // Each answers at once; the answers are taken by a thread that is not done with the first one.
        let (ours, theirs) = pipe::<usize>().unwrap();
        let echo = |line: Connection<usize>| -> Result<()> { (0..1000).try_for_each(|_| line.send(&line.recv()?)) };
        let process = Process::new(echo, theirs).unwrap();
        process.start().unwrap();
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                assert_eq!(ours.recv().unwrap(), 0);
                std::thread::sleep(SLOW);
                (1..1000).for_each(|n| assert_eq!(ours.recv().unwrap(), n));
            });
            (0..1000).for_each(|n| ours.send(&n).unwrap());
            slow.join().unwrap();
        });
        process.join().unwrap();
    });
    (0..1000).for_each(|n| ours.send(&n).unwrap());
    process.join().unwrap();
    others.join().unwrap();
}

#[test]
fn who_will_not_wait_need_not() {
    let _dog = watchdog();
    let (a, b) = pipe::<u32>().unwrap();
    let mut sent = 0;
    while a.try_send(&sent).unwrap() {
        sent += 1;
    }
    assert!(sent > 100, "{sent}");
    assert!(matches!(a.send_timeout(&sent, Duration::from_millis(30)), Err(Error::Timeout(_))));
    assert!(matches!(a.send_bytes_timeout(b"x", Duration::from_millis(30)), Err(Error::Timeout(_))));
    for n in 0..sent {
        assert_eq!(b.recv().unwrap(), n);
    }
    assert_eq!(b.try_recv().unwrap(), None, "what there was no room for came all the same");
    assert!(a.try_send(&7).unwrap() && b.recv().unwrap() == 7);
    drop(b);
    assert!(matches!(a.try_send(&8), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(matches!(a.send_timeout(&8, Duration::from_secs(1)), Err(Error::Channel(maniple::ChannelError::Closed))));

    // The time limit comes before the error about both ends.
    let (a, b) = pipe::<u32>().unwrap();
    while a.try_send(&1).unwrap() && b.try_send(&1).unwrap() {}
    assert!(matches!(a.send_timeout(&2, Duration::from_millis(30)), Err(Error::Timeout(_))));

    // One waits, and there is room before the time is up.
    let (sender, receiver) = channel::<Vec<u8>>().unwrap();
    while sender.try_send(&vec![1; 10_000]).unwrap() {}
    assert!(matches!(sender.send_timeout(&vec![2; 100], Duration::from_millis(10)), Err(Error::Timeout(_))));
    std::thread::scope(|scope| {
        scope.spawn(|| while receiver.recv().unwrap() != [3; 100] {});
        sender.send_timeout(&vec![3; 100], LONG).unwrap();
    });
}

#[test]
fn buffers_that_there_was_no_room_for_are_used_again() {
    let _dog = watchdog();
    support::apart(|()| {
        let (a, b) = pipe::<Bytes>().unwrap();
        let large = Bytes::from(vec![7; 100_000]);
        let mut sent = 0;
        while a.try_send(&vec![1; 40_000].into()).unwrap() {
            sent += 1;
        }
        let before = support::descriptors();
        for _ in 0..if cfg!(windows) { 100 } else { 500 } {
            assert!(!a.try_send(&large).unwrap());
        }
        assert!(support::descriptors() < before + 20, "a descriptor is kept for each that was not sent");
        for _ in 0..sent {
            assert_eq!(b.recv().unwrap().len(), 40_000);
        }
        assert!(a.try_send(&large).unwrap());
        assert_eq!(b.recv().unwrap(), large);
    });
}

#[test]
fn streams_take_a_message_whole_or_not_at_all() {
    let _dog = watchdog();
    let (a, b) = Stream::pair().unwrap();
    let (a, b) = (Connection::<Vec<u8>>::from_stream(a), Connection::<Vec<u8>>::from_stream(b));
    std::thread::scope(|scope| {
        let mut sent = 0;
        while sent < 20 && a.try_send(&vec![1; 5_000]).unwrap() {
            sent += 1;
        }
        while a.send_bytes_timeout(&[0; 1000], Duration::from_millis(5)).is_ok() {
            sent += 1;
        }
        let reader = scope.spawn(|| {
            let mut came = 0;
            while b.recv_bytes().unwrap() != b"end" {
                came += 1;
            }
            came
        });
        a.send_bytes(b"end").unwrap();
        assert_eq!(reader.join().unwrap(), sent);
    });
    // A sender in the middle of a long message keeps others from beginning one.
    std::thread::scope(|scope| {
        scope.spawn(|| a.send(&vec![1; 3_000_000]).unwrap());
        support::eventually("the long message begins", || b.poll().unwrap());
        assert!(!a.try_send(&vec![2]).unwrap());
        assert!(matches!(a.send_timeout(&vec![2], Duration::from_millis(20)), Err(Error::Timeout(_))));
        assert_eq!(b.recv().unwrap().len(), 3_000_000);
    });
    a.send(&vec![3]).unwrap();
    assert_eq!(b.recv().unwrap(), [3]);
}
