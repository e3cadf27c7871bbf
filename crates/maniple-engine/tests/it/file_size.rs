//! Under a limit on file sizes, for which shared memory counts: alone in a process, whose limit it is.

use crate::support::{self, alone};
use maniple_engine::channel::log::{Log, Put, Terms};
use maniple_engine::channel::parcel::{self, Load, Parcel};
use maniple_engine::shm::blocks::Arena;
use maniple_sys::AsHandle;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::testing::{self, Resource};
use std::time::{Duration, Instant};

const LIMIT: u64 = 1 << 20;

fn limit(bytes: Option<u64>) {
    testing::limit(Resource::Fsize, bytes);
}

fn put(log: &Log, message: &[u8]) -> maniple_engine::Result<Put> {
    log.put_on(&[message], Terms { hurried: true, ..Terms::default() }, Some(&mut || false))
}

fn take(log: &Log) -> Option<Vec<u8>> {
    let mut first = Vec::new();
    log.take(&mut first, Some(&mut || false)).unwrap().map(|_| first)
}

fn message(number: usize) -> Vec<u8> {
    vec![number as u8; 1 + number * 7919 % 150_000]
}

/// All in one: the limit holds for the whole process. A call that the system would answer with a signal ends it.
#[test]
fn what_shared_memory_carries_where_files_may_not_be_large() {
    alone(|| {
        let early = Log::create().unwrap();
        // Where addresses have 32 bits each log is limited.
        let always = usize::BITS == 32;
        assert_eq!((early.is_limited(), Log::would_be_limited()), (always, always));
        limit(Some(LIMIT));
        assert!(Log::would_be_limited());

        // A log that was made before takes what it took.
        let large = vec![7; 5 * LIMIT as usize];
        for _ in 0..3 {
            assert_eq!(put(&early, &large).unwrap(), Put::Done);
        }
        for _ in 0..3 {
            assert_eq!(take(&early).unwrap(), large);
        }

        // A new one goes round its memory, and says when it is full.
        let log = Log::create().unwrap();
        assert!(log.is_limited() && log.capacity() < LIMIT);
        assert!(put(&log, &large).is_err());
        let (mut written, mut read) = (0, 0);
        while read < 500 {
            match put(&log, &message(written)).unwrap() {
                Put::Done => written += 1,
                Put::Cramped => {
                    let parts: [&[u8]; 1] = [&message(written)];
                    assert!(!log.wait_for_room(Some(&parts), Some(Instant::now()), &mut || false).unwrap());
                    for _ in 0..3 {
                        assert_eq!(take(&log).unwrap(), message(read));
                        read += 1;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        while read < written {
            assert_eq!(take(&log).unwrap(), message(read));
            read += 1;
        }
        assert!(take(&log).is_none());
        // A writer that waits for room is called.
        while put(&log, &message(19)).unwrap() == Put::Done {}
        let next = message(19);
        std::thread::scope(|s| {
            let parts: [&[u8]; 1] = [&next];
            let waits = s.spawn({
                let log = log.again();
                move || log.wait_for_room(Some(&parts), Some(Instant::now() + support::LIMIT), &mut || false)
            });
            std::thread::sleep(Duration::from_millis(50));
            take(&log).unwrap();
            assert!(waits.join().unwrap().unwrap());
        });

        // A block consists of pieces, which are mapped one behind the other.
        let arena = Arena::new(64 << 20);
        let content: Vec<u8> = (0..5 * LIMIT as usize + 12_345).map(|at| (at / 1000) as u8).collect();
        let blob = arena.store(&[&content[..1_500_000], &content[1_500_000..]]).unwrap();
        let pieces: Vec<_> = blob.handles().iter().map(|piece| piece.try_clone_to_owned().unwrap()).collect();
        assert!(pieces.len() > 5);
        let pieces: Vec<_> = pieces.iter().map(|piece| (piece, memory::len(piece).unwrap())).collect();
        let mapping = Mapping::joined(&pieces, content.len(), Share::CopyOnWrite).unwrap();
        // SAFETY: mapped, and no other code writes there.
        assert!(unsafe { std::slice::from_raw_parts(mapping.start().as_ptr(), content.len()) } == content);

        // A block that was made before the limit came, and is longer than it, is written to where it is mapped; where it would have to be
        // written to by its handle, there is another.
        limit(None);
        let arena = Arena::new(64 << 20);
        drop(arena.store(&[&content]).unwrap());
        limit(Some(LIMIT));
        let changed: Vec<u8> = content.iter().map(|byte| byte ^ 1).collect();
        let blob = arena.store(&[&changed]).unwrap();
        assert_eq!(blob.handles().len(), 1);
        let mut bytes = vec![0; changed.len()];
        memory::read_at(blob.handles()[0], &mut bytes, 0).unwrap();
        assert!(bytes == changed);
        drop(blob);
        let longer = [content.clone(), vec![3; 70_000]].concat();
        assert!(arena.store(&[&longer]).unwrap().handles().len() > 5);

        // What cannot be split is an error, and the next is none.
        let mut load = Load::default();
        assert!(load.add(&content).is_err() && load.is_empty());
        assert!(Parcel::of_buffers(b"stream", &[&content]).is_none());
        let packed = Parcel::of_buffers(b"stream", &[&content[..300_000]]).unwrap();
        let handles = packed.handles().iter().map(|handle| handle.try_clone_to_owned().unwrap()).collect();
        let (buffers, at) = parcel::open(packed.content(), handles).unwrap();
        assert!(buffers[0].as_slice() == &content[..300_000] && &packed.content()[at..] == b"stream");
        assert!(memory::create("too-long", LIMIT as usize + 1).is_err());
        assert!(memory::write_at(memory::create("fits", 10).unwrap().as_handle(), &[0; 10], LIMIT).is_err());
    });
}
