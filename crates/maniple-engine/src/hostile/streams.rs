//! Bytes that come over a socket.

use super::Script;
use crate::channel::auth::{Handshake, RANDOM, Role, State, respond};
use crate::channel::frame::{AdaptiveSpin, Message, Partial, Until, Way};
use crate::channel::framed_stream::FramedStream;
use crate::channel::{packet_socket, parcel, reception};
use crate::error::Error;
use maniple_sys::{AsHandle, IntoHandle, OwnedHandle, memory, stream};
use std::time::{Duration, Instant};

/// What a stream of frames is to its reader, by the format alone: the messages, and whether it ends between two of them.
fn expected(mut stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let Some((head, rest)) = stream.split_first_chunk::<4>() else { return (messages, false) };
        let (len, rest) = match i32::from_be_bytes(*head) {
            -1 => match rest.split_first_chunk::<8>() {
                Some((long, rest)) => (u64::from_be_bytes(*long), rest),
                None => return (messages, false),
            },
            short => match u64::try_from(short) {
                Ok(len) => (len, rest),
                Err(_) => return (messages, false),
            },
        };
        if len > rest.len() as u64 {
            return (messages, false);
        }
        let (body, rest) = rest.split_at(len as usize);
        messages.push(body.to_vec());
        stream = rest;
    }
    (messages, true)
}

/// A socket on which `bytes` have come, and nothing more will.
fn socket_with(bytes: &[u8]) -> OwnedHandle {
    let (here, there) = stream::pair().unwrap();
    // What has no room in the socket is left out: there is no reader meanwhile.
    stream::write_all(there.as_handle(), &bytes[..bytes.len().min(64 * 1024)]).unwrap();
    here
}

/// Frames of a connection, read in each of the ways there are.
pub fn frames(data: &[u8]) {
    let (way, data) = data.split_first().unwrap_or((&0, &[]));
    let (messages, clean) = expected(&data[..data.len().min(64 * 1024)]);
    let socket = socket_with(data);
    let (fd, adaptive) = (socket.as_handle(), AdaptiveSpin::default());
    let (adaptive, brings, until) = match way % 4 {
        0 => (None, false, Until::Ever),
        1 => (Some(&adaptive), true, Until::Ever),
        2 => (Some(&adaptive), true, Until::Now),
        _ => (None, false, Until::after(Duration::from_secs(1))),
    };
    let mut got = Vec::new();
    let why = loop {
        let mut partial = Partial::default();
        let begun = partial.begin(fd, Way { adaptive, brings, is_socket: false, until }, &mut || false);
        match begun.and_then(|begun| {
            assert!(begun);
            partial.finish(fd, &mut || false)
        }) {
            Ok(()) => got.push(Message::from(partial).content),
            Err(why) => break why,
        }
    };
    assert_eq!(got, messages);
    assert_eq!(matches!(why, Error::EndOfStream), clean, "{why}");
    let fair = matches!(why, Error::EndOfStream | Error::CutOff | Error::BadLength | Error::Os { .. });
    assert!(fair, "{why}");
}

/// The same as a manager's line reads them.
pub fn framed_stream(data: &[u8]) {
    let (messages, clean) = expected(&data[..data.len().min(64 * 1024)]);
    let mut stream = FramedStream::new(socket_with(data));
    let mut got = Vec::new();
    let why = loop {
        match stream.receive(&mut || false) {
            Ok(message) => got.push(message.to_vec()),
            Err(why) => break why,
        }
    };
    assert_eq!(got, messages);
    assert_eq!(matches!(why, Error::EndOfStream), clean, "{why}");
    assert!(matches!(why, Error::EndOfStream | Error::CutOff | Error::BadLength), "{why}");
}

/// Packets of a pipe, with descriptors beside them, and what is in them.
pub fn packets(data: &[u8]) {
    let mut script = Script(data);
    let (here, there) = stream::packet_pair().unwrap();
    let adaptive = AdaptiveSpin::default();
    for _ in 0..8 {
        let count = script.byte() as usize % 4;
        let handles: Vec<OwnedHandle> = (0..count).map(|_| block(&mut script)).collect();
        let borrowed: Vec<_> = handles.iter().map(AsHandle::as_handle).collect();
        let len = script.number(2) as usize;
        let bytes = script.bytes(len);
        if bytes.is_empty() || !stream::send_packet(there.as_handle(), bytes, &borrowed).unwrap() {
            break;
        }
        drop(handles);
        let (mut room, mut came) = (vec![0; packet_socket::MOST], Vec::new());
        let got =
            packet_socket::receive(here.as_handle(), &mut room, &mut came, Until::Now, &adaptive).unwrap().unwrap();
        assert_eq!((&room[..got], came.len()), (bytes, count));
        open(bytes, came);
    }
    drop(there);
    let mut came = Vec::new();
    let end = packet_socket::receive(here.as_handle(), &mut [0; 16], &mut came, Until::Ever, &adaptive);
    assert!(matches!(end, Err(Error::EndOfStream)), "{end:?}");
}

