//! Objects in pieces, for a log whose memory is limited.
//!
//! An object may be longer than the memory of the log. So it travels in *pieces*: messages of a mark and some bytes. A
//! process that puts or gets excludes other processes in the meantime. If a writer or reader dies within an object, the
//! marks show where the next object begins.

use super::put::Placed;
use super::take::{Message, take_one};
use crate::message::exception;
use maniple_engine::Error;
use maniple_engine::channel::log::{Interrupted, Log, Put, Terms};
use pyo3::prelude::*;
use std::time::Instant;

/// The marks of the first and the last piece of an object.
const FIRST: u8 = 1;
const LAST: u8 = 2;
/// A piece is at most this part of the memory, and at most this many bytes long.
const SHARE: u64 = 4;
const PIECE: u64 = 1 << 20;

/// Puts in an object of one part, piece by piece. Waits for room.
pub(super) fn put_pieces(log: &Log, parts: &[&[u8]], interrupted: Interrupted<'_, '_>) -> Result<Placed, Error> {
    let [object] = parts else { return Err(Error::Damaged("an object in pieces has one part")) };
    let most = (log.capacity() / SHARE).min(PIECE) as usize;
    let count = object.len().div_ceil(most).max(1);
    for index in 0..count {
        let mark = [if index == 0 { FIRST } else { 0 } | if index + 1 == count { LAST } else { 0 }];
        let piece = [&mark[..], &object[index * most..object.len().min((index + 1) * most)]];
        loop {
            match log.put_on(&piece, Terms { hurried: true, ..Terms::default() }, Some(&mut *interrupted))? {
                Put::Done => break,
                Put::Closed => return Ok(Placed::Closed),
                _ => log.wait_for_room(Some(&piece), None, &mut *interrupted)?,
            };
        }
    }
    Ok(Placed::In)
}

/// Takes an object out, piece by piece.
pub(super) fn take_pieces(py: Python<'_>, log: &Log, wait: bool, until: Option<Instant>) -> PyResult<Option<Message>> {
    let mut first = Vec::new();
    let mut begun = false;
    loop {
        // After the first piece the wait has no time limit: the other pieces are under way.
        let until = if begun { None } else { until };
        let Some(piece) = take_one(py, log, wait || begun, until, begun)? else { return Ok(None) };
        let (Some(mark), [bytes]) = (piece.first.first(), &piece.rest[..]) else {
            return Err(exception(Error::Damaged("an object in a queue is not in pieces")));
        };
        if mark & FIRST != 0 {
            // A writer that died has left these pieces of another object.
            first.clear();
            begun = true;
        }
        if begun {
            first.extend_from_slice(bytes.bytes());
            if mark & LAST != 0 {
                return Ok(Some(Message { first, rest: Vec::new() }));
            }
        }
    }
}
