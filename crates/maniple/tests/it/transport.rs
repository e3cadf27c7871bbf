//! Pipes and channels between processes: what goes through them, and what waits for them. `transport_deaths` tests what the death of an end leaves.

use crate::support::{LONG, METHODS, apart, block_on, descriptors, eventually, started, watchdog};
use maniple::{
    Bulk, Bytes, Codec, Connection, Error, Exit, Handle, Payload, Postcard, Process, channel, pipe, wait, wait_timeout,
};
use maniple_sys::testing::Stream;
use maniple_sys::{AsHandle, FromHandle, IntoHandle, OwnedHandle};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io::{Read, Seek, Write};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

fn echo<T: Payload>(line: Connection<T>) {
    while let Ok(value) = line.recv() {
        if line.send(&value).is_err() {
            return;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Photo {
    name: String,
    pixels: Bulk<f32>,
    thumbnail: Bytes,
}

#[test]
fn values_of_all_sizes_come_back_as_they_were() {
    let _dog = watchdog();
    for method in METHODS {
        let (ours, theirs) = pipe::<Photo>().unwrap();
        let process = Process::builder().start_method(method).build(echo, theirs).unwrap();
        process.start().unwrap();
        for size in [0, 1, 100, 5_000, 16 << 10, 100_000, 3_000_000] {
            for repeat in 0..3 {
                let photo = Photo {
                    name: "x".repeat(size % 7000),
                    pixels: (0..size).map(|n| (n + repeat) as f32).collect(),
                    thumbnail: Bytes::from(vec![repeat as u8; size / 2]),
                };
                ours.send(&photo).unwrap();
                assert!(ours.recv().unwrap() == photo, "{size}");
            }
        }
        drop(ours);
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
}

#[test]
fn a_large_buffer_that_came_may_be_changed_and_sent_on_while_others_come() {
    let _dog = watchdog();
    let (a, b) = pipe::<Bytes>().unwrap();
    let mut got = Vec::new();
    for n in 0..20u8 {
        a.send(&Bytes::from(vec![n; 200_000])).unwrap();
        let mut bytes = b.recv().unwrap();
        bytes[0] = 100 + n;
        got.push(bytes);
    }
    for (n, bytes) in (0..).zip(&got) {
        assert_eq!((bytes[0], bytes[1], bytes.len()), (100 + n, n, 200_000));
    }
}

#[test]
fn more_large_buffers_than_a_frame_has_place_for_go_inside() {
    let _dog = watchdog();
    let (a, b) = pipe::<Vec<Bytes>>().unwrap();
    let many: Vec<Bytes> = (0..100u8).map(|n| Bytes::from(vec![n; 70_000])).collect();
    std::thread::scope(|s| {
        s.spawn(|| a.send(&many).unwrap());
        assert!(b.recv().unwrap() == many);
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    line: Connection<u32>,
    file: Handle<std::fs::File>,
    socket: Handle<Stream>,
    weight: Bytes,
}

fn run_errands(errands: Connection<Vec<Errand>>) {
    for mut errand in errands.recv().unwrap() {
        let mut text = String::new();
        errand.file.read_to_string(&mut text).unwrap();
        errand.socket.write_all(text.as_bytes()).unwrap();
        errand.line.send(&(errand.line.recv().unwrap() + errand.weight.len() as u32)).unwrap();
    }
}

#[test]
fn files_sockets_and_connections_go_along_inside_of_values() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        {
            let (ours, theirs) = pipe::<Vec<Errand>>().unwrap();
            let process = started(run_errands, theirs);
            let (mut errands, mut expected) = (Vec::new(), Vec::new());
            for n in 0..3 {
                let (mine, line) = pipe::<u32>().unwrap();
                let (answer, socket) = Stream::pair().unwrap();
                let path = std::env::temp_dir().join(format!("maniple-transport-{}-{n}", std::process::id()));
                let mut file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path);
                let file = file.as_mut().unwrap();
                std::fs::remove_file(&path).unwrap();
                write!(file, "errand {n}").unwrap();
                file.rewind().unwrap();
                errands.push(Errand {
                    line,
                    file: file.try_clone().unwrap().into(),
                    socket: socket.into(),
                    weight: Bytes::from(vec![1; n * 100_000]),
                });
                expected.push((mine, answer));
            }
            ours.send(&errands).unwrap();
            drop(errands);
            for (n, (line, mut answer)) in expected.into_iter().enumerate() {
                line.send(&7).unwrap();
                assert_eq!(line.recv().unwrap(), 7 + n as u32 * 100_000);
                let mut text = String::new();
                answer.read_to_string(&mut text).unwrap();
                assert_eq!(text, format!("errand {n}"));
                assert!(matches!(line.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
            }
            assert_eq!(process.join().unwrap(), Exit::Code(0));
        }
        eventually("descriptors are closed", || descriptors() == before);
    });
}

#[test]
fn an_end_goes_on_from_process_to_process() {
    let _dog = watchdog();
    let (ours, theirs) = pipe::<u32>().unwrap();
    let process = started(
        |line: Connection<u32>| {
            let inner = started(echo::<u32>, line);
            inner.join().unwrap();
        },
        theirs,
    );
    ours.send(&5).unwrap();
    assert_eq!(ours.recv().unwrap(), 5);
    drop(ours);
    assert_eq!(process.join().unwrap(), Exit::Code(0));
}

#[test]
fn a_closed_end_is_told_to_the_other_after_what_was_sent() {
    let _dog = watchdog();
    let (a, b) = pipe::<String>().unwrap();
    a.send(&"last".into()).unwrap();
    // What this end has not received makes the system call it a reset, not an end.
    b.send(&"unread".into()).unwrap();
    drop(a);
    assert!(b.poll_timeout(LONG).unwrap());
    assert_eq!(b.recv().unwrap(), "last");
    assert!(matches!(b.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(matches!(b.try_recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(matches!(b.recv_timeout(LONG), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(matches!(b.send(&"nobody".into()), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(matches!(b.send_bytes(b"nobody"), Err(Error::Channel(maniple::ChannelError::Closed))));
    assert!(b.poll_timeout(LONG).unwrap());

    let (sender, receiver) = channel::<u8>().unwrap();
    drop(receiver);
    assert!(matches!(sender.send(&1), Err(Error::Channel(maniple::ChannelError::Closed))));
}

fn write_to_nobody(line: Connection<u8>) -> i32 {
    // Waits for the other end to be gone.
    assert!(matches!(line.recv(), Err(Error::Channel(maniple::ChannelError::Closed))));
    let both = [line.send(&1), line.send_bytes(&[0; 100_000])];
    let closed = |sent: &Result<(), Error>| matches!(sent, Err(Error::Channel(maniple::ChannelError::Closed)));
    if !both.iter().all(closed) {
        eprintln!("{both:?}");
        return 1;
    }
    0
}

#[test]
fn sending_to_a_closed_end_is_an_error_and_no_signal_in_a_child_either() {
    let _dog = watchdog();
    for method in METHODS {
        let (ours, theirs) = pipe().unwrap();
        let process = Process::builder().start_method(method).build(write_to_nobody, theirs).unwrap();
        process.start().unwrap();
        drop(ours);
        assert_eq!(process.join().unwrap(), Exit::Code(0));
    }
}

#[test]
fn a_value_that_cannot_be_encoded_sends_nothing() {
    let _dog = watchdog();
    #[derive(Serialize, Deserialize)]
    struct Stubborn(Bytes, #[serde(serialize_with = "refuse")] u8);
    fn refuse<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
    let (a, b) = pipe::<Stubborn>().unwrap();
    for _ in 0..20 {
        let error = a.send(&Stubborn(Bytes::from(vec![0; 100_000]), 1)).unwrap_err();
        assert!(matches!(error, Error::Codec { what: "encoded", .. }), "{error}");
    }
    assert!(b.try_recv().unwrap().is_none());
}

#[test]
fn a_message_of_another_type_is_an_error_and_the_next_one_is_not() {
    let _dog = watchdog();
    let (a, b) = pipe::<(u32, String)>().unwrap();
    let b = b.cast::<u32, maniple::Postcard>();
    a.send(&(1, "more".into())).unwrap();
    let error = b.recv().unwrap_err();
    assert!(error.to_string().contains("another type"), "{error}");
    b.send(&1).unwrap();
    assert!(matches!(a.recv(), Err(Error::Codec { what: "decoded", .. })));
    b.send_bytes(b"\x01\x01x").unwrap();
    assert!(matches!(a.recv(), Err(Error::Codec { what: "decoded", .. })));
    let mut bytes = Vec::new();
    Postcard::encode(&(1u32, "x"), &mut bytes).unwrap();
    b.send_bytes(&bytes).unwrap();
    assert_eq!(a.recv().unwrap(), (1, "x".into()));
}

#[test]
fn bytes_are_frames_as_python_has_them() {
    let _dog = watchdog();
    let (mut plain, end) = Stream::pair().unwrap();
    let line = Connection::<u8>::from_stream(end);
    line.send_bytes(b"hello").unwrap();
    let mut frame = [0; 9];
    plain.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\0\0\0\x05hello");
    plain.write_all(b"\0\0\0\x02ab\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\x01c\0\0\x10\0").unwrap();
    assert_eq!(line.recv_bytes().unwrap(), b"ab");
    assert_eq!(line.recv_bytes_max(0).unwrap(), b"");
    assert_eq!(line.recv_bytes_timeout(10, LONG).unwrap().unwrap(), b"c");
    assert!(matches!(line.recv_bytes_max(100), Err(Error::Channel(maniple::ChannelError::Message(_)))));
}

#[test]
fn a_socket_takes_values_and_descriptors_too_once_the_reader_is_known_large_buffers_beside_them() {
    let _dog = watchdog();
    let (a, b) = Stream::pair().unwrap();
    let (a, b) = (Connection::<(Bytes, Vec<Handle<OwnedHandle>>)>::from(a.into_owned()), Connection::from_stream(b));
    for n in 0..4u8 {
        let (reader, writer) = std::io::pipe().unwrap();
        let sent = (Bytes::from(vec![n; 300_000]), vec![Handle::new(writer.into_handle())]);
        std::thread::scope(|s| {
            s.spawn(|| a.send(&sent).unwrap());
            let (bytes, mut handles): (Bytes, Vec<Handle<OwnedHandle>>) = b.recv().unwrap();
            assert!(bytes == sent.0);
            let mut writer = std::fs::File::from_handle(handles.pop().unwrap().into_inner());
            writer.write_all(b"through").unwrap();
        });
        drop(sent);
        let mut text = String::new();
        let mut reader = reader;
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}

#[test]
fn descriptors_do_not_go_over_the_network_and_values_do() {
    let _dog = watchdog();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let a = Connection::<(Bytes, Option<Handle<OwnedHandle>>)>::from_stream(client);
    let b = Connection::from_stream(listener.accept().unwrap().0);
    let handle = Handle::new(std::io::pipe().unwrap().0.into_handle());
    let error = a.send(&(Bytes::new(), Some(handle))).unwrap_err();
    assert!(error.to_string().contains("cannot be sent this way"), "{error}");
    let bytes = Bytes::from(vec![3; 1_000_000]);
    std::thread::scope(|s| {
        s.spawn(|| a.send(&(bytes.clone(), None)).unwrap());
        let (got, none): (Bytes, Option<Handle<OwnedHandle>>) = b.recv().unwrap();
        assert!(got == bytes && none.is_none());
    });
}

#[test]
fn too_many_descriptors_for_one_message_are_refused_and_as_many_as_fit_arrive() {
    let _dog = watchdog();
    let (a, b) = pipe::<Vec<Handle<OwnedHandle>>>().unwrap();
    let null = maniple_sys::process::nothing().unwrap();
    let copies = |count: usize| (0..count).map(|_| Handle::new(null.try_clone().unwrap())).collect::<Vec<_>>();
    let error = a.send(&copies(189)).unwrap_err();
    assert!(error.to_string().contains("188"), "{error}");
    a.send(&copies(188)).unwrap();
    assert_eq!(b.recv().unwrap().len(), 188);
}

#[test]
fn one_waits_for_ends_and_processes_at_once() {
    let _dog = watchdog();
    let (a, b) = pipe::<u8>().unwrap();
    let (sender, receiver) = channel::<u8>().unwrap();
    let process = started(|line: Connection<u8>| drop(line.recv()), b);
    let sentinel = process.sentinel().unwrap();
    assert!(matches!(wait_timeout(&[&a, &receiver, &sentinel], Duration::ZERO), Err(Error::Timeout(_))));
    assert!(matches!(wait_timeout(&[], Duration::from_millis(1)), Err(Error::Timeout(_))));
    sender.send(&1).unwrap();
    assert_eq!(wait(&[&a, &receiver, &sentinel]).unwrap(), [1]);
    assert_eq!(receiver.recv().unwrap(), 1);
    a.send(&1).unwrap();
    assert_eq!(wait_timeout(&[&sentinel], LONG).unwrap(), [0]);
    assert_eq!(wait(&[&receiver, &a, &sentinel]).unwrap(), [1, 2]);
}

#[test]
fn threads_may_share_an_end() {
    let _dog = watchdog();
    let (a, b) = pipe::<(u32, Bytes)>().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|s| {
        for sender in 0..4 {
            let a = &a;
            s.spawn(move || {
                for n in 0..100 {
                    a.send(&(sender, Bytes::from(vec![sender as u8; n * 400]))).unwrap();
                }
            });
        }
        for reader in 0..3 {
            let (b, count) = (&b, &count);
            s.spawn(move || {
                while count.load(std::sync::atomic::Ordering::Relaxed) < 400 {
                    let got = match reader {
                        0 => b.try_recv().unwrap(),
                        _ => b.recv_timeout(Duration::from_millis(3)).unwrap(),
                    };
                    if let Some((sender, bytes)) = got {
                        assert!(bytes.iter().all(|&b| u32::from(b) == sender));
                        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(b.try_recv().unwrap().is_none());
}

// ---- futures ----

#[test]
fn values_are_waited_for_as_futures() {
    let _dog = watchdog();
    let (ours, theirs) = pipe::<u32>().unwrap();
    let process = started(echo::<u32>, theirs);
    let sum = block_on(async {
        let mut sum = 0;
        for n in 0..100 {
            ours.send_async(&n).await.unwrap();
            sum += ours.recv_async().await.unwrap();
        }
        sum
    });
    assert_eq!(sum, 4950);
    drop(ours);
    process.join().unwrap();
}

#[test]
fn a_future_ends_with_the_other_end_and_one_that_is_dropped_takes_nothing() {
    let _dog = watchdog();
    apart(|()| {
        let before = descriptors();
        {
            let (sender, receiver) = channel::<u8>().unwrap();
            {
                let mut given_up = pin!(receiver.recv_async());
                assert!(given_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            sender.send(&3).unwrap();
            assert_eq!(block_on(receiver.recv_async()).unwrap(), 3);
            std::thread::scope(|s| {
                let waiting = s.spawn(|| block_on(receiver.recv_async()));
                std::thread::sleep(Duration::from_millis(20));
                drop(sender);
                assert!(matches!(waiting.join().unwrap(), Err(Error::Channel(maniple::ChannelError::Closed))));
            });
        }
        // The thread that waited for them is gone, too.
        eventually("nothing is left", || descriptors() == before);
    });
}

#[test]
fn a_future_that_waits_for_room_goes_on_when_there_is_some() {
    let _dog = watchdog();
    let (sender, receiver) = channel::<u64>().unwrap();
    std::thread::scope(|s| {
        let sending = s.spawn(|| {
            block_on(async {
                for n in 0..5000 {
                    sender.send_async(&n).await.unwrap();
                }
            });
        });
        std::thread::sleep(Duration::from_millis(20));
        for n in 0..5000 {
            assert_eq!(receiver.recv().unwrap(), n);
        }
        sending.join().unwrap();
    });
}

#[test]
fn the_end_of_a_process_is_waited_for_as_a_future() {
    let _dog = watchdog();
    let (ours, theirs) = pipe::<i32>().unwrap();
    let process = started(|line: Connection<i32>| line.recv().unwrap(), theirs);
    std::thread::scope(|s| {
        let joining = s.spawn(|| block_on(process.join_async()).unwrap());
        std::thread::sleep(Duration::from_millis(10));
        ours.send(&3).unwrap();
        assert_eq!(joining.join().unwrap(), Exit::Code(3));
    });
    assert_eq!(block_on(process.join_async()).unwrap(), Exit::Code(3));
}

#[test]
fn the_number_of_an_end_is_its_descriptor() {
    let (a, _b) = pipe::<u8>().unwrap();
    assert_eq!(a.fileno(), a.as_handle().as_raw());
}