/// Something that may come as the handle of a block: of some length, or no block at all.
fn block(script: &mut Script<'_>) -> OwnedHandle {
    let pages = script.byte() as usize;
    match pages {
        0..32 => memory::create("hostile", pages * 4096).unwrap(),
        32..64 => memory::create("hostile", pages - 32).unwrap(),
        64..72 => endless(pages - 24),
        72..80 => std::io::pipe().unwrap().0.into_handle(),
        80..88 => no_block(),
        _ => memory::create("hostile", 2 * 4096).unwrap(),
    }
}

/// Memory of `1 << power` bytes, or of few on a system that provides all of it at once.
fn endless(power: usize) -> OwnedHandle {
    memory::create("hostile", usize::try_from(1u64 << power).unwrap_or(usize::MAX))
        .or_else(|_| memory::create("hostile", 4096))
        .unwrap()
}

/// A device, which is no block; if there is one, one that can be mapped and has no end.
fn no_block() -> OwnedHandle {
    std::fs::File::open("/dev/zero").map_or_else(|_| maniple_sys::process::nothing().unwrap(), IntoHandle::into_handle)
}

/// The content of a frame that came with descriptors.
pub fn parcel(data: &[u8]) {
    let mut script = Script(data);
    let count = script.byte() as usize % 5;
    let handles = (0..count).map(|_| block(&mut script)).collect();
    if script.byte().is_multiple_of(4) {
        return open(script.0, handles);
    }
    let mut content = b"maniple parcel 1".to_vec();
    content.extend_from_slice(script.0);
    open(&content, handles);
}

fn open(content: &[u8], handles: Vec<impl Into<parcel::Came>>) {
    let count = handles.len();
    let Ok(mut opened) = parcel::open_all(content, handles) else { return };
    assert_eq!(opened.buffers.len() + opened.others.len(), count);
    assert!(opened.at <= content.len());
    for buffer in &mut opened.buffers {
        let bytes = buffer.as_mut_slice();
        // The first and the last byte are there.
        let (first, last) = (bytes[0], bytes[bytes.len() - 1]);
        (bytes[0], bytes[0]) = (first.wrapping_add(last), first);
    }
}

/// The messages of an authentication, from a peer without the key.
pub fn handshake(data: &[u8]) {
    const KEY: &[u8] = b"the key";
    let mut script = Script(data);
    let role = if script.byte().is_multiple_of(2) { Role::Listener } else { Role::Client };
    let (mut ours, first) = Handshake::new(KEY, role, [7; RANDOM]);
    // The other one may send back what it has received, and sign with a key of its own.
    let mut heard = vec![first.unwrap_or_default()];
    for _ in 0..8 {
        let bytes = match script.byte() {
            0..32 => heard[script.byte() as usize % heard.len()].clone(),
            32..64 => {
                let challenge = &heard[script.byte() as usize % heard.len()];
                respond(b"another key", challenge.strip_prefix(b"#CHALLENGE#").unwrap_or(challenge)).unwrap_or_default()
            }
            64..96 => [b"#CHALLENGE#", script.bytes(60)].concat(),
            96..128 => b"#WELCOME#".to_vec(),
            128..160 => b"#FAILURE#".to_vec(),
            160..164 => vec![b'{'; script.number(2) as usize],
            _ => {
                let len = script.byte();
                script.bytes(len.into()).to_vec()
            }
        };
        let turn = ours.hear(&bytes);
        assert_ne!(turn.state, State::Done, "somebody got in without the key");
        if let State::Failed(why) = turn.state {
            assert!(why.to_string().len() < 400, "{why}");
            assert!(matches!(ours.hear(b"#WELCOME#").state, State::Failed(_)));
            return;
        }
        heard.extend(turn.say);
    }
}

/// The same as bytes on a socket.
pub fn greeting(data: &[u8]) {
    let (way, data) = data.split_first().unwrap_or((&0, &[]));
    let socket = socket_with(data);
    if way.is_multiple_of(2) {
        let deadline = Some(Instant::now() + Duration::from_secs(5));
        let got_in = reception::get_in(socket.as_handle(), b"the key", deadline, &mut || false);
        assert!(matches!(got_in, Err(reception::Unwelcome::Because(_))), "{got_in:?}");
        return;
    }
    // The first message may not have room where the other end is gone: that is an answer, too.
    let Ok(mut greeting) = reception::Greeting::new(socket.as_handle(), b"the key") else { return };
    for _ in 0..=data.len() {
        match greeting.hear() {
            Ok(known) => assert!(!known, "somebody got in without the key"),
            Err(_) => return,
        }
    }
    panic!("a client that is gone is still waited for");
}
