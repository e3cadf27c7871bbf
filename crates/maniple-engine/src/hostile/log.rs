//! A queue's log, in whose memory another process writes arbitrary bytes (except the two locks, which are the C library's).
#![allow(unsafe_code)]

use super::{Script, near};
use crate::channel::layout::{HEAD, Header};
use crate::channel::log::{Log, Terms};
use maniple_sys::AsHandle;
use maniple_sys::memory::{self, Mapping, Share};
use maniple_sys::mutex::Mutex;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const STEPS: usize = 32;

/// A writer and a reader of such a log.
pub fn log(data: &[u8]) {
    let mut script = Script(data);
    let writer = Log::create().unwrap();
    let (memory, event) = writer.handles();
    let (memory, event) = (memory::duplicate(memory).unwrap(), memory::duplicate(event).unwrap());
    let head = Mapping::new(&memory, HEAD, Share::All).unwrap();
    let reader = Log::open(memory::duplicate(&memory).unwrap(), event).unwrap();
    // The words, each with its neighbour where they are of 32 bits.
    let locks = [offset_of!(Header, writers.lock), offset_of!(Header, readers.lock)];
    let is_lock = |at: &usize| locks.iter().any(|lock| (*lock..lock + size_of::<Mutex>()).contains(at));
    let places: Vec<usize> = (0..size_of::<Header>()).step_by(8).filter(|at| !is_lock(at)).collect();
    let mut first = Vec::new();
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        match script.byte() % 12 {
            0..=2 => {
                let at = places[script.byte() as usize % places.len()];
                // SAFETY: aligned and inside the mapping, where everybody uses atomics.
                let word = unsafe { AtomicU64::from_ptr(head.start().as_ptr().add(at).cast()) };
                let value = near(&mut script, word.load(Ordering::Relaxed));
                word.store(value, Ordering::Relaxed);
            }
            3 | 4 => {
                let room = memory::len(&memory).unwrap() - HEAD;
                let at = near(&mut script, 0) as usize % room.max(1);
                let len = script.byte() as usize % 64;
                let bytes = script.bytes(len.min(room - at.min(room)));
                memory::write_at(memory.as_handle(), bytes, (HEAD + at) as u64).unwrap();
            }
            5 | 6 => {
                let sizes = [0, 1, 100, 5000, 70_000, 300_000];
                let parts: Vec<Vec<u8>> =
                    (0..=script.byte() % 3).map(|_| vec![3; sizes[script.byte() as usize % sizes.len()]]).collect();
                let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let terms = Terms { counted: script.byte().is_multiple_of(2), hurried: true, before: None };
                let _ = writer.put_on(&parts, terms, Some(&mut || true));
            }
            7..=9 => {
                if reader.take(&mut first, Some(&mut || true)).is_err() {
                    // A process that learns that has no more use for the queue.
                    break;
                }
            }
            10 => {
                let _ = (reader.len(), reader.is_full(), reader.undone(), reader.done());
                let _ = reader.wait(Some(Instant::now()), &mut || true);
                let _ = writer.wait_for_room(None, Some(Instant::now()), &mut || true);
                let _ = writer.join(Some(Instant::now()), &mut || true);
            }
            _ => {
                let _ = match script.byte() % 8 {
                    0 => writer.close(&mut || true),
                    1 => reader.watch(&mut || true),
                    _ => reader.take(&mut first, None).map(drop),
                };
            }
        }
    }
}
