//! Pipes and channels between processes: what the death of an end leaves.

use crate::support::{self, LONG, apart, descriptors, eventually, started, watchdog};
use maniple::{Bytes, Cause, Connection, Error, Exit, Process, Receiver, Sender, channel, parent_process, pipe};
use maniple_sys::OwnedHandle;
use maniple_sys::testing::{self, Stream};
use std::io::{Read, Write};
use std::time::Duration;

/// Two ends of a stream, in which a message does not arrive as one.
fn stream<T>() -> (Connection<T>, Connection<T>) {
    let (a, b) = Stream::pair().unwrap();
    (Connection::from_stream(a), Connection::from_stream(b))
}

/// Begins a message and never ends it.
fn stop_in_the_middle(line: Connection<u8>) {
    let mut end = Stream::from_owned(OwnedHandle::from(line));
    end.write_all(b"\0\0\x01\0only the beginning").unwrap();
    std::thread::sleep(LONG);
}

#[test]
fn a_writer_killed_in_the_middle_of_a_message_cuts_it_off() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        {
            let (ours, theirs) = stream::<u8>();
            let process = started(stop_in_the_middle, theirs);
            assert!(ours.poll_timeout(LONG).unwrap());
            std::thread::scope(|s| {
                let receiving = s.spawn(|| ours.recv());
                std::thread::sleep(Duration::from_millis(20));
                process.kill().unwrap();
                assert!(matches!(receiving.join().unwrap(), Err(Error::Channel(maniple::ChannelError::UnexpectedEof))));
            });
            assert!(matches!(ours.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
            assert!(matches!(ours.send(&1), Err(Error::Channel(maniple::ChannelError::Closed))));
            process.join().unwrap();
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

#[test]
fn a_reader_killed_in_the_middle_of_a_message_closes_the_line() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        {
            let (ours, theirs) = stream::<u8>();
            let process = started(
                |line: Connection<u8>| {
                    let mut end = Stream::from_owned(OwnedHandle::from(line));
                    end.read_exact(&mut [0; 1000]).unwrap();
                    end.write_all(b"\0\0\0\x01x").unwrap();
                    std::thread::sleep(LONG);
                },
                theirs,
            );
            std::thread::scope(|s| {
                let sending = s.spawn(|| ours.send_bytes(&vec![1; 10_000_000]));
                assert_eq!(ours.recv_bytes().unwrap(), b"x");
                process.kill().unwrap();
                assert!(matches!(sending.join().unwrap(), Err(Error::Channel(maniple::ChannelError::Closed))));
            });
            assert!(matches!(ours.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
            process.join().unwrap();
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

fn send_for_ever(sender: Sender<Bytes>) {
    let bytes = Bytes::from((0..300_000).map(|n| n as u8).collect::<Vec<u8>>());
    while sender.send(&bytes).is_ok() {}
}

#[test]
fn whenever_a_sender_of_large_buffers_is_killed_each_value_is_whole_or_not_there() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        for round in 0..20 {
            let (sender, receiver) = channel().unwrap();
            let process = started(send_for_ever, sender);
            let first: Bytes = receiver.recv().unwrap();
            std::thread::sleep(Duration::from_micros(137 * round));
            process.kill().unwrap();
            let mut count = 1;
            let end = loop {
                match receiver.recv() {
                    Ok(bytes) => assert!(bytes == first),
                    Err(error) => break error,
                }
                count += 1;
            };
            assert!(
                matches!(
                    end,
                    Error::Channel(maniple::ChannelError::Closed)
                        | Error::Channel(maniple::ChannelError::UnexpectedEof)
                ),
                "{end} after {count}"
            );
            process.join().unwrap();
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

fn receive_for_ever(receiver: Receiver<Bytes>) {
    while receiver.recv().is_ok() {}
}

#[test]
fn whenever_a_receiver_of_large_buffers_is_killed_the_sender_hears_of_it() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        for round in 0..10 {
            let (sender, receiver) = channel().unwrap();
            let process = started(receive_for_ever, receiver);
            let bytes = Bytes::from(vec![round as u8; 200_000]);
            for _ in 0..30 {
                sender.send(&bytes).unwrap();
            }
            process.kill().unwrap();
            let end = loop {
                if let Err(error) = sender.send(&bytes) {
                    break error;
                }
            };
            assert!(matches!(end, Error::Channel(maniple::ChannelError::Closed)), "{end}");
            process.join().unwrap();
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

#[test]
fn a_parent_that_is_killed_closes_its_ends() {
    let _dog = watchdog();
    let (told, word) = channel::<String>().unwrap();
    let middle = started(
        |told: Sender<String>| {
            let (ours, theirs) = pipe::<u8>().unwrap();
            let inner = Process::new(
                |(line, told): (Connection<u8>, Sender<String>)| {
                    line.send(&1).unwrap();
                    let error = line.recv().unwrap_err();
                    told.send(&error.to_string()).unwrap();
                },
                (theirs, told),
            );
            let inner = inner.unwrap();
            inner.start().unwrap();
            ours.recv().unwrap();
            support::kill_self(testing::Signal::KILL);
        },
        told,
    );
    assert_eq!(word.recv().unwrap(), "the other end is closed");
    assert!(matches!(word.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert_eq!(middle.join().unwrap(), Exit::Killed(Cause::KILL));
    assert!(parent_process().is_none());
}
